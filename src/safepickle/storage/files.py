"""Where the bytes of a dump go: nothing reaches the caller's file before the dump has succeeded, or it is taken back.

It knows files and bytes, nothing of objects.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeGuard

from safepickle.progress import Bar
from safepickle.storage.alignment import Aligner

if TYPE_CHECKING:
    from safepickle.storage.checksum import Digest

__all__ = ["Output", "OwnBytes", "ReadableOrPath", "WritableOrPath", "is_path", "write_all"]


class Readable(Protocol):
    """What `pickle.load` asks of an open file."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


class Writable(Protocol):
    """What `pickle.dump` asks of an open file."""

    def write(self, data: bytes, /) -> object: ...


ReadableOrPath: TypeAlias = str | os.PathLike[str] | Readable
WritableOrPath: TypeAlias = str | os.PathLike[str] | Writable

SPOOL_BYTES = 64 * 2**20
"""How much of a dump stays in memory, in bytes, before a spool moves to a temporary file."""

_COPY_BYTES = 2**20
_SHOWN_BYTES = 2**24


class Output:
    """The file that the C pickler writes to, which can go back to where it stood when the dump began.

    A seekable file that ends at its position is written straight through, so that no payload is held twice; going
    back truncates it. Any other file (a pipe, a socket, a compressor, the middle of a file) receives nothing before
    the dump has succeeded: until then the bytes lie in a spool, on disk when they are many.

    Args:
        file: Anything with a ``write`` method.
        checksum: Put a checksum before each pickle.
        bar: To be shown as bytes are written.
        align: Let large buffers begin where they can be mapped, in a file that is written straight through.

    Attributes:
        has_failed: The file has raised an error since it was set back to where it stood: it is not over an object.

    Raises:
        TypeError: `file` has no ``write`` method, or takes text.
    """

    has_failed = False

    def __init__(self, file: Any, *, checksum: bool = False, bar: Bar | None = None, align: bool = False) -> None:
        if not hasattr(file, "write"):
            raise TypeError("file must have a 'write' attribute")
        if isinstance(file, io.TextIOBase):
            raise TypeError("file must be open in binary mode, such as 'wb': a pickle is bytes, not text")
        self._file = file
        self._checksum = checksum
        self._bar = bar
        self._written = 0
        self._align = align
        self._aligner: Aligner | None = None
        self._digest: Digest | None = None
        self._sink: _Sink | None = None
        self._write: Callable[[Any], object] = _write_nowhere
        self._process = 0

    def write(self, data: Any) -> None:
        """Write bytes, or any other buffer."""
        try:
            self._write(data)
        except Exception:
            self.has_failed = True
            raise

    def begin(self) -> None:
        """Remember where the file stands."""
        self.has_failed = True  # Unless all goes well.
        self._process = os.getpid()
        self._sink = _straight_through(self._file, self._checksum) or _Spool(self._file)
        self._start()

    def discard(self) -> None:
        """Let what is written from now on go nowhere, until `rewind`."""
        self._write = _write_nowhere

    def rewind(self) -> None:
        """Take back all that was written since `begin`."""
        self.has_failed = True
        self._opened_sink().rewind()
        self._start()

    def commit(self) -> None:
        """Hand the pickle over to the file."""
        sink = self._opened_sink()
        self.has_failed = True
        if self._aligner is not None:
            self._aligner.flush()
        if self._digest is not None:
            sink.overwrite_start(self._digest.header())
        sink.commit()
        self.has_failed = False
        self._end()

    def roll_back(self) -> None:
        """Leave the file as it stood at `begin`.

        A failure to do so is added as a note to the exception that is being handled, which matters more.
        """
        sink, error = self._sink, sys.exception()
        # A child that was forked in the middle of a dump shares the file with its parent, to whom it belongs.
        if sink is None or self._process != os.getpid():
            return
        try:
            sink.roll_back()
        except Exception as failure:
            if error is not None:
                error.add_note(
                    f"The file could not be set back to where it stood and holds a partial pickle: {failure}"
                )
        self._end()

    def _start(self) -> None:
        sink = self._opened_sink()
        self._write = sink.write
        if self._checksum:
            from safepickle.storage.checksum import HEADER_SIZE, Digest

            sink.write(bytes(HEADER_SIZE))
            self._digest = Digest()
            self._write = self._write_and_digest
        if self._bar is not None:
            self._written = 0
            self._write = functools.partial(self._write_and_show, self._bar, self._write)
        if self._align and isinstance(sink, _OnDisk):
            self._aligner = Aligner(self._write, sink.tell())
            self._write = self._aligner.write
        self.has_failed = False

    def _write_and_show(self, bar: Bar, write: Callable[[Any], object], data: Any) -> None:
        with memoryview(data) as view, view.cast("B") as plain:
            for start in range(0, len(plain), _SHOWN_BYTES):
                part = plain[start : start + _SHOWN_BYTES]
                write(part)
                self._written += len(part)
                bar.show(self._written)

    def _write_and_digest(self, data: Any) -> None:
        assert self._digest is not None  # _start() has set both
        self._digest.update(data)
        self._opened_sink().write(data)

    def _opened_sink(self) -> _Sink:
        if self._sink is None:
            raise RuntimeError("nothing can be written outside a dump")
        return self._sink

    def _end(self) -> None:
        self._sink = None
        self._write = _write_nowhere


class OwnBytes:
    """The bytes that `dumps` returns: nobody else sees them, so that nothing has to be held back from them.

    The C pickler writes to the file itself, without a Python function in between.

    Args:
        file: Empty.
    """

    has_failed = False

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def begin(self) -> None:
        """Begin where all dumps begin."""

    def discard(self) -> None:
        """Go on: what is written from now on is taken back with the rest."""

    def rewind(self) -> None:
        """Take back all that was written."""
        self._file.seek(0)
        self._file.truncate()

    def commit(self) -> None:
        """Leave the pickle to `dumps`."""

    roll_back = rewind


class _Sink(Protocol):
    """Takes the bytes of one dump."""

    def write(self, data: Any) -> object: ...
    def overwrite_start(self, data: bytes) -> None: ...
    def rewind(self) -> None: ...
    def commit(self) -> None: ...
    def roll_back(self) -> None: ...


class _InMemory:
    """The end of an `io.BytesIO`."""

    def __init__(self, file: io.BytesIO, start: int) -> None:
        self._file = file
        self._start = start
        self.write = file.write

    def overwrite_start(self, data: bytes) -> None:
        self._file.seek(self._start)
        self._file.write(data)
        self._file.seek(0, os.SEEK_END)

    def rewind(self) -> None:
        self._file.seek(self._start)
        self._file.truncate()

    def commit(self) -> None:
        pass

    roll_back = rewind


class _OnDisk:
    """The end of a regular file, written below its buffer.

    A buffer that cannot be flushed, because the disk is full, cannot be emptied either, and would spill its partial
    pickle later. So it is flushed before the dump and stays empty: the pickler hands over large blocks anyway.

    Args:
        place: The dump begins at the end of the file, or beyond.
        resume: Tells the buffer that the file below it has moved to a position.
    """

    def __init__(self, place: _Place, resume: Callable[[int], object]) -> None:
        self._raw, self._start, self._position, self._size = place
        self._resume = resume
        self._raw.seek(self._start)

    def tell(self) -> int:
        return self._raw.tell()

    def write(self, data: Any) -> None:
        write_all(self._raw, data)

    def overwrite_start(self, data: bytes) -> None:
        end = self._raw.tell()
        self._raw.seek(self._start)
        write_all(self._raw, data)
        self._raw.seek(end)

    def rewind(self) -> None:
        self._raw.truncate(self._start)
        self._raw.seek(self._start)

    def commit(self) -> None:
        self._resume(self._raw.tell())

    def roll_back(self) -> None:
        self._raw.truncate(self._size)
        self._resume(self._position)


class _Spool:
    """Holds the bytes back from a file that may not be able to return them."""

    def __init__(self, file: Any) -> None:
        import tempfile

        self._file = file
        self._held = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 (commit and roll_back close it)

    def write(self, data: Any) -> None:
        try:
            self._held.write(data)
        except OSError as error:
            import tempfile

            error.add_note(
                f"Until the dump has succeeded, its bytes lie in a temporary file in {tempfile.gettempdir()}, because "
                f"the {type(self._file).__qualname__} could not take them back; TMPDIR chooses another folder."
            )
            raise

    def overwrite_start(self, data: bytes) -> None:
        self._held.seek(0)
        self._held.write(data)

    def rewind(self) -> None:
        self._held.seek(0)
        self._held.truncate()

    def commit(self) -> None:
        with self._held as held:
            place = _place_in(self._file)
            if place is None:
                held.seek(0)
                while chunk := held.read(_COPY_BYTES):
                    write_all(self._file, chunk)
            else:
                _overwrite(held, place, self._file.seek)

    def roll_back(self) -> None:
        self._held.close()


def is_path(file: object) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether `file` is a path rather than an open file."""
    return isinstance(file, (str, os.PathLike))


def write_all(file: Any, data: Any) -> None:
    """Write a buffer wholly: one call of an unbuffered file takes at most 2 GiB, and a socket or pipe may take less."""
    written = file.write(data)
    if not isinstance(file, io.RawIOBase):
        return
    view = memoryview(data).cast("B")
    while written is not None and written < len(view):
        view = view[written:]
        written = file.write(view)
    if written is None:
        raise BlockingIOError(errno.EAGAIN, "the file does not block and took only a part of the pickle")


def _write_nowhere(data: Any) -> None:
    pass


def _straight_through(file: Any, checksum: bool) -> _Sink | None:
    """Return a sink for a file that ends at its position and can be truncated, or None.

    A checksum is filled in when the pickle is complete, and a file that appends can be written at its end alone.
    """
    if type(file) is io.BytesIO:
        start = file.tell()
        with file.getbuffer() as view:
            return _InMemory(file, start) if start == view.nbytes else None
    place = _place_in(file)
    if place is None or place.start < place.size or (checksum and _appends(place.raw)):
        return None
    return _OnDisk(place, file.seek)


class _Place(NamedTuple):
    """Where in a regular file a dump goes.

    Attributes:
        raw: What is below the buffer, which is flushed.
        start: Where the dump begins.
        position: Where the caller has left the file.
        size: The size of the file.
    """

    raw: io.FileIO
    start: int
    position: int
    size: int


def _place_in(file: Any) -> _Place | None:
    """Return where a dump goes in a regular file, or None for any other file."""
    raw = _regular(file)
    if raw is None:
        return None
    position, size = file.tell(), os.fstat(raw.fileno()).st_size
    return _Place(raw, size if _appends(raw) else position, position, size)


def _regular(file: Any) -> io.FileIO | None:
    """Return what is below the buffer of a regular file on disk, its buffer flushed, or None for any other file.

    Exact types only: a subclass may count, compress or encrypt what is written to it.
    """
    # Not imported for this: whoever has such a file has imported it.
    if type(file) is getattr(sys.modules.get("tempfile"), "_TemporaryFileWrapper", None):
        file = file.file
    if type(file) in (io.BufferedWriter, io.BufferedRandom):
        raw = file.raw
    else:
        raw = file
    if type(raw) is not io.FileIO or not raw.writable() or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return None
    file.flush()
    return raw


def _appends(raw: io.FileIO) -> bool:
    """Tell whether all that is written goes to the end, wherever the file stands."""
    return "a" in raw.mode


def _overwrite(held: IO[bytes], place: _Place, resume: Callable[[int], object]) -> None:
    """Write into the middle of a file, what lies beyond its end first: only that can meet a full disk."""
    raw, start, _, end = place
    try:
        _copy(held, end - start, raw, end)
    except BaseException:
        raw.truncate(end)
        resume(start)
        raise
    held.seek(0)
    raw.seek(start)
    left = end - start
    while left and (chunk := held.read(min(left, SPOOL_BYTES))):
        write_all(raw, chunk)
        left -= len(chunk)
    held.seek(0, os.SEEK_END)
    resume(start + held.tell())


def _copy(held: IO[bytes], offset: int, raw: io.FileIO, position: int) -> None:
    held.seek(offset)
    raw.seek(position)
    while chunk := held.read(_COPY_BYTES):
        write_all(raw, chunk)
