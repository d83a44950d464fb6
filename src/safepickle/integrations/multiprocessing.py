"""multiprocessing: contexts whose processes, queues, pipes and pools pickle with safepickle.

Nothing of `multiprocessing` is changed: a `context` hands out subclasses. The reducers that others have registered with
`multiprocessing` stay in force; by them torch shares tensors between processes instead of copying them.
`concurrent.futures.ProcessPoolExecutor` makes its queue of calls without asking its context; that one queue is adopted
when the executor hands it to its first process.
"""

from __future__ import annotations

import copyreg
import functools
import io
import multiprocessing
import pickle
import sys
from concurrent.futures import process as executors
from multiprocessing import connection, queues, reduction
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any

import safepickle
from safepickle.callers import place_of_user, pointing_at
from safepickle.tracing.error_paths import pass_path_on

__all__ = ["context"]


def context(method: str | None = None) -> Any:
    """Return a context like that of `multiprocessing.get_context`, which pickles with safepickle.

    Args:
        method: ``"spawn"``, ``"forkserver"`` or ``"fork"``; None is the platform's default.

    Returns:
        A context to call ``Process``, ``Pool``, ``Queue``, ``JoinableQueue``, ``SimpleQueue`` and ``Pipe`` on, or to
        pass as ``ProcessPoolExecutor(mp_context=...)``. Managers, and what they share, pickle as ever.

    Raises:
        ValueError: The platform has no such start method.

    Examples:
        >>> from safepickle.integrations.multiprocessing import context
        >>> receiver, sender = context("spawn").Pipe(duplex=False)
        >>> with receiver, sender:
        ...     sender.send({"epoch": 3})
        ...     receiver.recv()
        {'epoch': 3}
    """
    return _CONTEXTS[type(multiprocessing.get_context(method))]()


class _Pickler(safepickle.Pickler):
    """What `multiprocessing.reduction.ForkingPickler` is to pickle, this is to safepickle."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        registered: dict[type, Any] = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
        self.dispatch_table = {**copyreg.dispatch_table, **registered}


def _dumps(obj: Any, plain: type | None = None) -> bytes:
    """Pickle ``obj``; instances of exactly ``plain`` by their state, whatever their own ``__reduce_ex__`` says."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    if plain is not None:
        pickler.dispatch_table = {**pickler.dispatch_table, plain: _reduce_plainly}
    pickler.dump(obj)
    return file.getvalue()


def _reduce_plainly(obj: Any) -> Any:
    return object.__reduce_ex__(obj, pickle.HIGHEST_PROTOCOL)


class _Parcel:
    """An object on its way through code that pickles by itself: it is pickled with safepickle, then, inside that."""

    def __init__(self, content: Any) -> None:
        self.content = content
        self._place = place_of_user()

    def __reduce_ex__(self, protocol: Any) -> Any:
        with pointing_at(self._place):
            return pickle.loads, (_dumps(self.content),)


class _Connection(connection.Connection):
    def send(self, obj: Any) -> None:
        self.send_bytes(_dumps(obj))


_CONNECTIONS: dict[type, type] = {connection.Connection: _Connection}

if sys.platform == "win32":

    class _PipeConnection(connection.PipeConnection):
        def send(self, obj: Any) -> None:
            self.send_bytes(_dumps(obj))

    _CONNECTIONS[connection.PipeConnection] = _PipeConnection


def _adopt_connection(plain: Any) -> Any:
    plain.__class__ = _CONNECTIONS[type(plain)]
    return plain


def _rebuild_connection(rebuild: Any, args: Any) -> Any:
    return _adopt_connection(rebuild(*args))


def _reduce_connection(reduce: Any, adopted: Any) -> Any:
    return _rebuild_connection, reduce(adopted)


def _register_connections() -> None:
    """Let our connections be sent, by whatever pickler, as `multiprocessing` does it for the class below."""
    registered: dict[type, Any] = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    for base, cls in _CONNECTIONS.items():
        reduction.register(cls, functools.partial(_reduce_connection, registered[base]))


_register_connections()


class _Queue(queues.Queue):  # type: ignore[type-arg]
    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(_Parcel(obj), block, timeout)


class _JoinableQueue(queues.JoinableQueue):  # type: ignore[type-arg]
    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(_Parcel(obj), block, timeout)


class _SimpleQueue(queues.SimpleQueue):  # type: ignore[type-arg]
    _writer: Any
    _wlock: Any

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        # A pool sends to the writer itself.
        _adopt_connection(self._writer)

    def put(self, obj: Any) -> None:
        if sys.exc_info()[1] is not None:
            _give_path_of_result(obj)
        content = _dumps(obj)
        if self._wlock is None:  # writes to a pipe are atomic on Windows
            self._writer.send_bytes(content)
        else:
            with self._wlock:
                self._writer.send_bytes(content)


def _give_path_of_result(message: Any) -> None:
    """Give the error by which a pool's worker says that it cannot send a result the path, when it is told of one.

    Source:
        ``worker`` in CPython Lib/multiprocessing/pool.py sends ``(job, index, (False, error))`` in its handler.
    """
    match message:
        case (_, _, (False, MaybeEncodingError() as outer)):
            pass_path_on(sys.exc_info()[1], outer)


class _CallQueue(executors._SafeQueue):
    """What the queue of calls of a `ProcessPoolExecutor` is turned into."""

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        # None tells a worker to end, and the feeder looks for it.
        parcel: Any = obj if obj is None else _Parcel(obj)
        super().put(parcel, block, timeout)

    def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:
        super()._on_queue_feeder_error(e, obj.content)


class _ProcessMixin:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for arg in self._args:  # type: ignore[attr-defined]
            if type(arg) is executors._SafeQueue:
                arg.__class__ = _CallQueue

    def __reduce_ex__(self, protocol: Any) -> Any:
        return pickle.loads, (_dumps(self, plain=type(self)),)


class _ContextMixin:
    def Pipe(self, duplex: bool = True) -> tuple[Any, Any]:
        first, second = connection.Pipe(duplex)
        return _adopt_connection(first), _adopt_connection(second)

    def Queue(self, maxsize: int = 0) -> Any:
        return _Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        return _JoinableQueue(maxsize, ctx=self)

    def SimpleQueue(self) -> Any:
        return _SimpleQueue(ctx=self)


class SpawnProcess(_ProcessMixin, multiprocessing.context.SpawnProcess):
    """A process of a spawning `context`."""


class _SpawnContext(_ContextMixin, multiprocessing.context.SpawnContext):
    Process = SpawnProcess


_CONTEXTS: dict[type, Any] = {multiprocessing.context.SpawnContext: _SpawnContext}

if sys.platform != "win32":

    class ForkProcess(_ProcessMixin, multiprocessing.context.ForkProcess):
        """A process of a forking `context`."""

    class _ForkContext(_ContextMixin, multiprocessing.context.ForkContext):
        Process = ForkProcess

    class ForkServerProcess(_ProcessMixin, multiprocessing.context.ForkServerProcess):
        """A process of a `context` with a fork server."""

    class _ForkServerContext(_ContextMixin, multiprocessing.context.ForkServerContext):
        Process = ForkServerProcess

    _CONTEXTS |= {
        multiprocessing.context.ForkContext: _ForkContext,
        multiprocessing.context.ForkServerContext: _ForkServerContext,
    }
