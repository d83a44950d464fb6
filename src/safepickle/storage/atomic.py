"""Replace a file as a whole: whatever happens, the old one or the new one is there.

It knows files, and neither pickles nor objects.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import time
from collections.abc import Iterator

from safepickle.storage.files import write_all

__all__ = ["replacing"]

_COPY_BYTES = 2**20
_MOST_LINKS = 40
_WAITS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""How many seconds to wait, on Windows, for what has a file open: a virus scanner lets go of it soon."""

_USUAL, _PRIVATE = 0o666, 0o600
"""With which permissions a file is made. What takes the place of another is nobody else's until it has its permissions:
it may hold what that one hid."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, fsync: bool = True) -> Iterator[io.FileIO]:
    """Open a file that takes the place of `path` once the block has ended well.

    It has no name until it is whole, where the file system can do that, so that not even a killed process leaves
    litter; elsewhere it is named beside the target. Symbolic links are followed; the permissions and, as far as the
    process may set it, the owner of an existing file are kept.

    Args:
        path: What to replace, or to make. A device, a named pipe or the like is written to instead.
        fsync: Wait until the file and its folder's entry are on disk.

    Raises:
        OSError: The file cannot be made, written or put in place; what was there is left as it was. The path is a
            folder's, as one that ends in a slash is, or is empty.
    """
    path = os.fsdecode(path)
    try:
        existing = os.stat(path)
    except FileNotFoundError:
        existing = None
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        with open(path, "wb", buffering=0) as device:
            yield device
        return
    target = _resolve(path)
    if existing is not None and _has_lost_its_name(path, existing):
        # A descriptor's path, such as /dev/stdout, still leads to it: there is nothing to replace.
        with open(path, "wb", buffering=0) as nameless:
            yield nameless
        return
    try:
        if existing is not None and not _is_writable(target):
            raise PermissionError(errno.EACCES, "the file is read-only", target)
        with _Replacement(target, _PRIVATE if existing is not None else _USUAL) as replacement:
            yield replacement.file
            replacement.publish(existing, fsync)
    except OSError as error:
        error.add_note(f"{target} was left as it was.")
        raise
    if fsync:
        _fsync_folder(os.path.dirname(target))


def _resolve(path: str) -> str:
    """Return the path of the file that opening `path` would open or make, with no link in it.

    Raises:
        OSError: It cannot name a file.
    """
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(path)
        if not path:
            raise FileNotFoundError(errno.ENOENT, "the path is empty", path)
        if name in ("", os.curdir, os.pardir):
            raise IsADirectoryError(errno.EISDIR, "the path is that of a folder, and a file was expected", path)
        try:
            folder = os.path.realpath(folder, strict=True)
        except OSError as error:
            raise _no_file_here(error, folder) from error
        target = os.path.join(folder, name)
        if not os.path.islink(target):
            return target
        path = os.path.join(folder, os.readlink(target))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _no_file_here(error: OSError, folder: str) -> OSError:
    return OSError(error.errno, f"cannot make a file in this folder: {error.strerror}", folder)


def _has_lost_its_name(path: str, existing: os.stat_result) -> bool:
    """Tell whether `path` leads to a file without a name.

    Not whether it leads to another file by now: then somebody else has replaced it, and it is no less to be replaced
    as a whole.
    """
    return existing.st_nlink == 0 and os.path.samestat(os.stat(path), existing)


def _is_writable(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


class _Replacement:
    """A new file in the folder of `target`, without a name for as long as the system allows."""

    def __init__(self, target: str, mode: int) -> None:
        self._target = target
        self._mode = mode
        self._folder = os.path.dirname(target)
        self._temporary = os.path.join(self._folder, f".safepickle-{os.urandom(8).hex()}")
        self._process = os.getpid()
        self._has_name = False
        self.file = self._open_nameless() or self._open_named()

    def publish(self, existing: os.stat_result | None, fsync: bool) -> None:
        """Put the file in the place of the target, in one step."""
        self._finish(self.file, existing, fsync)
        if not self._has_name and not self._link():
            with self._open_named() as named:
                self.file.seek(0)
                while chunk := self.file.read(_COPY_BYTES):
                    write_all(named, chunk)
                self._finish(named, existing, fsync)
        # Windows renames no file that is open.
        self.file.close()
        _replace(self._temporary, self._target)
        self._has_name = False

    def __enter__(self) -> _Replacement:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        if self._has_name and self._process == os.getpid():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def _open_nameless(self) -> io.FileIO | None:
        flag = getattr(os, "O_TMPFILE", 0)
        if not flag:
            return None
        try:
            return io.FileIO(os.open(self._folder, flag | os.O_RDWR, self._mode), "r+b")
        except OSError:
            # Not every file system can do this; a real obstacle is met again, and reported, under a name.
            return None

    def _open_named(self) -> io.FileIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        # Before it has: an interrupt may come right after.
        self._has_name = True
        try:
            descriptor = os.open(self._temporary, flags, self._mode)
        except OSError as error:
            self._has_name = False
            raise _no_file_here(error, self._folder) from error
        return io.FileIO(descriptor, "r+b")

    def _link(self) -> bool:
        """Give the nameless file its temporary name; return False where ``/proc`` is missing or links are forbidden."""
        folder = os.open(self._folder, os.O_RDONLY)
        self._has_name = True
        try:
            # With a dst_dir_fd Python follows the symbolic link in /proc, rather than making a link to the link.
            os.link(f"/proc/self/fd/{self.file.fileno()}", os.path.basename(self._temporary), dst_dir_fd=folder)
        except OSError:
            self._has_name = False
            return False
        finally:
            os.close(folder)
        return True

    @staticmethod
    def _finish(file: io.FileIO, existing: os.stat_result | None, fsync: bool) -> None:
        if existing is not None:
            _take_over(existing, file.fileno())
        if fsync:
            os.fsync(file.fileno())


def _replace(source: str, target: str) -> None:
    """Give `source` the name of `target`, in one step. Windows does so with no file that somebody has open."""
    waits = iter(_WAITS if os.name == "nt" else ())
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            seconds = next(waits, None)
            if seconds is None:
                raise
            time.sleep(seconds)


def _take_over(existing: os.stat_result, descriptor: int) -> None:
    """Give a file the owner, where the process may, and the permissions of the one that it replaces.

    What the group of that one might do, no other group may.
    """
    mine = os.fstat(descriptor)
    if hasattr(os, "fchown") and (mine.st_uid, mine.st_gid) != (existing.st_uid, existing.st_gid):
        for owner, group in ((-1, existing.st_gid), (existing.st_uid, -1)):
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, owner, group)
    if hasattr(os, "fchmod"):
        mode = stat.S_IMODE(existing.st_mode)
        if os.fstat(descriptor).st_gid != existing.st_gid:
            mode &= ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
        os.fchmod(descriptor, mode)


def _fsync_folder(folder: str) -> None:
    """Wait until the folder's entries are on disk, where folders can be flushed."""
    # Windows opens no folder.
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
