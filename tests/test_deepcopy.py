"""`safepickle.deepcopy`: weak references inside point into the copy, and all else is as with `copy.deepcopy`."""

from __future__ import annotations

import collections
import concurrent.futures
import copy
import copyreg
import enum
import functools
import gc
import re
import socket
import sys
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safepickle
from nodes import Node, deepcopy


class Slotted:
    __slots__ = ("__weakref__", "link", "other")
    link: Any
    other: Any


class Labelled(weakref.ref):
    __slots__ = ("__dict__", "label")
    label: Any
    extra: list[Any]
    holder: list[Any]


def identity(node: Any) -> Any:
    return weakref.ref(node)


WEAK_KINDS = {
    "ref": weakref.ref,
    "labelled": Labelled,
    "proxy": weakref.proxy,
    "method": lambda node: weakref.WeakMethod(node.method),
}


def follow(reference: Any) -> Any:
    """The referent of any kind of weak reference."""
    if type(reference) is weakref.ProxyType:
        return reference.method.__self__
    referent = reference()
    return getattr(referent, "__self__", referent)


@pytest.fixture(params=WEAK_KINDS, ids=list(WEAK_KINDS))
def weak(request: pytest.FixtureRequest) -> Any:
    return WEAK_KINDS[request.param]


def test_stock_deepcopy_leaves_the_parent_pointer_at_the_original() -> None:
    parent = Node("parent")
    parent.child = Node("child", parent=weakref.ref(parent))
    assert copy.deepcopy(parent).child.parent() is parent


def test_parent_pointer_leads_to_the_copy(weak: Any) -> None:
    parent = Node("parent")
    parent.child = Node("child", parent=weak(parent))
    copied = deepcopy(parent)
    assert copied is not parent
    assert follow(copied.child.parent) is copied
    assert type(copied.child.parent) is type(parent.child.parent)
    assert follow(parent.child.parent) is parent


@pytest.mark.parametrize("hold", ["list", "dict", "attribute", "slot", "deque", "ordered", "tuple", "reduce", "set"])
def test_forward_reference_leads_to_the_copy_wherever_it_is_held(weak: Any, hold: str) -> None:
    target = Node("target")
    reference = weak(target)
    slotted = Slotted()
    slotted.link = reference
    holders: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "list": ([reference], lambda h: h[0]),
        "dict": ({"x": reference}, lambda h: h["x"]),
        "attribute": (Node(x=reference), lambda h: h.x),
        "slot": (slotted, lambda h: h.link),
        "deque": (collections.deque([reference]), lambda h: h[0]),
        "ordered": (collections.OrderedDict(x=reference), lambda h: h["x"]),
        "tuple": ((1, (reference,)), lambda h: h[1][0]),
        "reduce": (functools.partial(print, reference), lambda h: h.args[0]),
        "set": ({reference} if weak is not weakref.proxy else [reference], lambda h: next(iter(h))),
    }
    holder, read = holders[hold]
    copied = deepcopy([holder, "between", target, holder])
    assert copied[2] is not target
    assert follow(read(copied[0])) is copied[2]
    assert copied[3] is copied[0]
    assert follow(read(holder)) is target


def test_outside_referent_stays_the_same_object(weak: Any) -> None:
    outside = Node("outside")
    copied = deepcopy(Node("inside", link=weak(outside), pair=(weak(outside), 1)))
    assert follow(copied.link) is outside
    assert follow(copied.pair[0]) is outside


def test_plain_outside_reference_is_shared_as_with_copy() -> None:
    outside = Node("outside")
    reference = weakref.ref(outside)
    assert deepcopy([reference])[0] is reference


def test_dead_reference_stays_dead(weak: Any) -> None:
    node = Node("gone")
    holder = [weak(node)]
    del node
    gc.collect()
    copied = deepcopy(holder)[0]
    if type(copied) is weakref.ProxyType:
        with pytest.raises(ReferenceError, match="weakly-referenced object no longer exists"):
            copied.name  # noqa: B018
    else:
        assert copied() is None


def test_a_reference_shared_by_two_holders_is_one_object_in_the_copy(weak: Any) -> None:
    target = Node("target")
    reference = weak(target)
    first, second, _, third = deepcopy([[reference], {"x": reference}, target, [reference]])
    assert first[0] is second["x"]
    assert first[0] is third[0]


def test_reference_to_a_builtin_set_leads_to_the_copy() -> None:
    members = {1, 2}
    frozen = frozenset({Node("element")})
    references = [weakref.ref(members), weakref.ref(frozen)]
    copied = deepcopy([*references, members, frozen])
    assert copied[0]() is copied[2] is not members
    assert copied[1]() is copied[3] is not frozen


def test_functions_and_classes_are_shared_and_so_are_references_to_them() -> None:
    reference, class_reference = weakref.ref(identity), weakref.ref(Node)
    copied = deepcopy([reference, class_reference, identity, Node])
    assert copied == [reference, class_reference, identity, Node]
    assert copied[0]() is identity


def test_callable_proxy_leads_to_the_copy_and_stays_callable() -> None:
    class Called:
        def __call__(self) -> Any:
            return self

    target = Called()
    proxy, copied = deepcopy([weakref.proxy(target), target])
    assert type(proxy) is weakref.CallableProxyType
    assert proxy() is copied


def test_dead_after_its_last_owner_goes() -> None:
    parent = Node("parent")
    parent.child = Node("child", parent=weakref.ref(parent))
    child = deepcopy(parent).child
    gc.collect()
    assert child.parent() is None


def test_subclass_keeps_its_slots_and_attributes() -> None:
    target = Node("target")
    reference = Labelled(target)
    reference.label, reference.extra = "name", [target]
    first, copied = deepcopy([reference, target])
    assert type(first) is Labelled
    assert (first.label, first.extra[0]) == ("name", copied)
    assert first() is copied


def test_subclass_whose_attributes_lead_back_to_it() -> None:
    target = Node("target")
    reference = Labelled(target)
    reference.label = "loop"
    reference.holder = [reference]
    first, copied = deepcopy([reference, target])
    assert first() is copied
    assert first.holder[0] is first


def test_subclass_that_is_its_own_attribute() -> None:
    class Method(weakref.WeakMethod):
        me: Any

    target = Node("target")
    reference, method = Labelled(target), Method(target.method)
    reference.label = method.me = None
    reference.label, method.me = reference, method
    first, second, copied = deepcopy((reference, method, target))
    assert first.label is first
    assert second.me is second
    assert first() is second().__self__ is copied


def test_subclass_that_hashes_by_identity_finds_its_new_referent() -> None:
    class ByIdentity(weakref.ref):
        __slots__ = ("_id",)

        def __init__(self, referent: Any, callback: Any = None) -> None:
            super().__init__(referent, callback)  # type: ignore[call-arg]
            self._id = id(referent)

        def __hash__(self) -> int:
            return self._id

    target = Node("target")
    copied, table = deepcopy([target, {ByIdentity(target): "entry"}])
    assert table[ByIdentity(copied)] == "entry"


def test_strong_ref_goes_on_owning() -> None:
    loaded = safepickle.loads(safepickle.dumps([weakref.ref(Outside.only)], weakrefs="strong"))
    copied = deepcopy(loaded)
    assert copied[0]().name == "only"
    assert copied[0]() is not loaded[0]()
    del loaded
    gc.collect()
    assert copied[0]().name == "only"


class Outside:
    only = Node("only")


def test_tombstone_stays_a_tombstone() -> None:
    tombstone = safepickle.Tombstone("outside", "app.Thing")
    copied = deepcopy([tombstone])[0]
    assert (copied(), copied.reason, copied.referent_type) == (None, "outside", "app.Thing")


# Callbacks


def test_callback_function_is_the_same_and_fires_for_the_copy_alone() -> None:
    fired: list[Any] = []
    target = Node("target")
    holder: list[Any] = [weakref.ref(target, fired.append), target]
    copied = deepcopy(holder)
    gc.collect()
    assert fired == []
    relinked = copied[0]
    assert relinked.__callback__ == holder[0].__callback__
    copied.pop()
    gc.collect()
    assert fired == [relinked]
    assert holder[0]() is target


class Registry:
    watch: weakref.ref[Node]

    def __init__(self) -> None:
        self.gone: list[Any] = []

    def note(self, reference: Any) -> None:
        self.gone.append(reference)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("make", [weakref.ref, weakref.proxy, lambda n, c: weakref.WeakMethod(n.method, c)])
def test_callback_bound_to_a_copied_object_is_bound_to_the_copy(place: int, make: Any) -> None:
    target, registry = Node("target"), Registry()
    graph: list[Any] = [target, registry]
    graph.insert(place, make(target, registry.note))
    copied = deepcopy(graph)
    copied_registry = next(each for each in copied if type(each) is Registry)
    del copied[0 if place else 1]
    gc.collect()
    assert len(copied_registry.gone) == 1
    assert registry.gone == []


def test_callback_bound_to_an_object_that_stays_outside_is_the_same() -> None:
    target, registry = Node("target"), Registry()
    copied = deepcopy([target, weakref.ref(target, registry.note)])
    assert copied[1].__callback__.__self__ is registry


def test_reference_to_the_outside_calls_back_the_copy() -> None:
    outside, registry = Node("outside"), Registry()
    registry.watch = weakref.ref(outside, registry.note)
    copied = deepcopy(registry)
    assert copied.watch() is outside
    assert copied.watch.__callback__.__self__ is copied


def test_callback_of_a_list_method_and_of_a_partial() -> None:
    log: list[Any] = []
    target = Node("target")
    copied = deepcopy([
        target,
        log,
        weakref.ref(target, log.append),
        weakref.ref(target, functools.partial(_log_to, log)),
    ])  # fmt: skip
    del copied[0]
    gc.collect()
    assert len(copied[0]) == 2
    assert log == []


@pytest.mark.parametrize("weak", [weakref.ref, weakref.proxy, lambda node: weakref.WeakMethod(node.method)])
def test_weak_reference_that_only_a_callback_is_given_leads_to_the_copy(weak: Any) -> None:
    registry, target = Node("registry"), Node("target")
    callback = functools.partial(_note, weak(registry))
    finalizer = weakref.finalize(target, _note, weak(registry), by="finalizer")
    copied = deepcopy([registry, target, weakref.ref(target, callback), finalizer], finalizers="rearm")
    del copied[1]
    gc.collect()
    assert copied[0].noted == {"callback", "finalizer"}
    assert not hasattr(registry, "noted")
    finalizer.detach()


def test_weak_reference_to_the_outside_that_a_callback_is_given_stays_the_same() -> None:
    registry, target = Node("registry"), Node("target")
    callback = functools.partial(lambda *_: None, weakref.ref(registry))
    _, reference = deepcopy([target, weakref.ref(target, callback)])
    assert reference.__callback__ is callback


def _note(registry: Any, dead: Any = None, by: str = "callback") -> None:
    owner = registry if type(registry) is weakref.ProxyType else registry()
    owner = getattr(owner, "__self__", owner)
    owner.__dict__.setdefault("noted", set()).add(by)


def _log_to(log: list[Any], reference: Any) -> None:
    log.append(reference)


# Weak containers


def test_weak_set_holds_copies_and_outside_members() -> None:
    inside, outside = Node("inside"), Node("outside")
    members = weakref.WeakSet([inside, outside])
    copied_members, copied = deepcopy([members, inside])
    assert set(copied_members) == {copied, outside}
    assert set(members) == {inside, outside}
    del copied
    gc.collect()
    assert set(copied_members) == {outside}


def test_weak_value_dictionary_copies_keys_and_relinks_values() -> None:
    key, inside, outside = ("key", Node("key")), Node("inside"), Node("outside")
    table = weakref.WeakValueDictionary({"in": inside, "out": outside, key: inside})
    copied_table, copied, copied_key = deepcopy([table, inside, key])
    assert copied_table["in"] is copied
    assert copied_table["out"] is outside
    assert copied_table[copied_key] is copied
    assert len(copied_table) == 3
    del copied
    gc.collect()
    assert list(copied_table) == ["out"]


def test_weak_key_dictionary_copies_values_and_relinks_keys() -> None:
    inside, outside = Node("inside"), Node("outside")
    table = weakref.WeakKeyDictionary({inside: ["in"], outside: ["out"]})
    copied_table, copied = deepcopy([table, inside])
    assert copied_table[copied] == ["in"]
    assert copied_table[copied] is not table[inside]
    assert copied_table[outside] == ["out"]
    assert copied_table[outside] is not table[outside]
    assert inside not in copied_table


def test_a_value_is_no_reason_to_copy_its_own_key() -> None:
    key = Node("key")
    table: weakref.WeakKeyDictionary[Node, Any] = weakref.WeakKeyDictionary()
    table[key] = Node("value", key=key, ref=weakref.ref(key))
    copied = deepcopy(table)
    assert list(copied) == [key]
    assert copied[key] is not table[key]
    assert copied[key].key is key
    assert copied[key].ref() is key


def test_a_chain_of_values_and_keys_is_followed_in_any_order() -> None:
    first, second, third = Node("1"), Node("2"), Node("3")
    table: weakref.WeakKeyDictionary[Node, Any] = weakref.WeakKeyDictionary()
    table[third] = "end"
    table[second] = third
    table[first] = second
    copied_table, copied = deepcopy([table, first])
    assert copied_table[copied].name == "2"
    assert copied_table[copied_table[copied]].name == "3"
    assert copied_table[copied_table[copied_table[copied]]] == "end"
    assert len(copied_table) == 3


@pytest.mark.parametrize("base", [weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary])
def test_subclass_of_a_weak_container_keeps_class_and_attributes(base: Any) -> None:
    class Named(base):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            self.owner: Any = None

    container = Named("table")
    owner = Node("owner")
    container.owner = weakref.ref(owner)
    copied, copied_owner = deepcopy([container, owner])
    assert type(copied) is Named
    assert copied.name == "table"
    assert copied.owner() is copied_owner
    assert len(copied) == 0


def test_subclass_of_a_weak_container_that_copies_itself_is_left_to() -> None:
    class Mine(weakref.WeakValueDictionary):
        def __deepcopy__(self, memo: dict[Any, Any]) -> str:  # type: ignore[override]
            return "mine"

    assert deepcopy([Mine()]) == ["mine"]


def test_container_that_holds_itself() -> None:
    table: Any = weakref.WeakValueDictionary()
    table["self"] = table
    copied = deepcopy(table)
    assert copied is not table
    assert copied["self"] is copied


# finalize


def test_rearmed_finalizer_is_armed_on_the_copy_with_the_copy_of_its_arguments() -> None:
    log: list[str] = []
    target = Node("target")
    finalizer = weakref.finalize(target, log.append, "gone")
    finalizer.atexit = False
    copied_log, copied_finalizer, copied = deepcopy([log, finalizer, target], finalizers="rearm")
    assert copied_finalizer.alive
    assert not copied_finalizer.atexit
    del copied
    gc.collect()
    assert (copied_log, log) == (["gone"], [])
    assert finalizer.alive
    assert finalizer.detach() is not None


def test_finalizer_in_a_tuple_never_runs_for_a_copy_that_was_thrown_away() -> None:
    log: list[str] = []
    target = Node("target")
    finalizer = weakref.finalize(target, log.append, "gone")
    pair, copied = deepcopy([(finalizer, weakref.ref(target)), target], finalizers="rearm")
    gc.collect()
    assert log == []
    assert pair[0].alive
    assert pair[1]() is copied
    pair[0].detach()
    finalizer.detach()


@pytest.mark.parametrize("finalizers", ["dead", "rearm"])
def test_finalizer_of_the_outside_and_a_dead_one_come_back_dead(finalizers: Any) -> None:
    outside = Node("outside")
    finalizer = weakref.finalize(outside, print)
    dead = weakref.finalize(outside, print)
    dead.detach()
    copied = deepcopy([finalizer, dead], finalizers=finalizers)
    assert [each.alive for each in copied] == [False, False]
    assert finalizer.detach() is not None


def test_finalizers_are_dead_by_default_and_the_originals_stay_armed() -> None:
    class Named(weakref.finalize):
        __slots__ = ("name", "owner")

    log: list[str] = []
    target = Node("target", log=log)
    target.plain, target.named = weakref.finalize(target, log.append, "gone"), Named(target, log.append, "gone")
    target.named.name, target.named.owner = "named", [target]
    copied = deepcopy(target)
    assert not copied.plain.alive
    assert not copied.named.alive
    assert (type(copied.named), copied.named.name, copied.named.owner) == (Named, "named", [copied])
    copied.plain()
    del copied
    gc.collect()
    assert log == []
    assert target.plain.detach() is not None
    assert target.named.detach() is not None


def test_unknown_word_for_finalizers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finalizers='armed' is not known: pass one of 'dead', 'rearm'"):
        safepickle.deepcopy([], finalizers="armed")  # type: ignore[arg-type]


# copy.deepcopy's rules


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


class Pair(collections.namedtuple("Pair", "left right")):
    pass


class Listed(list):
    name: str


class Reduced:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Reduced, (self.value,), {"restored": True}


class Stateful:
    def __init__(self) -> None:
        self.value, self.cache = [1], "cache"

    def __getstate__(self) -> Any:
        return {"value": self.value}

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state, cache="empty")


def _examples() -> list[Any]:
    listed = Listed([1, [2]])
    listed.name = "listed"
    slotted = Slotted()
    slotted.link, slotted.other = [1], None
    return [
        None, 1, 1.5, 2j, True, "text", b"bytes", bytearray(b"x"), ..., NotImplemented, range(3), slice(1, 2), int, len,
        [1, [2]], (1, (2, "x")), (1, [2]), {1: [2], (3,): {4}}, {1, (2, 3)}, frozenset({1}), frozenset({(1, "x")}),
        collections.OrderedDict(a=[1]), collections.defaultdict(list, a=[1]), collections.deque([1, [2]], maxlen=3),
        collections.Counter("aab"), Colour.RED, Point(1, ["x"]), Pair([1], 2), listed, types.SimpleNamespace(a=[1]),
        Reduced([1]), Stateful(), slotted, Node("n", items=[1]), functools.partial(int, base=2),
        ValueError("text", [1]),
        np.arange(6).reshape(2, 3), np.array([[1], None], dtype=object), np.float32(1.5), {"a": np.zeros(2)},
    ]  # fmt: skip


slot_names = copyreg._slotnames  # type: ignore[attr-defined]


def _outline(value: Any, seen: dict[int, int]) -> Any:
    """All there is to see of a value, with the sharing of its parts."""
    if isinstance(value, np.ndarray):
        return "array", value.dtype.str, value.shape, [_outline(each, seen) for each in value.ravel().tolist()]
    if isinstance(value, (int, str, float, bytes, complex, type, range, type(None), types.BuiltinFunctionType)):
        return value
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    parts: list[Any] = [type(value)]
    if isinstance(value, (list, tuple, collections.deque)):
        parts.append([_outline(each, seen) for each in value])
    elif isinstance(value, dict):
        parts.append([(_outline(key, seen), _outline(each, seen)) for key, each in value.items()])
    elif isinstance(value, (set, frozenset)):
        parts.append(sorted(repr(each) for each in value))
    if isinstance(value, BaseException):
        parts.append([_outline(each, seen) for each in value.args])
    parts.append([(name, _outline(each, seen)) for name, each in sorted(getattr(value, "__dict__", {}).items())])
    parts.append([_outline(getattr(value, name, None), seen) for name in slot_names(type(value))])
    return parts


@pytest.mark.parametrize("example", _examples(), ids=lambda example: type(example).__name__)
def test_same_result_as_copy_deepcopy(example: Any) -> None:
    graph = [example, {"again": example}, (example,)]
    ours, theirs = deepcopy(graph), copy.deepcopy(graph)
    assert _outline(ours, {}) == _outline(theirs, {})
    assert (ours[0] is example) == (theirs[0] is example) or isinstance(example, frozenset)
    assert (ours[2] is graph[2]) == (theirs[2] is graph[2]) or isinstance(example, frozenset)


def test_recursive_structures() -> None:
    loop: list[Any] = []
    loop.append((loop, {"loop": loop}))
    copied = deepcopy(loop)
    assert copied is not loop
    assert copied[0][0] is copied
    assert copied[0][1]["loop"] is copied
    pair: tuple[list[Any]] = ([],)
    pair[0].append(pair)
    assert deepcopy(pair)[0][0][0] is not pair[0]
    node = Node("node")
    node.members = {node}
    copied_node = deepcopy(node)
    assert copied_node.members == {copied_node}


def test_own_attributes_held_elsewhere_are_those_of_the_copy() -> None:
    node = Node("node")
    copied, attributes = deepcopy([node, vars(node)])
    assert attributes is vars(copied)


def test_deepcopy_method_is_called_once_and_weak_references_below_it_are_relinked() -> None:
    calls: list[str] = []

    class Custom:
        def __init__(self, **attributes: Any) -> None:
            self.__dict__.update(attributes)

        def __deepcopy__(self, memo: dict[Any, Any]) -> Custom:
            calls.append("called")
            new = memo[id(self)] = object.__new__(type(self))
            for name, value in vars(self).items():
                setattr(new, name, copy.deepcopy(value, memo))
            return new

    owner = Node("owner")
    target = Node("target")
    owner.custom = Custom(parent=weakref.ref(owner), ahead=weakref.ref(target), deep=[weakref.ref(target)])
    owner.custom.child = Node("child", parent=weakref.ref(owner.custom), ahead=weakref.ref(target))
    owner.target = target
    copied = deepcopy(owner)
    assert copied.custom.parent() is copied
    assert copied.custom.child.parent() is copied.custom
    assert copied.custom.ahead() is copied.custom.deep[0]() is copied.custom.child.ahead() is copied.target
    assert calls == ["called"]


@pytest.mark.parametrize("place", ["attribute", "slot", "list", "dict", "tuple", "argument"])
@pytest.mark.parametrize("kind", ["behind", "ahead"])
def test_reference_that_a_deepcopy_method_copies_by_itself_is_relinked(place: str, kind: str) -> None:
    class Custom:
        __slots__ = ("__dict__", "slot")

        def __init__(self, argument: Any = None) -> None:
            self.argument = argument

        def __deepcopy__(self: Any, memo: dict[Any, Any]) -> Any:
            new: Any = Custom(copy.deepcopy(self.argument, memo))
            memo[id(self)] = new
            if place == "slot":
                new.slot = copy.deepcopy(self.slot, memo)
            elif place == "list":
                new.list = [copy.deepcopy(item, memo) for item in self.list]
            elif place == "dict":
                new.dict = {key: copy.deepcopy(value, memo) for key, value in self.dict.items()}
            elif place == "tuple":
                new.tuple = tuple(copy.deepcopy(item, memo) for item in self.tuple)
            elif place == "attribute":
                new.attribute = copy.deepcopy(self.attribute, memo)
            return new

    wrap = {"list": lambda part: [part], "dict": lambda part: {"key": part}, "tuple": lambda part: (part,)}
    unwrap = {"list": lambda whole: whole[0], "dict": lambda whole: whole["key"], "tuple": lambda whole: whole[0]}
    target = Node("target")
    custom = Custom()
    setattr(custom, place, wrap.get(place, lambda part: part)(weakref.ref(target)))
    order = [target, custom] if kind == "behind" else [custom, target]
    copied = deepcopy(order)
    copied_custom, copied_target = reversed(copied) if kind == "behind" else copied
    reference = unwrap.get(place, lambda whole: whole)(getattr(copied_custom, place))
    assert reference() is copied_target is not target


@pytest.mark.parametrize("make", [weakref.WeakSet, lambda nodes: weakref.WeakValueDictionary(enumerate(nodes))])
def test_weak_container_that_a_deepcopy_method_copies_by_itself_is_relinked(make: Any) -> None:
    class Custom:
        container: Any

        def __deepcopy__(self, memo: dict[Any, Any]) -> Custom:
            new = Custom()
            new.container = copy.deepcopy(self.container, memo)
            return new

    custom, target = Custom(), Node("target")
    custom.container = make([target])
    copied, copied_target = deepcopy([custom, target])
    values = getattr(copied.container, "values", copied.container.__iter__)
    assert [*values()] == [copied_target]


def test_memo_answers_other_questions_of_a_deepcopy_method_like_a_dict() -> None:
    answers: list[Any] = []

    class Custom:
        part: Node

        def __deepcopy__(self, memo: dict[Any, Any]) -> Custom:
            key = id(self.part)
            answers.append((key in memo, memo.get(key, "none")))
            with pytest.raises(KeyError, match=str(key)):
                memo[key]
            new = Custom()
            new.part = copy.deepcopy(self.part, memo)
            answers.append((key in memo, memo.get(key) is memo[key] is new.part))
            return new

    custom = Custom()
    custom.part = Node("part")
    deepcopy(custom)
    assert answers == [(False, "none"), (True, True)]


def test_the_standard_library_is_as_it_was_while_and_after_another_thread_copies() -> None:
    seen: list[Any] = []
    node = Node("node")
    reference = weakref.ref(node)

    class Custom:
        def __deepcopy__(self, memo: dict[Any, Any]) -> Custom:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(copy.deepcopy, [node, reference]).result()[1])
                seen.append(pool.submit(deepcopy, [reference, node]).result())
            seen.append(copy.deepcopy(reference))
            return self

    before = getattr(copy, "_atomic_types", None)
    deepcopy(Custom())
    assert seen[0] is reference
    assert seen[1][0]() is seen[1][1]
    assert seen[2] is reference
    assert getattr(copy, "_atomic_types", None) is before


def test_deepcopy_method_that_shares_something_is_honoured() -> None:
    class Shares:
        def __deepcopy__(self, memo: dict[Any, Any]) -> Shares:
            return self

    shared = Shares()
    reference, same = deepcopy([weakref.ref(shared), shared])
    assert same is shared
    assert reference() is shared


def test_deepcopy_method_may_let_go_of_its_object() -> None:
    class Letting(Node):
        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            original = self
            del self
            copied = memo[id(original)] = Letting()
            copied.__dict__.update(safepickle.deepcopy(original.__dict__, memo))
            return copied

    letting = Letting()
    letting.itself = weakref.ref(letting)
    copied = deepcopy(letting)
    assert copied.itself() is copied


def test_deepcopy_method_of_an_instance_and_of_a_dynamic_class() -> None:
    class Dynamic:
        def __getattr__(self, name: str) -> Any:
            if name == "__deepcopy__":
                return lambda memo: "dynamic"
            raise AttributeError(name)

    node = Node("node")
    node.__deepcopy__ = lambda memo: "instance"
    assert deepcopy([node, Dynamic()]) == copy.deepcopy([node, Dynamic()]) == ["instance", "dynamic"]


def test_a_state_that_is_taken_apart_still_leads_to_the_copy() -> None:
    class Unpacks:
        def __init__(self, references: list[Any]) -> None:
            self.references = references

        def __getstate__(self) -> Any:
            return {"references": self.references}

        def __setstate__(self, state: Any) -> None:
            self.references = list(state["references"])

    target = Node("target")
    unpacked, copied = deepcopy([Unpacks([weakref.ref(target)]), target])
    assert unpacked.references[0]() is copied


def test_children_given_to_a_constructor_find_their_parent() -> None:
    tree = Branch([Node("leaf")])
    copied = deepcopy([tree.children[0].parent, tree])
    assert copied[1].children[0].parent() is copied[1]
    assert copied[0]() is copied[1]
    assert tree.children[0].parent() is tree


class Branch:
    def __init__(self, children: list[Node]) -> None:
        self.children = list(children)
        for child in self.children:
            child.parent = weakref.ref(self)

    def __reduce__(self) -> Any:
        return Branch, (self.children,)


def test_copyreg_and_reducers_of_the_copy_module_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Registered:
        pass

    class Dispatched:
        pass

    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda obj: (list, (["reduced"],)))
    copiers: dict[type, Any] = copy._deepcopy_dispatch  # type: ignore[attr-defined]
    monkeypatch.setitem(copiers, Dispatched, lambda obj, memo: "dispatched")
    assert deepcopy([Registered(), Dispatched()]) == [["reduced"], "dispatched"]


def test_what_cannot_be_copied_raises_what_copy_deepcopy_raises() -> None:
    class Unreducible:
        __reduce_ex__ = __reduce__ = None  # type: ignore[assignment]

    graphs: list[Any] = [Node("node", generator=(each for each in "ab")), [socket.socket()], Unreducible()]
    for graph in graphs:
        with pytest.raises((TypeError, copy.Error), match=r"cannot pickle|copyable") as theirs:
            copy.deepcopy(graph)
        with pytest.raises(theirs.type, match=re.escape(str(theirs.value))):
            deepcopy(graph)
    graphs[1][0].close()


def test_a_class_can_make_copy_deepcopy_do_this() -> None:
    class Tree(Node):
        __deepcopy__ = safepickle.deepcopy

    tree = Tree("tree")
    tree.child = Node("child", parent=weakref.ref(tree))
    first, second = copy.deepcopy([tree, tree])
    assert first is second is not tree
    assert first.child.parent() is first
    assert deepcopy(tree).child.parent() is not tree


def test_super_deepcopy_copies_and_calls_nothing_twice() -> None:
    calls: list[str] = []

    class Base(Node):
        __deepcopy__ = safepickle.deepcopy

    class Derived(Base):
        def __deepcopy__(self, memo: dict[Any, Any]) -> Derived:  # type: ignore[override]
            calls.append("called")
            new = super().__deepcopy__(memo)
            new.name += " copied"
            return new

    node = Derived("node")
    node.child = Node("child", parent=weakref.ref(node))
    for function in (copy.deepcopy, safepickle.deepcopy):
        copied = function([node])[0]
        assert copied.name == "node copied"
        assert copied.child.parent() is copied
    assert calls == ["called", "called"]


def test_memo_of_the_caller_is_read_and_filled() -> None:
    known, replaced, other = Node("known"), Node("replaced"), Node("other")
    memo: dict[Any, Any] = {id(known): replaced}
    copied = deepcopy([known, other, weakref.ref(known)], memo)
    assert copied[0] is replaced
    assert copied[2]() is replaced
    assert memo[id(other)] is copied[1]
    assert deepcopy(other, memo) is copied[1]
    assert copy.deepcopy(other, memo) is copied[1]


def test_one_walk_of_copy_deepcopy_knows_all_that_is_copied_in_it() -> None:
    class Tree(Node):
        __deepcopy__ = safepickle.deepcopy

    shared = Node("shared")
    trees = [Tree("tree", shared=shared, marks=[number]) for number in range(100)]
    for tree, following in zip(trees, trees[1:] + trees[:1], strict=True):
        tree.own, tree.following = (weakref.ref(tree),), following
    copied = copy.deepcopy([*trees, shared])
    assert all(tree.own[0]() is tree and tree.shared is copied[-1] for tree in copied[:-1])
    assert [tree.following for tree in copied[:-1]] == copied[1:-1] + copied[:1]
    assert not set(map(id, copied)) & set(map(id, trees))


def test_arrays_are_copied_once() -> None:
    array = np.arange(10)
    objects = np.array([None, None], dtype=object)
    node = Node("node")
    objects[0], objects[1] = node, weakref.ref(node)
    first, second, copied_objects, copied = deepcopy([array, (array, weakref.ref(node)), objects, node])
    assert first is second[0] is not array
    assert (first == array).all()
    assert copied_objects[0] is copied
    assert copied_objects[1]() is copied
    assert second[1]() is copied


def test_nothing_is_kept_alive_and_the_source_is_untouched() -> None:
    memos: list[Any] = []

    class Greedy:
        def __deepcopy__(self, memo: dict[Any, Any]) -> Greedy:
            memos.append(memo)
            return Greedy()

    root = Node("root", greedy=Greedy(), outside=weakref.ref(Outside.only))
    root.child = Node("child", parent=weakref.ref(root), later=(weakref.ref(root),))
    before = {name: id(value) for name, value in vars(root).items()}
    gc.collect()
    gc.disable()
    try:
        watch = [weakref.ref(root), weakref.ref(deepcopy(root).child)]
        assert {name: id(value) for name, value in vars(root).items()} == before
        assert root.child.parent() is root
        del root
        assert [reference() for reference in watch] == [None, None]
    finally:
        gc.enable()


def test_a_failed_copy_keeps_nothing_alive() -> None:
    root = Node("root", generator=(each for each in "ab"))
    watch = weakref.ref(root)
    with pytest.raises(TypeError, match="cannot pickle"):
        deepcopy([root])
    del root
    gc.collect()
    assert watch() is None


def test_deeper_than_copy_deepcopy_before_a_recursion_error_that_says_what_to_do() -> None:
    def chain(length: int) -> Node:
        head = Node("head")
        for _ in range(length):
            head = Node("link", next=head)
        return head

    limit = sys.getrecursionlimit()
    deep = chain(limit // 2)
    with pytest.raises(RecursionError, match="maximum recursion depth exceeded"):
        copy.deepcopy(deep)
    assert deepcopy(deep).next.name == "link"
    with pytest.raises(RecursionError, match="maximum recursion depth exceeded") as caught:
        deepcopy(chain(limit + 10))
    assert "sys.setrecursionlimit()" in caught.value.__notes__[0]


# Random graphs, held against the definition


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    size = draw(st.integers(1, 7))
    nodes = [Node(str(number)) for number in range(size)]
    index = st.integers(0, size - 1)
    for node in nodes:
        node.strong = [nodes[each] for each in draw(st.lists(index, max_size=3))]
        node.weak = [weakref.ref(nodes[each]) for each in draw(st.lists(index, max_size=3))]
        node.proxies = {str(each): weakref.proxy(nodes[each]) for each in draw(st.lists(index, max_size=2))}
        node.sealed = tuple(weakref.ref(nodes[each]) for each in draw(st.lists(index, max_size=1)))
        node.members = weakref.WeakSet(nodes[each] for each in draw(st.lists(index, max_size=3)))
        node.table = weakref.WeakKeyDictionary()
        for each in draw(st.lists(index, max_size=2)):
            node.table[nodes[each]] = [nodes[draw(index)]]
    return nodes


def _kept(root: Node) -> set[Node]:
    """Reached by strong references; a value of a weak table counts once its key does, or has no chance to."""
    kept: set[Node] = set()
    pinned: set[Node] = set()

    def walk(node: Node) -> None:
        if node not in kept and node not in pinned:
            kept.add(node)
            for each in node.strong:
                walk(each)

    def settle() -> None:
        before = -1
        while before != len(kept):
            before = len(kept)
            for node in list(kept):
                for key in list(node.table):
                    if key in kept or key in pinned:
                        walk(node.table[key][0])

    walk(root)
    settle()
    while outside := {key for node in kept for key in node.table} - kept - pinned:
        pinned |= outside
        settle()
    return kept


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_random_graphs_agree_with_the_definition(nodes: list[Node]) -> None:
    kept = _kept(nodes[0])
    memo: dict[Any, Any] = {}
    deepcopy(nodes[0], memo)
    copies = {node: memo[id(node)] for node in kept}
    expected = {node: copies.get(node, node) for node in nodes}
    assert not set(copies.values()) & set(nodes)
    for node, copied in copies.items():
        assert [*copied.strong] == [expected[each] for each in node.strong]
        assert [each() for each in copied.weak] == [expected[each()] for each in node.weak]
        assert [each() for each in copied.sealed] == [expected[each()] for each in node.sealed]
        assert {name: follow(each) for name, each in copied.proxies.items()} == {
            name: expected[follow(each)] for name, each in node.proxies.items()
        }
        assert set(copied.members) == {expected[each] for each in node.members}
        assert {key: value[0] for key, value in copied.table.items()} == {
            expected[key]: expected[value[0]] for key, value in node.table.items()
        }
