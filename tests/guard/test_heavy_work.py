"""Small pickles that ask for much work end with an error, within bounds on memory and time, and no crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guard.heavy_work import HEAVY

SECONDS = 600
"""Far more than all of them take together; any of them would take for ever."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, str]]:
    """What loading each comes to, and the verdict of inspect: found in a process of its own, which may crash."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("heavy_work.py"))],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        encoding="utf-8",
    )
    lines = [line.rpartition(": ") for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, (ran.stdout.splitlines()[-1:], ran.stderr)
    return {title: (words.split()[0], words.split()[1]) for title, _, words in lines}


@pytest.mark.parametrize("title", HEAVY)
def test_heavy_work_is_refused(title: str, outcomes: dict[str, tuple[str, str]]):
    outcome, verdict = outcomes[title]
    assert outcome in ("LoadLimitError", "NotAllowedError", "DamagedPickleError")
    assert verdict in ("refused", "damaged", "needs_allow")


def test_the_corpus_is_large():
    assert len(HEAVY) >= 60
