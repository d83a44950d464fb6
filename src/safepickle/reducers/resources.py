"""Reduce values of objects that close, delete or write something as soon as they go.

A copy of such an object would do that to what belongs to the original: delete its temporary file, close its descriptor,
collect the exit status of its child. So a copy is made that lets go of nothing, or none at all. What holds such an
object through a `weakref.finalize` needs nothing from here: that comes back dead.

Other libraries' classes are known by name, so that nothing is imported for them.
"""

from __future__ import annotations

import copyreg
import io
from collections.abc import Callable
from typing import Any, Final

from safepickle import rebuild
from safepickle.messages import dotted_name
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.decisions import Dump

__all__ = ["find_reducer"]

Reducer = Callable[[Any, Dump], ReduceValue]


def find_reducer(cls: type) -> Reducer | None:
    """Return the reducer for a class that lets go of a resource, or for a subclass of one.

    A subclass that says itself how it is pickled is left to say so.
    """
    for base in cls.__mro__:
        reducer = _BY_NAME.get(dotted_name(base))
        if reducer is not None:
            return _unless_registered(reducer) if _is_pickled_like(cls, base) else None
    return None


def _reduce_process_finalizer(finalizer: object, dump: Dump) -> ReduceValue:
    """Reduce a `multiprocessing.util.Finalize` to one that has been called.

    In the process of the original its key would find the original's entry in the registry, and so run the callback.
    """
    called = dict.fromkeys(("_weakref", "_callback", "_args", "_kwargs", "_key"))
    return rebuild.rebuild_dead_finalize, (type(finalizer),), {**vars(finalizer), **called}


def _reduce_shared_memory(block: Any, dump: Dump) -> ReduceValue:
    """Reduce a block of shared memory to its name.

    By itself it is attached as if the loading process had made it, whose resource tracker then unlinks it at exit.
    A subclass with a constructor of its own is left to itself.
    """
    from multiprocessing.shared_memory import SharedMemory

    if type(block).__init__ is not SharedMemory.__init__:
        return NOT_REDUCED
    return rebuild.rebuild_shared_memory, (type(block), block.name)


def _reduce_shareable_list(shared: Any, dump: Dump) -> ReduceValue:
    """Reduce a list in shared memory like the block that it is in."""
    from multiprocessing.shared_memory import ShareableList

    if type(shared).__init__ is not ShareableList.__init__:
        return NOT_REDUCED
    return rebuild.rebuild_shareable_list, (type(shared), shared.shm.name)


def _reduce_child(child: Any, dump: Dump) -> ReduceValue:
    if child._child_created and child.returncode is None:
        raise _refusal(child, "has not been waited for: a copy that goes collects its exit status. Wait for it first")
    return NOT_REDUCED


def _reduce_connection(connection: Any, dump: Dump) -> ReduceValue:
    if not connection.closed:
        raise _refusal(
            connection,
            "is open: a copy that goes closes its descriptor. Pass it to a process of multiprocessing",
        )
    return NOT_REDUCED


def _reduce_descriptor_of_tar(file: object, dump: Dump) -> ReduceValue:
    raise _refusal(file, "holds a descriptor, which the archive closes when it goes. Close the archive first")


def _reduce_temporary_file(file: object, dump: Dump) -> ReduceValue:
    """Refuse a temporary file: closing it, or the copy of it, deletes what the other one reads."""
    raise TypeError(
        "cannot pickle a temporary file: it is deleted when it is closed. Read what is in it, or open a file with a "
        "name that stays."
    )


def _reduce_temporary_file_closer(closer: Any, dump: Dump) -> ReduceValue:
    if closer.delete and not closer.close_called:
        return _reduce_temporary_file(closer, dump)
    return NOT_REDUCED


def _reduce_held_file_lock(lock: Any, dump: Dump) -> ReduceValue:
    if lock.is_locked:
        raise _refusal(lock, "is held: a copy that goes releases it. Release it first")
    return NOT_REDUCED


def _reduce_dumb_database(database: Any, dump: Dump) -> ReduceValue:
    if database._index is not None:
        raise _refusal(database, "is open: a copy that goes writes its index over the file's. Close it first")
    return NOT_REDUCED


def _reduce_in_place_input(reader: Any, dump: Dump) -> ReduceValue:
    if reader._inplace and reader._file is not None:
        raise _refusal(reader, "is editing a file in place: a copy that goes deletes the backup. Close it first")
    return NOT_REDUCED


def _reducer_of_writer(attribute: str, writing: Callable[[Any], bool] = lambda writer: True) -> Reducer:
    """Return a reducer for what completes the file under `attribute` when it goes; a file in memory is copied along."""

    def reduce(writer: object, dump: Dump) -> ReduceValue:
        file = getattr(writer, attribute, None)
        if file is not None and type(file) is not io.BytesIO and writing(writer):
            raise _refusal(writer, "is writing a file, which a copy that goes would complete as well. Close it first")
        return NOT_REDUCED

    return reduce


def _refusal(obj: object, why: str) -> TypeError:
    return TypeError(f"cannot pickle a {dotted_name(type(obj))} that {why}, or leave it out of the state.")


def _unless_registered(reducer: Reducer) -> Reducer:
    """Let a dispatch table go first: engines know how to hand a connection to another process."""

    def reduce(obj: object, dump: Dump) -> ReduceValue:
        cls = type(obj)
        if cls in dump.pickler.own_dispatch_table or cls in copyreg.dispatch_table:
            return NOT_REDUCED
        return reducer(obj, dump)

    return reduce


def _is_pickled_like(cls: type, base: type) -> bool:
    ways = ("__reduce_ex__", "__reduce__", "__getstate__")
    return all(getattr(cls, way) is getattr(base, way) for way in ways)


_BY_NAME: Final[dict[str, Reducer]] = {
    "multiprocessing.util.Finalize": _reduce_process_finalizer,
    "multiprocessing.shared_memory.SharedMemory": _reduce_shared_memory,
    "multiprocessing.shared_memory.ShareableList": _reduce_shareable_list,
    "multiprocessing.connection._ConnectionBase": _reduce_connection,
    "subprocess.Popen": _reduce_child,
    "tempfile._TemporaryFileWrapper": _reduce_temporary_file,
    "tempfile._TemporaryFileCloser": _reduce_temporary_file_closer,
    "tarfile._LowLevelFile": _reduce_descriptor_of_tar,
    "tarfile._Stream": _reducer_of_writer("fileobj", lambda stream: stream.mode == "w" and not stream.closed),
    "gzip.GzipFile": _reducer_of_writer("fileobj", lambda file: file.writable()),
    "zipfile.ZipFile": _reducer_of_writer("fp", lambda archive: archive.mode != "r"),
    "wave.Wave_write": _reducer_of_writer("_file"),
    "aifc.Aifc_write": _reducer_of_writer("_file"),
    "sunau.Au_write": _reducer_of_writer("_file"),
    "fileinput.FileInput": _reduce_in_place_input,
    "dbm.dumb._Database": _reduce_dumb_database,
    "filelock._api.BaseFileLock": _reduce_held_file_lock,
    "filelock._core._lock.BaseFileLock": _reduce_held_file_lock,
}
