"""What lives and dies: finalizers, referents after a load and during a dump, and referents stored elsewhere."""

from __future__ import annotations

import gc
import io
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import nullcontext
from typing import Any

import pytest

import safepickle
from nodes import Node, OpenRef, round_trip

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


NOTED: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    NOTED.append((args, kwargs))


@pytest.fixture
def noted():
    NOTED.clear()
    yield NOTED
    NOTED.clear()


POLICIES = ["relink", "strong", "tombstone", "strict", lambda referent: "strict"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kept", [True, False])
def test_finalizer_is_dead_on_the_copy_and_nothing_of_what_it_would_call_is_walked(protocol, policy, kept, noted):
    node = Node()
    unpicklable = (number for number in "")
    finalizer = weakref.finalize(node, lambda *args, **kwargs: note(unpicklable), unpicklable, key=unpicklable)
    copy, loaded = round_trip((node if kept else None, finalizer), protocol, weakrefs=policy)
    assert type(loaded) is weakref.finalize
    assert (loaded.alive, loaded.peek(), loaded.detach(), loaded()) == (False, None, None, None)
    del copy, loaded
    gc.collect()
    assert not noted
    assert finalizer.alive
    finalizer.detach()


def test_finalizer_keeps_nothing_in_the_pickle(noted):
    node = Node()
    finalizer = weakref.finalize(node, note, "argument", key=Node("held by the finalizer alone"))
    data = safepickle.dumps(finalizer)
    assert b"argument" not in data
    assert b"Node" not in data
    assert b"note" not in data
    finalizer.detach()


def test_finalizer_that_was_rearmed_is_dead_on_the_next_copy(noted):
    node = Node()
    finalizer = weakref.finalize(node, note, 1)
    each: list[dict[str, Any]] = [{}, {"weakrefs": "strong"}]
    for options in each:
        copy, rearmed = round_trip((node if not options else None, finalizer), finalizers="rearm", **options)
        assert rearmed.alive
        again = round_trip((copy, rearmed))[1]
        assert type(again) is weakref.finalize
        assert not again.alive
        rearmed.detach()
    finalizer.detach()


def test_finalizers_takes_one_of_two_words():
    alive: Any = "alive"
    for call in (
        lambda: safepickle.dumps(1, finalizers=alive),
        lambda: safepickle.dump(1, io.BytesIO(), finalizers=alive),
        lambda: safepickle.Pickler(io.BytesIO(), finalizers=alive),
        lambda: safepickle.backend(finalizers=alive),
        lambda: safepickle.explain(1, finalizers=alive),
    ):
        with pytest.raises(ValueError, match="finalizers='alive' is not known: pass one of 'dead', 'rearm'"):
            call()


def test_finalizers_is_an_option_of_every_way_of_dumping(noted):
    node = Node()
    finalizer = weakref.finalize(node, note, 1)
    rearming = safepickle.backend(finalizers="rearm")
    file, other = io.BytesIO(), io.BytesIO()
    safepickle.dump([node, finalizer], file, finalizers="rearm")
    rearming.Pickler(other).dump([node, finalizer])
    again = safepickle.loads(safepickle.dumps(rearming))
    for data in (file.getvalue(), other.getvalue(), rearming.dumps([node, finalizer]), again.dumps([node, finalizer])):
        copy, loaded = safepickle.loads(data)
        assert loaded.peek()[0] is copy
        loaded.detach()
    assert not safepickle.loads(rearming.dumps([node, finalizer], finalizers="dead"))[1].alive
    finalizer.detach()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_finalizer_of_a_subclass_is_dead_with_its_class_and_its_state(protocol, noted):
    node = Node()
    finalizer = LabelledFinalizer(node, "label")
    _, loaded = round_trip((node, finalizer), protocol)
    assert (type(loaded), loaded.alive, loaded.label[0]) == (LabelledFinalizer, False, "label")
    assert loaded.label[1] is loaded
    finalizer.detach()


def test_finalizer_deep_in_a_graph_is_dead(noted):
    root = last = Node()
    for _ in range(20_000):
        last.next = Node()
        last = last.next
    finalizer = last.finalizer = weakref.finalize(last, note, (number for number in ""))
    loaded = round_trip(root)
    while hasattr(loaded, "next"):
        loaded = loaded.next
    assert not loaded.finalizer.alive
    finalizer.detach()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_finalizer_runs_once_for_the_copy_and_once_for_the_original(protocol, noted):
    node = Node()
    finalizer = weakref.finalize(node, note, 1, key="value")
    finalizer.atexit = False
    copy, loaded = round_trip((node, finalizer), protocol, finalizers="rearm")
    assert loaded.alive
    assert not loaded.atexit
    assert loaded.peek() == (copy, note, (1,), {"key": "value"})
    del copy
    gc.collect()
    assert noted == [((1,), {"key": "value"})]
    assert not loaded.alive
    assert finalizer.alive
    loaded()
    assert len(noted) == 1


@pytest.mark.parametrize("atexit", [True, False])
def test_finalizer_without_keywords_keeps_atexit(atexit, noted):
    node = Node()
    finalizer = weakref.finalize(node, note, 1)
    finalizer.atexit = atexit
    _, loaded = round_trip((node, finalizer), finalizers="rearm")
    assert loaded.atexit is atexit
    loaded.detach()
    finalizer.detach()


def test_finalizer_that_owns_its_object_is_called_and_detached_like_any_other(noted):
    node = Node()
    finalizers = [
        weakref.finalize(node, divmod, 7, 2),
        weakref.finalize(node, note),
        weakref.finalize(node, divmod, 7, 0),
    ]
    called, detached, failing = round_trip(finalizers, weakrefs="strong", finalizers="rearm")
    assert called() == (3, 1)
    assert called() is None
    copy, func, args, kwargs = detached.detach()
    assert (type(copy), func, args, kwargs) == (Node, note, (), {})
    assert detached.detach() is None
    alive = weakref.ref(copy)
    del copy
    with pytest.raises(ZeroDivisionError, match="by zero"):
        failing()
    assert alive() is None
    assert noted == []
    for finalizer in finalizers:
        finalizer.detach()


class LabelledFinalizer(weakref.finalize):
    """A finalizer whose constructor takes other arguments, and that has attributes."""

    def __init__(self, referent, label):
        super().__init__(referent, note, label)
        self.label = [label, self]
        self.atexit = False


class ReducedFinalizer(weakref.finalize):
    """A finalizer that says itself how it is pickled."""

    def __reduce__(self):
        return str, ("reduced",)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_finalizer_of_a_subclass_keeps_its_class_and_its_state(protocol, noted):
    node = Node()
    finalizer = LabelledFinalizer(node, "label")
    copy, loaded = round_trip((node, finalizer), protocol, finalizers="rearm")
    assert (type(loaded), loaded.alive, loaded.atexit) == (LabelledFinalizer, True, False)
    assert loaded.label[0] == "label"
    assert loaded.label[1] is loaded
    del copy
    gc.collect()
    dead = round_trip(loaded, protocol, finalizers="rearm")
    assert (type(dead), dead.alive, dead.label[0]) == (LabelledFinalizer, False, "label")
    assert finalizer.alive
    finalizer.detach()


def test_finalizer_that_reduces_itself_is_left_to():
    node = Node()
    finalizer = ReducedFinalizer(node, note)
    assert round_trip(finalizer) == "reduced"
    finalizer.detach()


def test_finalizer_dead_outside_and_strong(noted):
    node = Node("name")
    finalizer = weakref.finalize(node, note, 1)
    dead = weakref.finalize(Node(), note, 2)
    assert not dead.alive
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
        outside, dead = round_trip([finalizer, dead], finalizers="rearm")
    assert not outside.alive
    assert not dead.alive
    assert outside() is None
    noted.clear()
    holder = round_trip([finalizer], weakrefs="strong", finalizers="rearm")
    gc.collect()
    assert holder[0].peek()[0].name == "name"
    assert isinstance(holder[0], weakref.finalize)
    holder.clear()
    gc.collect()
    assert noted == [((1,), {})]
    finalizer.detach()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_loading_twice_gives_two_graphs(protocol):
    node = Node()
    node.reference, node.members = weakref.ref(node), weakref.WeakSet([node])
    data = safepickle.dumps(node, protocol)
    first, second = safepickle.loads(data), safepickle.loads(data)
    assert first is not second
    assert first.reference() is first
    assert set(second.members) == {second}
    del first
    gc.collect()
    assert second.reference() is second


PROGRAM = """
import gc, weakref
import safepickle


class Node:
    def method(self):
        pass


def died(reference):
    print("callback")


def finalized():
    print("finalizer")


node = Node()
parts = {
    "ref": weakref.ref(node, died),
    "keyed": weakref.KeyedRef(node, None, "key"),
    "method": weakref.WeakMethod(node.method),
    "proxy": weakref.proxy(node),
    "finalize": weakref.finalize(node, finalized),
    "set": weakref.WeakSet([node]),
    "values": weakref.WeakValueDictionary(key=node),
    "keys": weakref.WeakKeyDictionary({node: "value"}),
}
parts["finalize"].atexit = False
data = safepickle.dumps({"node": node, **parts}, weakrefs=POLICY, finalizers="rearm")
parts["finalize"].detach()
loaded = safepickle.loads(data)
gc.collect()
assert len(loaded["set"]) == len(loaded["values"]) == len(loaded["keys"]) == 1
print("delete")
del loaded["node"]
gc.collect()
print(loaded["ref"](), loaded["keyed"](), loaded["method"](), loaded["finalize"].alive)
print(len(loaded["set"]), len(loaded["values"]), len(loaded["keys"]))
try:
    loaded["proxy"].method
except ReferenceError:
    print("dead proxy")
del loaded
gc.collect()
print("end")
"""


@pytest.mark.parametrize("policy", ["relink", "strong", "strict"])
def test_after_a_load_everything_dies_with_the_last_owner_and_nothing_is_printed(policy):
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", f"POLICY = {policy!r}\n{textwrap.dedent(PROGRAM)}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        encoding="utf-8",
    )
    lines = run.stdout.splitlines()
    assert run.stderr == ""
    assert sorted(lines[1:3]) == ["callback", "finalizer"]
    assert [lines[0], *lines[3:]] == ["delete", "None None None False", "0 0 0", "dead proxy", "end"]


def test_callback_fires_once_with_the_loaded_reference(noted):
    node = Node()
    copy, reference = round_trip((node, weakref.ref(node, note)))
    del copy
    gc.collect()
    assert noted == [((reference,), {})]
    del node
    gc.collect()
    assert len(noted) == 1


class Destroyer:
    """Has a side effect while it is reduced."""

    def __init__(self, effect):
        self.effect = effect

    def __reduce__(self):
        self.effect()
        return str, ("destroyed",)


@pytest.mark.parametrize("place", ["before", "after"])
def test_referent_that_dies_while_the_dump_runs_does_no_harm(place):
    victims = [Node()]
    weak = [
        weakref.ref(victims[0]),
        OpenRef(victims[0]),
        weakref.proxy(victims[0]),
        weakref.WeakMethod(victims[0].method),
        weakref.WeakSet(victims),
        weakref.WeakValueDictionary(key=victims[0]),
        weakref.WeakKeyDictionary({victims[0]: 1}),
    ]
    destroyer = Destroyer(victims.clear)
    obj = [destroyer, *weak] if place == "before" else [*weak, destroyer]
    expected = pytest.warns(safepickle.WeakReferenceWarning, match="Node") if place == "after" else nullcontext()
    with expected:
        loaded = round_trip(obj)
    assert "destroyed" in (loaded[0], loaded[-1])
    reference, open_reference, proxy, method, *containers = loaded[1:] if place == "before" else loaded[:-1]
    assert reference() is open_reference() is method() is None
    with pytest.raises(ReferenceError, match="no longer exists"):
        proxy.name  # noqa: B018
    assert [len(container) for container in containers] == [0, 0, 0]


def test_another_thread_may_drop_referents_and_change_containers_meanwhile():
    members: Any = weakref.WeakSet()
    table: Any = weakref.WeakKeyDictionary()
    values: Any = weakref.WeakValueDictionary()
    nodes: list[Node] = []
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            node = Node()
            nodes.append(node)
            members.add(node)
            table[node] = node.name
            values[str(id(node))] = node
            if len(nodes) > 50:
                del nodes[:25]

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(60):
            loaded = round_trip((members, table, values), weakrefs="strong")
            assert all(node.name == "node" for container in loaded[:2] for node in container)
    finally:
        done.set()
        thread.join()


class Storing(safepickle.Pickler):
    def __init__(self, file, stored):
        super().__init__(file)
        self.stored = stored

    def persistent_id(self, obj):
        if type(obj) is Node:
            self.stored.append(obj)
            return obj.name
        return None


class Fetching(safepickle.Unpickler):
    nodes: dict[str, Node]

    def persistent_load(self, name):
        return self.nodes[name]


@pytest.mark.parametrize("order", ["referent first", "reference first"])
def test_referent_that_a_persistent_id_stores_is_kept(order, tmp_path):
    node, outside = Node("stored"), Node("outside")
    parts = [node, weakref.ref(node), weakref.proxy(node), weakref.WeakSet([node]), weakref.ref(outside)]
    stored: list[Node] = []
    with open(tmp_path / "file", "wb") as file:
        pickler = Storing(file, stored)
        with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
            pickler.dump(parts if order == "referent first" else parts[::-1])
    assert {id(obj) for obj in stored} == {id(node)}
    with open(tmp_path / "file", "rb") as file:
        unpickler = Fetching(file)
        unpickler.nodes = {"stored": Node("fetched")}
        loaded = unpickler.load()
    copy, reference, proxy, members, tombstone = loaded if order == "referent first" else loaded[::-1]
    assert copy is unpickler.nodes["stored"]
    assert reference() is copy
    assert proxy.name == "fetched"
    assert set(members) == {copy}
    assert tombstone() is None
