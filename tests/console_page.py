"""Run the console examples of a documentation page, so that page and program cannot drift apart."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.py)\n")


def run_console_page(name: str, folder: Path) -> list[tuple[str, str]]:
    """Save the files of a page and run its commands, in order.

    A ``python`` block that begins with a file's name in a comment is that file. In a ``console`` block, a line that
    begins with ``$`` is a command, and what follows is what it prints, on stdout and stderr.

    Args:
        name: Path of the page from the root of the project.
        folder: Where the commands run.

    Returns:
        For each ``console`` block, what the page says and what the commands printed, laid out alike.
    """
    compared = []
    for language, source in _BLOCK.findall((ROOT / name).read_text(encoding="utf-8")):
        if language == "python":
            found = _FILE.match(source)
            assert found is not None, f"{name} has an example without a file name"
            (folder / found[1]).write_text(source, encoding="utf-8")
        elif language == "console":
            commands = [line[2:] for line in source.splitlines() if line.startswith("$ ")]
            compared.append((source, "".join(f"$ {command}\n{_run(command, folder)}" for command in commands)))
    return compared


def _run(command: str, folder: Path) -> str:
    program, *arguments = shlex.split(command)
    prefix = {"safepickle": [sys.executable, "-m", "safepickle"], "python": [sys.executable]}[program]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        [*prefix, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    return result.stdout
