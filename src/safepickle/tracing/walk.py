"""A walk over an object graph, the nearest first, so that the first path found is the one to type.

It goes where the pickler goes, one `Expander` at a time, with no recursion. It follows no weak reference: who wants to
know what is behind one adds it with `Walk.enter`.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from typing import Any, Final

from safepickle.tracing.expand import Expander, Expansion
from safepickle.tracing.made import Made
from safepickle.tracing.naming import NEAREST, Edge
from safepickle.tracing.path_table import PathTable

__all__ = ["Walk"]

# How far an edge takes one from the root. What a framework names is near, ``list($.values())[3]`` is far, and what
# nobody could type is beyond all that one can.
_SHORTCUT: Final = 1
_PLAIN: Final = 4
_CALL: Final = 16
_NAMELESS: Final = 100_000


class Walk:
    """Visits every object once, and remembers the path.

    Args:
        root: Where to begin.
        expander: What expands the objects.

    Attributes:
        objects: Every object visited so far, held so that its id stays its own. The root is number 0.
        book: How each was reached. What led to an object has a lower number.
        numbers: The number of each object, by id.
        whole: False once something was passed over, because the reduce functions make new objects without end.
    """

    def __init__(self, root: object, expander: Expander) -> None:
        self.objects: list[Any] = []
        self.book = PathTable()
        self.numbers: dict[int, int] = {}
        self.whole = True
        self._made = Made()
        self._made_in_a_row: list[int] = []
        self._distances: list[int] = []
        self._expander = expander
        self._entered = 1
        # Distance, turn, parent, edge, object. No two have the same turn, so objects are never compared.
        self._waiting: list[tuple[int, int, int, Edge, Any]] = [(0, 0, -1, NEAREST, root)]

    def __iter__(self) -> Iterator[tuple[int, Expansion]]:
        """Expand what has been entered and not been visited; what is entered meanwhile is visited as well."""
        while self._waiting:
            distance, _, parent, edge, obj = heapq.heappop(self._waiting)
            number = self.numbers.setdefault(id(obj), len(self.objects))
            if number < len(self.objects):
                continue
            self.objects.append(obj)
            self.book.add(parent, edge)
            self._distances.append(distance)
            made = self._made.count(obj, self._made_in_a_row[parent] if parent >= 0 else 0)
            self._made_in_a_row.append(made)
            if self._made.is_endless(made) or self._made.is_broad(made):
                self.whole = False
                continue
            expansion = self._expander.expand(obj)
            for position, (edge, child) in enumerate(expansion.children):
                self.enter(number, edge, child, shortcut=position < expansion.shortcuts)
            yield number, expansion

    def expand(self, obj: object) -> Expansion:
        """Expand an object once more, and go nowhere from it."""
        return self._expander.expand(obj)

    def enter(self, parent: int, edge: Edge, child: object, shortcut: bool = False) -> None:
        """Have an object visited, unless it has been."""
        if id(child) in self.numbers:
            return
        distance = self._distances[parent] + (_SHORTCUT if shortcut else _length(edge))
        heapq.heappush(self._waiting, (distance, self._entered, parent, edge, child))
        self._entered += 1

    @property
    def parents(self) -> array[int]:
        """The number of the object that led to each, always a lower one; the root's own is -1."""
        return self.book.parents

    def path(self, number: int, *further: Edge) -> str:
        """Write the path to an object, and further on from there, unless it is very long."""
        return self.book.path(number, *further)

    def whole_path(self, number: int) -> str:
        """Write the path to an object, however long it is."""
        return self.book.whole_path(number)


def _length(edge: Edge) -> int:
    if edge is NEAREST:
        return _NAMELESS
    return _CALL if isinstance(edge, tuple) or (isinstance(edge, str) and "__(" in edge) else _PLAIN
