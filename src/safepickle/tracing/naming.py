"""Edges and paths: how a person would type the way from one object to another.

An edge leads from an object to one that its pickle contains; a path is a chain of edges from the root, ``$``. Put the
root's name for ``$`` and the path can be evaluated. This module names what a walk has found; it finds nothing itself,
runs no code of the objects that it names, and knows nothing of picklers.
"""

from __future__ import annotations

import keyword
import math
import sys
import types
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from safepickle.messages import dotted_name
from safepickle.rebuild import Tombstone
from safepickle.weak_types import find_weak_type

__all__ = [
    "NEAREST",
    "Edge",
    "Names",
    "attribute_edge",
    "instance_dict",
    "is_attribute",
    "item_edge",
    "join",
    "key_edge",
    "kind_of",
    "name_children",
    "weak_edges",
]

Edge: TypeAlias = "int | str | tuple[str, str] | None"
"""An index, a suffix (``.attr``, ``['key']``, ``()``), or what to write before and behind the path so far."""

NEAREST: Final = None
"""The edge to something that nobody could type: the path ends at its owner, the nearest thing that one could."""

Names: TypeAlias = dict[int, Edge]
"""Edges by the id of what they lead to."""

_LONGEST_KEY = 100
_KINDS: Final[dict[type, str]] = {
    weakref.ref: "weakref.ref",
    weakref.ProxyType: "weakref.proxy",
    weakref.CallableProxyType: "weakref.proxy",
    weakref.WeakSet: "weakref.WeakSet",
    Tombstone: "safepickle.Tombstone",
}
_LITERALS = (str, int, bytes, bool, type(None), float)


def kind_of(reference: object) -> str:
    """Name the class of a weak reference as a person does."""
    return _KINDS.get(type(reference)) or dotted_name(type(reference))


def join(edges: Iterable[Edge], begun: str = "$") -> str:
    """Join the edges from the root to an object, or from where a path has begun, into what a person would type."""
    path = begun
    for edge in edges:
        if edge is NEAREST:
            break
        if isinstance(edge, int):
            path = f"{path}[{edge}]"
        elif isinstance(edge, str):
            path += edge
        else:
            path = f"{edge[0]}{path}{edge[1]}"
    return path


def key_edge(mapping: object, key: object, position: int) -> Edge:
    """Name the value of a mapping under `key`, which stands at `position`."""
    literal = _literal(key)
    return ("list(", f".values())[{position}]") if literal is None else f"[{literal}]"


def item_edge(position: int) -> Edge:
    """Name a member of what can be iterated, but not indexed; a key of a mapping, for one."""
    return ("list(", f")[{position}]")


def attribute_edge(name: object) -> Edge:
    """Name an attribute of the instance dictionary."""
    if type(name) is str:
        if name.isidentifier() and not keyword.iskeyword(name):
            return f".{name}"
        return f".__dict__[{name!r}]"
    return NEAREST


def name_children(obj: object, value: object, typed: bool, protocol: int, wanted: Sequence[object]) -> list[Edge]:
    """Name the children that the reduce value of an object has shown.

    Args:
        obj: What was reduced.
        value: Its reduce value, with ``listitems`` and ``dictitems`` as lists.
        typed: The value came from ``obj.__reduce_ex__(protocol)``, so that a person can type that, too.
        protocol: What `obj` was reduced with.
        wanted: The children, in any order.

    Returns:
        An edge for each of `wanted`.
    """
    names: Names = {}
    missing = {id(child) for child in wanted}
    for found in _sources(obj, value, typed, protocol, missing):
        for key, edge in found:
            if key in missing and key not in names:
                names[key] = edge
        if len(names) == len(missing):
            break
    return [names.get(id(child)) for child in wanted]


def _sources(
    obj: object, value: object, typed: bool, protocol: int, missing: set[int]
) -> Iterator[Iterable[tuple[int, Edge]]]:
    """Yield names, the best first; later ones are computed only if children are still without one."""
    own = instance_dict(obj)
    if issubclass(type(obj), type):
        yield _class_names(obj, own)
    else:
        yield [(id(child), attribute_edge(name)) for name, child in own.items() if id(child) in missing]
    yield ((id(type(obj)), ".__class__"),)
    special = _SPECIAL.get(type(obj))
    if special is not None:
        yield special(obj, value)
    yield ((id(child), attribute_edge(name)) for name, child in _members(obj))
    yield _item_names(obj, value, missing)
    yield _known_names(obj, value, missing)
    yield _deep_names(own, missing)
    if typed:
        yield _reduce_names(obj, value, protocol)


def instance_dict(obj: object) -> dict[Any, Any]:
    """Return the ``__dict__`` of an object without running code of its class."""
    if issubclass(type(obj), type):
        return dict(type.__dict__["__dict__"].__get__(obj))
    try:
        found = object.__getattribute__(obj, "__dict__")
    except Exception:
        return {}
    return found if type(found) is dict else {}


def _members(obj: object) -> Iterator[tuple[str, Any]]:
    """Yield what slots hold, a class's own and those of types written in C, such as ``partial.func``."""
    for cls in type(obj).__mro__:
        for descriptor in list(cls.__dict__.values()):
            if type(descriptor) is types.MemberDescriptorType:
                try:
                    yield descriptor.__name__, descriptor.__get__(obj)
                except Exception:
                    continue


def is_attribute(obj: object, part: object) -> bool:
    """Tell whether an attribute of an object holds `part`, so that it is more than a part of its reduce value."""
    if any(part is child for child in instance_dict(obj).values()) or any(part is child for _, child in _members(obj)):
        return True
    special = _SPECIAL.get(type(obj))
    return special is not None and any(key == id(part) for key, _ in special(obj, ()))


def _item_names(obj: Any, value: Any, missing: set[int]) -> Iterator[tuple[int, Edge]]:
    if len(value) > 3 and value[3]:
        yield from _sequence_names(value[3], "", missing)
    if len(value) > 4 and value[4]:
        yield from _mapping_names(obj, value[4], missing)


def _sequence_names(items: Iterable[Any], prefix: str, missing: set[int]) -> Iterator[tuple[int, Edge]]:
    for position, item in enumerate(items):
        if id(item) in missing:
            yield id(item), f"{prefix}[{position}]"


def _mapping_names(mapping: object, pairs: Iterable[tuple[Any, Any]], missing: set[int]) -> Iterator[tuple[int, Edge]]:
    for position, (key, item) in enumerate(pairs):
        if id(item) in missing:
            yield id(item), key_edge(mapping, key, position)
        if id(key) in missing:
            yield id(key), item_edge(position)


def _known_names(obj: Any, value: Any, missing: set[int]) -> Iterator[tuple[int, Edge]]:
    """Name the contents of subclasses of builtins, and of other libraries' containers."""
    cls = type(obj)
    if issubclass(cls, set | frozenset):
        base = set if issubclass(cls, set) else frozenset
        for position, member in enumerate(base.__iter__(obj)):
            if id(member) in missing:
                yield id(member), item_edge(position)
    elif issubclass(cls, dict):
        yield from _mapping_names(obj, dict.items(obj), missing)
    elif issubclass(cls, tuple):
        yield from _sequence_names(tuple.__iter__(obj), "", missing)
    elif issubclass(cls, list):
        yield from _sequence_names(list.__iter__(obj), "", missing)
    elif issubclass(cls, BaseException):
        arguments = BaseException.args.__get__(obj)  # type: ignore[attr-defined]
        yield id(arguments), ".args"
        yield from _sequence_names(arguments, ".args", missing)
    elif cls is getattr(sys.modules.get("numpy"), "ndarray", None):
        yield from _array_names(obj, value, missing)


def _array_names(array: Any, value: Any, missing: set[int]) -> Iterator[tuple[int, Edge]]:
    """Name the elements of a numpy array of objects.

    Source:
        ``ndarray.__reduce__`` gives the state ``(version, shape, dtype, is Fortran order, list of elements)``.
    """
    import numpy

    state = value[2] if len(value) > 2 else None
    if type(state) is not tuple or len(state) != 5 or type(state[4]) is not list or array.dtype.fields:
        return
    order = "F" if state[3] else "C"
    for position, item in enumerate(state[4]):
        if id(item) not in missing:
            continue
        indices = numpy.unravel_index(position, array.shape, order=order)  # type: ignore[call-overload]
        yield id(item), "[" + (", ".join(str(int(index)) for index in indices) or "()") + "]"


def _deep_names(own: dict[Any, Any], missing: set[int]) -> Iterator[tuple[int, Edge]]:
    """Name what stands in a list, tuple or dict that is an attribute: a reducer may have copied it out of there."""
    for name, container in own.items():
        prefix = attribute_edge(name)
        if not isinstance(prefix, str):
            continue
        if type(container) in (list, tuple):
            yield from _sequence_names(container, prefix, missing)
        elif type(container) is dict:
            for key, edge in _mapping_names(container, container.items(), missing):
                if isinstance(edge, str):
                    yield key, prefix + edge


def _reduce_names(obj: Any, value: Any, protocol: int) -> Iterator[tuple[int, Edge]]:
    """Name what no attribute leads to by the calls that pickle makes."""
    cls = type(obj)
    call = f".__reduce_ex__({protocol})"
    state = value[2] if len(value) > 2 else None
    if state is not None:
        own_getstate = getattr(cls, "__getstate__", None) is not object.__getstate__
        default = getattr(value[0], "__name__", "") in ("__newobj__", "__newobj_ex__", "_reconstructor")
        yield from _part_names(state, ".__getstate__()" if own_getstate and default else f"{call}[2]", 2)
    yield id(value[0]), f"{call}[0]"
    yield from _part_names(value[1], f"{call}[1]", 2)
    if len(value) > 5:
        yield id(value[5]), f"{call}[5]"


def _part_names(part: Any, prefix: str, depth: int) -> Iterator[tuple[int, Edge]]:
    yield id(part), prefix
    if depth < 0:
        return
    if type(part) in (list, tuple):
        for position, item in enumerate(part):
            yield from _part_names(item, f"{prefix}[{position}]", depth - 1)
    elif type(part) is dict:
        for position, (key, item) in enumerate(part.items()):
            edge = key_edge(part, key, position)
            if isinstance(edge, str):
                yield from _part_names(item, prefix + edge, depth - 1)


def _function_names(function: Any, value: Any) -> Iterator[tuple[int, Edge]]:
    """Name what a function that is pickled by value takes along.

    Source:
        ``_function_getstate`` in cloudpickle 3: the state is ``(__dict__, attributes)``, and of the globals the
        attributes hold those that the code names.
    """
    for name in ("__code__", "__closure__", "__defaults__", "__kwdefaults__", "__annotations__"):
        yield id(getattr(function, name)), f".{name}"
    state = value[2] if len(value) > 2 else None
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        yield id(state[1].get("__globals__")), ".__globals__"


def _class_names(cls: object, own: dict[Any, Any]) -> Iterator[tuple[int, Edge]]:
    for position, base in enumerate(type.__dict__["__bases__"].__get__(cls)):
        yield id(base), f".__bases__[{position}]"
    for name, item in own.items():
        # Asked for as attributes, these would be bound.
        bound = isinstance(item, classmethod | staticmethod)
        yield id(item), f".__dict__[{name!r}]" if bound else attribute_edge(name)


def _cell_names(cell: Any, value: object) -> Iterator[tuple[int, Edge]]:
    try:
        yield id(cell.cell_contents), ".cell_contents"
    except ValueError:
        return


def _code_names(code: types.CodeType, value: object) -> Iterator[tuple[int, Edge]]:
    yield id(code.co_consts), ".co_consts"


def _finalize_names(finalizer: Any, value: object = None) -> Iterator[tuple[int, Edge]]:
    found = finalizer.peek()
    if found is not None:
        _, function, args, kwargs = found
        yield id(function), ".peek()[1]"
        yield id(args), ".peek()[2]"
        yield id(kwargs), ".peek()[3]"
        yield from ((id(item), f".peek()[2][{position}]") for position, item in enumerate(args))
        yield from ((id(item), f".peek()[3][{name!r}]") for name, item in kwargs.items())


_SPECIAL: Final[dict[type, Any]] = {
    types.FunctionType: _function_names,
    types.CellType: _cell_names,
    types.CodeType: _code_names,
    weakref.finalize: _finalize_names,
}


def weak_edges(reference: object) -> Names:
    """Name what a weak reference or a weak container leads to: referents, and what hangs on them.

    Args:
        reference: Anything that a dump has to decide about. A proxy is its referent to whoever types its path, so its
            edge is empty.
    """
    weak = find_weak_type(type(reference))
    if weak is None or weak.kind == "proxy":
        return {}
    names: Names = {}
    for position, entry in enumerate(weak.snapshot(reference)):
        referent, hanging = entry
        if weak.kind == "set":
            names[id(referent)] = item_edge(position)
        elif weak.is_container:
            key, item = weak.item(entry)
            names.setdefault(id(item), key_edge(reference, key, position))
            names.setdefault(id(key), item_edge(position))
        elif weak.kind == "method":
            names[id(referent)] = ("().__func__", "().__self__")[position]
        elif weak.kind == "reference":
            names[id(referent)] = "()"
            names.update((id(callback), ".__callback__") for callback in hanging)
        elif weak.kind == "finalizer":
            names[id(referent)] = ".peek()[0]"
            names.update(_finalize_names(reference))
        elif weak.kind == "handle":
            names.update(_handle_names(reference))
    return names


def _handle_names(handle: Any) -> Iterator[tuple[int, Edge]]:
    yield id(handle.hooks_dict_ref()), ".hooks_dict_ref()"
    yield from ((id(other()), f".extra_dict_ref[{position}]()") for position, other in enumerate(handle.extra_dict_ref))


def _literal(key: object, depth: int = 2) -> str | None:
    """Return the literal that a person would type for a key, or None if nobody would type it."""
    if type(key) is tuple and depth:
        parts = [_literal(part, depth - 1) for part in key]
        if any(part is None for part in parts):
            return None
        text = "(" + ", ".join(part or "" for part in parts) + ("," if len(parts) == 1 else "") + ")"
        return text if len(text) <= _LONGEST_KEY else None
    if type(key) not in _LITERALS or (type(key) in (str, bytes) and len(key) > _LONGEST_KEY):  # type: ignore[arg-type]
        return None
    if type(key) is float and not math.isfinite(key):
        return None
    if type(key) is int and key.bit_length() > 128:
        return None
    return repr(key)
