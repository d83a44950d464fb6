"""What one input may cost and touch: time, memory, and what the audit hook sees."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

SECONDS, SECONDS_PER_BYTE = 1.5, 50e-6
"""Processor time of one step of a target. Instrumented code is some three times as slow as code that is not."""

MEMORY, MEMORY_PER_BYTE = 96 << 20, 4096
"""Growth of the highest resident size by one input."""

_EVENTS = (
    "os.system os.exec os.posix_spawn os.spawn os.fork os.startfile os.putenv os.kill os.remove os.rename os.mkdir "
    "os.rmdir os.chmod os.chown os.link os.symlink os.truncate os.utime os.setxattr pty.spawn fcntl. mmap.__new__ "
    "shutil. subprocess. socket. urllib. ftplib. smtplib. sqlite3. webbrowser. signal. syslog. function.__new__ "
    "code.__new__"
)
_EFFECTS = tuple(_EVENTS.split())
_M_PERTURB = -6
_libc = ctypes.CDLL(None)


class Finding(Exception):
    """What must not be.

    Args:
        kind: ``"exception"``, ``"disagreement"``, ``"effect"``, ``"memory"`` or ``"time"``.
        what: What happened, without figures that change from input to input: findings are sorted by it.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(kind, what)
        self.kind = kind
        self.what = what


_seen: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event.startswith(_EFFECTS):
        _seen.append(event)


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched(step: str, data: bytes) -> Iterator[None]:
    """Hold one step to its budget, and to touching nothing outside of the process.

    Raises:
        Finding: It took too much time or memory, or had an effect.
    """
    global _seen
    effects: list[str] = []
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    _seen = effects
    try:
        yield
    finally:
        _seen = None
    taken = time.thread_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - highest) << 10
    if effects:
        raise Finding("effect", f"{step}: {', '.join(sorted(set(effects)))}")
    if taken > SECONDS + SECONDS_PER_BYTE * len(data):
        raise Finding("time", f"{step} took too long")
    if grown > MEMORY + MEMORY_PER_BYTE * len(data):
        raise Finding("memory", f"{step} took too much memory")


def fill_new_memory(byte: int) -> None:
    """Let the allocator fill what it gives out, so that memory that nobody wrote differs from one load to the next."""
    _libc.mallopt(_M_PERTURB, byte)
