"""Readers: what returns some bytes of a file or of memory when it is asked to, and holds none of them until then."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Reader", "read_file", "read_memory"]


class Reader(Protocol):
    """Reads bytes that were passed over, all of them or a part."""

    def __call__(self, start: int = 0, length: int | None = None, /) -> bytes:
        """Return `length` bytes from `start` on; None for all that are left."""


def read_memory(buffer: Any) -> Reader:
    """Return what reads a bytes-like object."""
    view = memoryview(buffer)

    def read(start: int = 0, length: int | None = None, /) -> bytes:
        return view[start : None if length is None else start + length].tobytes()

    return read


def read_file(file: Any, offset: int, size: int) -> Reader:
    """Return what reads `size` bytes of a seekable file from `offset` on, and leaves it standing where it was."""

    def read(start: int = 0, length: int | None = None, /) -> bytes:
        stands = file.tell()
        file.seek(offset + start)
        data: bytes = file.read(size - start if length is None else min(length, size - start))
        file.seek(stands)
        return data

    return read
