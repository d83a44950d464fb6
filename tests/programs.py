"""Programs that a test runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run(program: str, *arguments: str) -> str:
    """Run a program that must succeed and complain of nothing, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()
