"""The examples of the documentation pages as programs, so that page and program cannot drift apart.

A page is one program: its ``python`` blocks in order, as a reader pastes them into a file. A word behind ``python`` in
a fence begins a variant: the blocks without a word, and those with this one. A ``text`` block right after a ``python``
block is what that block prints. A block that begins with a file's name in a comment is a file of that name beside the
program, which may import it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# What only the environment of tests/heavy has.
HEAVY = {"accelerate", "jax", "pyspark", "ray", "tensorflow", "transformers"}

_BLOCK = re.compile(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.py)\n")


@dataclass(frozen=True)
class Example:
    """A program of a page, what the page says that it prints, and the files beside it."""

    name: str
    source: str
    printed: str
    files: dict[str, str]

    def needs(self) -> set[str]:
        """Return the packages that the program imports, but for the standard library, numpy and safepickle."""
        imported = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imported.add(node.module.partition(".")[0])
        own = {Path(name).stem for name in self.files}
        return imported - own - sys.stdlib_module_names - {"safepickle", "numpy"}

    def run(self, folder: Path, *options: str) -> str:
        """Run the program as a script in `folder`; hold it to what the page says, and return what it complained of.

        Args:
            folder: Where the examples find and leave their files.
            options: For the interpreter.
        """
        script = folder / f"{self.name}.py"
        for name, content in {script.name: self.source, **self.files}.items():
            (folder / name).write_text(content, encoding="utf-8")
        (folder / "work").mkdir()
        done = subprocess.run(
            [sys.executable, *options, str(script)],
            cwd=folder / "work",
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == self.printed, done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr


def examples(page: Path) -> list[Example]:
    """Return the programs of a page."""
    files = {named[1]: source for _, source, _ in blocks(page) if (named := _FILE.match(source))}
    parts = [block for block in blocks(page) if not _FILE.match(block[1])]
    words = list(dict.fromkeys(word for word, _, _ in parts))
    found = []
    for word in words:
        ours = [(source, printed) for other, source, printed in parts if other in ("", word)]
        name = "_".join(filter(None, ("page", page.stem.replace("-", "_"), word)))
        source, printed = "\n".join(source for source, _ in ours), "".join(printed for _, printed in ours)
        found.append(Example(name, source, printed, files))
    return found


def examples_for(place: Literal["core", "integrations", "heavy"]) -> list[Example]:
    """Return the programs of all pages that the tests in one place run: each is run in one."""
    return [example for page in PAGES for example in examples(page) if _place_of(example.needs()) == place]


def _place_of(packages: set[str]) -> str:
    if packages & HEAVY:
        return "heavy"
    return "integrations" if packages else "core"


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the word, the source and the output of each ``python`` block."""
    fenced = [found.groups() for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
    for (language, word, source), following in pairwise([*fenced, ("", "", "")]):
        if language == "python":
            yield word, source, following[2] if following[0] == "text" else ""
