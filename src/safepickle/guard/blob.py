"""Bytes that stand for themselves without being read."""

from __future__ import annotations

from safepickle.storage.reading import Reader

__all__ = ["Blob"]


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
