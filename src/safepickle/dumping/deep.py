"""Write a graph that nests more deeply than the C pickler can follow, such as a linked list of 100,000 objects.

The C pickler recurses into whatever an object refers to. Here the graph is walked with a stack of our own first, and
then written in an order in which all that an object needs is in the memo before it: ordinary objects bare, so that
cycles are no obstacle; then, from the leaves to the root, the state of each and everything else. So a load meets the
same objects in the same state as with any other pickle: what a reduce function or ``__setstate__`` is given is whole.

The pickler does the writing; this module only says in what order.
"""

from __future__ import annotations

import collections
import pickle
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceTuple, ReduceValue, in_full
from safepickle.reducers.classes import new_object
from safepickle.reducers.decisions import Dump
from safepickle.reducers.table import Reducer, TypeTable
from safepickle.tracing.made import EndlessError, Made
from safepickle.tracing.reducing import ReducingPickler
from safepickle.weak_types import find_weak_type

__all__ = ["Unrolled", "UnrolledTable"]

_LEAVES: Final = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, pickle.PickleBuffer),
    *(type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.CodeType),
)
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict})

# Builtin containers nested this deeply become a step; smaller ones go with what holds them.
_HIGH: Final = 50


class Unrolled:
    """A graph in the order in which it is written. It pickles as its root.

    Args:
        root: The object that is dumped.
        pickler: Who dumps it.
        table: Its type table.

    Raises:
        EndlessError: Each object leads to another one that is made only then.
    """

    def __init__(self, root: object, pickler: ReducingPickler, table: TypeTable) -> None:
        self._pickler = pickler
        self._table = table
        self._persistent_id: Callable[[Any], Any] | None = getattr(pickler, "persistent_id", None)
        self._bare: dict[int, Any] = {}
        self._finished: list[Any] = []
        # What was made for the walk alone, kept so that no other object gets its id.
        self._kept: list[Any] = []
        self._made = Made()
        self._root = root
        self._walk(root)

    def __reduce__(self) -> ReduceTuple:
        return rebuild.rebuild_root, (_Steps(self), self._root)

    def steps(self) -> Iterator[Any]:
        """Iterate over what is written, one after the other."""
        yield from self._bare.values()
        yield from self._finished

    def reduce_ordinary(self, obj: object, dump: Dump) -> ReduceValue:
        """Reduce an ordinary object without its state, which is a step of its own."""
        return (new_object, (type(obj),)) if id(obj) in self._bare else NOT_REDUCED

    def _walk(self, root: object) -> None:
        """Visit all that `root` leads to, and note as a step what has been left."""
        met: set[int] = set()
        stack = [_Visit(None, (root,), 0)]
        while stack:
            visit = stack[-1]
            for child in visit.children:
                if id(child) not in met:
                    met.add(id(child))
                    below = self._enter(child, visit.made)
                    if below is not None:
                        stack.append(below)
                        break
            else:
                stack.pop()
                height = self._leave(visit)
                if stack:
                    stack[-1].height = max(stack[-1].height, height)

    def _enter(self, obj: Any, made: int) -> _Visit | None:
        """Begin to visit an object, or return None if it leads nowhere."""
        cls = type(obj)
        if cls in _CONTAINERS:
            return _Visit(obj, [*obj, *obj.values()] if cls is dict else list(obj), made)
        # No weak reference is followed here: what becomes of it is decided while the graph is written.
        if issubclass(cls, _LEAVES) or find_weak_type(cls) is not None or self._is_persistent(obj):
            return None
        made = self._made.count(obj, made)
        if self._made.is_endless(made):
            raise EndlessError(
                f"pickling has no end: {made - 1:,} objects in a row were not there before, each was made by the "
                f"reduce function or the __getstate__ of the one before it, the last one is a {cls.__module__}."
                f"{cls.__qualname__}. Let them return what the object holds rather than new objects of such classes."
            )
        if self._table[cls] is None and not self._pickler.is_replaced(obj):
            self._bare[id(obj)] = obj
            state = obj.__reduce_ex__(2)[2]
            return None if state is None else _Visit(_State(obj, state), (state,), made)
        value = self._pickler.reduce_value(obj)
        if isinstance(value, str):
            return None
        parts = list(_parts(value))
        self._kept.append((value, parts))
        return _Visit(obj, parts, made)

    def _leave(self, visit: _Visit) -> int:
        """Note a step, unless it is small enough to go with what holds it; return the height of what is not a step."""
        height = visit.height + 1
        if visit.step is None or (type(visit.step) in _CONTAINERS and height < _HIGH):
            return height
        self._finished.append(visit.step)
        return 0

    def _is_persistent(self, obj: object) -> bool:
        return self._persistent_id is not None and self._persistent_id(obj) is not None


class UnrolledTable(TypeTable):
    """The type table of a dump that writes an unrolled graph."""

    def __init__(self, graph: Unrolled, table: TypeTable) -> None:
        super().__init__()
        self.own_dispatch_table = table.own_dispatch_table
        self._graph = graph

    def __missing__(self, cls: type) -> Reducer | None:
        reducer = super().__missing__(cls)
        if reducer is None:
            reducer = self[cls] = self._graph.reduce_ordinary
        return reducer


class _Visit:
    """One level of the walk: what is written when it is left, what is still below it, and what `Made` counted there."""

    __slots__ = ("children", "height", "made", "step")

    def __init__(self, step: object, children: Iterable[object], made: int) -> None:
        self.step = step
        self.children = iter(children)
        self.made = made
        self.height = 0


class _Steps:
    """The steps of a graph. Once written, a step is kept only if it is in the memo."""

    def __init__(self, graph: Unrolled) -> None:
        self._graph = graph

    def __reduce__(self) -> ReduceTuple:
        return collections.deque, ((), 0), None, self._graph.steps()


class _State:
    """The step that gives an object its state."""

    def __init__(self, obj: object, state: object) -> None:
        self._obj = obj
        self._state = state

    def __reduce__(self) -> ReduceTuple:
        return rebuild.rebuild_proxy_referent, (self._obj,), self._state


def _parts(value: ReduceTuple) -> Iterator[Any]:
    """Iterate over what a reduce value leads to."""
    function, arguments, state, items, pairs, setter = in_full(value)
    yield from [function, arguments, state, setter]
    yield from items or ()
    for pair in pairs or ():
        yield from pair
