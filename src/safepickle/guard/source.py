"""Where the machine's bytes come from: memory, a seekable file, or a stream that can only be read on.

Each source shows the machine a *window* of bytes. What is read ahead is given back: after the load a file stands just
behind the pickle, as after `pickle.load`. No length that the stream claims is believed before it is held against what
is left.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from typing import Any, Final

from safepickle.guard.limits import Malformed
from safepickle.guard.opcodes import OPCODES, WIDEST
from safepickle.storage.formats import HEAD
from safepickle.storage.reading import Reader, read_file, read_memory

CHUNK: Final = 1 << 16
MOVED: Final = 1 << 62
"""A position that lies behind every window: the window has moved, ask for it again."""

_PADDING: Final = bytes(2 * WIDEST)

_MOST_AHEAD: Final = 1 << 28
"""No more bytes than these are copied to read ahead."""


class Source:
    """A whole stream in memory; the base of the others.

    Attributes:
        data: The bytes of the window. Behind `end` there may be padding, so that fixed arguments can be read unchecked.
        end: Where the true bytes of the window end.
        limit: The machine may start an opcode at any position below this one.
        base: Offset in the stream of the first byte of the window.
        origin: Offset of the stream's first byte in the file, for messages.
    """

    def __init__(self, data: bytes | memoryview, position: int = 0) -> None:
        self.data: bytes | memoryview = data
        self.position = position
        self.end = len(data)
        self.limit = max(position, self.end - WIDEST)
        self.base = 0
        self.origin = 0
        self._exhausted = False
        self._head = data[position : position + HEAD]

    def left(self, position: int) -> int | None:
        """Bytes that are left behind `position`, or None where only reading would tell."""
        return self.end - position

    def advance(self, position: int) -> None:
        """Move the window so that it starts at `position`, with more bytes behind it.

        Raises:
            Malformed: There are no more.
        """
        if position > self.end:
            raise Malformed("the stream ends in the middle of an opcode")
        if self._exhausted and position >= self.end:
            raise Malformed("the stream ends before its STOP opcode: it was cut off")
        rest = bytes(self.data[position : self.end])
        more = b"" if self._exhausted else self._more()
        self._exhausted = not more
        self._show(rest + more, self.base + position)

    def take(self, position: int, length: int) -> tuple[bytes, int]:
        """Return a payload of `length` bytes, and the position behind it.

        Raises:
            Malformed: The payload is longer than what is left.
        """
        end = position + length
        if end <= self.end:
            return bytes(self.data[position:end]), end
        self._hold_against_rest(position, length)
        return self._take_beyond(position, length), MOVED

    def take_mutable(self, position: int, length: int) -> tuple[bytearray, int]:
        """Return a payload as a `bytearray`, and the position behind it."""
        end = position + length
        if end <= self.end:
            return bytearray(memoryview(self.data)[position:end]), end
        self._hold_against_rest(position, length)
        return self._take_mutable_beyond(position, length), MOVED

    def skip(self, position: int, length: int) -> int:
        """Pass over a payload and return the position behind it."""
        end = position + length
        if end <= self.end:
            return end
        self._hold_against_rest(position, length)
        self._skip_beyond(position, length)
        return MOVED

    def reader(self, position: int, length: int) -> Reader | None:
        """Return what reads a payload after all, or None where it will be gone."""
        return read_memory(memoryview(self.data)[position : position + length])

    def line(self, position: int) -> tuple[bytes, int]:
        """Return the text up to the next newline, without it, and the position behind it."""
        end = self._newline(position)
        if end >= 0:
            return bytes(self.data[position:end]), end + 1
        return self._line_beyond(position), MOVED

    def head(self) -> bytes:
        """Return the first bytes of the stream, to recognise what it is; for errors, after which nothing is read."""
        return bytes(self._head)

    def finish(self, position: int) -> None:
        """Leave the file standing at `position`."""

    def ahead(self) -> Generator[tuple[bytes, int]]:
        """Give what is left before anything was read of it: bytes that nobody can change, and where it begins in them.

        They are more each time, and the source stays where it stands.
        """
        if type(self.data) is bytes:
            yield self.data, self.position
        else:
            rest = memoryview(self.data)[self.position :]
            yield from _growing(lambda start, length: bytes(rest[start : start + length]))

    def _more(self) -> bytes:
        return b""

    def _show(self, data: bytes, base: int) -> None:
        """Make `data` the window."""
        self.base = base
        self.end = len(data)
        self.position = 0
        if self._exhausted:
            self.data = data + _PADDING
            self.limit = self.end
        else:
            self.data = data
            self.limit = max(0, self.end - WIDEST)

    def _hold_against_rest(self, position: int, length: int) -> None:
        left = self.left(position)
        if left is not None and length > left:
            raise Malformed(f"a payload claims {length:,} bytes, and {left:,} are left")

    def _newline(self, position: int) -> int:
        """Position of the next newline in the window, or -1."""
        data = self.data
        if isinstance(data, bytes):
            return data.find(b"\n", position, self.end)
        for start in range(position, self.end, CHUNK):
            found = bytes(data[start : min(start + CHUNK, self.end)]).find(b"\n")
            if found >= 0:
                return start + found
        return -1

    def _take_beyond(self, position: int, length: int) -> bytes:
        raise Malformed("the stream ends before its payload does")

    def _take_mutable_beyond(self, position: int, length: int) -> bytearray:
        return bytearray(self._take_beyond(position, length))

    def _skip_beyond(self, position: int, length: int) -> None:
        raise Malformed("the stream ends before its payload does")

    def _line_beyond(self, position: int) -> bytes:
        raise Malformed("a line of text has no end")


class BufferSource(Source):
    """A `io.BytesIO`, read without a copy."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file.getvalue(), file.tell())
        self._file = file

    def finish(self, position: int) -> None:
        self._file.seek(self.base + position)


class FileSource(Source):
    """A seekable file: read by the chunk, large payloads straight into place."""

    def __init__(self, file: Any) -> None:
        super().__init__(b"")
        self._file = file
        self.origin = file.tell()
        self._size: int = file.seek(0, io.SEEK_END) - self.origin
        file.seek(self.origin)
        self._head = file.read(HEAD)
        file.seek(self.origin)

    def left(self, position: int) -> int:
        return self._size - self.base - position

    def reader(self, position: int, length: int) -> Reader:
        return read_file(self._file, self.origin + self.base + position, length)

    def finish(self, position: int) -> None:
        self._file.seek(self.origin + self.base + position)

    def ahead(self) -> Generator[tuple[bytes, int]]:
        try:
            yield from _growing(lambda start, length: self._file.read(length))
        finally:
            self._file.seek(self.origin)

    def _more(self) -> bytes:
        more: bytes = self._file.read(CHUNK)
        return more

    def _take_beyond(self, position: int, length: int) -> bytes:
        start = self.base + position
        self._file.seek(self.origin + start)
        payload: bytes = self._file.read(length)
        if len(payload) != length:
            raise Malformed(f"a payload claims {length:,} bytes, and {len(payload):,} are left")
        self._show(b"", start + length)
        return payload

    def _take_mutable_beyond(self, position: int, length: int) -> bytearray:
        start = self.base + position
        self._file.seek(self.origin + start)
        payload = bytearray(length)
        if self._file.readinto(payload) != length:
            raise Malformed(f"a payload claims {length:,} bytes, and fewer are left")
        self._show(b"", start + length)
        return payload

    def _skip_beyond(self, position: int, length: int) -> None:
        start = self.base + position + length
        self._file.seek(self.origin + start)
        self._show(b"", start)

    def _line_beyond(self, position: int) -> bytes:
        self._file.seek(self.origin + self.base + position)
        line: bytes = self._file.readline()
        if not line.endswith(b"\n"):
            raise Malformed("a line of text has no end")
        self._show(b"", self.base + position + len(line))
        return line[:-1]


class StreamSource(Source):
    """A file that can only be read on, such as a socket: no byte behind the pickle is taken from it."""

    def __init__(self, file: Any, *, most: int | None = None) -> None:
        super().__init__(b"")
        self._file = file
        self._most = most
        self._read_so_far = 0
        self._exhausted = True

    def left(self, position: int) -> int | None:
        return None

    def reader(self, position: int, length: int) -> None:
        return None

    def ahead(self) -> Generator[tuple[bytes, int]]:
        yield from ()

    def head(self) -> bytes:
        if len(self._head) < HEAD:
            self._head = bytes(self._head) + self._read(HEAD - len(self._head))
        return bytes(self._head)

    def advance(self, position: int) -> None:
        if position > self.end:
            raise Malformed("the stream ends in the middle of an opcode, or the opcode runs over the end of its frame")
        base = self.base + position
        self._show(self._next(), base)

    def _next(self) -> bytes:
        """Read one opcode with its fixed argument, or a whole frame."""
        code = self._read(1)
        if not code:
            raise Malformed("the stream ends before its STOP opcode: it was cut off")
        opcode = OPCODES.get(code[0])
        if opcode is None or not opcode.width:
            return code
        argument = self._read(opcode.width)
        if len(argument) != opcode.width:
            raise Malformed("the stream ends in the middle of an opcode")
        if opcode.name != "FRAME":
            return code + argument
        return code + argument + self._read_all(int.from_bytes(argument, "little"))

    def _read(self, length: int) -> bytes:
        data: bytes = self._file.read(length)
        self._count(len(data))
        if len(self._head) < HEAD:
            self._head = bytes(self._head) + data[: HEAD - len(self._head)]
        return data

    def _read_all(self, length: int) -> bytes:
        """Read `length` bytes in growing pieces, so that a claim alone takes no memory."""
        pieces = []
        left, piece = length, CHUNK
        while left:
            data = self._read(min(left, piece))
            if not data:
                raise Malformed(f"a payload claims {length:,} bytes, and {length - left:,} are left")
            pieces.append(data)
            left -= len(data)
            piece = min(2 * piece, 1 << 26)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_beyond(self, position: int, length: int) -> bytes:
        start = bytes(self.data[position : self.end])
        rest: bytes = self._read_all(length - len(start))
        self._show(b"", self.base + position + length)
        return start + rest if start else rest

    def _skip_beyond(self, position: int, length: int) -> None:
        left = length - (self.end - position)
        while left:
            data = self._read(min(left, 1 << 20))
            if not data:
                raise Malformed(f"a payload claims {length:,} bytes, and {length - left:,} are left")
            left -= len(data)
        self._show(b"", self.base + position + length)

    def _line_beyond(self, position: int) -> bytes:
        line: bytes = bytes(self.data[position : self.end]) + self._file.readline()
        self._count(len(line))
        if not line.endswith(b"\n"):
            raise Malformed("a line of text has no end")
        self._show(b"", self.base + position + len(line))
        return line[:-1]

    def _count(self, length: int) -> None:
        self._read_so_far += length
        if self._most is not None and self._read_so_far > self._most:
            raise Malformed(f"the file unpacks to more than {self._most:,} bytes")


def _growing(read: Callable[[int, int], bytes]) -> Generator[tuple[bytes, int]]:
    """Give the beginning of what `read(start, length)` reads, twice as long each time."""
    data = b""
    while len(data) < _MOST_AHEAD and (more := read(len(data), max(CHUNK, len(data)))):
        data += more
        yield data, 0


def open_source(file: Any) -> Source:
    """Choose the source for a file object: `read` and `readline` are enough, seeking is used where it is cheap."""
    if type(file) is io.BytesIO:
        return BufferSource(file)
    if type(file) in (io.BufferedReader, io.BufferedRandom, io.FileIO) and file.seekable():
        return FileSource(file)
    return StreamSource(file)


def source_of_bytes(data: Any) -> Source:
    """The source for a bytes-like object."""
    if type(data) is bytes:
        return Source(data)
    view = memoryview(data)
    if not view.contiguous:
        return Source(bytes(view))
    return Source(view.cast("B"))
