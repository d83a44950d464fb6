"""How loaded objects differ from what their classes make today: attributes gained and lost since they were pickled.

Loading sets what the pickle holds and calls no ``__init__``. So an object pickled by an older version of its class
lacks what ``__init__`` sets by now, and keeps what nobody reads any more. Neither is an error until much later.
"""

from __future__ import annotations

import dis
import inspect
import io
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from safepickle.dumping.base_pickler import BasePickler
from safepickle.messages import dotted_name
from safepickle.public import public
from safepickle.rebuild.records import record
from safepickle.tracing.traversal import Traversal

__all__ = ["ChangedObject", "compare_attributes"]

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE


@record
@dataclass(frozen=True, slots=True)
class ChangedObject:
    """An object whose attributes are not those that its class sets.

    Attributes:
        path: Where it is.
        type: Dotted name of its class.
        lacking: Attributes that ``__init__`` sets, perhaps on a condition, and that the object lacks.
        unknown: Attributes that the object has, and that nothing in its class mentions.
    """

    path: str
    type: str
    lacking: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        if self.lacking:
            parts.append(f"lacks {', '.join(self.lacking)}, which its __init__ sets")
        if self.unknown:
            parts.append(f"has {', '.join(self.unknown)}, which its class does not mention")
        return f"{self.path} ({self.type}) {' and '.join(parts)}"


@public
def compare_attributes(obj: Any) -> list[ChangedObject]:
    """List the objects in a graph whose attributes are not those that their classes set today.

    Read from the bytecode of the classes, and from dataclass and attrs fields: no code of theirs runs, unless a class
    has a ``__getattr__``, as ``torch.nn.Module`` does.

    Args:
        obj: What was loaded.

    Returns:
        The objects that lack an attribute or have one too many, the nearest to the root first.

    Examples:
        >>> from logging import Filter
        >>> old = Filter("app")
        >>> del old.nlen  # as if an earlier release had not set it
        >>> print(*safepickle.compare_attributes({"filter": old}))
        $['filter'] (logging.Filter) lacks nlen, which its __init__ sets
    """
    known: dict[type, tuple[dict[str, None], set[str]]] = {}
    changed: list[ChangedObject] = []
    traversal = Traversal(obj, BasePickler(io.BytesIO()))
    for number, _ in traversal:
        value = traversal.walk.objects[number]
        cls = type(value)
        if issubclass(cls, type) or not _is_of_python(cls):
            continue
        if cls not in known:
            known[cls] = _attributes_of(cls)
        wanted, mentioned = known[cls]
        own = getattr(value, "__dict__", None) if cls.__dictoffset__ else None
        lacking = tuple(name for name in wanted if not _has(value, name))
        unknown = tuple(name for name in own or () if isinstance(name, str) and name not in mentioned)
        if lacking or unknown:
            changed.append(ChangedObject(traversal.walk.path(number), dotted_name(cls), lacking, unknown))
    return changed


def _is_of_python(cls: type) -> bool:
    """Whether a class, or one that it inherits from, says in Python what its instances have."""
    return any(isinstance(vars(base).get("__init__"), types.FunctionType) for base in cls.__mro__)


def _attributes_of(cls: type) -> tuple[dict[str, None], set[str]]:
    """Return what ``__init__`` sets, in order, and all the names that a class mentions."""
    wanted: dict[str, None] = {}
    mentioned: set[str] = set()
    for base in cls.__mro__:
        mentioned |= set(vars(base))
        if base.__flags__ & _HEAP_TYPE:
            mentioned |= set(inspect.get_annotations(base))
        for value in vars(base).values():
            for function in _functions_in(value):
                mentioned |= set(_names_in(function.__code__))
    for base in cls.__mro__:
        own = vars(base).get("__init__")
        if isinstance(own, types.FunctionType):
            wanted |= dict.fromkeys(_set_by(own, cls))
            if "__init__" not in own.__code__.co_names:
                # Those of the bases are not called.
                break
    for fields in ("__dataclass_fields__", "__attrs_attrs__"):
        found = getattr(cls, fields, ())
        names = [field if isinstance(field, str) else field.name for field in found]
        wanted |= dict.fromkeys(names)
        mentioned |= set(names)
    return wanted, mentioned | set(wanted)


def _set_by(function: types.FunctionType, cls: type) -> Iterator[str]:
    """Yield the attributes that a method sets on its object, and those that methods it calls on it do."""
    methods = [function]
    for method in methods:
        code = method.__code__
        if not code.co_argcount:
            continue
        receiver = code.co_varnames[0]
        loaded = False
        for instruction in dis.get_instructions(code):
            if loaded and instruction.opname == "STORE_ATTR":
                yield str(instruction.argval)
            elif loaded and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                called = inspect.getattr_static(cls, str(instruction.argval), None)
                if isinstance(called, types.FunctionType) and called not in methods:
                    methods.append(called)
            argument = instruction.argval
            # From 3.13 on one instruction may load two variables.
            last = argument[-1] if isinstance(argument, tuple) and argument else argument
            loaded = ("LOAD_FAST" in instruction.opname or instruction.opname == "LOAD_DEREF") and last == receiver


def _functions_in(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, property):
        candidates = [value.fget, value.fset, value.fdel]
    else:
        candidates = [getattr(value, "__func__", getattr(value, "func", value))]
    for candidate in candidates:
        if isinstance(candidate, types.FunctionType):
            yield candidate


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            # getattr(self, "name"), and the names that __getstate__ deletes.
            yield constant
        elif isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _has(obj: Any, name: str) -> bool:
    absent = object()
    found = inspect.getattr_static(obj, name, absent)
    if isinstance(found, types.MemberDescriptorType):
        # A slot, which may be empty.
        return hasattr(obj, name)
    if found is not absent or not hasattr(type(obj), "__getattr__"):
        return found is not absent
    try:
        return hasattr(obj, name)
    except Exception:
        return False
