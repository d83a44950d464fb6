"""Where the bytes of a dump go: nothing reaches the caller's file before the dump has succeeded, or it is taken back.

It knows files and bytes, nothing of objects.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import IO, Any, TypeAlias

__all__ = ["FileOrPath", "Output", "is_path", "replacing"]

FileOrPath: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

SPOOL_BYTES = 64 * 2**20
"""How much of a dump to an unseekable file stays in memory before it goes to a temporary file, in bytes."""


class Output:
    """The file that the C pickler writes to, which can go back to where it stood when the dump began.

    A seekable file that ends at its position is written straight through, so that no payload is held twice; going
    back truncates it. Any other file (a pipe, a socket, a compressor, the middle of a file) receives nothing before
    the dump has succeeded: until then the bytes lie in a spool, on disk when they are many.

    Args:
        file: Anything with a ``write`` method.

    Raises:
        TypeError: `file` has no ``write`` method.
    """

    def __init__(self, file: Any) -> None:
        try:
            self._file_write = file.write
        except AttributeError:
            raise TypeError("file must have a 'write' attribute") from None
        self._file = file
        self._write = self._file_write
        self._start: int | None = None
        self._spool: Any = None

    def write(self, data: Any) -> None:
        """Write bytes, or any other buffer."""
        self._write(data)

    def begin(self) -> None:
        """Remember where the file stands."""
        self._start = _end_position(self._file)
        if self._start is None:
            self._spool = _new_spool()
            self._write = self._spool.write
        else:
            self._write = self._file_write

    def discard(self) -> None:
        """Let what is written from now on go nowhere, until `rewind`."""
        self._write = _write_nowhere

    def rewind(self) -> None:
        """Take back all that was written since `begin`."""
        if self._spool is not None:
            self._spool.seek(0)
            self._spool.truncate()
            self._write = self._spool.write
        else:
            assert self._start is not None  # begin() has set it, or else the spool
            self._file.seek(self._start)
            self._file.truncate()
            self._write = self._file_write

    def commit(self) -> None:
        """Hand over to the file what was spooled."""
        if self._spool is not None:
            self._spool.seek(0)
            while chunk := self._spool.read(2**20):
                self._file_write(chunk)
        self._close()

    def roll_back(self) -> None:
        """Leave the file as it stood at `begin`."""
        if self._spool is None:
            self.rewind()
        self._close()

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._write = self._file_write


def is_path(file: Any) -> bool:
    """Tell whether `file` is a path rather than an open file."""
    return isinstance(file, (str, os.PathLike))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that replaces it once the block has ended well."""
    import tempfile

    target = os.path.realpath(path)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".safepickle-")
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _write_nowhere(data: Any) -> None:
    pass


def _new_spool() -> Any:
    import tempfile

    return tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)


def _end_position(file: Any) -> int | None:
    """Return the position of a file that can be truncated back to it, or None."""
    if type(file) is io.BytesIO:
        start = file.tell()
        return start if start == file.getbuffer().nbytes else None
    plain = getattr(file, "file", file)  # what the wrappers of tempfile wrap
    if not isinstance(plain, (io.BytesIO, io.FileIO, io.BufferedWriter, io.BufferedRandom)) or not plain.seekable():
        return None
    position: int = file.tell()
    end = file.seek(0, os.SEEK_END)
    if position == end:
        return position
    file.seek(position)
    return None
