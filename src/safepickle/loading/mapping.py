"""Load a file of `safepickle.dump` with its large buffers mapped into memory: they are read when they are looked at.

The C unpickler gets a stream in which these buffers are said to be out of band, and views of the mapping for them. What
arrays and tensors do with buffers out of band is theirs to know.
"""

from __future__ import annotations

import io
import mmap
import os
from collections import deque
from collections.abc import Iterator
from typing import IO, Any, Final

from safepickle.guard.opcodes import OPCODES
from safepickle.storage.alignment import ALIGNMENT, MARK

__all__ = ["map_buffers"]

_IN_BAND: Final = frozenset({"BYTEARRAY8", "BINBYTES8", "BINBYTES"})
_NEXT_BUFFER, _READONLY_BUFFER = b"\x97", b"\x98"


def map_buffers(file: IO[bytes]) -> tuple[IO[bytes], Iterator[Any]]:
    """Map a file into memory, copy-on-write.

    Args:
        file: A regular file, which stands at a pickle.

    Returns:
        The pickle with its large buffers out of band, and the buffers.
    """
    is_empty = os.fstat(file.fileno()).st_size == 0  # such a file cannot be mapped
    view = memoryview(b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    found: deque[memoryview] = deque()
    return io.BufferedReader(_Pieces(_pieces(view, file.tell(), found))), _taken_from(found)


class _Pieces(io.RawIOBase):
    """A stream of the pieces that an iterator yields."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._left: bytes | memoryview = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _taken_from(found: deque[memoryview]) -> Iterator[memoryview]:
    while found:
        yield found.popleft()


def _pieces(view: memoryview, position: int, found: deque[memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the stream from `position` on, and put the buffers that are left out of it into `found`.

    Frames are passed over as a whole, so that this takes no time to speak of. It may be asked for what lies behind the
    pickle, which is read ahead.
    """
    while position < len(view):
        opcode = OPCODES.get(view[position])
        if opcode is None or opcode.lines:
            # No C pickler writes this outside a frame: let the unpickler see what it is.
            yield view[position:]
            return
        end = position + 1 + opcode.width
        if opcode.prefixed or opcode.name == "FRAME":
            end += _number(view, position + 1, end)
        if opcode.name == "SHORT_BINBYTES" and bytes(view[position + 2 : position + 2 + len(MARK)]) == MARK:
            buffer = _buffer_at(view, end + 1)
            if buffer is not None:
                is_readonly, start, end = buffer
                found.append(view[start:end])
                yield _NEXT_BUFFER + (_READONLY_BUFFER if is_readonly else b"")
                position = end
                continue
        yield view[position:end]
        position = end


def _buffer_at(view: memoryview, position: int) -> tuple[bool, int, int] | None:
    """Tell if the buffer whose opcode is at `position` is readonly, and where it lies; None where there is none."""
    opcode = OPCODES.get(view[position]) if position < len(view) else None
    if opcode is None or opcode.name not in _IN_BAND:
        return None
    start = position + 1 + opcode.width
    end = start + _number(view, position + 1, start)
    if start % ALIGNMENT or end > len(view):
        return None
    return opcode.name != "BYTEARRAY8", start, end


def _number(view: memoryview, start: int, end: int) -> int:
    return int.from_bytes(view[start:end], "little")
