"""Subclasses of `weakref.ref`, and weak methods: their class, state, constructor and callback."""

from __future__ import annotations

import fractions
import gc
import pickle
import weakref
from typing import Any

import pytest

import safepickle
from nodes import Node, OpenRef, round_trip

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class LabelledRef(weakref.ref):
    """A reference whose constructor takes more than a referent, as `weakref.KeyedRef` does."""

    __slots__ = ("label",)

    def __new__(cls, referent, callback, label):
        return super().__new__(cls, referent, callback)

    def __init__(self, referent, callback, label):
        super().__init__(referent, callback)  # type: ignore[call-arg]
        self.label = label


class ReducedRef(weakref.ref):
    """A reference that says itself how it is pickled."""

    def __reduce__(self):
        node = self()
        assert node is not None
        return tuple, ((node.name, "reduced"),)


class StatefulRef(weakref.ref):
    """A reference that says itself what its state is."""

    def __getstate__(self):
        return {"from getstate": True}


class AliveRef(weakref.ref):
    """A reference of a class with a property, a class attribute and a method that asks its referent."""

    default = "class attribute"

    @property
    def name(self):
        node = self()
        assert node is not None
        return node.name


class CountingRef(weakref.ref):
    """A reference that gives more than its referent, as ``ExtendedRef`` in the documentation of `weakref` does."""

    def __init__(self, referent, callback=None):
        super().__init__(referent, callback)  # type: ignore[call-arg]
        self.calls = 0

    def __call__(self):
        referent = super().__call__()
        if referent is None:
            return None
        self.calls += 1
        return referent, self.calls


class CountingMethod(weakref.WeakMethod):
    """The same for methods."""

    called = 0

    def __call__(self):
        type(self).called += 1
        return super().__call__(), type(self).called


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reference_that_gives_something_else_when_called_is_relinked_and_not_called(protocol):
    node = Node()
    node.reference = CountingRef(node)
    copy = round_trip(node, protocol)
    assert node.reference.calls == 0
    assert copy.reference() == (copy, 1)


def test_reference_that_gives_something_else_when_called_outside_dead_and_strong():
    owner = Node("owner")
    outside, dead = CountingRef(owner), CountingRef(Node())
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
        copies = round_trip([outside, dead])
    assert [(type(copy), copy()) for copy in copies] == [(CountingRef, None)] * 2
    strong = round_trip(outside, weakrefs="strong")
    gc.collect()
    referent, calls = strong()
    assert (referent.name, calls, outside.calls) == ("owner", 1, 0)


def test_weak_method_that_gives_something_else_when_called_is_relinked_and_not_called():
    node = Node("owner")
    node.on_event = CountingMethod(node.method)
    copy = round_trip(node)
    assert CountingMethod.called == 0
    assert copy.on_event()[0].__self__ is copy


class LabelledMethod(weakref.WeakMethod):
    """A weak method whose constructor takes other arguments, and that has a ``__dict__``."""

    label: list[Any]

    def __new__(cls, owner, name):
        reference = super().__new__(cls, getattr(owner, name))
        reference.label = [name, reference]
        return reference

    def __init__(self, owner, name):
        super().__init__(getattr(owner, name))  # type: ignore[call-arg]


class SlottedMethod(weakref.WeakMethod):
    """A weak method with a slot, and the constructor of the standard library."""

    __slots__ = ("label",)
    label: list[Any]


def _labelled_methods(owner):
    slotted = SlottedMethod(owner.method)
    slotted.label = ["method", slotted]
    return [LabelledMethod(owner, "method"), slotted]


@pytest.mark.parametrize("owned_first", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_weak_method_of_a_subclass_keeps_its_class_and_its_state(protocol, owned_first):
    owner = Node("owner")
    methods = _labelled_methods(owner)
    copy = round_trip([owner, *methods] if owned_first else [*methods, owner], protocol)
    owner_copy, methods_copy = (copy[0], copy[1:]) if owned_first else (copy[-1], copy[:-1])
    assert [type(method) for method in methods_copy] == [LabelledMethod, SlottedMethod]
    for method in methods_copy:
        assert method().__self__ is owner_copy
        assert method.label[0] == "method"
        assert method.label[1] is method


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_weak_method_of_a_subclass_dead_outside_and_strong(protocol):
    owner = Node("owner")
    for method in [*round_trip(_labelled_methods(owner), protocol, weakrefs="tombstone"), *_labelled_methods(Node())]:
        dead = round_trip(method, protocol)
        assert (type(dead), dead(), dead.label[0]) == (type(method), None, "method")
        assert dead.label[1] is dead
    strong = round_trip(_labelled_methods(owner), protocol, weakrefs="strong")
    for copies in (strong, round_trip(strong, protocol), safepickle.deepcopy(strong)):
        gc.collect()
        assert [type(copy) for copy in copies] == [LabelledMethod, SlottedMethod]
        assert [copy()() for copy in copies] == ["owner", "owner"]
        assert [copy.label[0] for copy in copies] == ["method", "method"]
        owner_of_copies = weakref.ref(copies[0]().__self__)
        assert owner_of_copies() is not owner
        copies.clear()
        gc.collect()
        assert owner_of_copies() is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reference_with_more_constructor_arguments_keeps_its_state(protocol):
    node = Node()
    node.reference = LabelledRef(node, None, "label")
    copy = round_trip(node, protocol)
    assert copy.reference() is copy
    assert type(copy.reference) is LabelledRef
    assert copy.reference.label == "label"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reference_with_a_dict_keeps_it_though_it_leads_back_to_the_reference(protocol):
    node = Node()
    reference: Any = OpenRef(node)
    reference.itself = [reference]
    copy, loaded = round_trip((node, reference), protocol)
    assert loaded() is copy
    assert loaded.itself[0] is loaded


def test_key_of_a_keyed_ref_may_lead_back_to_it():
    node, holder = Node(), Node()
    holder.reference = weakref.KeyedRef(node, None, holder)  # type: ignore[arg-type]
    node.holder = holder
    copy = round_trip(node)
    assert copy.holder.reference() is copy
    assert copy.holder.reference.key is copy.holder
    assert type(copy.holder.reference) is weakref.KeyedRef


def test_own_reduce_and_own_getstate_are_honoured():
    node = Node("name")
    copy, reduced, stateful = round_trip((node, ReducedRef(node), StatefulRef(node)))
    assert reduced == ("name", "reduced")
    assert stateful() is copy
    assert vars(stateful) == {"from getstate": True}


@pytest.mark.parametrize("make", [lambda node: LabelledRef(node, None, "label"), OpenRef, AliveRef])
def test_dead_and_outside_instances_of_a_subclass_are_dead_ones_of_it(make):
    dead, owner = make(Node()), Node()
    outside = make(owner)
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
        copies = round_trip([dead, outside])
    assert [type(copy) for copy in copies] == [type(dead)] * 2
    assert [copy() for copy in copies] == [None, None]
    assert getattr(copies[0], "label", "label") == "label"
    assert len(set(map(id, copies))) == 2


def test_strong_copy_of_a_subclass_keeps_class_and_state_and_owns():
    owner = Node("owner")
    holder = round_trip([LabelledRef(owner, None, "label")], weakrefs="strong")
    gc.collect()
    assert holder[0]().name == "owner"
    assert type(holder[0]) is LabelledRef
    assert holder[0].label == "label"
    watcher = weakref.ref(holder[0]())
    holder.clear()
    gc.collect()
    assert watcher() is None


def test_one_reference_in_two_places_is_one_after_the_load():
    node = Node()
    reference = OpenRef(node)
    first, second, _ = round_trip([reference, {"again": reference}, node])
    assert second["again"] is first


class Calling:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_event = weakref.WeakMethod(self.note)

    def note(self) -> None:
        self.calls.append("noted")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_weak_method_of_an_object_that_holds_it_calls_the_copy(protocol):
    original = Calling()
    copy = round_trip(original, protocol)
    copy.on_event()()
    assert (copy.calls, original.calls) == (["noted"], [])
    assert copy.on_event == weakref.WeakMethod(copy.note)
    on_event = copy.on_event
    del copy
    gc.collect()
    assert on_event() is None


def test_weak_method_dead_outside_and_strong():
    owner = Node("owner")
    outside, dead = weakref.WeakMethod(owner.method), weakref.WeakMethod(Node().method)
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
        copies = round_trip([outside, dead])
    for copy in copies:
        assert isinstance(copy, weakref.WeakMethod)
        assert copy() is None
    strong = round_trip(outside, weakrefs="strong")
    gc.collect()
    assert strong()() == "owner"
    assert isinstance(strong, weakref.WeakMethod)


def test_weak_method_of_an_imported_class_is_relinked():
    loaded = round_trip(weakref.WeakMethod(fractions.Fraction.from_float))
    assert loaded()(0.5) == fractions.Fraction(1, 2)


def test_weak_method_of_a_class_that_travels_by_value_needs_its_class():
    class Local:
        @classmethod
        def make(cls):
            return cls()

    copy, method = round_trip((Local, weakref.WeakMethod(Local.make)))
    assert type(method()()) is copy
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to builtins.type"):
        assert round_trip(weakref.WeakMethod(Local.make))() is None
