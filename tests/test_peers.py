"""The table of peers in the docs is what the program that makes it prints today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def printed() -> str:
    program = [sys.executable, str(ROOT / "benchmarks" / "peers_table.py")]
    return subprocess.run(program, capture_output=True, text=True, check=True, encoding="utf-8").stdout


def comparable(page: str) -> list[list[str]]:
    """Return a page by lines and cells, but for dill on CPython 3.15, where dill 0.4.1 writes no function."""
    lines = [line.split(" | ") for line in page.splitlines()]
    if sys.version_info >= (3, 15):
        for cells in lines:
            del cells[3:4]
    return lines


def test_the_page_is_what_the_program_prints(printed):
    assert comparable(printed) == comparable((ROOT / "docs" / "peers.md").read_text(encoding="utf-8"))


def test_safepickle_is_right_everywhere(printed):
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith(("| `", "| subclass"))]
    assert len(rows) == 40
    for row in rows:
        assert row[4] == "**right**", row
        assert row[6] == "**right** |", row
