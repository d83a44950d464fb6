"""One object at a time, as the pickler sees it: what it is reduced to, what that takes, what it leads to.

The C pickler itself does the work: it is made to write a single object, while `persistent_id` shows what that object
leads to and keeps the pickler from going there. So the children, their order, the bytes and every error are those of
a real dump; nothing is imitated. This module knows nothing of graphs, and of weak references only that the pickler's
own reducers ask a `Dump` about them.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable
from typing import Any, Final

from safepickle.tracing.naming import NEAREST, Edge, instance_dict, is_attribute, item_edge, key_edge, name_children
from safepickle.tracing.reducing import ReducingPickler
from safepickle.tracing.shortcuts import shortcuts

__all__ = ["ENVELOPE", "MAX_INLINE", "Expander", "Expansion", "fetch_size"]

MAX_INLINE: Final = 256
"""Strings and bytes up to this length belong to what holds them; longer ones are children in their own right."""

_NUMBERS: Final = frozenset({int, bool, float, type(None)})
_STRINGS: Final = frozenset({str, bytes, bytearray})
_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
_PARTS: Final = frozenset({list, tuple, dict})
# What a child costs in an expansion: the number 0, and the code that makes a persistent id of it.
_CHILD_BYTES: Final = 3
ENVELOPE: Final = 12
"""Bytes of PROTO, FRAME and STOP. Below four bytes there is no frame."""

# The first protocol with opcodes of their own for sets and bytes.
_SETS_AND_BYTES: Final = 4
_FRAME: Final = 9


def fetch_size(place: int) -> int:
    """Return the size of the opcode that fetches an object from its place in the memo."""
    return 2 if place < 256 else 5


class Expansion:
    """What one object leads to.

    Attributes:
        children: What the pickler goes on to, in its order, each with the edge that leads there.
        shortcuts: How many of the first children are shortcuts; all of them are met again on a longer way.
        size: Bytes that the object takes in the pickle, its children not counted.
        buffers: Bytes of buffers that it shows to protocol 5, which are in or out of band.
        value: Its reduce value, or None for exact builtins and whatever is pickled by name.
        error: What the pickler raised over this object, or None.
    """

    __slots__ = ("buffers", "children", "error", "shortcuts", "size", "value")

    def __init__(self) -> None:
        self.children: list[tuple[Edge, Any]] = []
        self.shortcuts = 0
        self.size = 0
        self.buffers = 0
        self.value: Any = None
        self.error: Exception | None = None


class Expander:
    """Expands objects one by one.

    Args:
        pickler: Whose reducers and dispatch table decide. It is asked, never made to write.
        protocol: What the objects are reduced with.
        persistent_id: Tells which objects the pickler stores elsewhere, and so never enters.
    """

    def __init__(
        self, pickler: ReducingPickler, protocol: int, persistent_id: Callable[[Any], Any] | None = None
    ) -> None:
        self._pickler = pickler
        self._protocol = protocol
        self._persistent_id = persistent_id
        self._dispatch_table: Any = getattr(pickler, "dispatch_table", {})
        # Strings that have been written, held so that their ids stay theirs: the memo writes each of them once.
        # With how many were written before, by which the place of a string in the memo is guessed.
        self._strings: dict[int, tuple[object, int]] = {}
        self._one_level = _OneLevel(self)
        self.typed = False

    def expand(self, obj: object) -> Expansion:
        """Expand one object; an error of its reducer becomes part of the answer."""
        expansion = Expansion()
        if self._persistent_id is not None:
            try:
                stored = self._persistent_id(obj) is not None
            except Exception as error:
                expansion.error = error
                return expansion
            if stored:
                return expansion
        one_level = self._one_level
        try:
            one_level.run(obj, expansion)
        except Exception as error:
            expansion.error = error
            self._one_level = _OneLevel(self)
        else:
            if one_level.calls > 1000:
                # The memo of a pickler never shrinks, and clearing a large one takes long.
                self._one_level = _OneLevel(self)
            shorter = shortcuts(obj, expansion.children)
            expansion.children[:0] = shorter
            expansion.shortcuts = len(shorter)
        return expansion

    def reduce(self, obj: object) -> Any:
        """Return the reduce value of an object as the C pickler would find it.

        Source:
            The order of ``save`` in CPython 3.11 to 3.13 Modules/_pickle.c.
        """
        self.typed = False
        value = self._pickler.reducer_override(obj)
        if value is not NotImplemented:
            return _materialize(value)
        cls = type(obj)
        if cls is type or cls is types.FunctionType:
            return NotImplemented
        reducer = self._dispatch_table.get(cls)
        if reducer is not None:
            return _materialize(reducer(obj))
        if issubclass(cls, type):
            return NotImplemented
        self.typed = True
        return _materialize(obj.__reduce_ex__(self._protocol))


class _OneLevel(pickle.Pickler):
    """The C pickler, which writes one object and is shown its children."""

    def __init__(self, expander: Expander) -> None:
        self._sink = _Sink()
        protocol = expander._protocol
        super().__init__(self._sink, protocol, buffer_callback=self._see_buffer if protocol >= 5 else None)
        self._expander = expander
        self._strings = expander._strings

    def run(self, obj: object, expansion: Expansion) -> None:
        """Write `obj` alone, and tell what it took and what it leads to."""
        self.calls = -1
        self._fetched = 0
        self._buffers = 0
        self._sink.count = 0
        self._value: Any = None
        self._children: list[tuple[int, Any]] = []
        # What is entered: the object, and the parts of its reduce value; each of them once.
        self._entered = {id(obj)}
        self.clear_memo()
        self.dump(obj)
        written = self._sink.count
        written -= ENVELOPE if written >= ENVELOPE + 3 else ENVELOPE - _FRAME
        expansion.size = written - _CHILD_BYTES * len(self._children) + self._fetched
        expansion.buffers = self._buffers
        expansion.value = self._value
        expansion.children = self._name(obj)

    def persistent_id(self, obj: Any) -> int | None:
        self.calls += 1
        cls = type(obj)
        if cls in _NUMBERS or cls is pickle.PickleBuffer:
            return None
        key = id(obj)
        if key in self._entered:
            self._entered.discard(key)
            return None
        if cls in _STRINGS and len(obj) <= MAX_INLINE:
            strings = self._strings
            if key in strings:
                self._fetched += fetch_size(strings[key][1]) - _CHILD_BYTES
                return 0
            strings[key] = (obj, len(strings))
            return None
        if cls is tuple and not obj:
            return None
        self._children.append((self.calls, obj))
        return 0

    def reducer_override(self, obj: object) -> Any:
        value = self._expander.reduce(obj)
        if type(value) is tuple:
            self._value = value
            self._entered |= _parts(obj, value)
            return _with_iterators(value)
        return value

    def _see_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        self._buffers += memoryview(buffer).nbytes
        return False

    def _name(self, obj: object) -> list[tuple[Edge, Any]]:
        children = self._children
        if not children:
            return []
        if self._value is None:
            if type(obj) not in _CONTAINERS:
                return [(NEAREST, child) for _, child in children]
            if self._expander._protocol < _SETS_AND_BYTES:
                return _contents(obj, {id(child) for _, child in children})
            return _name_contents(obj, children)
        wanted = [child for _, child in children]
        edges = name_children(obj, self._value, self._expander.typed, self._expander._protocol, wanted)
        return list(zip(edges, wanted, strict=True))


def _name_contents(container: Any, children: list[tuple[int, Any]]) -> list[tuple[Edge, Any]]:
    """Name children of an exact builtin by when they were shown: the call 0 showed the container."""
    cls = type(container)
    if cls is list or cls is tuple:
        return [(call - 1, child) for call, child in children]
    if cls is not dict:
        return [(item_edge(call - 1), child) for call, child in children]
    keys = list(container)
    return [
        (item_edge(call // 2), child) if call % 2 else (key_edge(container, keys[call // 2 - 1], call // 2 - 1), child)
        for call, child in children
    ]


def _contents(container: Any, shown: set[int]) -> list[tuple[Edge, Any]]:
    """Name children of an exact builtin by identity: old protocols show parts of sets and bytes in between."""
    cls = type(container)
    named: list[tuple[Edge, Any]] = []
    if cls is dict:
        for position, (key, value) in enumerate(container.items()):
            named += [(item_edge(position), key), (key_edge(container, key, position), value)]
    elif cls is list or cls is tuple:
        named += enumerate(container)
    else:
        named += ((item_edge(position), member) for position, member in enumerate(container))
    # The members of a set are hidden in a list that protocol 3 is shown instead.
    return named if cls in (set, frozenset) else [(edge, child) for edge, child in named if id(child) in shown]


class _Sink:
    """A file that counts."""

    count = 0

    def write(self, data: bytes) -> int:
        self.count += len(data)
        return len(data)


def _materialize(value: object) -> Any:
    """Make lists of the iterators in a reduce value, so that they can be named as well as written."""
    if type(value) is not tuple or len(value) < 4:
        return value
    return (*value[:3], *(list(part) if hasattr(part, "__next__") else part for part in value[3:5]), *value[5:])


def _with_iterators(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Undo `_materialize`: the C pickler takes nothing but iterators there."""
    if len(value) < 4:
        return value
    return (*value[:3], *(iter(part) if type(part) is list else part for part in value[3:5]), *value[5:])


def _parts(obj: object, value: tuple[Any, ...]) -> set[int]:
    """Return the ids of the parts of a reduce value that are not separate objects: arguments and state."""
    if len(value) < 2:
        return set()
    candidates: list[Any] = []
    if type(value[1]) is tuple:
        candidates.extend(part for part in value[1] if type(part) in _PARTS)
    state = value[2] if len(value) > 2 else None
    if type(state) is tuple:
        candidates.extend(part for part in state if type(part) in _PARTS)
    own = instance_dict(obj)
    if type(state) in _PARTS and state is not own:
        candidates.append(state)
    parts = {id(part) for part in candidates if not is_attribute(obj, part)}
    parts.add(id(value[1]))
    if state is own:
        parts.add(id(state))
    return parts
