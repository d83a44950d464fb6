"""Run the found seeds in a process of their own: the audit hook would stay, and a crash would end the tests."""

from __future__ import annotations

import os
import subprocess
import sys


def run_again(kind: str) -> None:
    """Hold that the found seeds of one kind find nothing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fuzz.replay", kind]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, encoding="utf-8")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
