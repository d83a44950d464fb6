"""The object graph as plain data: numbers, names and sizes, and none of the objects.

A report is built of this, so that keeping a report keeps nothing else alive.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from safepickle.rebuild.records import record
from safepickle.tracing.naming import Edge
from safepickle.tracing.path_table import PathTable

__all__ = ["COPIED", "KEPT", "OUTSIDE", "Graph", "WeakEdge"]

KEPT: Final = "kept"
COPIED: Final = "copied"
OUTSIDE: Final = "outside"


@record
@dataclass(frozen=True, slots=True)
class WeakEdge:
    """A weak reference as an edge of the graph.

    Attributes:
        source: The number of the reference, or of the container that holds it.
        target: The number of the referent; -1 when it is dead, or was not met.
        becomes: What it becomes in the pickle.
    """

    source: int
    target: int
    becomes: str


@record
@dataclass(slots=True)
class Graph:
    """Objects by number; the root is number 0.

    Attributes:
        types: Dotted name of each object's type.
        book: How each object was reached.
        sizes: Bytes that each object takes, what it leads to not counted.
        links: Strong edges, as numbers in pairs: from, to, from, to...
        weak: Weak edges.
        unpicklable: The numbers of objects that cannot be pickled.
        by_name: The numbers of objects that are pickled as a name to import.
        copied_from: The lowest number that only a strong copy has brought in.
        outside_from: The lowest number of what stays outside the pickle.
    """

    types: list[str] = field(default_factory=list)
    book: PathTable = field(default_factory=PathTable)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    links: array[int] = field(default_factory=lambda: array("q"))
    weak: list[WeakEdge] = field(default_factory=list)
    unpicklable: set[int] = field(default_factory=set)
    by_name: set[int] = field(default_factory=set)
    copied_from: int = 0
    outside_from: int = 0

    def __len__(self) -> int:
        return len(self.types)

    def region(self, number: int) -> str:
        """Tell where an object stands: ``"kept"``, ``"copied"`` or ``"outside"``."""
        if number >= self.outside_from:
            return OUTSIDE
        return COPIED if number >= self.copied_from else KEPT

    @property
    def parents(self) -> array[int]:
        """The object that led to each on its path from the root; -1 for the root."""
        return self.book.parents

    @property
    def edges(self) -> list[Edge]:
        """The edge from there."""
        return self.book.edges

    def path(self, number: int) -> str:
        """Write the path to an object, unless it is very long."""
        return self.book.path(number)

    def subtree_sizes(self) -> array[int]:
        """Sum up each object with all that hangs on it, every object counted once: on its shortest path."""
        return self._sums(self.sizes)

    def subtree_counts(self) -> array[int]:
        """Count each object and all that hangs on it."""
        return self._sums(1 for _ in self.types)

    def children(self) -> list[list[int]]:
        """Return the objects that each object leads to on their shortest paths."""
        found: list[list[int]] = [[] for _ in self.types]
        for number in range(1, len(self)):
            found[self.parents[number]].append(number)
        return found

    def strong_links(self) -> Iterator[tuple[int, int]]:
        """Iterate over the strong edges."""
        return zip(self.links[::2], self.links[1::2], strict=True)

    def _sums(self, values: Iterable[int]) -> array[int]:
        sums = array("q", values)
        # Parents have lower numbers than what they led to, so one pass from the end adds everything up.
        for number in range(len(sums) - 1, 0, -1):
            parent = self.parents[number]
            if self.region(number) != OUTSIDE or self.region(parent) == OUTSIDE:
                sums[parent] += sums[number]
        return sums
