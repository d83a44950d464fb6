"""Where the large buffers of a file lie, so that a load can map them into memory instead of reading them.

A buffer is in the pickle as any unpickler expects it. Before its opcode stands another one with a few bytes, which is
popped at once: their number makes the buffer begin at a multiple of 64, and they say what they are for. That is no
promise of the format: without it the buffer is read.
"""

from __future__ import annotations

from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, Final

__all__ = ["ALIGNMENT", "MARK", "Aligner"]

ALIGNMENT: Final = 64
"""Bytes: a line of the cache, and what the widest vector instructions want."""

MARK: Final = b"safepickle buffer"

_PAD, _POP = b"C", b"0"  # SHORT_BINBYTES, POP
_LEAST: Final = len(_PAD) + 1 + len(MARK) + len(_POP)
_WIDTHS: Final = {0x96: 8, 0x8E: 8, ord("B"): 4}
"""Bytes of the length that follows BYTEARRAY8, BINBYTES8 and BINBYTES."""


class Aligner:
    """Stands between the C pickler and a file, and puts a padding before each large buffer.

    The C pickler hands over a large buffer by itself, and what has gathered up to there, its opcode and its length
    last, right before. So what it hands over is held back until the next thing comes.

    Args:
        write: Takes the bytes.
        position: Where in the file the next byte goes.
    """

    def __init__(self, write: Callable[[Any], object], position: int) -> None:
        self._write = write
        self._position = position
        self._held = b""

    def write(self, data: Any) -> None:
        """Take bytes, or a buffer that stands for an array of numbers."""
        if type(data) is PickleBuffer:
            self._align(memoryview(data).nbytes)
        self.flush()
        if type(data) is bytes:
            self._held = data
        else:
            self._write(data)
            self._position += memoryview(data).nbytes

    def flush(self) -> None:
        """Let go of what is held back."""
        held, self._held = self._held, b""
        if held:
            self._write(held)
            self._position += len(held)

    def _align(self, length: int) -> None:
        held = self._held
        for code, width in _WIDTHS.items():
            start = len(held) - 1 - width
            if start >= 0 and held[start] == code and int.from_bytes(held[start + 1 :], "little") == length:
                free = -(self._position + len(held) + _LEAST) % ALIGNMENT
                padding = _PAD + bytes([len(MARK) + free]) + MARK + bytes(free) + _POP
                self._held = held[:start] + padding + held[start:]
                return
