"""The command line in a terminal, with rich; and a progress bar, with tqdm."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

ROOT = Path(__file__).parents[2]


def in_terminal(command: list[str], folder: Path, columns: int = 100) -> str:
    """Run a command in a terminal of its own, and return what that shows."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, close_fds=True
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:
            # Linux says so when the last process has closed the terminal.
            break
        if not chunk:
            break
        shown += chunk
    os.close(controller)
    process.wait(timeout=60)
    return shown.decode("utf-8")


def test_terminal_gets_tables(tmp_path: Path) -> None:
    (tmp_path / "graphs.py").write_text("root = {'[red]': [(number for number in ())]}\n", encoding="utf-8")
    shown = in_terminal([sys.executable, "-m", "safepickle", "explain", "graphs.py:root"], tmp_path)
    assert "\x1b[1m" in shown
    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in shown
    # The brackets of a path are no markup.
    assert "$['[red]'][0]" in shown
    assert "cannot pickle 'generator' object" in shown


def test_long_walk_shows_progress_in_a_terminal(tmp_path: Path) -> None:
    program = (
        "import safepickle.report.progress as progress, safepickle\n"
        "progress._PATIENCE = 0.0\n"
        "safepickle.explain([[] for _ in range(30000)])\n"
    )
    shown = in_terminal([sys.executable, "-c", program], tmp_path)
    assert "explain: " in shown
    assert "objects" in shown
