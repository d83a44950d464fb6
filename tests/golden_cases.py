"""What the golden pickles hold: one object for each thing that the file format can say.

The classes here are named by files that exist, so this module keeps the rule of the format: a name is never renamed or
moved, and a case is never changed. Something new gets a new case.
"""

from __future__ import annotations

import collections
import functools
import gc
import io
import logging
import logging.handlers
import multiprocessing.util
import queue
import sys
import threading
import weakref
from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any, NamedTuple

import safepickle
from safepickle import rebuild

finalized: list[str] = []
called_back: list[object] = []


class Node:
    """An object that others refer to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.links: Any = None

    def method(self) -> str:
        return f"method of {self.name}"


class CallableNode(Node):
    def __call__(self) -> str:
        return f"call of {self.name}"


class SlottedReference(weakref.ref[Any]):
    __slots__ = ("label",)
    label: str


class ConstructedReference(weakref.ref[Any]):
    """A reference whose constructor takes more than a referent."""

    def __new__(cls, referent: Any, label: str) -> ConstructedReference:
        reference = super().__new__(cls, referent)
        reference.label = label
        return reference

    label: str


class ConstructedMethod(weakref.WeakMethod[Any]):
    """A weak method whose constructor takes other arguments."""

    def __new__(cls, owner: Any, name: str) -> ConstructedMethod:
        reference = super().__new__(cls, getattr(owner, name))
        reference.label = name
        return reference

    def __init__(self, owner: Any, name: str) -> None:
        super().__init__(getattr(owner, name))  # type: ignore[call-arg]

    label: str


class Members(set[Any]):
    """A set with attributes."""

    label: str


class OwnThread(threading.Thread):
    """A thread with an attribute."""

    def __init__(self) -> None:
        super().__init__(name="own", daemon=True)
        self.label = "label"


class Pending(Node):
    """Built from arguments that lead back to it."""

    def __reduce__(self) -> Any:
        return rebuild_pending, (self.links,)


def rebuild_pending(links: Any) -> Pending:
    node = Pending("pending")
    node.links = links
    return node


def note_death(reference: object) -> None:
    called_back.append(type(reference).__name__)


def note_finalized(name: str) -> None:
    finalized.append(name)


def double(number: int) -> int:
    return 2 * number


class Case(NamedTuple):
    """How an object is made, with what options it is dumped, and what holds after a load."""

    build: Callable[[], Any]
    check: Callable[[Any], None]
    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)


CASES: dict[str, Case] = {}


def case(name: str, check: Callable[[Any], None], **options: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        CASES[name] = Case(build, check, options)
        return build

    return add


def dies_with_its_referent(reference: Any, owner: list[Any]) -> None:
    """Check that a reference is live, and weak."""
    assert reference() is owner[0]
    owner.clear()
    gc.collect()
    assert reference() is None


def check_reference(obj: Any) -> None:
    reference, owner = obj
    assert type(reference) is weakref.ref
    dies_with_its_referent(reference, owner)


@case("reference to what was met before", lambda obj: check_reference(obj[::-1]))
def reference_back() -> Any:
    owner = [Node("kept")]
    return [owner, weakref.ref(owner[0])]


@case("reference to what is met later", check_reference)
def reference_forward() -> Any:
    owner = [Node("kept")]
    return [weakref.ref(owner[0]), owner]


def check_callback(obj: Any) -> None:
    called_back.clear()
    check_reference(obj)
    assert called_back == ["ReferenceType"]


@case("reference with a callback", check_callback)
def reference_callback() -> Any:
    owner = [Node("kept")]
    return [weakref.ref(owner[0], note_death), owner]


def check_slots(obj: Any) -> None:
    reference, owner = obj
    assert type(reference) is SlottedReference
    assert reference.label == "label"
    dies_with_its_referent(reference, owner)


@case("subclass of reference", check_slots)
def slotted_reference() -> Any:
    owner = [Node("kept")]
    reference = SlottedReference(owner[0])
    reference.label = "label"
    return [reference, owner]


def check_constructed(obj: Any) -> None:
    reference, owner = obj
    assert type(reference) is ConstructedReference
    assert reference.label == "label"
    dies_with_its_referent(reference, owner)


@case("subclass of reference with a constructor", check_constructed)
def constructed_reference() -> Any:
    owner = [Node("kept")]
    return [ConstructedReference(owner[0], "label"), owner]


def check_keyed(obj: Any) -> None:
    reference, owner = obj
    assert type(reference) is weakref.KeyedRef
    assert reference.key == "key"
    dies_with_its_referent(reference, owner)


@case("keyed reference", check_keyed)
def keyed_reference() -> Any:
    owner = [Node("kept")]
    return [weakref.KeyedRef(owner[0], note_death, "key"), owner]


def check_dead_subclass(obj: Any) -> None:
    (reference,) = obj
    assert type(reference) is SlottedReference
    assert reference() is None
    assert reference.label == "label"


@case("dead subclass of reference", check_dead_subclass)
def dead_slotted_reference() -> Any:
    return [slotted_reference()[0]]


def check_method(obj: Any) -> None:
    method, owner = obj
    assert method()() == "method of kept"
    assert type(method) is weakref.WeakMethod
    owner.clear()
    gc.collect()
    assert method() is None


@case("weak method", check_method)
def weak_method() -> Any:
    owner = [Node("kept")]
    return [weakref.WeakMethod(owner[0].method), owner]


def check_dead_method(obj: Any) -> None:
    assert isinstance(obj, weakref.WeakMethod)
    assert obj() is None


@case("dead weak method", check_dead_method)
def dead_weak_method() -> Any:
    return weak_method()[0]


def check_owning_method(obj: Any) -> None:
    gc.collect()
    assert obj()() == "method of owned"
    assert isinstance(obj, weakref.WeakMethod)


HELD: list[Any] = []
"""Keeps the referents of strong copies alive until they are dumped."""


def held(obj: Any) -> Any:
    HELD.append(obj)
    return obj


@case("weak method that owns", check_owning_method, weakrefs="strong")
def owning_weak_method() -> Any:
    return weakref.WeakMethod(held(Node("owned")).method)


def check_constructed_method(obj: Any) -> None:
    method, owner = obj
    assert method()() == "method of kept"
    assert type(method) is ConstructedMethod
    assert method.label == "method"
    owner.clear()
    gc.collect()
    assert method() is None


@case("subclass of weak method", check_constructed_method)
def constructed_method() -> Any:
    owner = [Node("kept")]
    return [ConstructedMethod(owner[0], "method"), owner]


def check_owning_constructed_method(obj: Any) -> None:
    check_owning_method(obj)
    assert type(obj) is ConstructedMethod
    assert obj.label == "method"


@case("subclass of weak method that owns", check_owning_constructed_method, weakrefs="strong")
def owning_constructed_method() -> Any:
    return ConstructedMethod(held(Node("owned")), "method")


def check_proxies(obj: Any) -> None:
    plain, callable_proxy, owner = obj
    assert type(plain) is weakref.ProxyType
    assert type(callable_proxy) is weakref.CallableProxyType
    assert plain.name == "kept"
    assert callable_proxy() == "call of kept too"
    owner.clear()
    gc.collect()
    for proxy in (plain, callable_proxy):
        try:
            proxy.name  # noqa: B018 (to touch it is the point)
        except ReferenceError:
            continue
        raise AssertionError("the proxy should be dead")


@case("proxies", check_proxies)
def proxies() -> Any:
    owner = [Node("kept"), CallableNode("kept too")]
    return [weakref.proxy(owner[0]), weakref.proxy(owner[1]), owner]


@case("dead proxies", lambda obj: check_proxies([*live_proxies(obj)]))
def dead_proxies() -> Any:
    return proxies()[:2]


def live_proxies(obj: Any) -> Any:
    """Check dead proxies' kinds, and return live ones, so that `check_proxies` can go on."""
    plain, callable_proxy = obj
    assert type(plain) is weakref.ProxyType
    assert type(callable_proxy) is weakref.CallableProxyType
    for proxy in obj:
        try:
            proxy.name  # noqa: B018 (to touch it is the point)
        except ReferenceError:
            continue
        raise AssertionError("the proxy should be dead")
    return proxies()


def check_proxy_referent(obj: Any) -> None:
    assert type(obj[0]) is Node
    assert obj[0].name == "owned"


@case("referent of a proxy", check_proxy_referent, weakrefs="strong")
def proxy_referent() -> Any:
    return [weakref.proxy(held(Node("owned")))]


def check_tombstones(obj: Any) -> None:
    dead, outside, again = obj
    assert type(dead) is type(outside) is safepickle.Tombstone
    assert dead() is outside() is None
    assert (dead.reason, dead.referent_type) == ("dead", None)
    assert (outside.reason, outside.referent_type) == ("outside", "golden_cases.Node")
    assert again is outside


@case("tombstones", check_tombstones)
def tombstones() -> Any:
    outside = weakref.ref(held(Node("outside")))
    return [weakref.ref(Node("dead")), outside, outside]


def check_policy(obj: Any) -> None:
    assert obj[0].reason == "policy"
    assert obj[1].name == "kept"


@case("tombstone by policy", check_policy, weakrefs="tombstone")
def tombstone_by_policy() -> Any:
    owner = Node("kept")
    return [weakref.ref(owner), owner]


def check_cycle(obj: Any) -> None:
    assert obj.name == "pending"
    assert obj.links[0].reason == "cycle"


@case("tombstone of a cycle", check_cycle)
def tombstone_of_a_cycle() -> Any:
    node = Pending("pending")
    node.links = [weakref.ref(node)]
    return node


def check_strong(obj: Any) -> None:
    gc.collect()
    strong, with_callback = obj
    assert strong().name == "owned"
    assert type(strong) is type(with_callback) is safepickle.StrongRef
    assert with_callback.__callback__ is note_death


@case("strong references", check_strong, weakrefs="strong")
def strong_references() -> Any:
    return [weakref.ref(held(Node("owned"))), weakref.ref(held(Node("owned")), note_death)]


def check_strong_subclass(obj: Any) -> None:
    gc.collect()
    assert obj().name == "owned"
    assert type(obj) is SlottedReference
    assert obj.label == "label"


@case("subclass of reference that owns", check_strong_subclass, weakrefs="strong")
def strong_subclass() -> Any:
    reference = SlottedReference(held(Node("owned")))
    reference.label = "label"
    return reference


def check_containers(obj: Any) -> None:
    members, by_name, by_node, owner = obj
    assert {node.name for node in members} == set(by_name) == {"first", "second"}
    assert {node.name: value for node, value in by_node.items()} == {"first": 1, "second": 2}
    assert {by_name["first"], by_name["second"]} == set(members) == set(by_node) == set(owner)
    del owner[:], obj
    gc.collect()
    assert len(members) == len(by_name) == len(by_node) == 0


def containers(nodes: list[Node]) -> list[Any]:
    first, second = nodes
    members = weakref.WeakSet(nodes)
    return [
        members,
        weakref.WeakValueDictionary({"first": first, "second": second}),
        weakref.WeakKeyDictionary({first: 1, second: 2}),
    ]


@case("weak containers", check_containers)
def weak_containers() -> Any:
    owner = [Node("first"), Node("second")]
    return [*containers(owner), owner]


def check_owning_containers(obj: Any) -> None:
    gc.collect()
    members, by_name, by_node = obj
    assert {node.name for node in members} == set(by_name) == {node.name for node in by_node} == {"first", "second"}


@case("weak containers that own", check_owning_containers, weakrefs="strong")
def owning_containers() -> Any:
    return containers(held([Node("first"), Node("second")]))


def check_finalizers(obj: Any) -> None:
    finalized.clear()
    armed, dead, owner = obj
    assert armed.alive
    assert not armed.atexit
    assert not dead.alive
    owner.clear()
    gc.collect()
    assert finalized == ["golden"]
    assert not armed.alive


@case("finalizers", check_finalizers, finalizers="rearm")
def finalizers() -> Any:
    owner = [Node("kept")]
    armed = weakref.finalize(owner[0], note_finalized, "golden")
    armed.atexit = False
    dead = weakref.finalize(owner[0], note_finalized, "never")
    dead.detach()
    return [armed, dead, owner]


def check_owning_finalizer(obj: Any) -> None:
    gc.collect()
    assert obj.alive
    assert obj.peek()[0].name == "owned"
    obj.detach()


@case("finalizer that owns", check_owning_finalizer, weakrefs="strong", finalizers="rearm")
def owning_finalizer() -> Any:
    finalizer = weakref.finalize(held(Node("owned")), note_finalized, "golden")
    finalizer.atexit = False
    return finalizer


def check_keyword_finalizer(obj: Any) -> None:
    finalized.clear()
    armed, owner = obj
    owner.clear()
    gc.collect()
    assert finalized == ["keyword"]
    assert not armed.alive


@case("finalizer with a keyword", check_keyword_finalizer, finalizers="rearm")
def keyword_finalizer() -> Any:
    owner = [Node("kept")]
    armed = weakref.finalize(owner[0], note_finalized, name="keyword")
    armed.atexit = False
    return [armed, owner]


class LabelledFinalizer(weakref.finalize):
    """A finalizer with an attribute."""

    label: str


def nothing_is_called(owner: list[Any]) -> None:
    finalized.clear()
    owner.clear()
    gc.collect()
    assert not finalized


def check_dead_finalizer(obj: Any) -> None:
    finalizer, owner = obj
    assert (type(finalizer), finalizer.alive, finalizer.peek()) == (weakref.finalize, False, None)
    nothing_is_called(owner)


@case("dead finalizer", check_dead_finalizer)
def dead_finalizer() -> Any:
    owner = [Node("kept")]
    finalizer = weakref.finalize(owner[0], note_finalized, "golden")
    finalizer.atexit = False
    return [finalizer, owner]


def check_dead_finalizers_of_other_classes(obj: Any) -> None:
    labelled, of_multiprocessing, owner = obj
    assert (type(labelled), labelled.alive, labelled.label) == (LabelledFinalizer, False, "label")
    assert type(of_multiprocessing) is multiprocessing.util.Finalize
    assert not of_multiprocessing.still_active()
    nothing_is_called(owner)


@case("dead finalizers of other classes", check_dead_finalizers_of_other_classes)
def dead_finalizers_of_other_classes() -> Any:
    owner = [Node("kept")]
    labelled = LabelledFinalizer(owner[0], note_finalized, "labelled")
    labelled.label = "label"
    labelled.atexit = False
    return [labelled, multiprocessing.util.Finalize(owner[0], note_finalized, ("of multiprocessing",)), owner]


def check_members(obj: Any) -> None:
    assert type(obj) is Members
    assert obj.label == "label"
    assert {node.name for node in obj} == {"first", "second"}
    assert all(node.links() is obj for node in obj)


@case("set whose members point back", check_members)
def members_that_point_back() -> Any:
    members = Members()
    members.label = "label"
    for name in ("first", "second"):
        node = Node(name)
        node.links = weakref.ref(members)
        members.add(node)
    return members


def check_recipe(obj: Any) -> None:
    recomputed, referring = obj
    assert not recomputed.is_built
    assert recomputed.value == 42
    assert referring().name == "built"


@case("recipes", check_recipe)
def recipes() -> Any:
    built = held(safepickle.Recomputed(Node, "built"))
    return [safepickle.Recomputed(double, 21), weakref.ref(built.value)]


def check_leaves(obj: Any) -> None:
    lock, items, view, thread, cached, descriptor, hidden = obj
    assert lock.acquire(blocking=False)
    assert [items.get(), items.get()] == [1, 2]
    assert view.tolist() == [[1, 2], [3, 4]]
    assert view.readonly
    assert (thread.name, thread.daemon, thread.label, thread.is_alive()) == ("own", True, "label", False)
    assert (cached(4), cached.cache_parameters()) == (8, {"maxsize": 5, "typed": True})
    assert type(descriptor) is MemberDescriptorType
    assert descriptor.__objclass__ is SlottedReference
    assert hidden is vars(type)["__name__"]


@case("leaves", check_leaves)
def leaves() -> Any:
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    items.put(1)
    items.put(2)
    view = memoryview(bytes([1, 2, 3, 4])).cast("B", (2, 2))
    return [
        threading.Lock(),
        items,
        view,
        OwnThread(),
        functools.lru_cache(5, True)(double),
        vars(SlottedReference)["label"],
        vars(type)["__name__"],
    ]


def check_file(obj: Any) -> None:
    with obj:
        assert obj.tell() == 3
        assert obj.read(4) == "What"


@case("open file", check_file)
def open_file() -> Any:
    file = held(open("golden_cases.py", encoding="utf-8"))  # noqa: SIM115 (closed by the program that dumps it)
    file.seek(3)
    return file


def check_deep(obj: Any) -> None:
    for _ in range(12_000):
        (obj,) = obj
    assert obj.name == "deep"
    assert obj.links is obj


@case("deep graph", check_deep)
def deep_graph() -> Any:
    node = Node("deep")
    node.links = node
    obj: Any = node
    for _ in range(12_000):
        obj = [obj]
    return obj


class Wrapper:
    """Built from what it holds, with a state besides."""

    label: str

    def __init__(self, held: Any) -> None:
        self.held = iter(held)

    def __reduce__(self) -> Any:
        return Wrapper, (self.held,), {"label": "label"}


def check_salvaged(obj: Any) -> None:
    unpicklable, wrapper, whole = obj
    assert type(unpicklable) is rebuild.UnpicklableTombstone
    assert (unpicklable.reason, unpicklable.referent_type, unpicklable.path) == (
        "unpicklable",
        "builtins.generator",
        "$[0]",
    )
    assert isinstance(wrapper, rebuild.UnpicklableTombstone)
    assert whole.name == "whole"


@case("salvaged", check_salvaged, unpicklable="tombstone")
def salvaged() -> Any:
    unpicklable = (letter for letter in "ab")
    return [unpicklable, Wrapper(unpicklable), Node("whole")]


def replace_with_type_name(obj: Any) -> str:
    return f"a {type(obj).__name__} was here"


@case("replaced", lambda obj: check_replaced(*obj), unpicklable=replace_with_type_name)
def replaced() -> Any:
    return [(letter for letter in "ab"), Node("whole")]


def check_replaced(replacement: Any, whole: Any) -> None:
    assert replacement == "a generator was here"
    assert whole.name == "whole"


def check_stubs(obj: Any) -> None:
    plain, listing = obj
    assert repr(plain) == "<safepickle.Stub of vanished_module.Vanished: name>"
    assert plain.name == "kept"
    assert type(listing).__name__ == "VanishedList"
    assert listing.__stub__.base == (list, [1, 2])


@case("placeholders of vanished classes", check_stubs)
def stubs() -> Any:
    plain = b"\x80\x02cvanished_module\nVanished\n)\x81}X\x04\x00\x00\x00nameX\x04\x00\x00\x00keptsb."
    listing = b"ccopy_reg\n_reconstructor\n(cvanished_module\nVanishedList\nc__builtin__\nlist\n(lI1\naI2\natR."
    return [safepickle.loads(data, missing="stub") for data in (plain, listing)]


def check_records(records: Any) -> None:
    explained, inspected = records
    (reference,) = explained.weak_references
    assert (reference.path, reference.becomes) == ("$.links", "weak reference")
    assert (explained.picklable, len(explained.graph)) == (True, explained.objects)
    assert inspected.verdict == "safe"
    assert "weak reference" in str(explained)


@case("records", check_records)
def records() -> Any:
    node = Node("root")
    node.links = weakref.ref(node)
    return [safepickle.explain(node), safepickle.inspect(io.BytesIO(safepickle.dumps({"steps": 3})))]


def check_plain(obj: Any) -> None:
    assert obj["numbers"] == [1, 2**70, 1.5, True, None, 1 + 2j]
    assert obj["text"] == ("text", b"bytes", bytearray(b"bytearray"), "\U0001f600")
    assert obj["sets"] == [{1, 2}, frozenset({3})]
    assert obj["ordered"] == collections.OrderedDict(a=1)
    assert obj["node"].name == "node"
    assert obj["node"].links is obj["node"]
    assert obj["class"] is Node
    assert obj["function"] is double


@case("plain objects", check_plain)
def plain_objects() -> Any:
    node = Node("node")
    node.links = node
    return {
        "numbers": [1, 2**70, 1.5, True, None, 1 + 2j],
        "text": ("text", b"bytes", bytearray(b"bytearray"), "\U0001f600"),
        "sets": [{1, 2}, frozenset({3})],
        "ordered": collections.OrderedDict(a=1),
        "node": node,
        "class": Node,
        "function": double,
    }


def check_checksum(obj: Any) -> None:
    check_plain(obj)


@case("checksum", check_checksum, checksum=True)
def with_checksum() -> Any:
    return plain_objects()


def version_folder() -> str:
    """Return the name of the folder for pickles made by this Python."""
    return f"py{sys.version_info.major}.{sys.version_info.minor}"


def greet(self: Any) -> str:
    """Stand in a class that travels by value; this function itself is imported."""
    return f"I am {self.name}"


def check_class_by_value(obj: Any) -> None:
    local, method, reference = obj
    cls = type(local)
    assert (cls.__module__, cls.__qualname__, cls.label) == ("golden_cases", "Local", {"key": [1, 2]})
    # Filled where the class is new; where it is already, its registry is left alone.
    assert list(cls.registry) in ([], [local])
    assert method() == "I am local"
    assert method.__self__ is local
    assert reference()() == "I am local"


@case("class by value", check_class_by_value)
def class_by_value() -> Any:
    members = {"greet": greet, "label": {"key": [1, 2]}, "registry": weakref.WeakSet[Any]()}
    cls: Any = type("Local", (), members)
    local = cls()
    local.name = "local"
    cls.registry.add(local)
    return [local, local.greet, weakref.WeakMethod(local.greet)]


def enlist(cls: Any) -> None:
    """Be the ``__init_subclass__`` of a class that knows its subclasses."""
    cls.registry[cls.__name__] = cls


def check_class_with_registry(obj: Any) -> None:
    base, kind, instance = obj
    assert type(instance) is kind
    assert kind.__bases__ == (base,)
    assert base.registry["Kind"] is kind
    assert kind.label == "kind"


@case("class with registry", check_class_with_registry)
def class_with_registry() -> Any:
    members = {"registry": weakref.WeakValueDictionary[str, Any](), "__init_subclass__": classmethod(enlist)}
    base: Any = type("Base", (), members)
    kind = type("Kind", (base,), {"label": "kind"})
    return [base, kind, kind()]


def check_loggers(obj: Any) -> None:
    logger, named, handler = obj
    assert (logger.name, logger.level, logger.propagate) == ("outside the manager", logging.ERROR, False)
    assert logger.handlers == [handler]
    assert type(handler) is logging.handlers.MemoryHandler
    assert [record.getMessage() for record in handler.buffer] == ["kept"]
    assert type(handler.target) is logging.NullHandler
    assert named is logging.getLogger("golden")
    listed = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    assert listed.index(handler.target) < listed.index(handler)
    handler.flush()
    assert not handler.buffer


@case("loggers and handlers", check_loggers)
def loggers() -> Any:
    logger = logging.Logger("outside the manager", logging.ERROR)
    logger.propagate = False
    handler = logging.handlers.MemoryHandler(5, target=logging.NullHandler())
    handler.buffer.append(logging.makeLogRecord({"msg": "kept"}))
    logger.addHandler(handler)
    return [logger, logging.getLogger("golden"), handler]
