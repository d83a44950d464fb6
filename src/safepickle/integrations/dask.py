"""dask.distributed: a serialization family, and what else it takes for tasks to carry what safepickle can pickle.

The module is its own preload: workers and schedulers that list it in their configuration register what `register` does.
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import re
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

import dask
import dask.multiprocessing
from dask._task_spec import GraphNode
from dask.tokenize import TokenizationError, normalize_token
from distributed import client
from distributed.protocol.serialize import (
    dask_serialize,
    families,
    pickle_loads,
    register_generic,
    register_serialization_family,
)

import safepickle
from safepickle.tracing.error_paths import pass_path_on

__all__ = ["FAMILY", "dask_setup", "register"]

FAMILY = "safepickle"
_PRELOADS = ("distributed.worker.preload", "distributed.scheduler.preload")


def register() -> Callable[[], None]:
    """Let dask pickle with safepickle: data, results, graphs and the arguments in them.

    Call it before a cluster is made: the workers and the scheduler of a `LocalCluster` then follow. Elsewhere set
    ``DASK_DISTRIBUTED__WORKER__PRELOAD`` and ``DASK_DISTRIBUTED__SCHEDULER__PRELOAD`` to
    ``safepickle.integrations.dask``, or start them with ``--preload safepickle.integrations.dask``.

    The family ``"safepickle"`` is registered, for ``Client(serializers=["dask", "safepickle"])``. Since dask uses the
    names ``"dask"`` and ``"pickle"`` wherever no list can be given, the family ``"pickle"`` is written by safepickle as
    well; its frames are those that dask's own reads. Tasks, which the scheduler pickles without asking a family, get
    reducers in `copyreg`. torch modules are left to the family ``"pickle"``: dask's own way with them pickles their
    attributes one by one, and whatever these share is lost.

    What dask can make no deterministic token of gets that of its pickle, so that ``client.map`` takes it: equal pickles
    are equal arguments.

    The scheduler of processes on this machine, ``compute(scheduler="processes")``, follows as well. An error that dask
    raises in place of a dump's has its ``pickle_path``.

    dask itself takes a list, a tuple, a set or a dict apart that is the whole result of a task, or the whole of what is
    scattered, and asks the family for each item: what the items share, and weak references between them, are lost. Put
    them into an object.

    Returns:
        A function that undoes all this in this process and for clusters that are made later.

    Examples:
        >>> import safepickle.integrations.dask
        >>> undo = safepickle.integrations.dask.register()  # before LocalCluster()
        >>> undo()
    """
    before = families["pickle"]
    for name in (FAMILY, "pickle"):
        register_serialization_family(name, _dump_frames, pickle_loads)
    added = [cls for cls in _graph_classes(GraphNode) if cls not in copyreg.dispatch_table]
    for cls in added:
        copyreg.pickle(cls, _reduce_node)
    keep_modules_in_pieces = _keep_modules_whole()
    give_up_paths = _keep_paths()
    drop_tokens = _make_tokens()
    local: Any = dask.multiprocessing
    dumps_of_processes, local._dumps = local._dumps, _dumps_in_band
    config = dask.config.set({key: _with_this_module(dask.config.get(key, [])) for key in _PRELOADS})

    def undo() -> None:
        families["pickle"] = before
        families.pop(FAMILY, None)
        for cls in added:
            copyreg.dispatch_table.pop(cls, None)
        keep_modules_in_pieces()
        give_up_paths()
        drop_tokens()
        local._dumps = dumps_of_processes
        config.__exit__(None, None, None)

    return undo


def dask_setup(server: Any) -> None:
    """Register in a worker or a scheduler that has this module among its preloads. dask calls it.

    Args:
        server: The worker or the scheduler.
    """
    register()


def _keep_modules_whole() -> Callable[[], None]:
    """Take torch modules from dask's family, now or when dask comes to know torch; return a function that undoes it."""

    def forget() -> None:
        import distributed.protocol.torch as room  # where dask registers them

        module: Any = vars(room)["torch"].nn.Module
        for cls in [cls for cls in dask_serialize._lookup if issubclass(cls, module)]:
            del dask_serialize._lookup[cls]

    def undo() -> None:
        if "torch" in dask_serialize._lazy:
            dask_serialize._lazy["torch"] = before
        else:
            register_generic(sys.modules["torch"].nn.Module)

    before = dask_serialize._lazy.get("torch")
    if before is None:
        forget()
    else:
        dask_serialize.register_lazy("torch")(forget)
    return undo


def _keep_paths() -> Callable[[], None]:
    """Let the errors that dask makes of those of a dump keep the path; return a function that undoes it."""
    # The package has a function of that name.
    rooms: list[Any] = [client, sys.modules["distributed.protocol.serialize"]]
    serialize = client.serialize
    load_error = families["error"]

    @functools.wraps(serialize)
    def serialize_with_path(*args: Any, **options: Any) -> Any:
        try:
            return serialize(*args, **options)
        except TypeError as error:
            pass_path_on(error.__cause__, error)
            raise

    def load_error_with_path(header: Any, frames: Any) -> Any:
        try:
            return load_error[1](header, frames)
        except TypeError as error:
            # Another process has failed to send something, and sends the traceback.
            found = re.search(r"^The object that cannot be pickled is at (.+)$", str(error), re.MULTILINE)
            if found is not None:
                error.pickle_path = found[1]  # type: ignore[attr-defined]
            raise

    for room in rooms:
        room.serialize = serialize_with_path
    families["error"] = (load_error[0], load_error_with_path, load_error[2])

    def undo() -> None:
        for room in rooms:
            room.serialize = serialize
        families["error"] = load_error

    return undo


def _make_tokens() -> Callable[[], None]:
    """Give what dask finds no deterministic token for that of its pickle; return a function that undoes it."""
    theirs = normalize_token.dispatch(object)

    def token_of(obj: Any) -> Any:
        try:
            return theirs(obj)
        except TokenizationError as refused:
            try:
                first, second = _digests(obj), _digests(obj)
            except Exception as failure:  # whatever an object's own reducers raise
                raise refused from failure
            if first != second:
                raise
            return FAMILY, first

    def replace(before: Any, after: Any) -> None:
        # dask notes for each class that it meets what it has found for `object`.
        for cls in [cls for cls, found in normalize_token._lookup.items() if found is before]:
            normalize_token.register(cls, after)

    replace(theirs, token_of)
    return lambda: replace(token_of, theirs)


def _digests(obj: Any) -> list[str]:
    """Return digests of the pickle and its buffers. Weak references to something outside are no matter for a warning
    here: the dump that sends the object will warn."""
    content, buffers = _dumps(obj, weakrefs=lambda referent: "tombstone")
    parts: list[bytes | memoryview] = [content, *map(pickle.PickleBuffer.raw, buffers)]
    return [sha256(part).hexdigest() for part in parts]


def _with_this_module(preloads: str | Iterable[str]) -> list[str]:
    listed = [preloads] if isinstance(preloads, str) else list(preloads)
    return listed if __name__ in listed else [*listed, __name__]


def _graph_classes(cls: Any) -> set[Any]:
    return {cls}.union(*map(_graph_classes, cls.__subclasses__()))


class _Pickler(safepickle.Pickler):
    """Pickles the tasks of a graph in one piece, so that what they share stays shared."""

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self.dispatch_table = {
            cls: reduce for cls, reduce in copyreg.dispatch_table.items() if reduce is not _reduce_node
        }


def _dumps(obj: Any, **options: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Return the pickle and its out-of-band buffers.

    The protocol is 5, whatever the two ends have agreed on: the scheduler asks for 4, for the sake of Python 3.7.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffers.append, **options).dump(obj)
    return file.getvalue(), buffers


def _dumps_in_band(obj: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(obj)
    return file.getvalue()


def _dump_frames(obj: Any) -> tuple[dict[str, Any], list[Any]]:
    """Serialize for a family: a header and frames, of which the first is the pickle and the others its buffers."""
    content, buffers = _dumps(obj)
    views = [memoryview(buffer) for buffer in buffers]
    return {"writeable": tuple(not view.readonly for view in views)}, [content, *views]


def _reduce_node(node: Any) -> Any:
    """Reduce a node of a graph for a pickler that is not ours; the buffers go to whatever that does with buffers."""
    content, buffers = _dumps(node)
    return _load_node, (content, *buffers)


def _load_node(content: bytes, *buffers: Any) -> Any:
    return pickle.loads(content, buffers=buffers)
