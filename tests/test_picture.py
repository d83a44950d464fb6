"""Pictures: what is folded, what is never folded away, and what the drawing says."""

from __future__ import annotations

import json
import re
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node, Offender
from safepickle.report.drawing import picture
from safepickle.report.drawing.folding import Box, Folded, fold
from safepickle.report.explanation import Explanation


class Reference(weakref.ref):
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


@pytest.mark.parametrize(
    ("references", "label"),
    [
        (lambda outside: [weakref.ref(outside)], ".held[0]"),
        (lambda outside: (weakref.ref(outside),), ".held[0]"),
        (lambda outside: {"first": weakref.ref(outside)}, ".held['first']"),
        (weakref.ref, ".held"),
        (lambda outside: [Reference(outside), Reference(outside)], ".held[n]"),
        (lambda outside: [Node(up=weakref.ref(outside)), Node(number=1)], ".up"),
    ],
    ids=["list", "tuple", "dict", "attribute", "two alike", "further down"],
)
def test_an_arrow_is_labelled_as_its_path_ends(references: Any, label: str) -> None:
    outside = Node()
    graph = folded(Node(held=references(outside)))
    assert [arrow.label for arrow in graph.arrows if arrow.kind == "tombstone"] == [label]


def test_what_holds_nothing_but_references_needs_no_box() -> None:
    inside, outside = Node(), Node()
    graph = folded(Node(inside=inside, held=[weakref.ref(inside), weakref.ref(outside)]))
    assert {box.label for box in graph.boxes} == {"$", ".inside", ".held[1]"}
    assert sorted((arrow.label, arrow.kind) for arrow in graph.arrows) == [
        (".held[0]", "weak reference"),
        (".held[1]", "tombstone"),
    ]
    assert {graph.boxes[arrow.source].label for arrow in graph.arrows} == {"$"}


def test_a_box_of_one_object_is_labelled_as_its_path_ends() -> None:
    graph = folded(Node(layers=[Node(weights=bytes(1000)), 7]))
    assert [box.label for box in graph.boxes] == ["$", ".layers", "[0]", ".weights"]


@pytest.mark.parametrize("size", [1, 100_000], ids=["in a small graph", "in a large one"])
def test_three_hundred_keys_are_folded_but_shown(tmp_path: Path, size: int) -> None:
    keys = [f"{first}{second}" for first in "abcdefghijklmno" for second in "abcdefghijklmnopqrst"]
    root = Node(weights=bytes(size), table={key: Node() for key in keys})
    graph = folded(root)
    table = box_at(graph, "$.table")
    *first, rest = [box for box in graph.boxes if box.parent == table.number]
    assert [box.label for box in first] == [f"['{key}']" for key in keys[:10]]
    assert (rest.label, len(rest.members)) == ("", 290)
    safepickle.explain(root).picture(tmp_path / "graph.dot")
    assert "and 290 more" in (tmp_path / "graph.dot").read_text(encoding="utf-8")


def page_of(tmp_path: Path, obj: Any) -> str:
    safepickle.explain(obj).picture(tmp_path / "graph.html")
    return (tmp_path / "graph.html").read_text(encoding="utf-8")


def test_page_holds_the_layout_and_needs_nothing_from_the_network(tmp_path: Path) -> None:
    page = page_of(tmp_path, Node(child=Node()))
    library = (Path(picture.__file__).with_name("dagre.js")).read_text(encoding="utf-8")
    assert library in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", page)
    assert not re.search(r"\bimport\b|\bfetch\(|XMLHttpRequest", page)
    assert "{{" not in page


def test_page_says_all_that_is_drawn(tmp_path: Path) -> None:
    page = page_of(tmp_path, Node(held=[weakref.ref(Node())], mistake=Offender()))
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    data = json.loads(found)
    assert data["boxes"]["box0"]["lines"][:2] == ["$", "Node"]
    assert [box["unpicklable"] for box in data["boxes"].values()] == [0, 1]
    (arrow,) = data["arrows"]
    assert (arrow["label"], arrow["mark"], arrow["target"]) == (".held[0]", "\N{DAGGER} tombstone", "")


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, {"</script><b>{{data}}": Offender(), "{{dagre}}": [1]})
    assert "<b>" not in page
    assert page.count("dagre.layout = ") == 1


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
    with pytest.raises(ValueError, match=r"ends in \.html, \.svg, \.png, \.pdf, \.dot, not in '\.gif'"):
        safepickle.explain(1).picture(tmp_path / "graph.gif")
    with pytest.raises(ValueError, match="max_nodes is 0"):
        safepickle.explain(1).picture(tmp_path / "graph.dot", max_nodes=0)
