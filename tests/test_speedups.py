"""The compiled core writes the bytes, warns the warnings and raises the errors that Python alone does."""

from __future__ import annotations

import copyreg
import functools
import gc
import io
import itertools
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safepickle
from nodes import Node
from safepickle import speedups
from safepickle.dumping.base_pickler import BasePickler
from weak_graphs import build, plans

compiled = pytest.mark.skipif(not safepickle.COMPILED, reason="the compiled core is not on")


class Plain:
    pass


class Derived(Plain):
    kind = "derived"


class Slotted:
    __slots__ = ("__dict__", "__weakref__", "a")


class WithState:
    def __getstate__(self) -> Any:
        return [vars(self)]

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state[0])


class Guarded:
    """It answers for attributes that it has not."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Shy:
    """It hides its attributes from whoever asks for them by name."""

    def __getattribute__(self, name: str) -> Any:
        return {} if name == "__dict__" else object.__getattribute__(self, name)


class ByArguments:
    """It is built from its neighbours, so that a cycle goes through its reduce arguments."""

    def __reduce__(self) -> Any:
        return build_by_arguments, (list(vars(self).values()),)


def build_by_arguments(values: list[Any]) -> ByArguments:
    made = ByArguments()
    vars(made).update((f"a{number}", value) for number, value in enumerate(values))
    return made


class Group(set):
    """A set whose members may lead back to it."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other


class Meta(type):
    pass


class WithMeta(metaclass=Meta):
    pass


class Registered:
    pass


def reduce_registered(obj: Registered) -> Any:
    return copyreg.__newobj__, (Registered,), vars(obj) or None  # type: ignore[attr-defined]


class Stubborn:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle the {vars(self).get('name')}")


def own_reduce(protocol: Any) -> Any:
    return Plain, ()


def own_state() -> Any:
    return {"told": 1}


KINDS: dict[str, Callable[[], Any]] = {
    cls.__name__: cls
    for cls in (
        *(Plain, Derived, Slotted, WithState, Guarded, Shy, ByArguments, Group, WithMeta, Registered, Stubborn),
    )
}
WEIGHTS = [10, 4, 2, 2, 2, 1, 3, 2, 2, 2, 0.1]
CONTAINERS: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    frozenset,
    set,
    lambda items: dict.fromkeys(items, items[0]),
    lambda items: dict(enumerate(items)),
]


def random_graph(seed: int) -> Any:
    """Return a graph in which what follows from what is hidden in every way that the tests know."""
    choose = random.Random(seed)
    nodes = [KINDS[kind]() for kind in choose.choices(list(KINDS), WEIGHTS, k=choose.randint(1, 14))]
    outside = [Plain() for _ in range(3)]
    kept: list[Any] = list(nodes)
    for node in nodes:
        for number in range(choose.randint(0, 4)):
            value: Any = choose.choice([*nodes, 1, "text", None, 2.5])
            if choose.random() < 0.3:
                picked = choose.choices(nodes, k=choose.randint(1, 3))
                value = choose.choice(CONTAINERS)(picked)
            elif choose.random() < 0.5:
                value = weakref.ref(choose.choice([*nodes, *nodes, *outside, frozen := frozenset(nodes[:2])]))
                if choose.random() < 0.2:
                    kept.append(frozen)
            elif choose.random() < 0.1:
                value = choose.choice([weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary])()
                filled = choose.choices([node for node in nodes if not isinstance(node, Stubborn)] or outside, k=2)
                if isinstance(value, weakref.WeakSet):
                    value.update(filled)
                else:
                    value[filled[0]] = filled[1]
            if isinstance(node, Group) and choose.random() < 0.5:
                with_hash = value if value.__hash__ else "text"
                if not isinstance(with_hash, tuple | frozenset):
                    node.add(with_hash)
            else:
                vars(node)[choose.choice(["a", "b", f"name {number}", "_own"])] = value
        if choose.random() < 0.03:
            vars(node)["__reduce_ex__"] = own_reduce
        if choose.random() < 0.03:
            vars(node)["__getstate__"] = own_state
        if choose.random() < 0.03:
            vars(node)[choose.randint(0, 3)] = choose.choice(nodes)
    choose.shuffle(kept)
    references = [weakref.ref(node) for node in choose.choices(nodes, k=choose.randint(0, 6))]
    # What is outside has to live until every dump has seen it.
    random_graph.alive = nodes, outside  # type: ignore[attr-defined]
    return choose.choice([[references, kept], [kept, references], {"a": references, "b": tuple(kept)}, nodes[0]])


def outcome(dump: Callable[[], Any]) -> tuple[Any, ...]:
    """Return all that a dump comes to: bytes, warnings, or an error with all that it says."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = dump()
        except Exception as error:
            path = getattr(error, "pickle_path", None)
            # Where the stack ends, in C or in Python, is in the text of the error and in CPython's notes from 3.14 on.
            ended = isinstance(error, RecursionError)
            says = ("", ()) if ended else (str(error), getattr(error, "__notes__", ()))
            result = type(error), says, path
    return result, [str(warning.message) for warning in caught]


def assert_same(dump: Callable[[], Any]) -> Any:
    without = []
    with mock.patch.object(BasePickler, "core", speedups.PURE):
        without.append(outcome(dump))
    with_it = outcome(dump)
    with mock.patch.object(BasePickler, "core", speedups.PURE):
        without.append(outcome(dump))
    # The path in an error is one of several, and which one depends on what the interpreter has made of an instance.
    assert with_it in without
    return with_it[0]


def several_dumps(graph: Any, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pickler = safepickle.Pickler(file, **options)
    pickler.dump([graph])
    pickler.dump({"again": graph})
    return file.getvalue()


def out_of_band(graph: Any) -> Any:
    buffers: list[Any] = []
    data = safepickle.dumps([graph, pickle.PickleBuffer(b"1234")], buffer_callback=buffers.append)
    return data, len(buffers)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    copyreg.pickle(Registered, reduce_registered)
    yield
    del copyreg.dispatch_table[Registered]


@compiled
@settings(deadline=None, max_examples=400)
@given(seed=st.integers(0, 10**9), protocol=st.integers(0, 5))
def test_random_graphs_give_the_same_bytes_and_errors(seed, protocol):
    graph = random_graph(seed)
    for policy in ("relink", "strong", "tombstone", "strict", lambda referent: "tombstone"):
        assert_same(functools.partial(safepickle.dumps, graph, protocol, weakrefs=policy))
    assert_same(lambda: several_dumps(graph, {"protocol": protocol}))
    assert_same(lambda: safepickle.dumps(graph, protocol, unpicklable="tombstone"))
    assert_same(lambda: out_of_band(graph))


@compiled
@settings(deadline=None, max_examples=150)
@given(plan=plans(), protocol=st.integers(4, 5))
def test_every_kind_of_weak_reference_gives_the_same_bytes(plan, protocol):
    graph = build(plan)
    for policy in ("relink", "strong", "strict"):
        assert_same(functools.partial(safepickle.dumps, graph.root, protocol, weakrefs=policy))
    gc.unfreeze()


def forward(count: int) -> list[Any]:
    nodes = [Plain() for _ in range(count)]
    for number, node in enumerate(nodes):
        node.number, node.links = number, {"next": weakref.ref(nodes[(number + 7) % count])}  # type: ignore[attr-defined]
    return [[weakref.ref(node) for node in nodes], nodes]


class Marker:
    """It counts the walks that meet it."""

    walks = 0

    def __reduce__(self) -> Any:
        Marker.walks += 1
        return Marker, ()


@compiled
def test_forward_references_take_one_walk():
    Marker.walks = 0
    safepickle.dumps([Marker(), forward(100)])
    assert Marker.walks == 1
    with mock.patch.object(BasePickler, "core", speedups.PURE):
        safepickle.dumps([Marker(), forward(100)])
    assert Marker.walks == 3


@compiled
@pytest.mark.parametrize("hide", [lambda node: {"a": ByArguments(), "b": node}, lambda node: [WithState(), node]])
def test_what_the_look_ahead_misses_takes_a_second_walk(hide):
    node, owner = Plain(), WithState()
    owner.node = node  # type: ignore[attr-defined]
    loaded = safepickle.loads(assert_same(lambda: safepickle.dumps([weakref.ref(node), hide(1), owner])))
    assert loaded[0]() is loaded[2].node


class Elsewhere(safepickle.Pickler):
    """Stores an object outside the pickle, so that what it leads to is not in it."""

    def persistent_id(self, obj: Any) -> Any:
        return "elsewhere" if type(obj) is Derived else None


class OwnOverride(safepickle.Pickler):
    """Reduces an object in a way of its own."""

    def reducer_override(self, obj: Any) -> Any:
        return (Plain, ()) if type(obj) is Derived else super().reducer_override(obj)


@compiled
@pytest.mark.parametrize("cls", [Elsewhere, OwnOverride])
def test_a_subclass_decides_what_leads_where(cls):
    hider, node = Derived(), Plain()
    hider.node = node  # type: ignore[attr-defined]

    def dump() -> bytes:
        file = io.BytesIO()
        cls(file).dump([weakref.ref(node), hider])
        return file.getvalue()

    data = assert_same(dump)
    assert b"Tombstone" in data


@compiled
def test_dispatch_table_of_the_pickler_goes_first():
    def dump() -> bytes:
        file = io.BytesIO()
        pickler = safepickle.Pickler(file)
        pickler.dispatch_table = {Plain: lambda obj: (Derived, ())}
        pickler.dump(forward(10))
        return file.getvalue()

    assert b"Derived" in assert_same(dump)


@compiled
def test_fast_mode_gives_the_same_bytes():
    def dump() -> bytes:
        file = io.BytesIO()
        pickler = safepickle.Pickler(file)
        pickler.fast = True
        node = Plain()
        pickler.dump([weakref.ref(node), node, node, Plain()])
        return file.getvalue()

    assert_same(dump)


@compiled
def test_a_class_that_changes_between_dumps_is_judged_anew(monkeypatch):
    nodes = [Plain() for _ in range(4)]
    before = assert_same(lambda: safepickle.dumps(nodes))
    monkeypatch.setattr(Plain, "__getstate__", lambda self: {"changed": True}, raising=False)
    after = assert_same(lambda: safepickle.dumps(nodes))
    assert b"changed" not in before
    assert b"changed" in after


@compiled
def test_a_dump_leaves_nothing_behind():
    nodes = forward(50)
    watchers = [weakref.ref(node) for node in nodes[1]]
    safepickle.dumps(nodes)
    counts = [sys.getrefcount(node) for node in nodes[1]]
    for _ in range(3):
        safepickle.dumps(nodes)
    assert [sys.getrefcount(node) for node in nodes[1]] == counts
    gc.disable()
    try:
        del nodes
        assert [watcher() for watcher in watchers] == [None] * len(watchers)
    finally:
        gc.enable()


@compiled
def test_dumps_leaks_no_memory():
    hidden = [Registered(), WithState(), ByArguments(), Guarded()]
    looked_ahead = [forward(20), hidden]
    in_vain = [forward(20), weakref.ref(hidden[2]), hidden, {frozenset(hidden)}]
    too_deep: list[Any] = forward(20)
    for _ in range(150):
        too_deep = [too_deep]
    failing = [forward(20), Stubborn()]

    def dump_all() -> None:
        for graph in (looked_ahead, in_vain, [forward(3), too_deep]):
            safepickle.dumps(graph)
        with pytest.raises(TypeError, match="cannot pickle the"):
            safepickle.dumps(failing)

    def growth() -> int:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            dump_all()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        # Free lists and caches of the interpreter fill up at first.
        assert min(growth() for _ in range(5)) < 100 * 40
    finally:
        tracemalloc.stop()


def test_deep_graph_of_forward_references_gives_the_same_bytes():
    nodes = [Plain() for _ in range(20_000)]
    for node, following in itertools.pairwise(nodes):
        node.next = weakref.ref(following)  # type: ignore[attr-defined]
    loaded = safepickle.loads(assert_same(lambda: safepickle.dumps([nodes[0], nodes])))
    assert loaded[1][0].next() is loaded[1][1]


@compiled
class TestAddressSet:
    def test_holds_what_a_set_of_ids_holds(self):
        choose = random.Random(1)
        objects = [object() for _ in range(500)]
        ours, theirs = speedups.current.id_set(), set()
        for _ in range(5000):
            key = id(choose.choice(objects))
            if choose.random() < 0.5:
                ours.add(key)
                theirs.add(key)
            else:
                ours.discard(key)
                theirs.discard(key)
            assert (key in ours) == (key in theirs)
        assert len(ours) == len(theirs)
        assert set(ours) == theirs

    def test_updates_from_any_iterable(self):
        objects = [object() for _ in range(100)]
        keys = set(map(id, objects))
        ours = speedups.current.id_set(keys)
        other = speedups.current.id_set()
        other.update(ours)
        other.update(other)
        assert set(other) == keys

    @pytest.mark.parametrize("key", [0, 1, -(2**70), 2**70])
    def test_refuses_what_is_no_id(self, key):
        with pytest.raises((ValueError, OverflowError), match=r"id|int|large"):
            speedups.current.id_set().add(key)

    def test_refuses_what_is_no_number(self):
        with pytest.raises(TypeError, match="integer"):
            speedups.current.id_set(["text"])


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_environment_turns_the_compiled_core_off(value):
    program = "import safepickle; print(safepickle.COMPILED, len(safepickle.dumps({1: 2})))"
    environment = {**os.environ, "SAFEPICKLE_PURE": value}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, encoding="utf-8"
    )
    assert run.stdout.split() == ["False", str(len(safepickle.dumps({1: 2})))]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal")
def test_no_reference_to_none_is_lost():
    """Headers of a CPython where None is immortal count none, which ends the process on an older one."""
    root = Node()
    root.kept = [Node(), Node()]
    root.forward = [weakref.ref(node) for node in root.kept]
    safepickle.dumps(root)
    before = sys.getrefcount(None)
    for _ in range(200):
        safepickle.dumps(root)
    assert abs(sys.getrefcount(None) - before) < 100
