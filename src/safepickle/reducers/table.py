"""The type table: which reducer a type needs, decided once per type and looked up by ``type(obj)`` afterwards.

Reducers for other libraries are found by the top-level module of a type, so that importing safepickle imports no
framework. This module knows no reducer of a single type but those that it lists.
"""

from __future__ import annotations

import copyreg
import importlib
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import cloudpickle
from cloudpickle.cloudpickle import _class_setstate, _should_pickle_by_reference

from safepickle import cpython, rebuild
from safepickle.public import public
from safepickle.reduce_value import NOT_REDUCED, ReduceTuple, ReduceValue, in_full
from safepickle.reducers import logging_types, resources, stdlib_types, weak, weak_containers
from safepickle.reducers.classes import (
    is_class_method,
    is_found_by_name,
    is_of_class_by_value,
    is_ordinary,
    is_plain,
    is_written_in_c,
    leave_to_itself,
)
from safepickle.reducers.decisions import NOTHING_MET, Dump
from safepickle.reducers.walker import Walker

__all__ = ["LAZY", "Reducer", "TypeTable", "find_reducer", "find_registered", "register"]

Reducer: TypeAlias = Callable[[Any, Dump], ReduceValue]

LAZY: Final[dict[str, str]] = {
    "blinker": "safepickle.reducers.blinker_types",
    "jaxlib": "safepickle.reducers.keras_masks",
    "keras": "safepickle.reducers.keras",
    "lightning": "safepickle.reducers.lightning",
    "pytorch_lightning": "safepickle.reducers.lightning",
    "tensorflow": "safepickle.reducers.tensorflow",
    "torch": "safepickle.reducers.torch_types",
}
"""Top-level module of a type, or of a class it inherits from -> the room whose ``find_reducer(cls)`` knows it."""

_registered: dict[type, Reducer] = {}
_BUILT_IN: Final[dict[type, Reducer]] = {**weak.REDUCERS, **weak_containers.REDUCERS}
# Weak keys: a table must not keep a class alive.
_decided: weakref.WeakKeyDictionary[type, Reducer | None] = weakref.WeakKeyDictionary()


class DumpingWalker(Walker, Protocol):
    """What the type table needs from the pickler in addition."""

    proto: int

    def begun(self) -> Dump:
        """Return what the dump knows, which is made when it is first asked for."""

    def reduce_cyclic(self, obj: object, known: Dump) -> ReduceTuple | str | None:
        """Reduce an object that is, or might be, under construction, or return None for the usual way."""


class TypeTable(dict[type, "Reducer | None"]):
    """One dump's view of the table: a plain dict for the types that it has met.

    None stands for an ordinary type, as nearly every type is: its instances are left to the C pickler, and are in the
    memo before their state is written.

    Attributes:
        own_dispatch_table: The reducers by exact type that the pickler's caller or subclass has set.
        known: What the dump knows so far, for the length of a walk.
        override: What the compiled core calls in place of `reduce`, or None; as long.
        pickler: Who walks, and makes what `known` is to be in place of `NOTHING_MET`; as long.
    """

    __slots__ = ("known", "override", "own_dispatch_table", "pickler")

    known: Any
    override: Any
    own_dispatch_table: Mapping[type, Any]
    pickler: DumpingWalker

    def reduce(self, obj: Any) -> ReduceValue:
        """Return the reduce value of `obj`, or NotImplemented: what the C pickler calls for all but exact builtins."""
        reduce = self[type(obj)]
        if reduce is None:
            visited = self.known.visited
            if visited is not None:
                visited.add(id(obj))
            return NOT_REDUCED
        known = self.known
        if known.tracking:
            if reduce is not weak.reduce_weakref:
                if obj is known.expected or known.cyclic:
                    value: ReduceTuple | str | None = known.pickler.reduce_cyclic(obj, known)
                    if value is not None:
                        return value
                known.enter(obj)
        elif known is NOTHING_MET:
            known = self.known = self.pickler.begun()
        return reduce(obj, known)

    def judge(self, cls: type) -> Any:
        """Say once for a walk what the compiled core is to do with the instances of a class.

        Returns:
            ``(cls,)``, of a plain class: reduce them as ``object.__reduce_ex__`` does. NotImplemented, of any other
            ordinary one: note them and leave them to the C pickler. `weakref.ref`, for itself: relink what is known to
            be kept. None: ask `reduce`.
        """
        reduce = self[cls]
        if reduce is None:
            return (cls,) if self.pickler.proto >= 2 and is_plain(cls) else NotImplemented
        return cls if reduce is weak.reduce_weakref and cls is weakref.ref else None

    def __missing__(self, cls: type) -> Reducer | None:
        reducer = _decide(cls)
        if reducer is None and (cls in self.own_dispatch_table or cls in copyreg.dispatch_table):
            reducer = leave_to_itself
        self[cls] = reducer
        return reducer


def find_reducer(cls: type) -> Reducer | None:
    """Return the reducer for instances of exactly `cls`, or None where they are left to say so themselves."""
    reducer = _decide(cls)
    return None if reducer is leave_to_itself else reducer


def find_registered(cls: type) -> Reducer | None:
    """Return the reducer that was registered for exactly `cls`, or None."""
    return _registered.get(cls)


def _decide(cls: type) -> Reducer | None:
    try:
        return _decided[cls]
    except KeyError:
        reducer = _decided[cls] = _find_reducer(cls)
        return reducer


@public
def register(cls: type, reducer: Callable[[Any], ReduceValue]) -> None:
    """Register a reducer for a class and its subclasses; the nearest class in the MRO wins.

    Args:
        cls: Any class, also one of the weak types.
        reducer: Called with an instance; returns its reduce value, as ``__reduce__`` does.

    Raises:
        TypeError: `cls` is not a class, or `reducer` cannot be called.

    Examples:
        >>> class Circle:
        ...     def __init__(self, radius):
        ...         self.radius = radius
        ...         self.area = 3 * radius**2
        >>> safepickle.register(Circle, lambda circle: (Circle, (circle.radius,)))
        >>> safepickle.loads(safepickle.dumps(Circle(2))).area
        12
    """
    if not isinstance(cls, type):
        raise TypeError(f"register() takes a class and a reducer, not an instance of {type(cls).__qualname__}")
    if not callable(reducer):
        raise TypeError(f"the reducer for {cls.__qualname__} is of type {type(reducer).__qualname__}: not callable")
    _registered[cls] = lambda obj, dump: reducer(obj)
    _decided.clear()


def _reduce_function_or_class(obj: Any, dump: Dump) -> ReduceValue:
    """Reduce a function or a class: by value where it cannot be imported, else by reference.

    A reducer that someone has set for a metaclass goes first, as with plain pickle.
    """
    cls = type(obj)
    if cls is not type and (cls in copyreg.dispatch_table or cls in dump.pickler.own_dispatch_table):
        return NOT_REDUCED
    if is_found_by_name(obj):
        return NOT_REDUCED
    annotate = cpython.annotate_of_undefined(obj) if cls is types.FunctionType else None
    if annotate is not None and not _should_pickle_by_reference(obj):
        bare: Any = cloudpickle.Pickler.reducer_override(dump.pickler, cpython.without_annotations(obj))
        # The last of them: it takes the place of annotations.
        bare[2][1]["__annotate__"] = annotate
        whole: ReduceValue = bare
        return whole
    value: ReduceValue = cloudpickle.Pickler.reducer_override(dump.pickler, obj)
    # By value, a class that is written in C gives a pickle that cannot be loaded.
    if value is NotImplemented or not issubclass(cls, type):
        return value
    if is_written_in_c(obj):
        return stdlib_types.reduce_builtin_class(obj)
    if isinstance(value, tuple) and value[-1] is _class_setstate:
        make, arguments, state, items, pairs, _ = in_full(value)
        return rebuild.rebuild_class, (*arguments, make), state, items, pairs, rebuild.rebuild_class_attributes
    return value


def _reduce_method(method: types.MethodType, dump: Dump) -> ReduceValue:
    """Reduce a bound method; one of a class is found there by its name, as with plain pickle.

    cloudpickle would carry its function by value, because a class gives no access to the bare function.
    """
    if types.MethodType in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    if is_class_method(method):
        return getattr, (method.__self__, method.__func__.__name__)
    function, owner = method.__func__, method.__self__
    if is_of_class_by_value(method):
        return rebuild.rebuild_method, (function, owner, function.__name__)
    return types.MethodType, (function, owner)


def _from_cloudpickle(cls: type) -> Reducer:
    """Adapt cloudpickle's reducer for exactly `cls`; a dispatch table of the caller's own goes first."""
    reducer = cloudpickle.Pickler._dispatch_table[cls]

    def reduce(obj: Any, dump: Dump) -> ReduceValue:
        return NOT_REDUCED if cls in dump.pickler.own_dispatch_table else reducer(obj)

    return reduce


def _find_reducer(cls: type) -> Reducer | None:
    # Asked of a metaclass alone: whoever asks imports the placeholders.
    if cls is not type and issubclass(cls, type) and cls is type(rebuild.Stub):
        return lambda stub, dump: rebuild.reduce_stub_class(stub)
    if issubclass(cls, type) and _registered.keys().isdisjoint(type.mro(cls)):
        return _reduce_function_or_class
    rooms: set[str] = set()
    for base in cls.__mro__:
        if base in _registered:
            return _registered[base]
        if base in _BUILT_IN:
            return weak.reduce_weakref_subclass if base is weakref.ref and cls is not base else _BUILT_IN[base]
        room = LAZY.get(str(base.__module__).partition(".")[0])
        if room is not None and room not in rooms:
            rooms.add(room)
            found: Reducer | None = importlib.import_module(room).find_reducer(cls)
            if found is not None:
                return found
    if cls is types.FunctionType:
        return _reduce_function_or_class
    if cls is types.MethodType:
        return _reduce_method
    known = resources.find_reducer(cls) or logging_types.find_reducer(cls) or stdlib_types.find_reducer(cls)
    if known is not None:
        return known
    if cls in cloudpickle.Pickler._dispatch_table:
        return _from_cloudpickle(cls)
    return None if is_ordinary(cls) else leave_to_itself
