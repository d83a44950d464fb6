"""What holds no other objects, or hides them: files, threads, queues, views, caches, descriptors."""

from __future__ import annotations

import functools
import os
import threading
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from safepickle.rebuild.mark import file_format

if TYPE_CHECKING:
    from multiprocessing.shared_memory import ShareableList, SharedMemory

__all__ = [
    "rebuild_descriptor",
    "rebuild_file",
    "rebuild_lru_cache",
    "rebuild_memoryview",
    "rebuild_queue_items",
    "rebuild_shareable_list",
    "rebuild_shared_memory",
    "rebuild_thread",
]


@file_format
def rebuild_file(
    name: str | bytes,
    mode: str,
    position: int | None,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    line_buffering: bool = False,
) -> Any:
    """Reopen a file where it stood. Nothing is created and nothing is cut off, whatever the mode.

    Args:
        name: As it was given to `open`.
        mode: As it was given to `open`, and as the result's ``mode`` says again.
        position: What ``tell`` returned, or None for a file that was closed.
        buffering: As for `open`.
        encoding: Of a text file.
        errors: Of a text file.
        line_buffering: Of a text file.

    Raises:
        FileNotFoundError: There is no file of that name here.
    """

    def opener(path: str | bytes, flags: int) -> int:
        if position is None:
            return os.open(os.devnull, os.O_RDWR)
        return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))

    try:
        file: Any = open(name, mode, buffering, encoding, errors, opener=opener)  # noqa: SIM115
    except FileNotFoundError as error:
        where = os.getcwd()
        message = f"a file that was open when it was pickled is not here (working directory: {where})"
        raise FileNotFoundError(error.errno, message, os.fsdecode(name)) from None
    if position is None:
        file.close()
        return file
    if line_buffering:
        file.reconfigure(line_buffering=True)
    file.seek(position)
    return file


@file_format
def rebuild_memoryview(buffer: Any, format: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """Build a view of a buffer, with the format, the shape and the right to write that it had."""
    view = memoryview(buffer)
    if (view.format, view.shape) != (format, shape):
        flat = view.cast("B")
        view = flat.cast(format, shape) if all(shape) and len(shape) != 1 else flat.cast(format)  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


@file_format
def rebuild_queue_items(queue: Any, items: Iterable[object]) -> None:
    """Fill a `queue.SimpleQueue`."""
    for item in items:
        queue.put(item)


@file_format
def rebuild_shared_memory(cls: type[SharedMemory], name: str) -> SharedMemory:
    """Attach to a block of shared memory without the resource tracker, which unlinks at exit what it was told of.

    Raises:
        FileNotFoundError: There is no block of that name.
    """
    from multiprocessing import shared_memory

    block = cls.__new__(cls)
    # Not ``track=False``, which is new in 3.13: then ``unlink()`` would not tell the tracker of the original either.
    _with_globals(shared_memory.SharedMemory.__init__, resource_tracker=_NoTracker)(block, name)
    return block


@file_format
def rebuild_shareable_list(cls: type[ShareableList[Any]], name: str) -> ShareableList[Any]:
    """Attach to a `multiprocessing.shared_memory.ShareableList` as `rebuild_shared_memory` does to its block."""
    from multiprocessing import shared_memory

    def attach(name: str) -> SharedMemory:
        return rebuild_shared_memory(shared_memory.SharedMemory, name)

    shared = cls.__new__(cls)
    _with_globals(shared_memory.ShareableList.__init__, SharedMemory=attach)(shared, name=name)
    return shared


@file_format
def rebuild_thread(cls: type[threading.Thread], name: str, daemon: bool, ended: bool) -> threading.Thread:
    """Build a thread that has not started, or that has ended; state follows.

    What makes a thread an ended one differs with the version of Python, so it is started, with nothing to do.
    """
    thread = cls.__new__(cls)
    threading.Thread.__init__(thread, name=name, daemon=daemon)
    if ended:
        thread.run = int  # type: ignore[method-assign, assignment]
        # A class may do more when its threads start.
        threading.Thread.start(thread)
        threading.Thread.join(thread)
        del thread.run
    return thread


@file_format
def rebuild_lru_cache(function: Callable[..., object], maxsize: int | None, typed: bool) -> Any:
    """Build an empty cache around a function."""
    return functools.lru_cache(maxsize, typed)(function)


@file_format
def rebuild_descriptor(cls: type, name: str) -> Any:
    """Get a descriptor out of the class that defines it, where looking it up would call it."""
    return vars(cls)[name]


class _NoTracker:
    """Stands in for `multiprocessing.resource_tracker`."""

    @staticmethod
    def register(name: str, kind: str) -> None:
        """Forget."""


def _with_globals(function: Any, **changed: Any) -> Any:
    """Return a function that runs the same code and sees other globals; those that all share are left alone."""
    changed = {**function.__globals__, **changed}
    other = types.FunctionType(function.__code__, changed, function.__name__, function.__defaults__)
    other.__kwdefaults__ = function.__kwdefaults__
    return other
