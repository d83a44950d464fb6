"""Walk over what a run with symbols has built: where each name, tensor and tombstone is, and how large."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

from safepickle.cpython import items_of_simple_queue
from safepickle.guard.blob import Blob
from safepickle.guard.inspect_backend import Symbol
from safepickle.guard.rules import Grant, ValueInfo
from safepickle.guard.torch_inspect import Run
from safepickle.messages import shorten
from safepickle.rebuild import StrongRef, Tombstone, UnpicklableTombstone
from safepickle.report.checkpoint import Checkpoint, is_buffer, is_progress, written_by
from safepickle.report.inspection import (
    ElementCount,
    Node,
    OptimizerEntry,
    Recipe,
    StrongCopy,
    TensorEntry,
    TombstoneEntry,
    ValueEntry,
)
from safepickle.report.tensor_views import array_dtype
from safepickle.tracing.naming import NEAREST, Edge, attribute_edge, item_edge, key_edge, weak_edges
from safepickle.tracing.path_table import PathTable
from safepickle.tracing.shortcuts import MODULE_MEMBERS, is_module_state, member_edge
from safepickle.weak_types import PROXIES, find_weak_type

__all__ = ["Findings", "walk"]

_MOST_OBJECTS: Final = 1 << 20
_MOST_PATHS: Final = 3
_MOST_ENTRIES: Final = 10_000
_MOST_TENSORS: Final = 100_000
_MOST_NODES: Final = 200
_LISTED_DEPTH: Final = 2
_MOST_VALUES: Final = 1_000
_VALUES_DEPTH: Final = 6
_PROGRESS_DEPTH: Final = 1
_SHORT: Final = 8
_LONG: Final = 64
"""A list of up to `_SHORT` numbers holds settings; in one of more than `_LONG` entries, nothing is a setting."""
_LONGEST_TEXT: Final = 80
_LONGEST_INTEGER: Final = 64
_SEQUENCES: Final = frozenset({list, tuple})
_CONTAINERS: Final = (list, tuple, dict, set, frozenset)
_LEAVES: Final = frozenset({int, float, bool, complex, type(None), str, bytes, bytearray})
_SIZED: Final = frozenset({str, bytes, bytearray})
_VALUES: Final = frozenset({int, float, bool, str})
_KEYED: Final = frozenset({dict, OrderedDict, Symbol})
_Step: TypeAlias = tuple[Any, int, Edge, int, tuple[int, ...]]
"""A value, the number of what led to it, the edge from there, its depth, and the lines of the tree that it adds to."""

_NO_EDGES: Final[frozenset[Edge]] = frozenset()


@dataclass(slots=True)
class _Line:
    """A line of the tree, and the numbers of those that lie right below it."""

    path: str
    type: str
    entries: int
    depth: int
    nbytes: int = 0
    below: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """What a walk has found, as `Inspection` has it.

    Attributes:
        paths: For each name that a load imports, where its instances or results are; at most a few.
        counts: How many there are.
    """

    paths: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tombstones: list[TombstoneEntry] = field(default_factory=list)
    strong_copies: list[StrongCopy] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    tensors: list[TensorEntry] = field(default_factory=list)
    tree: list[Node] = field(default_factory=list)
    values: list[ValueEntry] = field(default_factory=list)
    progress: list[ValueEntry] = field(default_factory=list)
    parameters: list[ElementCount] = field(default_factory=list)
    optimizers: list[OptimizerEntry] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    complete: bool = True


def walk(run: Run) -> Findings:
    """Walk from the root of a run, whose file is open, without recursion and without following a dead end twice."""
    return _Walk(run).conclude()


class _Walk:
    def __init__(self, run: Run) -> None:
        self._root = run.root
        self._backend = run.backend
        self._checkpoint = Checkpoint(run)
        self._found = Findings()
        self._seen: set[int] = set()
        self._members: set[int] = set()
        # Plain containers in which something lies that is to be noted.
        self._mixed: set[int] = set()
        self._waiting: deque[_Step] = deque()
        self._late: deque[_Step] = deque()
        self._nodes: list[_Line] = []
        self._paths = PathTable()
        # Nothing is said of a container whose type the file does not name, but what it holds.
        self._plain = frozenset(kind for kind in _CONTAINERS if run.backend.grant(kind) is None)

    def conclude(self) -> Findings:
        # Breadth first, so that the first path to an object is its shortest one.
        self._waiting.append((self._root, -1, NEAREST, 0, ()))
        while self._waiting or self._late:
            if not self._waiting:
                self._waiting, self._late = self._late, self._waiting
            self._visit(*self._waiting.popleft())
            if len(self._seen) > _MOST_OBJECTS:
                self._found.complete = False
                break
        self._sum_up()
        return self._found

    def _visit(self, value: Any, parent: int, edge: Edge, depth: int, lines: tuple[int, ...]) -> None:
        kind = type(value)
        is_leaf = kind in _LEAVES
        if not is_leaf:
            if id(value) in self._seen:
                return
            self._seen.add(id(value))
        is_listed = depth <= _LISTED_DEPTH and len(self._nodes) < _MOST_NODES
        if is_leaf and not is_listed:
            self._add_size(lines, _size(value))
            return
        number = self._paths.add(parent, edge)
        listed = _MOST_NODES if depth < _LISTED_DEPTH else 0
        is_sequence = kind in _SEQUENCES and kind in self._plain
        children, hidden = [], _NO_EDGES
        if not is_leaf:
            # The first of a long list are told from the rest, which nobody wants to see one by one.
            children = _items(value[: listed or _SHORT]) if is_sequence else list(self._children(value))
            if kind in _KEYED:
                hidden = self._checkpoint.look_at(value, lambda: self._path(number))
            if kind not in self._plain:
                self._note(value, number)
            if depth <= _VALUES_DEPTH and children and not (is_sequence and len(value) > _SHORT):
                self._note_values(value, children, number, depth, hidden)
        if is_listed:
            line = len(self._nodes)
            if lines:
                self._nodes[lines[-1]].below.append(line)
            lines = (*lines, line)
            entries = len(value) if is_sequence else len(children) - len(hidden)
            self._nodes.append(_Line(self._path(number), self._type_name(value), entries, depth))
        self._add_size(lines, 0 if kind is Symbol and self._checkpoint.is_shared(value) else _size(value))
        queue = self._late if kind is Symbol and self._checkpoint.comes_late(value) else self._waiting
        for child, way in children[:listed]:
            queue.append((child, number, way, _LISTED_DEPTH + 1 if way in hidden else depth + 1, lines))
        below = depth + 1
        if is_sequence:
            if len(value) > _LONG:
                below = max(below, _VALUES_DEPTH + 1)
                self._checkpoint.passed_over.update(id(child) for child, _ in children)
            self._go_on(value[listed:], range(listed, len(value)), number, below, lines, queue)
        elif len(children) > listed:
            if len(children) > _MOST_VALUES:
                below = max(below, _VALUES_DEPTH + 1)
            rest, ways = zip(*children[listed:], strict=True)
            self._go_on(rest, ways, number, below, lines, queue)

    def _go_on(
        self,
        parts: Sequence[Any],
        ways: Sequence[Edge],
        number: int,
        depth: int,
        lines: tuple[int, ...],
        queue: deque[_Step],
    ) -> None:
        """Go on to parts that are not listed: of leaves and of plain containers of them, only the size is told."""
        weighs = depth > _VALUES_DEPTH or len(self._found.values) >= _MOST_VALUES
        if weighs:
            self._weigh(parts, lines)
        size = 0
        for part, way in zip(parts, ways, strict=True):
            kind = type(part)
            if kind in _LEAVES:
                size += len(part) if kind in _SIZED else 8
            elif kind not in self._plain or (part and (not weighs or id(part) in self._mixed)):
                queue.append((part, number, way, depth, lines))
        self._add_size(lines, size)

    def _add_size(self, lines: tuple[int, ...], size: int) -> None:
        if size:
            for line in lines:
                self._nodes[line].nbytes += size

    def _sum_up(self) -> None:
        found = self._found
        waiting = [0] if self._nodes else []
        while waiting:
            line = self._nodes[waiting.pop()]
            found.tree.append(Node(line.path, line.type, line.entries, line.nbytes, line.depth))
            waiting += sorted(line.below, key=lambda number: (self._nodes[number].nbytes, -number))
        found.optimizers = self._checkpoint.optimizers
        found.parameters = self._checkpoint.parameters.entries()
        found.facts = written_by(self._root)

    def _weigh(self, values: Sequence[Any], lines: tuple[int, ...]) -> None:
        """Add up what lies in plain containers in which nothing else lies, to any depth, and note the others as mixed.

        Most objects of most files are such. Nobody asks where they are, so no path to them is kept.
        """
        seen, mixed, plain = self._seen, self._mixed, self._plain
        opened: list[Any] = []
        parents = array("q")
        sizes = array("q")
        leads: list[int] = []
        waiting: Any = values
        number = -1
        while True:
            size = 0
            for item in waiting:
                kind = type(item)
                if kind in _LEAVES:
                    size += len(item) if kind in _SIZED else 8
                elif kind not in plain:
                    leads.append(number)
                elif item and id(item) not in seen:
                    if id(item) in mixed:
                        leads.append(number)
                    else:
                        seen.add(id(item))
                        opened.append(item)
                        parents.append(number)
            if number >= 0:
                sizes.append(size)
            number += 1
            if number == len(opened) or len(seen) > _MOST_OBJECTS:
                break
            waiting = _parts(opened[number])
        # Where something is to be said of a part, nothing on the way there is plain.
        total = sum(sizes)
        for number in leads:
            while number >= 0 and id(opened[number]) not in mixed:
                mixed.add(id(opened[number]))
                seen.discard(id(opened[number]))
                total -= sizes[number]
                number = parents[number]
        self._add_size(lines, total)

    def _path(self, number: int) -> str:
        return shorten(self._paths.path(number))

    def _note(self, value: Any, number: int) -> None:
        kind = type(value)
        if kind is Grant:
            self._use(value.key, number)
        elif kind is Symbol:
            self._note_symbol(value, number)
        elif kind is Tombstone or kind is UnpicklableTombstone:
            self._add(self._found.tombstones, TombstoneEntry(self._path(number), value.referent_type, value.reason))
        elif kind is StrongRef:
            self._add(self._found.strong_copies, StrongCopy(self._path(number), self._type_name(value())))
        if kind is not Symbol and kind is not Grant:
            grant = self._backend.kind(value)
            if grant is not None:
                self._use(grant.key, number)

    def _note_symbol(self, symbol: Symbol, number: int) -> None:
        grant, info = symbol.grant, symbol.info
        if grant is not None:
            self._use(grant.key, number)
        if info is not None and info.kind == "tensor":
            self._note_tensor(symbol, info, self._path(number))
        elif info is not None and info.kind == "array":
            entry = TensorEntry(self._path(number), "numpy", array_dtype(symbol), info.shape, info.nbytes or 0)
            self._add(self._found.tensors, entry, _MOST_TENSORS)
        if info is not None and info.kind == "recipe" and type(symbol.state) is tuple:
            factory = self._backend.grant(symbol.state[0])
            self._add(self._found.recipes, Recipe(self._path(number), "" if factory is None else factory.key))

    def _use(self, key: str, number: int) -> None:
        paths = self._found.paths.setdefault(key, [])
        if len(paths) < _MOST_PATHS:
            paths.append(self._path(number))
        self._found.counts[key] = self._found.counts.get(key, 0) + 1

    def _note_tensor(self, symbol: Symbol, info: ValueInfo, path: str) -> None:
        role = self._checkpoint.count(symbol, info, path)
        entry = TensorEntry(path, "torch", info.dtype, info.shape, info.nbytes or 0, role)
        self._add(self._found.tensors, entry, _MOST_TENSORS)

    def _note_values(
        self, owner: Any, children: list[tuple[Any, Edge]], number: int, depth: int, hidden: frozenset[Edge]
    ) -> None:
        """Note the numbers and short texts that an object holds itself."""
        if id(owner) in self._checkpoint.passed_over:
            return
        for child, way in children:
            if len(self._found.values) >= _MOST_VALUES:
                return
            value: Any = self._checkpoint.number(child) if type(child) is Symbol else child
            kind = type(value)
            if kind not in _VALUES or way is NEAREST or way in hidden:
                continue
            if len(value) > _LONGEST_TEXT if kind is str else kind is int and value.bit_length() > _LONGEST_INTEGER:
                continue
            path = shorten(self._paths.path(number, way))
            if type(child) is Symbol and is_buffer(path):
                continue
            entry = ValueEntry(path, value)
            self._found.values.append(entry)
            if depth <= _PROGRESS_DEPTH and kind is not bool and is_progress(way):
                self._found.progress.append(entry)

    def _add(self, entries: list[Any], entry: Any, most: int = _MOST_ENTRIES) -> None:
        if len(entries) < most:
            entries.append(entry)
        else:
            self._found.complete = False

    def _children(self, value: Any) -> Iterator[tuple[Any, Edge]]:
        """Yield what a value contains, each with the edge that leads there."""
        kind = type(value)
        weak = find_weak_type(kind)
        if kind is Symbol:
            yield from _symbol_children(value, self._members)
        elif issubclass(kind, dict):
            yield from _pairs(value, dict.items(value))
        elif issubclass(kind, (list, tuple, deque)):
            yield from _items(value)
        elif kind is SimpleQueue:
            yield from ((item, NEAREST) for item in items_of_simple_queue(value))
        elif issubclass(kind, (set, frozenset)):
            yield from ((item, item_edge(position)) for position, item in enumerate(value))
        elif weak is not None and kind is not UnpicklableTombstone:
            edges = weak_edges(value)
            for referent, hanging in weak.snapshot(value):
                yield from ((child, edges.get(id(child), "")) for child in (referent, *hanging))
        elif issubclass(kind, BaseException):
            yield value.args, ".args"
        # A proxy has no attributes but its referent's, and a dead one raises for each.
        if hasattr(kind, "__dict__") and kind not in (Symbol, Grant, Blob, *PROXIES) and not issubclass(kind, type):
            internals: AbstractSet[str] = weak.internals if weak is not None else frozenset()
            for name, item in getattr(value, "__dict__", {}).items():
                if name not in internals:
                    yield item, attribute_edge(name)

    def _type_name(self, value: Any) -> str:
        if type(value) is Symbol:
            info = value.info
            if info is not None and info.kind == "scalar":
                return f"numpy {array_dtype(value)}"
            if info is not None and info.kind in ("tensor", "array"):
                dtype = info.dtype if info.kind == "tensor" else array_dtype(value)
                return f"{info.kind} {dtype} {list(info.shape)}"
            return _class_name(value)
        if type(value) is Grant:
            return f"class {value.key.replace(':', '.')}"
        if type(value) is Blob:
            return str(value.stands_for.__name__)
        return type(value).__name__


def _class_name(symbol: Symbol) -> str:
    """Name the class that a symbol stands for an instance of."""
    if symbol.grant is not None and symbol.grant.module:
        return symbol.grant.key.replace(":", ".")
    if type(symbol.cls) is not Symbol:
        return "object"
    # cloudpickle's functions that make a class take its metaclass, its name, ...
    name = symbol.cls.arguments[1] if len(symbol.cls.arguments) > 1 else None
    return f"{name} (a class by value)" if type(name) is str else "object of a class by value"


def _symbol_children(symbol: Symbol, members: set[int]) -> Iterator[tuple[Any, Edge]]:
    yield from ((item, position) for position, item in enumerate(symbol.items))
    yield from _pairs(symbol, zip(symbol.pairs[::2], symbol.pairs[1::2], strict=False))
    state = symbol.state
    if type(state) is tuple and len(state) == 2 and all(type(part) in (dict, type(None)) for part in state):
        state = {**(state[0] or {}), **(state[1] or {})}
    info = symbol.info
    if type(state) is dict:
        yield from _module_members(symbol, state, members)
        yield from ((item, attribute_edge(name)) for name, item in state.items())
    elif type(state) is tuple and len(state) == 5 and info is not None and info.kind == "array":
        yield from _elements(state[4], info.shape)
    elif state is not None:
        yield state, NEAREST
    # The parts of a tensor are not attributes that anyone could type.
    if info is None or info.kind not in ("tensor", "storage", "array", "scalar"):
        yield from (
            (argument, NEAREST)
            for argument in symbol.arguments
            if type(argument) not in _LEAVES and type(argument) is not Grant
        )


def _parts(container: Any) -> Iterable[Any]:
    """Return what lies in a plain container, and those keys in which something may lie."""
    if type(container) is not dict:
        return container  # type: ignore[no-any-return]
    keys = [key for key in container if type(key) not in _LEAVES]
    return chain(container.values(), keys) if keys else container.values()


def _items(sequence: Any) -> list[tuple[Any, Edge]]:
    return list(zip(sequence, range(len(sequence)), strict=True))


def _pairs(mapping: Any, pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Edge]]:
    for position, (key, item) in enumerate(pairs):
        yield item, key_edge(mapping, key, position)
        if type(key) not in _LEAVES:
            yield key, item_edge(position)


def _module_members(symbol: Symbol, state: dict[Any, Any], named: set[int]) -> Iterator[tuple[Any, Edge]]:
    """Name what a torch module finds as its attributes; a module is known by the dictionaries that it keeps.

    What two modules keep in one dictionary has a name by the first of them: a file may have a million such modules.
    """
    kinds = {symbol.grant.name.rpartition(".")[2]} if symbol.grant is not None else set()
    for holder in MODULE_MEMBERS if is_module_state(state) else ():
        if id(state[holder]) in named:
            continue
        named.add(id(state[holder]))
        for position, (name, child) in enumerate(dict.items(state[holder])):
            edge = member_edge(state[holder], name, position, kinds)
            if child is not None and edge is not NEAREST:
                yield child, edge


def _elements(items: Any, shape: tuple[int, ...]) -> Iterator[tuple[Any, Edge]]:
    """Name the elements of an array of objects, which are listed in C order."""
    if type(items) is not list:
        yield items, NEAREST
        return
    for position, item in enumerate(items):
        indices: list[int] = []
        for length in reversed(shape):
            position, index = divmod(position, length or 1)
            indices.insert(0, index)
        yield item, "[" + (", ".join(map(str, indices)) or "()") + "]"


def _size(value: Any) -> int:
    kind = type(value)
    if kind in (str, bytes, bytearray, Blob):
        return len(value)
    if kind is Symbol:
        return (value.info.nbytes or 0) if value.info is not None and value.info.kind == "tensor" else 0
    return 8 if kind in _LEAVES else 0
