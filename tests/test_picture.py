"""Pictures: what is folded, what is never folded away, and what the drawing says."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node, Offender
from safepickle.report.drawing.folding import Box, Folded, fold
from safepickle.report.explanation import Explanation


class Reference(weakref.ref):  # type: ignore[type-arg]
    """One object for each reference, where `weakref.ref` shares one among all that lead to the same referent."""

    __slots__ = ("__dict__",)


def folded(obj: Any, boxes: int = 150, **options: Any) -> Folded:
    explanation = obj if isinstance(obj, Explanation) else safepickle.explain(obj, **options)
    return fold(explanation.graph, boxes)


def box_at(graph: Folded, path: str) -> Box:
    (found,) = (box for box in graph.boxes if path in box.paths)
    return found


@pytest.fixture(scope="module")
def forest() -> Explanation:
    """100,000 objects: trees with parent pointers, and one mistake deep inside."""

    def grow(parent: Node | None, depth: int) -> Node:
        node = Node(children=[], parent=None if parent is None else Reference(parent), depth=depth)
        node.children = [grow(node, depth - 1) for _ in range(8)] if depth else []
        return node

    root = Node(trees=[grow(None, 4) for _ in range(7)], log=[Node(step=step) for step in range(5000)])
    root.trees[3].children[5].children[2].mistake = Offender()
    return safepickle.explain(root)


def test_a_hundred_thousand_objects_make_a_picture_that_can_be_read(forest: Explanation) -> None:
    graph = folded(forest)
    assert graph.boxes[0].objects > 100_000
    assert len(graph.boxes) <= 30
    assert box_at(graph, "$.trees[0].children[7]").members
    assert len(box_at(graph, "$.log[0]").members) == 5000


def test_a_single_mistake_among_a_hundred_thousand_objects_has_its_own_box(forest: Explanation) -> None:
    box = box_at(folded(forest), "$.trees[3].children[5].children[2].mistake")
    assert box.unpicklable == 1
    assert len(box.members) == 1
    assert box_at(folded(forest, boxes=12), "$.trees[3].children[5].children[2].mistake").unpicklable == 1


def test_parent_pointers_are_arrows_between_boxes(forest: Explanation) -> None:
    graph = folded(forest)
    (arrow,) = (arrow for arrow in graph.arrows if arrow.count == 7 * 8)
    assert (arrow.kind, arrow.label) == ("weak reference", ".parent")
    assert graph.boxes[arrow.target].paths[0] == "$.trees[0]"


@pytest.mark.parametrize("boxes", [1, 2, 5, 20])
def test_there_are_about_as_many_boxes_as_asked_for(forest: Explanation, boxes: int) -> None:
    assert len(folded(forest, boxes).boxes) <= boxes + 5


def test_every_object_is_in_a_box_or_folded_into_one(forest: Explanation) -> None:
    graph = folded(forest, 20)
    references = len(forest.weak_references)
    assert sum(len(box.members) + box.hidden for box in graph.boxes) == len(forest.graph) - references


@pytest.mark.parametrize(
    ("policy", "kind", "region"),
    [("relink", "tombstone", "outside"), ("strong", "strong copy", "copied"), ("strict", "error", "outside")],
)
def test_what_an_outside_referent_becomes_is_drawn(policy: Any, kind: str, region: str) -> None:
    outside = Node(payload=bytes(1000))
    graph = folded(Node(reference=weakref.ref(outside)), weakrefs=policy)
    (arrow,) = (arrow for arrow in graph.arrows if arrow.label == ".reference")
    assert arrow.kind == kind
    assert graph.boxes[arrow.target].region == region


def test_what_is_not_in_the_pickle_is_one_box_for_each_referent() -> None:
    outside = Node(parts=[Node(payload=bytes(1000), mistake=Offender()) for _ in range(10)])
    graph = folded(Node(reference=weakref.ref(outside), held=[1]))
    assert [(box.paths, box.objects > 20) for box in graph.boxes if box.region == "outside"] == [
        (["$.reference()"], True)
    ]
    assert not any(box.unpicklable for box in graph.boxes)


def test_dead_reference_leads_to_a_tombstone(tmp_path: Path) -> None:
    safepickle.explain(Node(reference=weakref.ref(Node()))).picture(tmp_path / "graph.dot")
    assert "\N{DAGGER} tombstone" in (tmp_path / "graph.dot").read_text(encoding="utf-8")


def test_what_is_large_is_drawn_large(tmp_path: Path) -> None:
    root = Node(large=Node(payload=bytes(90_000)), small=Node(payload=bytes(9_000)))
    safepickle.explain(root).picture(tmp_path / "graph.dot")
    dot = (tmp_path / "graph.dot").read_text(encoding="utf-8")
    width = {name: float(found) for name, found in re.findall(r'label="\.(large|small)\\n.*? width=([\d.]+)', dot)}
    assert width["large"] > 2 * width["small"]


def test_names_cannot_break_out_of_the_drawing(tmp_path: Path) -> None:
    root = {'"];evil [label="': Offender(), "line\nbreak\\": [1]}
    safepickle.explain(root).picture(tmp_path / "graph.dot")
    for line in (tmp_path / "graph.dot").read_text(encoding="utf-8").splitlines():
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0
        assert not line.startswith("evil")


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.dot, \.svg, \.html, not in '\.png'"):
        safepickle.explain(1).picture(tmp_path / "graph.png")
    with pytest.raises(ValueError, match="max_nodes is 0"):
        safepickle.explain(1).picture(tmp_path / "graph.dot", max_nodes=0)
