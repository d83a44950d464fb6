"""The command line in a terminal, with rich; and progress bars, with tqdm."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def in_terminal(command: list[str], folder: Path, columns: int = 100, *, rows: int = 40, **environment: str) -> str:
    """Run a command in a terminal of its own, and return what that shows."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # They would stand for the size of the terminal.
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    variables = inherited | {"PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"} | environment
    process = subprocess.Popen(
        command, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, env=variables, close_fds=True
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


def shown_by(
    program: str, folder: Path, *, patience: float = 0.0, rows: int = 40, columns: int = 100, **environment: str
) -> str:
    """Run a program in a terminal in which bars appear after `patience` seconds."""
    begun = (
        "import pickle, sys, safepickle, safepickle.progress as progress\n"
        "import threading\n"
        f"progress._PATIENCE = {patience}\n"
        "progress._INTERVAL = 0.001\n"
    )
    ended = "\nassert threading.active_count() == 1, threading.enumerate()\nprint('ran to its end')\n"
    command = [sys.executable, "-c", begun + program + ended]
    shown = in_terminal(command, folder, columns, rows=rows, **environment)
    assert "ran to its end" in shown, shown
    return shown


LONG_WALK = "safepickle.explain([[] for _ in range(30000)])"
SLOW = """
import random, time
class Slow:
    def __reduce__(self):
        return time.sleep, (0.5,)
random.seed(1)
LARGE = [[number] for number in range(100000)] + [random.randbytes(2**23), Slow()]
"""


@pytest.mark.parametrize(("rows", "columns"), [(40, 100), (0, 0)], ids=["of a size", "that does not tell its size"])
def test_long_walk_shows_progress_in_a_terminal(tmp_path: Path, rows: int, columns: int) -> None:
    shown = shown_by(LONG_WALK, tmp_path, rows=rows, columns=columns)
    assert re.search(r"explain: \d+ objects", shown)


def test_a_walk_shows_progress_before_its_first_step_has_ended(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "class Slow:\n"
        "    def __reduce__(self):\n"
        "        time.sleep(0.5)\n"
        "        return int, ()\n"
        "safepickle.explain(Slow())"
    )
    assert "explain: " in shown_by(program, tmp_path)


@pytest.mark.parametrize("options", ["", ", checksum=True"])
def test_long_dump_and_load_show_how_many_bytes_they_have_done(tmp_path: Path, options: str) -> None:
    dumped = shown_by(f"{SLOW}safepickle.dump(LARGE, 'big.pkl'{options})", tmp_path)
    assert re.search(r"dump: [1-9][\d.]*[kM]B \[", dumped)
    loaded = shown_by("safepickle.load('big.pkl')", tmp_path)
    assert re.search(r"load:\s+\d+%", loaded)
    guarded = shown_by("safepickle.load(open('big.pkl', 'rb'), allow=['time:sleep'])", tmp_path)
    assert re.search(r"load:\s+\d+%", guarded)


def test_compressed_files_show_what_is_being_done(tmp_path: Path) -> None:
    dumped = shown_by(f"{SLOW}safepickle.dump(LARGE, 'big.pkl.gz')", tmp_path)
    assert re.search(r"dump: .*compress:\s+\d+%", dumped, re.DOTALL)
    loaded = shown_by("safepickle.load('big.pkl.gz')", tmp_path)
    assert re.search(r"unpack:\s+\d+%.*load:\s+\d+%", loaded, re.DOTALL)


def test_what_is_shown_is_the_same_pickle(tmp_path: Path) -> None:
    program = (
        "import io, weakref\n"
        "class Node: pass\n"
        "node = Node()\n"
        "graph = [weakref.ref(node), bytearray(5 * 2**24 + 1), [[n] for n in range(10**5)], node]\n"
        "file = io.BytesIO()\n"
        "for checksum in (False, True):\n"
        "    safepickle.dump(graph, file, checksum=checksum)\n"
        "assert file.getvalue()[:len(safepickle.dumps(graph))] == safepickle.dumps(graph)\n"
        "file.seek(0)\n"
        "for _ in range(2): assert pickle.loads(pickle.dumps(pickle.load(file)[1:3])) == graph[1:3]\n"
    )
    assert "dump: " in shown_by(program, tmp_path)


def test_nothing_is_drawn_for_what_takes_a_moment(tmp_path: Path) -> None:
    program = "safepickle.dump([1], 'small.pkl'); safepickle.load('small.pkl'); safepickle.explain([1])"
    assert shown_by(program, tmp_path, patience=60).strip() == "ran to its end"


@pytest.mark.parametrize("program", [LONG_WALK, f"{SLOW}safepickle.dump(LARGE, 'big.pkl')"], ids=["explain", "dump"])
def test_the_environment_switches_bars_off(tmp_path: Path, program: str) -> None:
    assert shown_by(program, tmp_path, SAFEPICKLE_PROGRESS="0").strip() == "ran to its end"


def test_workers_draw_no_bars(tmp_path: Path) -> None:
    program = (
        "import multiprocessing\n"
        "worker = multiprocessing.get_context('fork').Process(target=safepickle.dump, args=(LARGE, 'big.pkl'))\n"
        "worker.start(); worker.join(); assert worker.exitcode == 0, worker.exitcode"
    )
    assert shown_by(f"{SLOW}{program}", tmp_path).strip() == "ran to its end"
    assert (tmp_path / "big.pkl").stat().st_size > 2**23


def test_a_failing_dump_takes_its_bar_away(tmp_path: Path) -> None:
    program = (
        "try: safepickle.dump([bytes(2**25), (n for n in ())], 'big.pkl')\n"
        "except TypeError as error: print('then:', error)"
    )
    shown = shown_by(program, tmp_path)
    assert "dump: " in shown
    assert shown.rindex("dump: ") < shown.index("then: cannot pickle 'generator' object")


def test_nothing_is_drawn_where_stderr_is_no_terminal(tmp_path: Path) -> None:
    program = (
        "import safepickle.progress as progress, safepickle\n"
        f"progress._PATIENCE = 0.0\n{SLOW}safepickle.dump(LARGE, 'big.pkl')\nsafepickle.load('big.pkl')\n{LONG_WALK}"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert run.stderr == ""
