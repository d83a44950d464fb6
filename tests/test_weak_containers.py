"""Weak containers: ephemerons, cycles through a container, subclasses; and sets whose members point back."""

from __future__ import annotations

import collections
import dataclasses
import gc
import io
import itertools
import pickle
import weakref
from typing import Any

import pytest

import safepickle
from nodes import Node, round_trip

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_value_is_no_reason_that_its_own_key_is_kept(protocol):
    key = Node()
    table = weakref.WeakKeyDictionary({key: [key, b"needle" * 1000]})
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
        data = safepickle.dumps(table, protocol)
    assert b"needle" not in data
    assert len(safepickle.loads(data)) == 0


@pytest.mark.parametrize("length", [1, 2, 3, 50])
@pytest.mark.parametrize("order", [1, -1])
def test_chain_of_ephemerons_is_followed_to_its_end(length, order):
    nodes = [Node(f"node-{number}") for number in range(length + 1)]
    # Each value holds the key of the next entry; met in either order.
    entries = [(key, [value]) for key, value in itertools.pairwise(nodes)][::order]
    table = weakref.WeakKeyDictionary(entries)
    loaded, key = round_trip((table, nodes[0]))
    assert len(loaded) == length
    for number in range(1, length + 1):
        [key] = loaded[key]
        assert key.name == f"node-{number}"


def test_chain_across_several_dictionaries():
    first, second, third = Node("first"), Node("second"), Node("third")
    tables = [weakref.WeakKeyDictionary({second: third}), weakref.WeakKeyDictionary({first: second})]
    (one, other), copy = round_trip((tables, first))
    assert one[other[copy]].name == "third"


def test_two_entries_that_hold_each_others_keys_are_left_out_together():
    first, second = Node(), Node()
    table = weakref.WeakKeyDictionary({first: second, second: first})
    with pytest.warns(safepickle.WeakReferenceWarning, match="2 to .*Node"):
        assert len(round_trip(table)) == 0


def test_callback_is_kept_only_with_its_referent():
    class Payload:
        data: bytes

        def __call__(self, reference):
            pass

    outside, callback = Node(), Payload()
    callback.data = b"needle" * 1000
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*Node"):
        assert b"needle" not in safepickle.dumps([weakref.ref(outside, callback)])


class Team(weakref.WeakSet):
    """A weak set with a name, whose members point back at it."""

    captain: Node

    def __init__(self, name):
        super().__init__()
        self.name = name

    def __hash__(self):  # type: ignore[override]
        return id(self)


class Registry(weakref.WeakValueDictionary):
    def __init__(self, *, limit):
        super().__init__()
        self.limit = limit

    def __setitem__(self, key, value):
        assert len(self) < self.limit
        super().__setitem__(key, value)


class Notes(weakref.WeakKeyDictionary):
    __slots__ = ("author",)
    author: str


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("first", ["container", "member"])
def test_member_may_point_back_at_its_container(protocol, first):
    team, member = Team("name"), Node()
    team.add(member)
    member.team, member.back = team, weakref.ref(team)
    if first == "container":
        team.captain = member
        copy = round_trip(team, protocol)
        [member] = copy
        assert copy.captain is member
    else:
        member = round_trip(member, protocol)
        copy = member.team
    assert type(copy) is Team
    assert copy.name == "name"
    assert set(copy) == {member}
    assert member.team is copy
    assert member.back() is copy


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("base", [weakref.WeakValueDictionary, weakref.WeakKeyDictionary])
def test_dictionary_may_be_part_of_a_cycle(protocol, base):
    node = Node()
    table = base()
    node.table = table
    if base is weakref.WeakValueDictionary:
        table["node"] = node
        copy = round_trip(node, protocol)
        assert copy.table["node"] is copy
    else:
        table[node] = node
        copy = round_trip(node, protocol)
        assert copy.table[copy] is copy


class Tagged(weakref.WeakSet):
    """A set whose constructor, ``__new__`` too, takes other arguments than its members."""

    def __new__(cls, tag):
        return super().__new__(cls)

    def __init__(self, tag):
        super().__init__()
        self.tag = tag


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_subclass_whose_new_takes_arguments_is_built_without_it(protocol):
    node, tagged = Node(), Tagged("tag")
    tagged.add(node)
    copy, loaded = round_trip((node, tagged), protocol)
    assert (type(loaded), loaded.tag, list(loaded)) == (Tagged, "tag", [copy])


def test_subclasses_of_the_dictionaries_keep_class_and_attributes_and_run_no_constructor():
    node = Node()
    registry = Registry(limit=1)
    registry["node"] = node
    notes = Notes({node: "note"})
    notes.author = "author"
    copy, loaded_registry, loaded_notes = round_trip((node, registry, notes))
    assert (type(loaded_registry), loaded_registry.limit) == (Registry, 1)
    assert loaded_registry["node"] is copy
    assert (type(loaded_notes), loaded_notes.author) == (Notes, "author")
    assert loaded_notes[copy] == "note"


def test_member_with_a_hash_of_its_own_is_found_after_the_load():
    Point = collections.namedtuple("Point", "x y")

    class Place:
        def __init__(self, point):
            self.point = point

        def __hash__(self):
            return hash(self.point)

        def __eq__(self, other):
            return self.point == other.point

    place = Place(Point(1, 2))
    places, table, copy = round_trip((weakref.WeakSet([place]), weakref.WeakKeyDictionary({place: "value"}), place))
    assert Place((1, 2)) in places
    assert table[Place((1, 2))] == "value"
    assert set(places) == {copy}


class Named:
    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return self.name == other.name

    def __hash__(self):
        return hash(self.name)


@dataclasses.dataclass(slots=True, weakref_slot=True, unsafe_hash=True)
class NamedSlots:
    name: str
    group: object = dataclasses.field(default=None, compare=False)


class NamedAtOnce(Named):
    group: Any

    def __reduce__(self):
        return type(self), (self.name,), {"group": self.group}


class Careless(Named):
    def __hash__(self):
        return hash(self.nmae)  # type: ignore[attr-defined]


class HashesOnLoad:
    def __setstate__(self, state):
        hash(Careless("bob"))

    def __getstate__(self):
        return {"some": "state"}


def _group(kind, member):
    return weakref.WeakKeyDictionary({member: 1}) if kind is weakref.WeakKeyDictionary else kind([member])


@pytest.mark.parametrize("kind", [set, weakref.WeakSet, weakref.WeakKeyDictionary])
@pytest.mark.parametrize("cls", [Named, NamedSlots])
@pytest.mark.parametrize("load", [safepickle.loads, lambda data: safepickle.load(io.BytesIO(data))])
def test_member_that_is_hashed_before_its_state_fails_with_a_note_that_says_so(kind, cls, load):
    member = cls("ann")
    member.group = _group(kind, member)
    with pytest.raises(AttributeError, match="name") as caught:
        load(safepickle.dumps(member))
    [note] = caught.value.__notes__
    assert f"{cls.__module__}.{cls.__qualname__} was hashed before" in note
    assert "__reduce__" in note
    group, copy = round_trip([member.group, member])
    assert copy in group


@pytest.mark.parametrize("kind", [set, weakref.WeakSet, weakref.WeakKeyDictionary])
def test_member_whose_constructor_is_given_what_is_hashed_may_lead_to_its_container(kind):
    member = NamedAtOnce("ann")
    member.group = _group(kind, member)
    copy = round_trip(member)
    assert next(iter(copy.group)) is copy
    assert copy in copy.group


def test_hash_that_fails_for_another_reason_gets_no_note():
    with pytest.raises(AttributeError, match="nmae") as caught:
        round_trip(HashesOnLoad())
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("kind", [weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary])
def test_container_under_strong_owns_what_would_die_and_lets_it_go(kind):
    owner = Node("owner")
    container: Any = kind([owner]) if kind is weakref.WeakSet else kind()
    if kind is weakref.WeakValueDictionary:
        container["key"] = owner
    elif kind is weakref.WeakKeyDictionary:
        container[owner] = "value"
    holder = round_trip([container], weakrefs="strong")
    gc.collect()
    copy = holder[0]
    assert type(copy) is kind
    assert len(copy) == 1
    [member] = copy.values() if kind is weakref.WeakValueDictionary else copy
    watcher = weakref.ref(member)
    assert member.name == "owner"
    again = round_trip([copy], weakrefs="strong")
    assert len(again[0]) == 1
    holder.clear()
    del copy, member
    gc.collect()
    assert watcher() is None


def test_strict_names_the_path_of_a_container():
    owner = Node()
    with pytest.raises(safepickle.WeakReferenceError, match="Node") as caught:
        safepickle.dumps({"cache": [weakref.WeakSet([owner])]}, weakrefs="strict")
    assert str(caught.value.path).startswith("$['cache'][0]")


def test_container_that_changes_during_iteration_elsewhere_is_dumped():
    kept = [Node(), Node()]
    members = weakref.WeakSet(kept)
    iterator = iter(members)
    # While it stands still, it holds this one, and members that die are not yet taken out.
    kept = [next(iterator)]
    gc.collect()
    loaded, [copy] = round_trip((members, kept))
    assert set(loaded) == {copy}
    assert list(iterator) == []


class TreeSet(set):
    """A set whose members have a parent pointer to it."""

    label: str
    __hash__ = object.__hash__  # type: ignore[assignment]


class FrozenTree(frozenset):
    """The same, frozen: its members are arguments of its constructor, so it cannot exist before them."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("start", ["set", "member"])
def test_member_of_a_set_subclass_keeps_its_parent_pointer(protocol, start):
    tree, member = TreeSet(), Node()
    tree.label = "label"
    member.parent = weakref.ref(tree)
    member.tree = tree
    tree.add(member)
    if start == "set":
        copy = round_trip(tree, protocol)
        [member] = copy
    else:
        member = round_trip(member, protocol)
        copy = member.tree
    assert type(copy) is TreeSet
    assert copy.label == "label"
    assert member.parent() is copy
    assert member in copy


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pointer_to_what_cannot_exist_yet_becomes_a_tombstone_that_says_so(protocol):
    member = Node()
    tree = FrozenTree([member])
    member.parent = weakref.ref(tree)
    with pytest.warns(safepickle.WeakReferenceWarning, match="FrozenTree"):
        copy = round_trip(tree, protocol)
    [member] = copy
    assert isinstance(member.parent, safepickle.Tombstone)
    assert member.parent.reason == "cycle"
    for policy in ("strong", lambda referent: "tombstone"):
        with pytest.warns(safepickle.WeakReferenceWarning, match="FrozenTree"):
            [member] = round_trip(tree, protocol, weakrefs=policy)
        assert member.parent() is None
    with pytest.raises(safepickle.WeakReferenceError, match="does not exist yet"):
        safepickle.dumps(tree, protocol, weakrefs="strict")
