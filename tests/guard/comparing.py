"""Tell whether two loads gave the same."""

from __future__ import annotations

import pickle
import re
import weakref
from typing import Any

import safepickle


def image(obj: Any) -> Any:
    """Bytes or text by which two equal objects compare equal, also where == is no help."""
    return pickle.loads(pickle.dumps(_shape(obj)))


def _shape(obj: Any, depth: int = 0) -> Any:
    if type(obj) in (list, tuple, set, frozenset) and depth < 20:
        parts = [_shape(part, depth + 1) for part in obj]
        return [type(obj).__name__, sorted(parts, key=repr) if type(obj) in (set, frozenset) else parts]
    if isinstance(obj, dict) and depth < 20:
        items = [[_shape(key, depth + 1), _shape(item, depth + 1)] for key, item in dict.items(obj)]
        return [type(obj).__name__, items]
    if isinstance(obj, safepickle.Tombstone):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(obj))
    if isinstance(obj, BaseException):
        return [type(obj).__name__, _shape(obj.args, depth + 1), _shape(obj.__dict__, depth + 1)]
    if type(obj).__module__.startswith("numpy") and hasattr(obj, "dtype") and hasattr(obj, "tolist"):
        return [str(obj.dtype), repr(getattr(obj, "shape", None)), repr(obj.tolist())]
    if type(obj).__repr__ is object.__repr__:
        return [type(obj).__name__, _shape(getattr(obj, "__dict__", None), depth + 1)]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(obj))


def difference(first: Any, second: Any) -> str:
    """Say where two graphs of plain data and instances differ, in what is shared as well; nothing if they do not."""
    todo = [(first, second)]
    twins: dict[int, int] = {}
    mirrored: dict[int, int] = {}
    while todo:
        left, right = todo.pop()
        kind = type(left)
        if kind is not type(right):
            return f"{kind.__name__} and {type(right).__name__}"
        if kind in (int, bool, float, str, type(None), type) or (kind is bytes and len(left) < 2):
            # Not a number equals nothing, and -0.0 equals 0.0. Texts and short bytes are shared as the interpreter likes.
            if repr(left) != repr(right):
                return f"{left!r} and {right!r}"
            continue
        is_known = id(left) in twins
        if twins.setdefault(id(left), id(right)) != id(right) or mirrored.setdefault(id(right), id(left)) != id(left):
            return f"what shares a {kind.__name__}"
        if is_known:
            continue
        if kind in (bytes, bytearray):
            if left != right:
                return f"{left!r} and {right!r}"
            continue
        parts = _parts(left), _parts(right)
        if len(parts[0]) != len(parts[1]):
            return f"the length of a {kind.__name__}"
        todo += zip(*parts, strict=True)
    return ""


def _parts(obj: Any) -> list[Any]:
    if type(obj) is dict:
        return [*obj, *obj.values()]
    if type(obj) in (list, tuple):
        return [*obj]
    if type(obj) in (set, frozenset):
        return sorted(obj, key=repr)
    if type(obj) is weakref.ref:
        return [obj()]
    return [vars(obj)]
