"""Random graphs keep their shape: held against an oracle that shares no code with the library."""

from __future__ import annotations

import gc
import io
import pickle
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import safepickle
from weak_graphs import Graph, Plan, WeakEdge, build, check, kept, plans, reached_through_weak, same

PROTOCOLS = st.integers(0, 5)

relaxed = settings(deadline=None, max_examples=150)


@pytest.fixture(autouse=True, scope="module")
def _thaw() -> Iterator[None]:
    """Let what `build` froze be collected again."""
    yield
    gc.unfreeze()


def protocol_for(plan: Plan, protocol: int) -> int:
    """Return a protocol that pickle itself can write the plan with.

    Below 4 a set may not be part of a cycle; below 2 neither may a list's subclass, and slots are refused.
    """
    lowest = {"set": 4, "listed": 2, "slotted": 2}
    return max(protocol, *(lowest.get(kind, 0) for kind in plan.kinds))


def left_outside(plan: Plan, graph: Graph, held: set[int]) -> int:
    """Count the weak references of the pickle whose referents live outside; one that is shared counts once."""
    return len(
        {
            (id(weak), target)
            for edge, weak in zip(plan.weak, graph.weak, strict=True)
            if edge.holder in held
            for target in edge.targets
            if target in plan.alive - held
        }
    )


def round_trip(graph: Graph, protocol: int, **options: Any) -> tuple[bytes, Any, list[Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = safepickle.dumps(graph.root, protocol, **{"finalizers": "rearm", **options})
    assert {warning.category for warning in caught} <= {safepickle.WeakReferenceWarning}
    return data, safepickle.loads(data), [warning.message for warning in caught]


class Recording(pickle.Unpickler):
    """An unpickler that notes the modules which a pickle names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return super().find_class(module, name)


def all_die_together(nodes: dict[int, Any]) -> None:
    """Check that nothing but the loaded graph itself owns the loaded graph."""
    watchers = [weakref.ref(node) for node in nodes.values()]
    nodes.clear()
    gc.collect()
    assert [watcher() for watcher in watchers] == [None] * len(watchers)


@relaxed
@given(plans(), PROTOCOLS)
def test_relink_restores_the_graph_with_exactly_the_kept_referents(plan, protocol):
    graph = build(plan)
    held = kept(plan)
    data, root, caught = round_trip(graph, protocol_for(plan, protocol))
    nodes = check(root, plan, alive=held)
    assert set(nodes) == held
    assert {number for number in plan.alive if f"node-{number};".encode() in data} == held
    outside = left_outside(plan, graph, held)
    assert [sum(warning.counts.values()) for warning in caught] == ([outside] if outside else [])
    assert set(check(graph.root, plan, alive=plan.alive)) == reached_through_weak(plan)
    del root
    all_die_together(nodes)


@relaxed
@given(plans(), PROTOCOLS)
def test_strong_brings_every_live_referent(plan, protocol):
    graph = build(plan)
    _, root, caught = round_trip(graph, protocol_for(plan, protocol), weakrefs="strong")
    assert not caught
    nodes = check(root, plan, alive=plan.alive)
    assert set(nodes) == reached_through_weak(plan)
    nodes.clear()
    gc.collect()
    nodes = check(root, plan, alive=plan.alive)
    assert set(nodes) == reached_through_weak(plan), "what was brought in has an owner"
    del root
    all_die_together(nodes)


@relaxed
@given(plans(), PROTOCOLS)
def test_tombstone_cuts_every_weak_reference(plan, protocol):
    graph = build(plan)
    _, root, caught = round_trip(graph, protocol_for(plan, protocol), weakrefs="tombstone")
    assert not caught
    nodes = check(root, plan, alive=set())
    assert set(nodes) == kept(plan, follow_hanging=False)
    del root
    all_die_together(nodes)


@relaxed
@given(plans(), PROTOCOLS)
def test_strict_refuses_exactly_the_graphs_that_leave_something_outside(plan, protocol):
    graph = build(plan)
    held = kept(plan)
    protocol = protocol_for(plan, protocol)
    if left_outside(plan, graph, held):
        with pytest.raises(safepickle.WeakReferenceError, match="is not in the pickle"):
            safepickle.dumps(graph.root, protocol, weakrefs="strict", finalizers="rearm")
    else:
        strict = safepickle.dumps(graph.root, protocol, weakrefs="strict", finalizers="rearm")
        assert strict == safepickle.dumps(graph.root, protocol, finalizers="rearm")


@relaxed
@given(plans(), PROTOCOLS)
def test_what_is_relinked_everywhere_needs_no_safepickle_to_load(plan, protocol):
    held = kept(plan)
    graph = build(plan)
    assume(not plan.dead and not left_outside(plan, graph, held))
    reader = Recording(io.BytesIO(safepickle.dumps(graph.root, protocol_for(plan, protocol), finalizers="rearm")))
    check(reader.load(), plan, alive=held)
    assert not {module for module in reader.modules if module.startswith("safepickle")}


@relaxed
@given(plans(), PROTOCOLS, st.data())
def test_several_dumps_of_one_pickler_hold_one_graph(plan, protocol, data):
    graph = build(plan)
    second = data.draw(st.sampled_from(sorted(plan.alive)), label="root of the second dump")
    held = kept(plan)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", safepickle.WeakReferenceWarning)
        pickler = safepickle.Pickler(file, protocol_for(plan, protocol), finalizers="rearm")
        pickler.dump(graph.root)
        pickler.dump(graph.nodes[second])
    file.seek(0)
    unpickler = safepickle.Unpickler(file)
    root, other = unpickler.load(), unpickler.load()
    in_both = kept(plan, root=second, known=held)
    weak_in_first = {id(weak) for edge, weak in zip(plan.weak, graph.weak, strict=True) if edge.holder in held}
    by_edge = {edge: id(weak) for edge, weak in zip(plan.weak, graph.weak, strict=True)}

    def alive(edge: WeakEdge) -> set[int]:
        # What the first dump found outside stays dead there, also when the second one brings it.
        return held if by_edge[edge] in weak_in_first else in_both

    nodes = check(root, plan, alive)
    assert set(nodes) == held
    if second in held:
        assert other is nodes[second]
    else:
        others = check(other, plan, alive, second)
        assert in_both == held | set(others)
        assert all(same(others[number], nodes[number]) for number in held & set(others))
