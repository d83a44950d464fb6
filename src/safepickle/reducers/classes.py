"""What the reducers ask of a class."""

from __future__ import annotations

import copyreg
import sys
import types
from collections.abc import Callable
from typing import Any, Final

from cloudpickle.cloudpickle import _PICKLE_BY_VALUE_MODULES, _should_pickle_by_reference

from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.decisions import Dump
from safepickle.weak_types import WeakType

__all__ = [
    "has_own_reduce",
    "is_class_method",
    "is_found_by_name",
    "is_of_class_by_value",
    "is_ordinary",
    "is_plain",
    "is_written_in_c",
    "leave_to_itself",
    "new_object",
    "own_state",
    "parts_of_weak_method",
    "raise_as_unpicklable",
    "slot_names",
]

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE

# What a class says of itself that `object.__reduce_ex__`, or the C pickler before it, listens to.
_HOOKS: Final = frozenset(
    {
        *("__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__", "__getstate__"),
        *("__getattribute__", "__getattr__", "__class__"),
    }
)


class _Blank:
    """A class with nothing in it."""


_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
_C_ATTRIBUTES = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)

slot_names: Final[Callable[[type], list[str]]] = getattr(copyreg, "_slotnames")  # noqa: B009 (nor this)
new_object: Final[Callable[..., Any]] = getattr(copyreg, "__newobj__")  # noqa: B009 (the stubs do not have it)
"""``cls.__new__(cls, *args)``: the pickler knows it by its name and writes it as one opcode."""


def has_own_reduce(cls: Any) -> bool:
    """Tell whether a class defines a reduce method; it may have a state of its own all the same."""
    return cls.__reduce__ is not object.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__


def is_ordinary(cls: type) -> bool:
    """Tell whether an instance is in the memo before anything else of it is written.

    That holds for what ``object.__reduce_ex__`` makes of a class that inherits from no builtin: its reduce arguments
    are the class alone. A builtin's content is among the arguments under protocols 0 and 1.
    """
    if has_own_reduce(cls) or hasattr(cls, "__getnewargs__") or hasattr(cls, "__getnewargs_ex__"):
        return False
    return all(base is object or base.__flags__ & _HEAP_TYPE for base in cls.__mro__)


def is_written_in_c(cls: type) -> bool:
    """Tell whether a class is written in C, so that no attributes make it up.

    Most of those are immutable, but not all: ``zlib.Compress`` can be given attributes like any class of Python.
    """
    if not cls.__flags__ & _HEAP_TYPE or cls.__flags__ & _IMMUTABLE_TYPE:
        return True
    return any(
        # The last is how pybind11 holds the methods of its classes.
        isinstance(value, _C_ATTRIBUTES) or type(value).__name__ == "instancemethod"
        for value in type.__dict__["__dict__"].__get__(cls).values()
        if getattr(value, "__objclass__", cls) is cls
    )


def raise_as_unpicklable(obj: object, dump: Dump) -> ReduceValue:
    """Raise the error of `copyreg` for an object that holds more than Python can see, under every protocol.

    Under protocols 0 and 1 `copyreg` does not check, and writes what cannot be loaded.
    """
    return obj.__reduce_ex__(max(2, dump.protocol))


def is_plain(cls: type) -> bool:
    """Tell whether ``object.__reduce_ex__`` gives, from protocol 2 on, no more than the class and the ``__dict__``.

    It does so of an instance whose ``__dict__`` has text keys that are no hooks either.
    """
    if cls.__basicsize__ != _Blank.__basicsize__ or cls.__dictoffset__ != _Blank.__dictoffset__ or cls.__itemsize__:
        # It has slots, or memory that only C knows of.
        return False
    for base in cls.__mro__[:-1]:
        namespace = vars(base)
        own_dict = namespace.get("__dict__")
        if not _HOOKS.isdisjoint(namespace) or not (own_dict is None or type(own_dict) is types.GetSetDescriptorType):
            return False
    return is_ordinary(cls) and not slot_names(cls)


def leave_to_itself(obj: object, dump: Dump) -> ReduceValue:
    """Leave an object to the C pickler, which asks the dispatch tables and the object itself."""
    return NOT_REDUCED


def is_class_method(method: types.MethodType) -> bool:
    """Tell whether a bound method is one of a class, and is found there by its name."""
    owner, name = method.__self__, getattr(method.__func__, "__name__", None)
    return issubclass(type(owner), type) and type(name) is str and getattr(owner, name, None) == method


def is_of_class_by_value(method: types.MethodType) -> bool:
    """Tell whether a bound method is one of an instance whose class travels by value, and brings its function along."""
    cls, function = type(method.__self__), method.__func__
    if type(function) is not types.FunctionType or is_found_by_name(cls):
        return False
    for base in cls.__mro__:
        found = vars(base).get(function.__name__)
        if found is not None:
            return found is function and not _should_pickle_by_reference(base)
    return False


def parts_of_weak_method(method: types.MethodType) -> tuple[object, ...]:
    """Return what has to be kept for a weak reference to a bound method: its function and its object.

    A class owns the functions of its class methods, though it gives no access to them, and one that travels by value
    brings the functions of its instances along: those are left out. The object is the last, which may be under
    construction.
    """
    brings_function = is_class_method(method) or is_of_class_by_value(method)
    return (method.__self__,) if brings_function else (method.__func__, method.__self__)


def is_found_by_name(obj: Any) -> bool:
    """Tell at a glance that an import finds a function or a class; where it is not so plain, cloudpickle decides.

    It takes several times as long, which every dump would pay for each class and function that it names.
    """
    module_name, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if type(module_name) is not str or module_name == "__main__" or _PICKLE_BY_VALUE_MODULES:
        return False
    module = sys.modules.get(module_name)
    # The namespace and no attribute: a module may compute those.
    return type(name) is str and isinstance(module, types.ModuleType) and vars(module).get(name) is obj


def own_state(obj: object, weak: WeakType) -> Any:
    """Return the state of an instance without what the constructor of its weak type makes; None when nothing is left.

    A class may have a ``__getstate__`` that gives something else: that is left as it is.
    """
    state = obj.__getstate__()
    if type(state) is dict:
        return {name: value for name, value in state.items() if name not in weak.internals} or None
    if type(state) is not tuple or len(state) != 2 or type(state[1]) is not dict:
        return state
    attributes, slots = state
    slots = {name: value for name, value in slots.items() if name not in weak.internals}
    if type(attributes) is dict:
        attributes = {name: value for name, value in attributes.items() if name not in weak.internals} or None
    return (attributes, slots) if slots else attributes
