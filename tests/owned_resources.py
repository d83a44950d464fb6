"""Resources that people hold, each with a way to tell that a copy has left it alone. Importable, as in the workers."""

from __future__ import annotations

import contextlib
import gc
import gzip
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import wave
import weakref
import zipfile
from collections.abc import Callable
from multiprocessing import Pipe, shared_memory, util
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# ruff: noqa: SIM115 (what is opened here is held; `Owned.close` closes it)


class Holder:
    """An object that owns something, and also has a lock, which pickle refuses."""

    finalizer: Any

    def __init__(self, **attributes: Any) -> None:
        self.lock = threading.Lock()
        vars(self).update(attributes)

    def release(self) -> None:
        """Be the callback of a finalizer."""


class Owned(NamedTuple):
    """A holder, whether its resource is as it was, and how to let go of it."""

    holder: Any
    is_there: Callable[[], bool]
    close: Callable[[], object]


class SelfCleaning:
    """Deletes its directory by a finalizer of its own, with all that people pass to one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.Lock()
        self._finalizer = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)


class OwnFinalizer(weakref.finalize):
    """A subclass of `weakref.finalize` with an attribute."""

    def __init__(self, owner: Any, path: str) -> None:
        super().__init__(owner, shutil.rmtree, path, ignore_errors=True)
        self.path = path


class WithTemporaryDirectory(tempfile.TemporaryDirectory):
    """A subclass of what holds a finalizer."""


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def temporary_directory(folder: Path) -> Owned:
    directory = tempfile.TemporaryDirectory(dir=folder)
    return Owned(Holder(directory=directory), lambda: os.path.isdir(directory.name), directory.cleanup)


def subclass_of_temporary_directory(folder: Path) -> Owned:
    directory = WithTemporaryDirectory(dir=folder)
    return Owned([directory], lambda: os.path.isdir(directory.name), directory.cleanup)


def finalizer_that_deletes(folder: Path) -> Owned:
    owner = SelfCleaning(tempfile.mkdtemp(dir=folder))
    return Owned(owner, lambda: os.path.isdir(owner.path), owner._finalizer)


def finalizer_of_a_subclass(folder: Path) -> Owned:
    path = tempfile.mkdtemp(dir=folder)
    owner = Holder(path=path)
    owner.finalizer = OwnFinalizer(owner, path)
    return Owned(owner, lambda: os.path.isdir(path), owner.finalizer)


def finalizer_that_closes(folder: Path) -> Owned:
    descriptor = os.open(folder / "descriptor", os.O_CREAT | os.O_RDWR)
    owner = Holder(descriptor=descriptor)
    owner.finalizer = weakref.finalize(owner, os.close, descriptor)
    return Owned(owner, lambda: _is_open(descriptor), owner.finalizer)


def finalizer_of_multiprocessing(folder: Path) -> Owned:
    path = tempfile.mkdtemp(dir=folder)
    owner = Holder(path=path)
    # The lambda cannot be pickled by reference, nor the generator at all.
    unpicklable = (each for each in "")
    owner.finalizer = util.Finalize(owner, lambda _: shutil.rmtree(path), args=(unpicklable,), exitpriority=1)
    return Owned(owner, lambda: os.path.isdir(path), owner.finalizer)


def exit_stack(folder: Path) -> Owned:
    stack = contextlib.ExitStack()
    directory = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
    file = stack.enter_context(open(folder / "in the stack", "w+", encoding="utf-8"))
    file.write("written")
    return Owned(Holder(stack=stack), lambda: os.path.isdir(directory) and not file.closed, stack.close)


def file_being_written(folder: Path) -> Owned:
    file = open(folder / "file", "w+", encoding="utf-8")
    file.write("written")

    def is_there() -> bool:
        file.flush()
        return (folder / "file").read_text(encoding="utf-8") == "written"

    return Owned(Holder(file=file), is_there, file.close)


def block_of_shared_memory(folder: Path) -> Owned:
    block: Any = shared_memory.SharedMemory(create=True, size=100)
    block.buf[:5] = b"bytes"

    def is_there() -> bool:
        other: Any = shared_memory.SharedMemory(block.name)
        found = bytes(other.buf[:5])
        other.close()
        return found == b"bytes"

    def close() -> None:
        block.close()
        block.unlink()

    return Owned(Holder(block=block), is_there, close)


def list_in_shared_memory(folder: Path) -> Owned:
    shared: shared_memory.ShareableList[Any] = shared_memory.ShareableList(["one", 2])

    def is_there() -> bool:
        other: Any = shared_memory.ShareableList(name=shared.shm.name)
        found = list(other)
        other.shm.close()
        return found == ["one", 2]

    def close() -> None:
        shared.shm.close()
        shared.shm.unlink()

    return Owned([shared], is_there, close)


def archive_being_read(folder: Path) -> Owned:
    with zipfile.ZipFile(folder / "read.zip", "w") as archive:
        archive.writestr("member", "content")
    archive = zipfile.ZipFile(folder / "read.zip")
    return Owned(Holder(archive=archive), lambda: archive.read("member") == b"content", archive.close)


def ended_child(folder: Path) -> Owned:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    child.wait()
    return Owned(Holder(child=child), lambda: child.poll() == 3, lambda: None)


LEFT_ALONE: dict[str, Callable[[Path], Owned]] = {
    maker.__name__: maker
    for maker in (
        *(temporary_directory, subclass_of_temporary_directory, finalizer_that_deletes, finalizer_of_a_subclass),
        *(finalizer_that_closes, finalizer_of_multiprocessing, exit_stack, file_being_written),
        *(block_of_shared_memory, list_in_shared_memory, archive_being_read, ended_child),
    )
}
"""What can be pickled."""


def named_temporary_file(folder: Path) -> Owned:
    file = tempfile.NamedTemporaryFile(dir=folder)
    return Owned(Holder(file=file), lambda: os.path.exists(file.name), file.close)


def closer_of_a_temporary_file(folder: Path) -> Owned:
    file = tempfile.NamedTemporaryFile(dir=folder)
    return Owned([file._closer], lambda: os.path.exists(file.name), file.close)


def anonymous_temporary_file(folder: Path) -> Owned:
    file = tempfile.TemporaryFile(dir=folder)
    return Owned(Holder(file=file), lambda: _is_open(file.fileno()), file.close)


def anonymous_map(folder: Path) -> Owned:
    mapped = mmap.mmap(-1, 100)
    return Owned(Holder(mapped=mapped), lambda: mapped[:1] == b"\0", mapped.close)


def open_socket(folder: Path) -> Owned:
    one, other = socket.socketpair()

    def is_there() -> bool:
        one.send(b"x")
        return other.recv(1) == b"x"

    def close() -> None:
        one.close()
        other.close()

    return Owned(Holder(socket=one), is_there, close)


def end_of_a_pipe(folder: Path) -> Owned:
    reader, writer = Pipe(duplex=False)

    def is_there() -> bool:
        writer.send("x")
        return reader.recv() == "x"

    def close() -> None:
        reader.close()
        writer.close()

    return Owned(Holder(end=writer), is_there, close)


def running_child(folder: Path) -> Owned:
    """A child that has ended, and whose exit status nobody has asked for."""
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return Owned(Holder(child=child), lambda: True, lambda: child.wait() == 3 or _fail("its exit status is gone"))


def archive_being_written(folder: Path) -> Owned:
    path = folder / "written.zip"
    archive = zipfile.ZipFile(path, "w")
    archive.writestr("first", "content")

    def close() -> None:
        archive.writestr("second", "content")
        archive.close()
        with zipfile.ZipFile(path) as again:
            assert again.testzip() is None
            assert again.namelist() == ["first", "second"]

    return Owned(Holder(archive=archive), lambda: not archive.fp.closed, close)  # type: ignore[union-attr]


def stream_of_a_tar(folder: Path) -> Owned:
    file = open(folder / "stream.tar", "wb")
    archive = tarfile.open(mode="w|", fileobj=file)
    archive.addfile(tarfile.TarInfo("member"))

    def close() -> None:
        archive.close()
        file.close()

    return Owned([archive], lambda: not file.closed, close)


def compressed_file_being_written(folder: Path) -> Owned:
    file = gzip.open(folder / "file.gz", "wb")
    file.write(b"12345")
    return Owned(Holder(file=file), lambda: not file.closed, file.close)


def sound_being_written(folder: Path) -> Owned:
    sound = wave.open(str(folder / "sound.wav"), "wb")
    sound.setparams((1, 1, 8000, 0, "NONE", "not compressed"))
    sound.writeframesraw(b"12345")
    return Owned(Holder(sound=sound), lambda: True, sound.close)


REFUSED: dict[str, tuple[Callable[[Path], Owned], str]] = {
    "named temporary file": (named_temporary_file, "cannot pickle a temporary file"),
    "closer of a temporary file": (closer_of_a_temporary_file, "cannot pickle a temporary file"),
    "anonymous temporary file": (anonymous_temporary_file, "opened from a file descriptor"),
    "anonymous map": (anonymous_map, "cannot pickle 'mmap.mmap' object"),
    "socket": (open_socket, "cannot pickle 'socket' object"),
    "end of a pipe": (end_of_a_pipe, "Connection that is open: a copy that goes closes its descriptor"),
    "running child": (running_child, "Popen that has not been waited for"),
    "archive being written": (archive_being_written, "ZipFile that is writing a file"),
    "stream of a tar": (stream_of_a_tar, "_Stream that is writing a file"),
    "compressed file being written": (compressed_file_being_written, "GzipFile that is writing a file"),
    "sound being written": (sound_being_written, "Wave_write that is writing a file"),
}
"""What cannot be, each with the reason."""


def _fail(message: str) -> NoReturn:
    raise AssertionError(message)


def drop(_: Any) -> str:
    """Be a task: the worker drops its copy, and says that it has run."""
    gc.collect()
    return "done"
