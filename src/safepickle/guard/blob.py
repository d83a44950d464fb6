"""Bytes that stand for themselves without being read."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Blob", "Reader", "read_file", "read_memory"]


class Reader(Protocol):
    """Reads bytes that were passed over, all of them or a part."""

    def __call__(self, start: int = 0, length: int | None = None, /) -> bytes:
        """Return `length` bytes from `start` on; None for all that are left."""


class Blob:
    """Bytes that `safepickle.inspect` passed over: their length, and how to read them after all.

    Attributes:
        stands_for: `bytes`, `bytearray`, or `memoryview` for an out-of-band buffer.
        length: None where only the load can tell.
        read: Reads them.
        crc: Their CRC-32, where an archive says it; it was not held against them.
    """

    __slots__ = ("__weakref__", "crc", "length", "read", "stands_for")

    def __init__(
        self, stands_for: type, length: int | None, read: Reader | None = None, crc: int | None = None
    ) -> None:
        self.stands_for = stands_for
        self.length = length
        self.read = read
        self.crc = crc

    def __len__(self) -> int:
        return self.length or 0

    def __hash__(self) -> int:
        """Return the hash of the bytes.

        Raises:
            TypeError: They could be changed.
        """
        if self.stands_for is bytearray:
            raise TypeError("unhashable type: 'bytearray'")
        return id(self) if self.read is None else hash(self.read())

    def __eq__(self, other: object) -> bool:
        if self is other or type(other) is not Blob or self.read is None or other.read is None:
            return self is other
        return self.length == other.length and self.read() == other.read()


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
