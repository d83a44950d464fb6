"""Walk over what a run in the world of symbols has built: where each name, tensor and tombstone is, and how large."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from safepickle.guard.rules import Grant
from safepickle.guard.rules.base import Blob
from safepickle.guard.sketch import Sketch, Symbol
from safepickle.rebuild import StrongRef, Tombstone, UnpicklableTombstone
from safepickle.report.inspection import Node, Recipe, StrongCopy, TensorEntry, TombstoneEntry

__all__ = ["Findings", "walk"]

_MOST_OBJECTS: Final = 1 << 20
_MOST_PATHS: Final = 3
_MOST_ENTRIES: Final = 10_000
_MOST_NODES: Final = 200
_LONGEST_KEY: Final = 60
_LONGEST_PATH: Final = 300
_LEAVES: Final = frozenset({int, float, bool, complex, type(None), str, bytes, bytearray})


@dataclass(slots=True)
class Findings:
    """What a walk has found."""

    paths: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tombstones: list[TombstoneEntry] = field(default_factory=list)
    strong_copies: list[StrongCopy] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    tensors: list[TensorEntry] = field(default_factory=list)
    tree: list[Node] = field(default_factory=list)
    escaped: list[Grant] = field(default_factory=list)
    complete: bool = True


def walk(root: Any, world: Sketch) -> Findings:
    """Walk from `root`, without recursion and without following a dead end twice."""
    return _Walk(world).run(root)


class _Walk:
    def __init__(self, world: Sketch) -> None:
        self._world = world
        self._found = Findings()
        self._seen: set[int] = set()
        self._nodes: list[list[Any]] = []

    def run(self, root: Any) -> Findings:
        # Breadth first, so that the first path to an object is its shortest one.
        waiting: deque[tuple[Any, str, int, tuple[int, ...]]] = deque([(root, "$", 0, ())])
        while waiting:
            value, path, depth, lines = waiting.popleft()
            kind = type(value)
            if kind not in _LEAVES:
                if id(value) in self._seen:
                    continue
                self._seen.add(id(value))
                if len(self._seen) > _MOST_OBJECTS:
                    self._found.complete = False
                    break
                self._note(value, path)
            size = _size(value)
            children = [] if kind in _LEAVES else list(self._children(value, path))
            if depth <= 2 and len(self._nodes) < _MOST_NODES:
                lines = (*lines, len(self._nodes))
                self._nodes.append([path, self._type_name(value), len(children), 0])
            for line in lines:
                self._nodes[line][3] += size
            waiting.extend((child, _cut(where), depth + 1, lines) for child, where in children)
        self._found.tree = [Node(*node) for node in self._nodes]
        return self._found

    def _note(self, value: Any, path: str) -> None:
        kind = type(value)
        if kind is Grant:
            self._use(value.key, path)
            if not value.rule.data:
                self._found.escaped.append(value)
        elif kind is Symbol:
            self._note_symbol(value, path)
        elif kind is Tombstone or kind is UnpicklableTombstone:
            self._add(self._found.tombstones, TombstoneEntry(path, value.referent_type, value.reason))
        elif kind is StrongRef:
            self._add(self._found.strong_copies, StrongCopy(path, self._type_name(value())))
        if kind is not Symbol and kind is not Grant:
            grant = self._world.kind(value)
            if grant is not None:
                self._use(grant.key, path)

    def _note_symbol(self, symbol: Symbol, path: str) -> None:
        grant, facts = symbol.grant, symbol.facts
        if grant is not None:
            self._use(grant.key, path)
        if facts is not None and facts.kind in ("tensor", "array"):
            library = "torch" if facts.kind == "tensor" else "numpy"
            dtype = facts.dtype if facts.kind == "tensor" else f"{facts.dtype}{facts.itemsize}"
            self._add(self._found.tensors, TensorEntry(path, library, dtype, facts.shape, facts.nbytes or 0))
        if facts is not None and facts.kind == "recipe" and type(symbol.state) is tuple:
            factory = self._world.grant(symbol.state[0])
            self._add(self._found.recipes, Recipe(path, "" if factory is None else factory.key))

    def _use(self, key: str, path: str) -> None:
        paths = self._found.paths.setdefault(key, [])
        if len(paths) < _MOST_PATHS:
            paths.append(path)
        self._found.counts[key] = self._found.counts.get(key, 0) + 1

    def _add(self, entries: list[Any], entry: Any) -> None:
        if len(entries) < _MOST_ENTRIES:
            entries.append(entry)
        else:
            self._found.complete = False

    def _children(self, value: Any, path: str) -> Iterator[tuple[Any, str]]:
        kind = type(value)
        if kind is Symbol:
            yield from _symbol_children(value, path)
        elif issubclass(kind, dict):
            for position, (key, item) in enumerate(dict.items(value)):
                yield item, f"{path}[{_key(key, position)}]"
                if type(key) not in _LEAVES:
                    yield key, f"{path}<key {position}>"
        elif issubclass(kind, (list, tuple, deque)):
            for position, item in enumerate(value):
                yield item, f"{path}[{position}]"
        elif issubclass(kind, (set, frozenset, weakref.WeakSet)):
            for position, item in enumerate(value):
                yield item, f"{path}<member {position}>"
        elif kind in (weakref.WeakValueDictionary, weakref.WeakKeyDictionary):
            for position, (key, item) in enumerate(value.items()):
                yield item, f"{path}[{_key(key, position)}]"
                yield key, f"{path}<key {position}>"
        elif issubclass(kind, weakref.ref) and kind is not UnpicklableTombstone:
            yield value(), f"{path}()"
        elif issubclass(kind, BaseException):
            yield value.args, f"{path}.args"
        # A proxy has no attributes but its referent's, and a dead one raises for each.
        if (
            hasattr(kind, "__dict__")
            and kind not in (Symbol, Grant, Blob, *weakref.ProxyTypes)
            and not issubclass(kind, type)
        ):
            for name, item in getattr(value, "__dict__", {}).items():
                yield item, f"{path}.{name}"

    def _type_name(self, value: Any) -> str:
        if type(value) is Symbol:
            if value.facts is not None and value.facts.kind in ("tensor", "array"):
                return f"{value.facts.kind} {value.facts.dtype} {list(value.facts.shape)}"
            return "object" if value.grant is None else value.grant.key.replace(":", ".")
        if type(value) is Grant:
            return f"class {value.key.replace(':', '.')}"
        if type(value) is Blob:
            return str(value.stands_for.__name__)
        return type(value).__name__


def _cut(path: str) -> str:
    """Cut a path that is too long to be read: a million levels would make paths of a million times their number."""
    return path if len(path) <= _LONGEST_PATH else path[: _LONGEST_PATH - 3] + "..."


def _symbol_children(symbol: Symbol, path: str) -> Iterator[tuple[Any, str]]:
    for position, item in enumerate(symbol.items):
        yield item, f"{path}[{position}]"
    for position, (key, item) in enumerate(zip(symbol.pairs[::2], symbol.pairs[1::2], strict=False)):
        yield item, f"{path}[{_key(key, position)}]"
    state = symbol.state
    if type(state) is tuple and len(state) == 2 and all(type(part) in (dict, type(None)) for part in state):
        state = {**(state[0] or {}), **(state[1] or {})}
    if type(state) is dict:
        for position, (name, item) in enumerate(state.items()):
            plain = type(name) is str and name.isidentifier()
            yield item, f"{path}.{name}" if plain else f"{path}[{_key(name, position)}]"
    elif state is not None and (symbol.facts is None or symbol.facts.kind != "array"):
        yield state, f"{path}.<state>"
    elif state is not None:
        yield state[4], f"{path}.<data>"
    if symbol.facts is not None and symbol.facts.kind in ("tensor", "storage", "array"):
        # The parts of a tensor are not attributes that anyone could type.
        return
    for position, argument in enumerate(symbol.arguments):
        if type(argument) not in _LEAVES and type(argument) is not Grant:
            yield argument, f"{path}.<argument {position}>"


def _key(key: Any, position: int) -> str:
    if type(key) in (str, bytes, int, float, bool):
        text = repr(key[:_LONGEST_KEY] if type(key) in (str, bytes) else key)
        return text if len(text) <= 2 * _LONGEST_KEY else f"<key {position}>"
    return f"<key {position}>"


def _size(value: Any) -> int:
    kind = type(value)
    if kind in (str, bytes, bytearray, Blob):
        return len(value)
    if kind is Symbol:
        return (value.facts.nbytes or 0) if value.facts is not None and value.facts.kind == "tensor" else 0
    return 8 if kind in _LEAVES else 0
