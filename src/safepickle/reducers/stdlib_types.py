"""Reduce values of standard-library types that pickle and cloudpickle refuse: locks, files, queues and so on.

`find_reducer` is asked once for each type. What is written here is what a new process can make good use of: a lock
that nobody holds, a file that is reopened where it stood. What needs no such thought comes from dill, by way of
`dill_types`, which is imported when such a type is first met. Never a raw pointer: a capsule is refused.
"""

from __future__ import annotations

import _thread
import collections
import copyreg
import functools
import gc
import io
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Final

import cloudpickle

from safepickle import cpython, rebuild
from safepickle.messages import dotted_name
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.classes import (
    has_own_reduce,
    is_written_in_c,
    new_object,
    raise_as_unpicklable,
    slot_names,
)
from safepickle.reducers.decisions import Dump
from safepickle.reducers.modules import reduce_module

__all__ = ["find_reducer", "reduce_builtin_class"]

Reducer = Callable[[Any, Dump], ReduceValue]


def find_reducer(cls: type) -> Reducer | None:
    """Return the reducer for exactly this type of the standard library, or None if there is none here.

    A class that says itself how it is pickled is left to say so.
    """
    if cls in _EXACT:
        return _EXACT[cls]
    name = dotted_name(cls)
    if name in _EXACT_BY_NAME:
        return _EXACT_BY_NAME[name]
    if name in _THROUGH_DILL:
        return _reduce_through_dill
    if not _is_pickled_its_own_way(cls):
        for base in cls.__mro__:
            if base in _INHERITED:
                return _INHERITED[base]
        if _is_opaque(cls) and cls not in cloudpickle.Pickler._dispatch_table:
            return raise_as_unpicklable if name in _REFUSED else _reduce_opaque
    return None


def reduce_builtin_class(cls: type) -> ReduceValue:
    """Reduce a class that is written in C and whose own name cannot be imported, such as ``dict_keys``.

    Returns:
        NotImplemented for every other class, and for one that nothing can find: the pickler refuses it.
    """
    if not is_written_in_c(cls) or _is_importable(cls):
        return NOT_REDUCED
    for module in (types, _thread):
        for name, value in vars(module).items():
            if value is cls:
                return getattr, (module, name)
    if cls in _VIEWS:
        return type, (_VIEWS[cls],)
    from safepickle.reducers import dill_types

    return dill_types.reduce_class(cls)


def reduce_lock(lock: object, dump: Dump) -> ReduceValue:
    """Reduce a lock to an open one: nobody in the new process holds it."""
    return _thread.allocate_lock, ()


def reduce_rlock(lock: object, dump: Dump) -> ReduceValue:
    """Reduce a re-entrant lock to an open one."""
    return threading.RLock, ()


def reduce_local(local: threading.local, dump: Dump) -> ReduceValue:
    """Reduce thread-local data to what the dumping thread sees of it; the loading thread will see that."""
    return new_object, (type(local),), dict(local.__dict__)


def reduce_condition(condition: threading.Condition, dump: Dump) -> ReduceValue:
    """Reduce a condition without the threads that wait for it."""
    return _with_state(condition, _waiters=collections.deque())


def reduce_bounded_semaphore(semaphore: Any, dump: Dump) -> ReduceValue:
    """Reduce a bounded semaphore to one with every place free."""
    return _with_state(semaphore, _value=semaphore._initial_value)


def reduce_barrier(barrier: Any, dump: Dump) -> ReduceValue:
    """Reduce a barrier without the threads that wait at it; a broken one stays broken."""
    broken = -2
    return _with_state(barrier, _count=0, _state=broken if barrier._state == broken else 0)


def reduce_thread(thread: Any, dump: Dump) -> ReduceValue:
    """Reduce a thread that has not started, or that has ended.

    Raises:
        TypeError: It is running.
    """
    if thread.is_alive():
        raise TypeError(
            f"cannot pickle a running thread ({dotted_name(type(thread))}): nothing runs it in the new process. "
            'Stop it, leave it out of the state, or pass unpicklable="tombstone".'
        )
    ended = thread.ident is not None
    plain = vars(threading.Thread(name=thread.name))
    state = {name: value for name, value in vars(thread).items() if name not in plain}
    if not ended:
        # Not arguments: the target is often a method of what holds the thread.
        state |= {"_target": thread._target, "_args": thread._args, "_kwargs": thread._kwargs}
    return rebuild.rebuild_thread, (type(thread), thread.name, thread.daemon, ended), state


def reduce_thread_pool(pool: Any, dump: Dump) -> ReduceValue:
    """Reduce a pool of workers to a fresh one with the same settings, shut down if it was. Its tasks stay behind."""
    arguments = (pool._max_workers, pool._thread_name_prefix, *cpython.initializer_of_thread_pool(pool))
    return type(pool), arguments, {"_shutdown": True} if pool._shutdown else None


def reduce_simple_queue(queue: object, dump: Dump) -> ReduceValue:
    """Reduce a `queue.SimpleQueue` with what is in it, which has no public way to be read without being taken out."""
    # State and not an argument: what is in a queue may lead back to it.
    return type(queue), (), cpython.items_of_simple_queue(queue), None, None, rebuild.rebuild_queue_items


def reduce_partialmethod(method: Any, dump: Dump) -> ReduceValue:
    """Reduce a `functools.partialmethod`, which is made without arguments by its own reduce value.

    From CPython 3.14 on that fails. What it computes from its arguments there, it computes again.
    """
    state = {name: value for name, value in vars(method).items() if name not in ("_phcount", "_merger")}
    arguments = (type(method), (method.func, *method.args), method.keywords)
    return copyreg.__newobj_ex__, arguments, state  # type: ignore[attr-defined]


def reduce_struct(struct: Any, dump: Dump) -> ReduceValue:
    """Reduce a `struct.Struct` to its format."""
    return type(struct), (struct.format,)


def reduce_memoryview(view: memoryview, dump: Dump) -> ReduceValue:
    """Reduce a memory view: over the same buffer when it shows the whole of one, else over a copy of what it shows."""
    whole = _whole_buffer(view)
    if whole is not None and not (view.readonly and not memoryview(whole).readonly):
        return memoryview, (whole,)
    if whole is None:
        whole = bytes(view) if view.readonly else bytearray(view)
    return rebuild.rebuild_memoryview, (whole, view.format, view.shape, view.readonly)


def reduce_dict_view(view: object, dump: Dump) -> ReduceValue:
    """Reduce ``keys()``, ``values()`` or ``items()`` of a dict to those of the copy of that dict.

    cloudpickle copies what the view shows, and dill does when the dict is of a subclass: the copy then no longer sees
    what is added to the dict.
    """
    (mapping,) = gc.get_referents(view)
    return _VIEW_METHODS[type(view)], (mapping,)


def reduce_mapping_proxy(proxy: types.MappingProxyType[object, object], dump: Dump) -> ReduceValue:
    """Reduce the ``__dict__`` of a class to just that, and any other proxy to one of the copy of its mapping."""
    for value in proxy.values():
        owner = getattr(value, "__objclass__", None) if type(value) in _DESCRIPTORS else None
        # A class makes a new proxy whenever it is asked; equal ones show the same attributes.
        if owner is not None and owner.__dict__ == proxy:
            return vars, (owner,)
    (mapping,) = gc.get_referents(proxy)
    return types.MappingProxyType, (mapping,)


def reduce_file(file: Any, dump: Dump) -> ReduceValue:
    """Reduce an open file to its name, mode and position.

    What is still in its buffer is written out first, so that the new process can read it.

    Raises:
        TypeError: The file has no name to be reopened by.
    """
    for name in ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"):
        stream = getattr(sys, name)
        if file is stream:
            return getattr, (sys, name)
        if file is getattr(stream, "buffer", None):
            return getattr, (stream, "buffer")
    raw = file.buffer if type(file) is io.TextIOWrapper else file
    if type(raw) is not io.FileIO:
        raw = getattr(raw, "raw", raw)
    if type(raw) is not io.FileIO:
        raise TypeError(
            f"cannot pickle a {dotted_name(type(file))} over a {dotted_name(type(raw))}: only files that "
            "were opened by name can be reopened."
        )
    if not isinstance(raw.name, (str, bytes)):
        raise TypeError(
            f"cannot pickle a {dotted_name(type(file))} that was opened from a file descriptor: it has no name to be "
            "reopened by."
        )
    if file.closed:
        position = None
    else:
        if file.writable():
            file.flush()
        position = file.tell() if file.seekable() else None
        if position is None:
            raise TypeError(f"cannot pickle a {dotted_name(type(file))} without a position, such as a pipe or terminal")
    if type(file) is io.TextIOWrapper:
        # Every argument of open() can be read back, except newline.
        text = (file.encoding, file.errors, file.line_buffering)
        return rebuild.rebuild_file, (raw.name, getattr(file, "mode", raw.mode), position, -1, *text)
    buffering = 0 if type(file) is io.FileIO else -1
    return rebuild.rebuild_file, (raw.name, raw.mode, position, buffering)


def reduce_descriptor(descriptor: Any, dump: Dump) -> ReduceValue:
    """Reduce a descriptor of a class, also one that looking it up on the class would not give."""
    cls, name = cpython.class_of_descriptor(descriptor), descriptor.__name__
    if getattr(cls, name, None) is descriptor:
        return getattr, (cls, name)
    return rebuild.rebuild_descriptor, (cls, name)


def reduce_lru_cache(cache: Any, dump: Dump) -> ReduceValue:
    """Reduce a `functools.lru_cache` to an empty one around its function; one that can be imported says its name."""
    if _is_importable(cache) and cache.__module__ != "__main__":
        return NOT_REDUCED
    function, parameters = cache.__wrapped__, cache.cache_parameters()
    # The others are the function's, which every wrapper takes over, and two that it makes of its own.
    own = {name: value for name, value in vars(cache).items() if getattr(function, name, cache) is not value}
    del own["__wrapped__"], own["cache_parameters"]
    return rebuild.rebuild_lru_cache, (function, parameters["maxsize"], parameters["typed"]), own or None


def _reduce_through_dill(obj: object, dump: Dump) -> ReduceValue:
    from safepickle.reducers import dill_types

    return dill_types.reduce_object(obj)


def _reduce_opaque(obj: object, dump: Dump) -> ReduceValue:
    """Reduce what holds more than Python can see as dill does, or refuse it."""
    if type(obj) in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    value = _reduce_through_dill(obj, dump)
    return raise_as_unpicklable(obj, dump) if value is NotImplemented else value


def _with_state(obj: object, **changed: object) -> ReduceValue:
    return new_object, (type(obj),), {**obj.__dict__, **changed}


def _is_pickled_its_own_way(cls: Any) -> bool:
    """Tell whether a class defines how it is reduced, or its state, or whether copyreg knows a reducer for it."""
    return has_own_reduce(cls) or cls.__getstate__ is not object.__getstate__ or cls in copyreg.dispatch_table


def _is_opaque(cls: type) -> bool:
    """Whether an instance holds more than Python can see, so that pickle refuses it.

    Source:
        ``object_getstate_default`` in CPython Objects/typeobject.c.
    """
    if hasattr(cls, "__getnewargs_ex__") or hasattr(cls, "__getnewargs__") or issubclass(cls, (list, dict)):
        return False
    if cls.__itemsize__:
        return True
    pointer = tuple.__itemsize__
    visible = len(slot_names(cls))
    visible += (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    return cls.__basicsize__ > object.__basicsize__ + visible * pointer


def _is_importable(obj: Any) -> bool:
    """Whether the name of a class or a cached function leads back to it."""
    module = sys.modules.get(obj.__module__)
    try:
        found: Any = module
        for name in obj.__qualname__.split("."):
            found = getattr(found, name)
    except AttributeError:
        return False
    return found is obj


def _whole_buffer(view: memoryview) -> Any:
    """Return the object that a view shows, if it shows the whole of it and the object is plain data."""
    owner = view.obj
    if type(owner) not in (bytes, bytearray) and dotted_name(type(owner)) not in ("array.array", "numpy.ndarray"):
        return None
    whole = memoryview(owner)
    shown = (view.format, view.shape, view.strides)
    return owner if shown == (whole.format, whole.shape, whole.strides) else None


_DESCRIPTORS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType)

_VIEWS: Final[dict[type, Any]] = {
    type(view): view
    for mapping in (dict[Any, Any](), collections.OrderedDict[Any, Any]())
    for view in (mapping.keys(), mapping.values(), mapping.items())
}

_VIEW_METHODS: Final[dict[type, Callable[..., object]]] = {
    type(method(base())): method
    for base in (dict, collections.OrderedDict)
    for method in (base.keys, base.values, base.items)
}

# Exactly these types.
_EXACT: Final[dict[type, Reducer]] = {
    _thread.LockType: reduce_lock,
    _thread.RLock: reduce_rlock,
    io.FileIO: reduce_file,
    io.BufferedReader: reduce_file,
    io.BufferedWriter: reduce_file,
    io.BufferedRandom: reduce_file,
    io.TextIOWrapper: reduce_file,
    memoryview: reduce_memoryview,
    types.GetSetDescriptorType: reduce_descriptor,
    types.MemberDescriptorType: reduce_descriptor,
    types.ClassMethodDescriptorType: reduce_descriptor,
    types.MappingProxyType: reduce_mapping_proxy,
    **dict.fromkeys(_VIEWS, reduce_dict_view),
}
# The same, where importing the type for this table would cost.
_EXACT_BY_NAME: Final[dict[str, Reducer]] = {
    "_queue.SimpleQueue": reduce_simple_queue,
    "_struct.Struct": reduce_struct,
    "concurrent.futures.interpreter.InterpreterPoolExecutor": reduce_thread_pool,
    "concurrent.futures.thread.ThreadPoolExecutor": reduce_thread_pool,
    "functools._lru_cache_wrapper": reduce_lru_cache,
}
# These and their subclasses, unless one says itself how it is pickled.
_INHERITED: Final[dict[type, Reducer]] = {
    functools.partialmethod: reduce_partialmethod,
    threading.local: reduce_local,
    threading.Condition: reduce_condition,
    threading.BoundedSemaphore: reduce_bounded_semaphore,
    threading.Barrier: reduce_barrier,
    threading.Thread: reduce_thread,
    types.ModuleType: reduce_module,
}
# Pickle would write these, but not what they are: dill does better.
_THROUGH_DILL: Final = frozenset(
    {
        "abc.abstractproperty",
        "builtins.super",
        "dataclasses._HAS_DEFAULT_FACTORY_CLASS",
        "dataclasses._KW_ONLY_TYPE",
        "dataclasses._MISSING_TYPE",
    }
)
# A capsule is a raw pointer, which dill would write. Its context cannot be loaded: what it holds goes by identity.
_REFUSED: Final = frozenset({"builtins.PyCapsule", "_contextvars.Context", "_contextvars.ContextVar"})
