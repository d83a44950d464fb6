"""How each object of a walk was reached, kept in little room, and written out on request."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Final

from safepickle.rebuild.records import record
from safepickle.tracing.naming import Edge, join

__all__ = ["PathTable"]

_MOST_EDGES: Final = 500
"""Paths with more edges than this are cut in the middle."""

_ENDS: Final = 10
"""How many edges then stay at either end."""


@record
@dataclass(slots=True)
class PathTable:
    """The way from the root to every object of a walk, and how to write it.

    Attributes:
        parents: The number of the object that led to each; -1 for the root, which is number 0.
        edges: The edge from there.
    """

    parents: array[int] = field(default_factory=lambda: array("q"))
    edges: list[Edge] = field(default_factory=list)
    _depths: array[int] = field(default_factory=lambda: array("q"))
    # The ancestor that is `_ENDS` edges from the root: where a long path is broken off.
    _heads: array[int] = field(default_factory=lambda: array("q"))

    def add(self, parent: int, edge: Edge) -> int:
        """Note how the next object was reached, and return its number."""
        number = len(self.edges)
        depth = self._depths[parent] + 1 if parent >= 0 else 0
        self.parents.append(parent)
        self.edges.append(edge)
        self._depths.append(depth)
        self._heads.append(number if depth <= _ENDS else self._heads[parent])
        return number

    def path(self, number: int, *further: Edge) -> str:
        """Write the path to an object, and further on from there; the middle of a very long one is left out.

        Every object of a linked list has a path as long as the list is up to there: written out, they would fill the
        memory.
        """
        depth = self._depths[number]
        if depth <= _MOST_EDGES:
            return self.whole_path(number, *further)
        tail: list[Edge] = list(reversed(further))
        head = self._heads[number]
        for _ in range(_ENDS):
            tail.append(self.edges[number])
            number = self.parents[number]
        begun = f"{self.whole_path(head)} ... ({depth - 2 * _ENDS:,} more steps) ... "
        return join(reversed(tail), begun)

    def whole_path(self, number: int, *further: Edge) -> str:
        """Write the path to an object, and further on from there, however long it is."""
        edges: list[Edge] = list(reversed(further))
        while number > 0:
            edges.append(self.edges[number])
            number = self.parents[number]
        return join(reversed(edges))
