"""Graphs that nest more deeply than the C pickler can follow."""

from __future__ import annotations

import gc
import io
import itertools
import pickle
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import safepickle

pytestmark = pytest.mark.small_stack

DEPTH = 12_000


class Node:
    def __init__(self, number: int) -> None:
        self.number = number
        self.next: Any = None
        self.previous: Any = None


class Plain:
    next: Any


class SlottedNode:
    __slots__ = ("__weakref__", "next", "number", "previous")

    def __init__(self, number: int) -> None:
        self.number = number
        self.next: Any = None
        self.previous: Any = None


class StatefulNode(Node):
    """Needs what follows it to be complete when it gets its state."""

    length: int

    def __getstate__(self) -> Any:
        return {"number": self.number, "next": self.next, "previous": self.previous}

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.length = 1 if self.next is None else self.next.length + 1


class BuiltNode(Node):
    """Built by a function that needs what follows it to be complete."""

    length: int

    def __reduce__(self) -> Any:
        return build, (self.number, self.next)


def build(number: int, following: Any) -> BuiltNode:
    node = BuiltNode(number)
    node.next = following
    node.length = 1 if following is None else following.length + 1
    return node


def chain(cls: Any, depth: int, link: Any = None) -> Any:
    nodes = [cls(number) for number in range(depth)]
    for node, following in itertools.pairwise(nodes):
        node.next = following
        if link is not None:
            following.previous = link(node)
    return nodes[0]


def along(node: Any) -> Iterator[Any]:
    while node is not None:
        yield node
        node = node.next


@pytest.mark.parametrize(("cls", "protocol"), [(Node, 0), (Node, 2), (Node, 5), (SlottedNode, 2), (SlottedNode, 5)])
def test_a_linked_list_survives(cls: Any, protocol: int) -> None:
    copy = safepickle.loads(safepickle.dumps(chain(cls, DEPTH), protocol))
    assert [node.number for node in along(copy)] == list(range(DEPTH))


@pytest.mark.parametrize("link", [weakref.ref, weakref.proxy, lambda node: node], ids=["weak", "proxy", "strong"])
def test_a_doubly_linked_list_survives(link: Any) -> None:
    copy = safepickle.loads(safepickle.dumps(chain(Node, DEPTH, link)))
    before: Any = None
    for node in along(copy):
        if before is not None:
            previous: Any = node.previous() if type(node.previous) is weakref.ref else node.previous
            assert previous.number == before.number
            if type(previous) is Node:
                assert previous is before
        before = node
    assert before.number == DEPTH - 1


@pytest.mark.parametrize("cls", [StatefulNode, BuiltNode])
def test_what_is_built_is_given_complete_objects(cls: Any) -> None:
    copy = safepickle.loads(safepickle.dumps(chain(cls, DEPTH)))
    assert [node.length for node in along(copy)] == list(range(DEPTH, 0, -1))


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"key": inner}])
def test_nested_builtins_survive(wrap: Any) -> None:
    inner: Any = None
    for _ in range(DEPTH):
        inner = wrap(inner)
    copy = safepickle.loads(safepickle.dumps(inner))
    depth = 0
    while copy is not None:
        copy = copy["key"] if type(copy) is dict else copy[0]
        depth += 1
    assert depth == DEPTH


def test_sharing_sets_and_forward_references_survive_in_a_deep_graph() -> None:
    head = chain(Node, DEPTH)
    last = list(along(head))[-1]
    members = frozenset({head, last})
    obj = [weakref.ref(last), {last: "last"}, head, members, [members], weakref.WeakSet([last])]
    reference, by_node, copy, copied_members, (again,), weak_members = safepickle.loads(safepickle.dumps(obj))
    copied_last = list(along(copy))[-1]
    assert reference() is copied_last
    assert by_node == {copied_last: "last"}
    assert copied_members == {copy, copied_last}
    assert again is copied_members
    assert list(weak_members) == [copied_last]


def test_a_tombstone_and_a_strong_copy_survive_in_a_deep_graph() -> None:
    head, outside = chain(Node, DEPTH), Node(-1)
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 weak reference"):
        reference, _ = safepickle.loads(safepickle.dumps([weakref.ref(outside), head]))
    assert reference.reason == "outside"
    reference, _ = safepickle.loads(safepickle.dumps([weakref.ref(outside), head], weakrefs="strong"))
    assert reference().number == -1
    with pytest.raises(safepickle.WeakReferenceError, match=r"the weak reference at \$\[0\]"):
        safepickle.dumps([weakref.ref(outside), head], weakrefs="strict")


def test_a_deep_pickle_needs_no_special_reader() -> None:
    assert len(list(along(pickle.loads(safepickle.dumps(chain(Node, DEPTH)))))) == DEPTH


def test_a_guarded_load_reads_a_deep_pickle() -> None:
    data = safepickle.dumps(chain(Node, DEPTH, weakref.ref))
    assert len(list(along(safepickle.loads(data, allow=[Node])))) == DEPTH
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        safepickle.loads(data, allow=())


def test_a_guarded_load_reads_what_a_large_stack_has_let_nest() -> None:
    """From CPython 3.14 on the C pickler nests as deep as its stack is large, and such a pickle is loaded anywhere."""
    name = f"c{__name__}\nPlain\n".encode()
    # An instance, whose state is a dictionary of one entry, whose value is the next instance.
    data = (name + b")\x81}(U\x04next") * 50_000 + b"N" + b"ub" * 50_000 + b"."
    assert len(list(along(safepickle.loads(data, allow=[Plain])))) == 50_000
    assert safepickle.inspect(data).verdict == "needs_allow"


def test_a_pickler_goes_on_after_a_deep_graph() -> None:
    file = io.BytesIO()
    pickler = safepickle.Pickler(file)
    first, head = Node(-1), chain(Node, DEPTH)
    head.previous = first
    for obj in (first, head, [head, first]):
        pickler.dump(obj)
    file.seek(0)
    unpickler = safepickle.Unpickler(file)
    copied_first, copied_head, pair = (unpickler.load() for _ in range(3))
    assert copied_head.previous is copied_first
    assert pair[0] is copied_head
    assert pair[1] is copied_first


def test_a_persistent_id_keeps_its_objects_in_a_deep_graph() -> None:
    class Storing(safepickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Node) and obj.number % 2 and obj.next is None:
                stored[obj.number] = obj
                return obj.number
            return None

    class Fetching(safepickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            return stored[pid]

    stored: dict[int, Node] = {}
    file = io.BytesIO()
    Storing(file).dump(chain(Node, DEPTH))
    file.seek(0)
    *_, last = along(Fetching(file).load())
    assert list(stored) == [DEPTH - 1]
    assert last is stored[DEPTH - 1]


def test_buffers_stay_out_of_band_or_the_error_says_that_they_were_handed_out() -> None:
    buffers: list[Any] = []
    data = safepickle.dumps([chain(Node, DEPTH), pickle.PickleBuffer(b"after")], buffer_callback=buffers.append)
    assert bytes(safepickle.loads(data, buffers=buffers)[1]) == b"after"
    with pytest.raises(RecursionError, match="Buffers have been handed out already"):
        safepickle.dumps([pickle.PickleBuffer(b"before"), chain(Node, DEPTH)], buffer_callback=buffers.append)


def test_each_dump_hands_out_its_own_buffers() -> None:
    buffers: list[Any] = []
    file = io.BytesIO()
    pickler = safepickle.Pickler(file, buffer_callback=buffers.append)
    node = Node(1)
    pickler.dump(pickle.PickleBuffer(b"first"))
    pickler.dump([weakref.ref(node), pickle.PickleBuffer(b"second"), node])
    assert [bytes(buffer) for buffer in buffers] == [b"first", b"second"]
    file.seek(0)
    unpickler = safepickle.Unpickler(file, buffers=buffers)
    assert bytes(unpickler.load()) == b"first"
    reference, second, copy = unpickler.load()
    assert bytes(second) == b"second"
    assert reference() is copy


def test_what_cannot_be_unrolled_says_what_to_do_and_writes_nothing() -> None:
    """Each of these is built from the next and from the one before, so none can be complete before the other."""

    class Ring:
        neighbours: tuple[Any, ...] = ()

        def __reduce__(self) -> Any:
            return Ring, (), {"neighbours": self.neighbours}

    ring = [Ring() for _ in range(DEPTH)]
    for before, node, after in zip(ring[-1:] + ring, ring, ring[1:] + ring, strict=False):
        node.neighbours = (before, after)
    file = io.BytesIO(b"before")
    file.seek(0, io.SEEK_END)
    with pytest.raises(RecursionError, match="keep them in one list"):
        safepickle.dump(ring[0], file)
    assert file.getvalue() == b"before"
    ring.clear()


def test_recursion_without_end_in_a_users_method_is_reported_as_such() -> None:
    class Endless:
        def __getstate__(self) -> Any:
            return self.__getstate__()

    with pytest.raises(RecursionError, match="maximum recursion depth"):
        safepickle.dumps([Endless()])


@pytest.mark.parametrize("options", [{}, {"unpicklable": "tombstone"}, {"weakrefs": "strong"}])
def test_recursion_error_of_a_dump_is_a_pickling_error_with_all_that_is_known(options: Any) -> None:
    """``except pickle.PicklingError`` caught what cloudpickle raised there, and goes on to do so."""

    class Endless:
        def __getstate__(self) -> Any:
            return self.__getstate__()

    with pytest.raises(pickle.PicklingError, match="maximum recursion depth") as caught:
        safepickle.dumps({"endless": Endless()}, **options)
    assert type(caught.value) is safepickle.NestingError
    assert isinstance(caught.value, RecursionError)
    if not options.get("unpicklable"):
        assert caught.value.pickle_path == "$['endless']"  # type: ignore[attr-defined]
        assert any("recurses too deeply at $['endless']" in note for note in caught.value.__notes__)


def test_a_raised_recursion_limit_is_left_alone() -> None:
    limit = sys.getrecursionlimit()
    safepickle.dumps(chain(Node, DEPTH))
    assert sys.getrecursionlimit() == limit


class Endless:
    """Leads to a new instance each time: by what is said when it is made."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce_ex__(self, protocol: Any) -> Any:
        new = Endless(self.way)
        return {
            "arguments": lambda: (Endless, (new,)),
            "nested arguments": lambda: (Endless, ([[{"next": (new,)}]],)),
            "state": lambda: (object, (), {"next": new}),
            "items": lambda: (list, (), None, iter([new])),
            "pairs": lambda: (dict, (), None, None, iter([(1, new)])),
            "keys": lambda: (dict, (), None, None, iter([(new, 1)])),
            "two": lambda: (list, (), None, iter([new, Endless(self.way)])),
            "something old": lambda: (Endless, (OLD, new)),
        }[self.way]()


OLD = Node(0)


class EndlessState:
    def __getstate__(self) -> Any:
        return {"next": EndlessState()}


class EndlessArguments:
    def __new__(cls, *arguments: Any) -> Any:
        return object.__new__(cls)

    def __getnewargs__(self) -> Any:
        return (EndlessArguments(),)


class Materialised:
    """Makes the next one when it is first asked for, and holds it."""

    next: Any = None

    def __reduce__(self) -> Any:
        if self.next is None:
            self.next = Materialised()
        return Materialised, (), {"next": self.next}


ENDLESS = [
    *(
        Endless(way)
        for way in ("arguments", "nested arguments", "state", "items", "pairs", "keys", "two", "something old")
    ),
    *(EndlessState(), EndlessArguments(), Materialised()),
]


@pytest.mark.parametrize("options", [{}, {"unpicklable": "tombstone"}, {"weakrefs": "strong"}])
@pytest.mark.parametrize("endless", ENDLESS, ids=lambda obj: getattr(obj, "way", type(obj).__name__))
def test_what_makes_a_new_object_each_time_has_a_bound(endless: Any, options: Any) -> None:
    file = io.BytesIO()
    with pytest.raises(safepickle.NestingError, match=r"pickling has no end: .*(Endless|Materialised)"):
        safepickle.dump([OLD, endless], file, **options)
    assert file.getvalue() == b""


@pytest.mark.parametrize(
    "endless", [Endless("two"), EndlessState(), Materialised()], ids=lambda obj: type(obj).__name__
)
def test_explain_ends_on_what_makes_a_new_object_each_time(endless: Any) -> None:
    explanation = safepickle.explain({"endless": endless})
    assert not explanation.complete
    assert "has no end" in str(explanation)


def test_endless_reducers_of_a_subclass_and_of_a_table_have_a_bound() -> None:
    class Plain:
        pass

    class Overriding(safepickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            return (list, (), None, iter([Plain()])) if type(obj) is Plain else super().reducer_override(obj)

    tabled = safepickle.Pickler(io.BytesIO())
    tabled.dispatch_table = {Plain: lambda obj: (list, (), None, iter([Plain()]))}
    for pickler in (Overriding(io.BytesIO()), tabled):
        with pytest.raises(RecursionError, match=r"maximum recursion depth|Stack overflow|pickling has no end"):
            pickler.dump(Plain())


class Wrapped:
    """Pickles what it holds in a new wrapper, as many adapters do."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __reduce__(self) -> Any:
        return Wrapped, (Held(self.held),)


class Held:
    def __init__(self, held: Any) -> None:
        self.held = held


def test_new_objects_between_those_that_were_there_may_be_as_many_as_these() -> None:
    wrapped: Any = None
    for _ in range(5_000):
        wrapped = Wrapped(wrapped)
    copy, depth = safepickle.loads(safepickle.dumps(wrapped)), 0
    while copy is not None:
        copy, depth = copy.held.held, depth + 1
    assert depth == 5_000


def test_objects_that_are_frozen_are_no_new_ones() -> None:
    """The collector does not show them, in servers that froze what they had loaded before they forked."""
    head = chain(Node, DEPTH)
    gc.freeze()
    try:
        assert len(list(along(safepickle.loads(safepickle.dumps(head))))) == DEPTH
    finally:
        gc.unfreeze()
