"""What `safepickle.diff` sees in one value of a run with symbols: its type, its text, and what lies in it.

Names, not positions, say which part of one value belongs to which part of another: keys of dictionaries, attributes,
and what a member of a set says of itself. No code of the file runs.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from safepickle.cpython import items_of_simple_queue
from safepickle.guard.blob import Blob
from safepickle.guard.inspect_backend import Symbol
from safepickle.guard.rules import Grant
from safepickle.guard.torch_inspect import Run
from safepickle.rebuild import Tombstone, UnpicklableTombstone
from safepickle.report.elements import value_of
from safepickle.report.tensor_views import TensorView, view_of, view_of_scalar
from safepickle.storage.contents import StoredArray
from safepickle.tracing.naming import NEAREST, Edge, attribute_edge, key_edge, weak_edges
from safepickle.tracing.shortcuts import MODULE_MEMBERS, is_module_state, member_edge
from safepickle.weak_types import PROXIES, find_weak_type

__all__ = ["PLAIN", "Child", "Sight", "fingerprint", "look_at_value", "text_of"]

PLAIN: Final = frozenset({int, float, bool, complex, type(None), str})
"""Types of numbers, texts and None."""

_BYTES: Final = (bytes, bytearray, Blob)
_LONGEST_TEXT: Final = 60
_LONGEST_BYTES: Final = 24
_PLAIN_ARGUMENTS: Final = 4
_OF_CLASS: Final = 4
"""Arguments of what makes a class by value, before the one that is made up anew in every process."""

_FINGERPRINT: Final = 200
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_SPARSE: Final = {
    2: ("._indices()", "._values()"),
    3: (".crow_indices()", ".col_indices()", ".values()"),
}
"""Where the tensors of a sparse tensor are found, by how many there are."""


class Child(NamedTuple):
    """Something that lies in a value.

    Attributes:
        key: What it has in common with what stands in its place in another value.
        edge: How a person gets there.
        value: It.
    """

    key: Hashable
    edge: Edge
    value: Any


@dataclass(slots=True)
class Sight:
    """What is seen in a value.

    Attributes:
        kind: ``"tensor"``, ``"value"``, ``"tombstone"``, ``"strong copy"``, ``"recipe"`` or ``"entry"``: see `Change`.
        label: Its type.
        text: What is shown of a value in which nothing lies, or None.
        token: What two such values have in common if they are the same.
        view: Of a tensor.
        children: What lies in it, unless that is `unordered`.
        unordered: The members of what has no order.
        is_code: Whether it is a function or a class that travels by value, of which only is told whether it differs.
    """

    kind: str
    label: str
    text: str | None = None
    token: Any = None
    view: TensorView | None = None
    children: list[Child] | None = None
    unordered: list[Any] | None = None
    is_code: bool = False


def text_of(value: Any) -> str:
    """Write a number or a text, the middle of a long one left out."""
    kind = type(value)
    if kind is str and len(value) > _LONGEST_TEXT:
        return f"{value[:20]!r} ... {value[-20:]!r} ({len(value):,} characters)"
    if kind is int and value.bit_length() > 256:
        return f"an integer of {value.bit_length():,} bits"
    return repr(value)


def look_at_value(value: Any, run: Run | None) -> Sight:
    """Say what a value is, and what lies in it."""
    kind = type(value)
    if kind in PLAIN:
        return Sight("value", kind.__name__, text_of(value), value)
    if kind in _BYTES:
        return Sight("value", "bytes", _text_of_bytes(value), value)
    if kind is Grant:
        return Sight("value", "class", value.key, value.key)
    if kind is Tombstone or kind is UnpicklableTombstone:
        text = f"{value.reason}, was {value.referent_type or 'of an unknown type'}"
        return Sight("tombstone", "Tombstone", text, text)
    if kind is Symbol or kind is StoredArray:
        view = view_of(value, run)
        if view is not None:
            has_attributes = kind is Symbol and type(value.state) is dict
            return Sight("tensor", str(view), view=view, children=list(_state(value)) if has_attributes else [])
        return _of_symbol(value, run) if kind is Symbol else Sight("value", "array", f"array of {value.dtype}")
    return _of_object(value)


def _text_of_bytes(value: Any) -> str:
    if type(value) is not Blob and len(value) <= _LONGEST_BYTES:
        return repr(bytes(value))
    return f"{len(value):,} bytes"


def _of_symbol(symbol: Symbol, run: Run | None) -> Sight:
    label, info = _class_name(symbol), symbol.info
    scalar = view_of_scalar(symbol)
    if scalar is not None:
        return _of_scalar(symbol, scalar)
    if info is not None and info.kind == "recipe" and type(symbol.state) is tuple:
        return Sight("recipe", label, children=_parts(symbol.state, "recipe"))
    sparse = _sparse_parts(symbol)
    if sparse is not None and info is not None:
        return Sight("entry", f"sparse {info.dtype}{list(info.shape)}", children=sparse)
    is_code = _is_code(symbol)
    if not (symbol.items or symbol.pairs or symbol.cls or symbol.state is not None or is_code):
        shown = _call(symbol)
        if shown is not None:
            return Sight("value", label, shown, shown)
    return Sight("entry", label, children=list(_symbol_children(symbol)), is_code=is_code)


def _of_scalar(symbol: Symbol, view: TensorView) -> Sight:
    """Show a scalar of numpy's, as Python's own number where it is one."""
    content = symbol.arguments[1]
    if type(content) is str:
        content = content.encode("latin-1")
    code = view.dtype.lstrip(">")[:1]
    if type(content) is bytes and code in ("S", "U"):
        encoding = "latin-1" if code == "S" else "utf-32-be" if view.dtype[0] == ">" else "utf-32-le"
        return Sight("value", "numpy scalar", text_of(content.decode(encoding, "replace").rstrip("\0")), content)
    shown = value_of(view)
    return Sight("value", f"numpy.{view.dtype}", _text_of_bytes(content) if shown is None else shown, content)


def _call(symbol: Symbol) -> str | None:
    """Write what was made by a call with a few plain arguments alone, such as a device or a member of an enum."""
    parts = []
    for argument in symbol.arguments:
        if type(argument) is tuple and all(type(part) in PLAIN for part in argument) and len(argument) < 16:
            parts.append(f"({', '.join(map(text_of, argument))})")
        elif type(argument) in PLAIN:
            parts.append(text_of(argument))
        else:
            return None
    name = symbol.grant.key.replace(":", ".") if symbol.grant is not None and symbol.grant.module else "object"
    return f"{name}({', '.join(parts)})" if 0 < len(parts) <= _PLAIN_ARGUMENTS else None


def _class_name(symbol: Symbol) -> str:
    if _is_code(symbol):
        # cloudpickle's functions that make a class take its metaclass, its name, ...
        name = symbol.arguments[1] if len(symbol.arguments) > 1 else None
        return f"{name}, a class by value" if type(name) is str else "code by value"
    if symbol.grant is not None and symbol.grant.module:
        return symbol.grant.key.replace(":", ".")
    return _class_name(symbol.cls) if type(symbol.cls) is Symbol else "object"


def _is_code(symbol: Symbol) -> bool:
    """Tell whether it is a function, a class or a part of one, as cloudpickle writes them by value."""
    made = symbol.cls if type(symbol.cls) is Grant else symbol.grant
    return made is not None and (made.module.startswith("cloudpickle.") or made.name == "rebuild_class")


def _sparse_parts(symbol: Symbol) -> list[Child] | None:
    """Return the tensors that a sparse tensor is made of, or None for anything else."""
    if symbol.grant is None or symbol.grant.name != "_rebuild_sparse_tensor" or len(symbol.arguments) != 2:
        return None
    tensors = [
        part for part in symbol.arguments[1] if type(part) is Symbol and part.info and part.info.kind == "tensor"
    ]
    edges = _SPARSE.get(len(tensors), ())
    return [Child(edge, edge, tensor) for edge, tensor in zip(edges, tensors, strict=False)]


def _symbol_children(symbol: Symbol) -> Iterator[Child]:
    yield from _positions(symbol.items)
    yield from _pairs(symbol, zip(symbol.pairs[::2], symbol.pairs[1::2], strict=False))
    state, info = symbol.state, symbol.info
    if type(state) is tuple and info is not None and info.kind == "array" and type(state[-1]) is list:
        yield from _parts(state[-1], "element")
        return
    yield from _state(symbol)
    yield from _parts(symbol.arguments[:_OF_CLASS] if _is_code(symbol) else symbol.arguments, "argument")
    if type(symbol.cls) is Symbol:
        yield Child(("class",), NEAREST, symbol.cls)


def _state(symbol: Symbol) -> Iterator[Child]:
    """Name what lies in a state: attributes, those of slots, or what a class of its own wants there."""
    state = symbol.state
    if type(state) is dict:
        yield from _attributes(symbol, state)
    elif type(state) is tuple:
        for position, part in enumerate(state):
            if type(part) is dict and all(type(name) is str for name in part):
                for key, edge, value in _attributes(symbol, part):
                    yield Child((position, key), edge, value)
            elif part is not None:
                yield Child(("state", position), NEAREST, part)
    elif state is not None:
        yield Child("state", NEAREST, state)


def _attributes(symbol: Symbol, state: dict[Any, Any]) -> Iterator[Child]:
    """Name attributes, and what a torch module, known by the dictionaries that it keeps, finds as its attributes."""
    holders = MODULE_MEMBERS if is_module_state(state) else ()
    kinds = {symbol.grant.name.rpartition(".")[2]} if symbol.grant is not None else set()
    for holder in holders:
        for position, (name, child) in enumerate(state[holder].items()):
            edge = member_edge(state[holder], name, position, kinds)
            if edge is NEAREST:
                edge = f".{holder}{key_edge(state[holder], name, position)}"
            yield Child((holder, name), edge, child)
    for name, child in state.items():
        if name not in holders:
            yield Child(("attribute", name), attribute_edge(name), child)


def _of_object(value: Any) -> Sight:
    """Look at a real object: a container, or a value of the standard library."""
    kind = type(value)
    weak = find_weak_type(kind)
    label = kind.__name__
    if weak is not None:
        edges = weak_edges(value)
        found = weak.snapshot(value)
        parts = [part for entry in found for part in (entry[0], *entry[1])]
        if weak.is_container and weak.kind != "weak values":
            return Sight("entry", label, unordered=parts)
        children = [Child(number, edges.get(id(part), NEAREST), part) for number, part in enumerate(parts)]
        if weak.kind == "weak values":
            children = list(_pairs(value, ((entry[1][0], entry[0]) for entry in found)))
        return Sight("strong copy" if label == "StrongRef" else "entry", label, children=children)
    children = []
    if issubclass(kind, dict):
        children += _pairs(value, dict.items(value))
    elif issubclass(kind, (list, tuple, deque)):
        children += _positions(value)
    elif kind is SimpleQueue:
        children += _parts(items_of_simple_queue(value), "item")
    elif issubclass(kind, BaseException):
        children.append(Child("args", ".args", value.args))
    elif issubclass(kind, (set, frozenset)):
        return Sight("entry", label, unordered=list(value))
    for name in ("maxlen", "default_factory") if issubclass(kind, (deque, defaultdict)) else ():
        children.append(Child(("member", name), f".{name}", getattr(value, name, None)))
    if kind not in PROXIES and not issubclass(kind, type):
        attributes = getattr(value, "__dict__", None)
        for name, item in attributes.items() if type(attributes) is dict else ():
            children.append(Child(("attribute", name), attribute_edge(name), item))
    if not children and not issubclass(kind, (dict, list, tuple, deque, BaseException, SimpleQueue)):
        # A value of the standard library, which the guard makes for real: a date, a decimal number, a path.
        token = _ADDRESS.sub("", repr(value))
        return Sight("value", label, token if len(token) <= _LONGEST_TEXT else f"{token[:_LONGEST_TEXT]}...", token)
    return Sight("entry", label, children=children)


def _positions(items: Iterable[Any]) -> list[Child]:
    return [Child(position, position, item) for position, item in enumerate(items)]


def _parts(items: Iterable[Any], of: str) -> list[Child]:
    """Return what lies in a value where nobody could type how to get at it."""
    return [Child((of, position), NEAREST, item) for position, item in enumerate(items)]


def _pairs(mapping: Any, pairs: Iterable[tuple[Any, Any]]) -> Iterator[Child]:
    twins: dict[str, int] = {}
    for position, (key, item) in enumerate(pairs):
        if _is_literal(key):
            yield Child(("key", key), key_edge(mapping, key, position), item)
            continue
        name = fingerprint(key)
        twins[name] = number = twins.get(name, 0) + 1
        yield Child(("object key", name, number), key_edge(mapping, key, position), item)
        if type(key) is not Grant:
            yield Child(("key itself", name, number), NEAREST, key)


def _is_literal(key: Any) -> bool:
    return (
        (type(key) in PLAIN and key == key) or type(key) is bytes or (type(key) is tuple and all(map(_is_literal, key)))
    )


def fingerprint(value: Any) -> str:
    """Describe a value so that the same one in another file is described alike, whatever its place: at some length."""
    parts: list[str] = []
    waiting: deque[Any] = deque([value])
    while waiting and len(parts) < _FINGERPRINT:
        part = waiting.popleft()
        if type(part) is Child:
            parts.append(str(part.key) if type(part.key) is not str else part.key)
            part = part.value
        if _extent(part) > _FINGERPRINT:
            parts.append(f"{type(part).__name__} of {_extent(part)}")
            continue
        sight = look_at_value(part, None)
        parts.append(sight.label if sight.text is None else f"{sight.label} {sight.text}")
        waiting.extend(sight.children or ())
        if sight.unordered is not None and all(type(member) in PLAIN for member in sight.unordered):
            waiting.extend(sorted(sight.unordered, key=repr))
    return "\n".join(parts)


def _extent(value: Any) -> int:
    """Return how many parts a value has at least."""
    kind = type(value)
    if kind is Symbol:
        state = value.state if type(value.state) in (dict, list, tuple) else ()
        return len(value.items) + len(value.pairs) + len(value.arguments) + len(state)
    return len(value) if issubclass(kind, (dict, list, tuple, set, frozenset, deque)) else 0
