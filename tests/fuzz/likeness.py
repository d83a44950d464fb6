"""Tell whether two loads gave the same graph, in time linear in the smaller one, and touch all of it on the way."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import fractions
import pathlib
import re
import sys
import types
import uuid
import weakref
from collections import deque
from typing import Any

from fuzz.watching import Finding

_NODES = 20_000
_LEAVES = (
    *(int, float, complex, str, bytes, bytearray, bool, type(None), type(Ellipsis), type(NotImplemented), range),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
    *(decimal.Decimal, fractions.Fraction, pathlib.PurePath, uuid.UUID),
)
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def compare(first: Any, second: Any) -> None:
    """Compare two graphs.

    Raises:
        Finding: They differ.
    """
    todo = [(first, second)]
    met: set[tuple[int, int]] = set()
    held: list[Any] = []  # keeps made tuples alive, so that an id stays its own
    while todo and len(met) < _NODES:
        left, right = todo.pop()
        if (id(left), id(right)) in met:
            continue
        met.add((id(left), id(right)))
        kind = type(left)
        if kind is not type(right):
            raise _difference(f"{kind.__name__} and {type(right).__name__}")
        if kind in _PROXIES:
            continue
        parts = _parts(left), _parts(right)
        held += parts
        if len(parts[0]) != len(parts[1]):
            raise _difference(f"the length of a {kind.__name__}")
        if not parts[0]:
            if _leaf(left) != _leaf(right):
                raise _difference(f"the value of a {kind.__name__}")
        else:
            todo.extend(zip(*parts, strict=True))


def _difference(what: str) -> Finding:
    return Finding("disagreement", f"the guard and the C unpickler differ: {what}")


def _parts(obj: Any) -> list[Any]:
    """What an object is made of; nothing for a leaf."""
    kind = type(obj)
    if issubclass(kind, _NAMED):
        return []
    parts: list[Any] = []
    if issubclass(kind, tuple):
        parts += tuple.__iter__(obj)
    elif issubclass(kind, list):
        parts += list.__iter__(obj)
    elif issubclass(kind, dict):
        parts += dict.keys(obj)
        parts += dict.values(obj)
    elif issubclass(kind, (set, frozenset)):
        base = set if issubclass(kind, set) else frozenset
        parts.append(sorted(_text(member) for member in base.__iter__(obj)))
    elif issubclass(kind, deque):
        parts += deque.__iter__(obj)
        parts.append(obj.maxlen)
    elif issubclass(kind, weakref.ref):
        parts.append(weakref.ref.__call__(obj))
    elif issubclass(kind, BaseException):
        parts.append(obj.args)
    elif issubclass(kind, slice):
        parts += [obj.start, obj.stop, obj.step]
    elif kind.__module__.partition(".")[0] == "numpy":
        return _array_parts(obj)
    elif "torch" in sys.modules and isinstance(obj, sys.modules["torch"].Tensor):
        return _tensor_parts(obj)
    elif kind.__module__ == "torch.storage":
        # Whether it is filled yet torch notes in an attribute, and never takes the note back.
        untyped = getattr(obj, "_untyped_storage", obj)
        return [
            untyped.nbytes(),
            bytes(untyped) if untyped.nbytes() < 1 << 16 and untyped.device.type == "cpu" else None,
        ]
    if not issubclass(kind, _LEAVES):
        parts += _attributes(obj)
    return parts


def _attributes(obj: Any) -> list[Any]:
    found = []
    with contextlib.suppress(AttributeError):
        found.append(object.__getattribute__(obj, "__dict__"))
    for base in type(obj).__mro__:
        for member in vars(base).values():
            # Two slots of weak references hold the ids of their referents.
            if isinstance(member, types.MemberDescriptorType) and member.__name__ not in ("_id", "__weakref__"):
                try:
                    found.append(member.__get__(obj))
                except AttributeError:
                    found.append(None)
    return found


def _array_parts(array: Any) -> list[Any]:
    dtype = getattr(array, "dtype", None)
    if dtype is None or not hasattr(array, "tobytes"):
        return [repr(array)]
    parts = [repr(dtype), repr(array.shape), repr(array.strides)]
    if array.nbytes < 1 << 16:
        parts += [array.tolist()] if dtype.hasobject else [array.tobytes()]
    elif array.size:
        parts += [repr(array.flat[0]), repr(array.flat[-1])]
    return parts


def _tensor_parts(tensor: Any) -> list[Any]:
    parts = [repr(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, str(tensor.device), str(tensor.layout)]
    try:
        parts += [tensor.stride(), tensor.storage_offset(), tensor.untyped_storage().nbytes()]
        if tensor.device.type == "cpu" and tensor.untyped_storage().nbytes() < 1 << 16:
            parts.append(bytes(tensor.untyped_storage()))
            if tensor.numel() < 1 << 12:
                repr(tensor)
    except (RuntimeError, NotImplementedError):
        pass  # sparse and nested tensors have no storage to look at
    return [*parts, *_attributes(tensor)]


def _leaf(obj: Any) -> str:
    kind = type(obj)
    if issubclass(kind, _NAMED):
        return str(getattr(obj, "__qualname__", kind.__name__))
    if issubclass(kind, (bytes, bytearray, str)):
        return f"{kind.__name__} {obj!r}"
    if issubclass(kind, int):
        return f"{kind.__name__} {int.__index__(obj):x}"
    return _text(obj)


def _text(obj: Any) -> str:
    """A text without addresses; of containers, and of what has no text of its own or not yet, the type."""
    kind = type(obj)
    if kind is int:
        return f"{obj:x}"
    if kind in (float, complex, str, bytes, bool, type(None)):
        return repr(obj)
    if issubclass(kind, _LEAVES) and not issubclass(kind, (int, bytearray)):
        with contextlib.suppress(AttributeError):  # an instance without its state
            return re.sub(r" at 0x[0-9a-f]+", "", repr(obj))
    return kind.__name__
