"""Fold an object graph of any size into some boxes that a person can look at.

What plays the same part makes one box: the thousand layers of a list, their thousand weights. So a box is a set of
objects, and the boxes form a tree, as the objects' shortest paths do. The tree is opened where something is worth
seeing, what is wrong before what is large, until there are boxes enough; the rest stays inside its box.
"""

from __future__ import annotations

import heapq
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from safepickle.report.graph import KEPT, OUTSIDE, Graph
from safepickle.tracing.naming import NEAREST, Edge

__all__ = ["Arrow", "Box", "Folded", "fold"]

_NUMBER: Final = re.compile(r"\d+")
_UNNAMED: Final = "..."
_CODE: Final = frozenset({"builtins.type", "builtins.function", "builtins.module"})
_PLAIN_CONTAINERS: Final = frozenset({"builtins.list", "builtins.tuple", "builtins.dict"})
_MOST_CHILDREN: Final = 14
_FIRST_OF_MANY: Final = 10
_SMALL_GRAPH: Final = 60
_LEAST_SHARE: Final = 0.001
_MOST_ARROWS: Final = 200
_MOST_PATHS: Final = 100


@dataclass(slots=True)
class Box:
    """Objects that play the same part.

    Attributes:
        number: Which box; the root's is 0.
        parent: The box that it hangs on; -1 for the root's.
        label: The edge that leads there, from the parent: as in a path where it is one, with ``n`` for the numbers
            where it is several that play the same part; empty for all that there is no room to tell apart.
        members: The objects.
        type: Their type; empty where there are several.
        size: Bytes, with all that hangs on the members.
        objects: How many objects, with all that hangs on the members.
        hidden: How many of these are in no box of their own.
        unpicklable: How many members cannot be pickled.
        region: ``"kept"``, ``"copied"`` or ``"outside"``.
        paths: Paths of members, the first ones.
    """

    number: int
    parent: int
    label: str
    members: list[int]
    type: str
    size: int
    objects: int
    hidden: int = 0
    unpicklable: int = 0
    region: str = KEPT
    paths: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Arrow:
    """Edges between two boxes, beside those from each box to its parts.

    Attributes:
        source: The box that they start from.
        target: The box that they lead to; -1 for what is dead.
        kind: ``"strong"``, or what weak references become.
        count: How many edges.
        label: The edge: as in a path where it is one, with ``n`` for the numbers where all play the same part.
        path: Where the first is.
    """

    source: int
    target: int
    kind: str
    count: int
    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Folded:
    """A graph of boxes.

    Attributes:
        boxes: By number.
        arrows: What leads from box to box besides.
        total: Bytes of the pickle.
    """

    boxes: list[Box]
    arrows: list[Arrow]
    total: int


def fold(graph: Graph, max_boxes: int) -> Folded:
    """Fold a graph into about `max_boxes` boxes."""
    return _Folding(graph).run(max_boxes)


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._children = graph.children()
        self._sizes = graph.subtree_sizes()
        self._counts = graph.subtree_counts()
        # References that lead to one object are drawn as arrows, so they need no boxes.
        leading = Counter(edge.source for edge in graph.weak)
        self._arrows = {source for source, count in leading.items() if count == 1 and self._holds_nothing(source)}
        # What holds nothing but these needs none either: the arrows start from its owner.
        holders = {graph.parents[source] for source in self._arrows} - {0}
        self._holders = {holder for holder in holders if self._holds_arrows(holder)}
        self._wanted = self._mark_wanted()
        # In a graph that is small as a whole, nothing is too small.
        self._smallest = 0 if len(graph) <= _SMALL_GRAPH else self._sizes[0] * _LEAST_SHARE
        self._boxes: list[Box] = []
        self._box_of = array("q", [-1]) * len(graph)
        self._has_box = bytearray()

    def run(self, max_boxes: int) -> Folded:
        """Open boxes, the most important first."""
        root = self._make_box(-1, "$", [0])
        heap = [(self._rank(root.members), root.number)]
        while heap and len(self._boxes) < max_boxes:
            _, number = heapq.heappop(heap)
            for box in self._open(self._boxes[number], max_boxes - len(self._boxes)):
                # What is not in the pickle is one box for each referent, however much hangs on it.
                if box.region != OUTSIDE:
                    heapq.heappush(heap, (self._rank(box.members), box.number))
        self._has_box = bytearray(number >= 0 for number in self._box_of)
        self._place_hidden()
        return Folded(self._boxes, self._draw_arrows(), self._sizes[0])

    def _holds_nothing(self, source: int) -> bool:
        region = self._graph.region(source)
        return all(
            self._graph.region(child) != region or child in self._graph.by_name for child in self._children[source]
        )

    def _holds_arrows(self, holder: int) -> bool:
        graph = self._graph
        if graph.types[holder] not in _PLAIN_CONTAINERS or holder in graph.unpicklable:
            return False
        return all(child in self._arrows for child in self._children[holder])

    def _mark_wanted(self) -> bytearray:
        """Mark what is worth seeing however small it is, and all on the way there."""
        graph = self._graph
        wanted = bytearray(len(graph))
        ends = {number for number in graph.unpicklable if number < graph.outside_from}
        for edge in graph.weak:
            if edge.becomes != "weak reference":
                ends.update((edge.source, max(edge.target, 0)))
        for number in ends:
            while number >= 0 and not wanted[number]:
                wanted[number] = 1
                number = graph.parents[number]
        return wanted

    def _make_box(self, parent: int, label: str, members: list[int]) -> Box:
        graph = self._graph
        types = {graph.types[number] for number in members}
        box = Box(
            number=len(self._boxes),
            parent=parent,
            label=label,
            members=members,
            type=types.pop() if len(types) == 1 else "",
            size=sum(self._sizes[number] for number in members),
            objects=sum(self._counts[number] for number in members),
            unpicklable=sum(number in graph.unpicklable for number in members),
            region=graph.region(members[0]),
            paths=[graph.path(number) for number in members[:_MOST_PATHS]],
        )
        self._boxes.append(box)
        for number in members:
            self._box_of[number] = box.number
        return box

    def _open(self, box: Box, room: int) -> list[Box]:
        """Make boxes of what the members of a box lead to, and leave inside what is too little to see."""
        graph = self._graph
        groups: dict[tuple[str, str, bool, str], list[int]] = {}
        for member in box.members:
            for child in self._parts(member):
                way = "".join(_pattern(edge) for edge in self._way(member, child))
                key = (way, graph.types[child], child in graph.unpicklable, graph.region(child))
                groups.setdefault(key, []).append(child)
        seen = list(groups.items())
        if len(seen) <= _MOST_CHILDREN or any(self._is_worth_a_box(members) for _, members in seen):
            # Of what there is a lot of, the first are shown though each is too little.
            seen = [(key, members) for key, members in seen if self._is_worth_a_box(members)]
        ordered = sorted(seen, key=lambda group: self._rank(group[1]))
        most = min(_MOST_CHILDREN if len(ordered) <= _MOST_CHILDREN else _FIRST_OF_MANY, max(room, 1))
        made = [self._make_box(box.number, self._label(box, *group), group[1]) for group in ordered[:most]]
        return [*made, *self._merge_rest(box, ordered[most:])] if room > most else made

    def _label(self, box: Box, key: tuple[str, str, bool, str], members: list[int]) -> str:
        if len(members) > 1:
            return key[0] or _UNNAMED
        (member,) = members
        owner = self._graph.parents[member]
        while self._box_of[owner] != box.number:
            owner = self._graph.parents[owner]
        return "".join(_exact(edge) for edge in self._way(owner, member)) or _UNNAMED

    def _way(self, owner: int, part: int) -> list[Edge]:
        """Return the edges from what has a box to what is drawn beside it, less the step through a reference."""
        graph = self._graph
        parent = graph.parents[part]
        if parent in self._arrows and parent != owner:
            part, parent = parent, graph.parents[parent]
        holder = parent in self._holders and parent != owner
        return [graph.edges[parent], graph.edges[part]] if holder else [graph.edges[part]]

    def _parts(self, member: int) -> Iterator[int]:
        """Yield what is drawn beside an object, with what an arrow that starts there leads to."""
        graph = self._graph
        for child in self._children[member]:
            if child in self._arrows:
                yield from (referent for referent in self._children[child] if referent not in graph.by_name)
            elif child in self._holders:
                yield from self._parts(child)
            elif child not in graph.by_name and (graph.edges[child] is not NEAREST or self._wanted[child]):
                yield child

    def _is_worth_a_box(self, members: list[int]) -> bool:
        is_unwanted, size = self._rank(members)
        return not is_unwanted or -size >= self._smallest

    def _rank(self, members: list[int]) -> tuple[bool, int]:
        """Return what sorts the most important first: what is worth seeing however small it is, then what is large."""
        return not any(self._wanted[number] for number in members), -sum(self._sizes[number] for number in members)

    def _merge_rest(self, box: Box, rest: list[tuple[tuple[str, str, bool, str], list[int]]]) -> list[Box]:
        """Make one box for each type and region of what there are too many of."""
        merged: dict[tuple[str, bool, str], list[int]] = {}
        for (_, type_name, unpicklable, region), members in rest:
            merged.setdefault((type_name, unpicklable, region), []).extend(members)
        ordered = sorted(merged.values(), key=self._rank)
        return [self._make_box(box.number, "", members) for members in ordered[:4]]

    def _place_hidden(self) -> None:
        """Let whatever has no box count as part of the nearest one above."""
        graph = self._graph
        for number in range(1, len(graph)):
            if self._box_of[number] < 0:
                self._box_of[number] = self._box_of[graph.parents[number]]
                if number not in self._arrows:
                    self._boxes[self._box_of[number]].hidden += 1

    def _draw_arrows(self) -> list[Arrow]:
        graph, box_of = self._graph, self._box_of
        found: dict[tuple[int, int, str], tuple[int, Counter[str], str, str]] = {}
        for edge in graph.weak:
            target = -1 if edge.target < 0 else box_of[edge.target]
            way = self._way(-1, edge.source) if edge.source in self._arrows else []
            key = (box_of[edge.source], target, edge.becomes)
            _, labels, exact, path = found.get(key, (0, Counter(), "".join(map(_exact, way)), graph.path(edge.source)))
            labels["".join(map(_pattern, way))] += 1
            found[key] = (labels.total(), labels, exact, path)
        for source, target in graph.strong_links():
            one, other = box_of[source], box_of[target]
            if one == other or not self._has_box[target] or graph.types[target] in _CODE:
                continue
            if self._boxes[other].parent == one:
                continue
            key = (one, other, "strong")
            count, labels, exact, path = found.get(key, (0, Counter(), "", graph.path(source)))
            found[key] = (count + 1, labels, exact, path)
        # Weak ones first, then what stands for most.
        ordered = sorted(found.items(), key=lambda entry: (entry[0][2] == "strong", -entry[1][0]))
        return [
            Arrow(
                source,
                target,
                kind,
                count,
                exact if count == 1 else next(iter(labels)) if len(labels) == 1 else "",
                path,
            )
            for (source, target, kind), (count, labels, exact, path) in ordered[:_MOST_ARROWS]
        ]


def _exact(edge: Edge) -> str:
    if isinstance(edge, int):
        return f"[{edge}]"
    return edge if isinstance(edge, str) else _pattern(edge)


def _pattern(edge: Edge) -> str:
    """Write an edge so that those which play the same part are equal."""
    if edge is NEAREST:
        return _UNNAMED
    if isinstance(edge, int):
        return "[n]"
    if isinstance(edge, tuple):
        return "values" if "values" in edge[1] else "members"
    return edge if edge.startswith(".") and not edge.endswith("]") else _NUMBER.sub("n", edge)
