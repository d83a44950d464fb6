"""A walk over an object graph in the order of distance from the root, so that the first path found is the shortest.

It goes where the pickler goes, one `Probe` at a time, with no recursion. It follows no weak reference: who wants to
know what is behind one adds it with `Walk.enter`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from safepickle.report.naming import NEAREST, Edge, join
from safepickle.report.probe import Expansion, Probe

__all__ = ["Walk"]


class Walk:
    """Visits every object once, and remembers on which path it was first met.

    Args:
        root: Where to begin.
        probe: What expands the objects.

    Attributes:
        objects: Every object met so far, held so that its id stays its own. The root is number 0.
        parents: The number of the object that led to each; the root's own is -1.
        edges: The edge from there.
        numbers: The number of each object, by id.
    """

    def __init__(self, root: Any, probe: Probe) -> None:
        self.objects: list[Any] = [root]
        self.parents: list[int] = [-1]
        self.edges: list[Edge] = [NEAREST]
        self.numbers: dict[int, int] = {id(root): 0}
        self._probe = probe
        self._queue: deque[int] = deque([0])
        # Behind an edge that nobody could type: visited last, since a better path may turn up.
        self._nameless: deque[int] = deque()

    def __iter__(self) -> Iterator[tuple[int, Expansion]]:
        """Expand what has been met and not been visited; what is entered meanwhile is visited as well."""
        while self._queue or self._nameless:
            number = (self._queue or self._nameless).popleft()
            expansion = self._probe.expand(self.objects[number])
            for edge, child in expansion.children:
                self.enter(number, edge, child)
            yield number, expansion

    def enter(self, parent: int, edge: Edge, child: Any) -> int:
        """Give an object its number, and have it visited if it is new."""
        number = self.numbers.setdefault(id(child), len(self.objects))
        if number == len(self.objects):
            self.objects.append(child)
            self.parents.append(parent)
            self.edges.append(edge)
            (self._nameless if edge is NEAREST else self._queue).append(number)
        return number

    def path(self, number: int, *further: Edge) -> str:
        """Write the path to an object, and further on from there."""
        edges: list[Edge] = list(reversed(further))
        while number > 0:
            edges.append(self.edges[number])
            number = self.parents[number]
        return join(reversed(edges))
