"""Where a failed dump leads to: the path is an expression, and it evaluates to the offender."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import io
import pickle
import re
import subprocess
import sys
import threading
import types
import warnings
import weakref
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safepickle
from nodes import Node
from safepickle.rebuild import UnpicklableTombstone
from safepickle.tracing.error_paths import find_path, locate_failure


class Offender:
    """What nothing can pickle."""

    def __reduce__(self) -> Any:
        raise ValueError("not today")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def method(self, *_: object) -> None:
        """Take what a weak reference gives its callback."""


class Shown(Offender):
    __repr__ = object.__repr__


def a_pickler() -> safepickle.Pickler:
    return safepickle.Pickler(io.BytesIO())


class Hostile(Node):
    """Every question raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no attributes")

    __hash__ = object.__hash__


class Slotted:
    __slots__ = ("__weakref__", "held")
    held: Any


class List(list[Any]):
    pass


class Dict(dict[Any, Any]):
    pass


class Set(set[Any]):
    pass


class FromItems:
    """Reduced to a copy of what it holds."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)

    def __reduce__(self) -> Any:
        return FromItems, tuple(self.items)


class WithState:
    """Its state names nothing that it holds."""

    def __init__(self, held: Any) -> None:
        self._hidden = {1, held}

    def __getstate__(self) -> dict[str, Any]:
        return {"fresh": [held for held in self._hidden if held != 1]}


def evaluate(path: str, root: Any) -> Any:
    # The root's sign, not one within a key.
    expression = re.sub(
        r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\$", lambda found: found[0].replace("$", "root", found[0] == "$"), path
    )
    return eval(expression, {"root": root})


def failure(root: Any, protocol: int | None = None) -> BaseException:
    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps(root, protocol)
    return caught.value


def closing_over(value: Any) -> Any:
    return lambda: value


def global_to(value: Any) -> Any:
    namespace: dict[str, Any] = {"value": value}
    exec("def function(): return value", namespace)
    return namespace["function"]


def class_with(**attributes: Any) -> type:
    cls = type("Dynamic", (), attributes)
    cls.__module__ = "__main__"
    return cls


def slotted(value: Any) -> Slotted:
    obj = Slotted()
    obj.held = value
    return obj


CASES: dict[str, tuple[Any, str]] = {
    "the root": (lambda bad: bad, "$"),
    "attribute": (lambda bad: Node(held=bad), "$.held"),
    "attribute that is no identifier": (lambda bad: Node(**{"a b": bad}), "$.__dict__['a b']"),
    "slot": (slotted, "$.held"),
    "list": (lambda bad: [0, [bad]], "$[1][0]"),
    "tuple": (lambda bad: (0, (bad,)), "$[1][0]"),
    "dict": (lambda bad: {"a": {"b c": bad}}, "$['a']['b c']"),
    "key of numbers and strings": (lambda bad: {(1, b"x", None, (2.5,)): bad}, "$[(1, b'x', None, (2.5,))]"),
    "key that is an object": (lambda bad: {0: 0, object(): bad}, "list($.values())[1]"),
    "key that is not a number": (lambda bad: {float("nan"): bad}, "list($.values())[0]"),
    "long key": (lambda bad: {"x" * 1000: bad}, "list($.values())[0]"),
    "as a key": (lambda bad: {0: 0, bad: 1}, "list($)[1]"),
    "set": (lambda bad: {bad}, "list($)[0]"),
    "frozenset": (lambda bad: [frozenset({bad})], "list($[0])[0]"),
    "subclass of list": (lambda bad: List([0, bad]), "$[1]"),
    "subclass of dict": (lambda bad: Dict(a=bad), "$['a']"),
    "subclass of set": (lambda bad: Set([bad]), "list($)[0]"),
    "deque": (lambda bad: collections.deque([0, bad]), "$[1]"),
    "defaultdict": (lambda bad: collections.defaultdict(list, {"k": bad}), "$['k']"),
    "OrderedDict": (lambda bad: collections.OrderedDict(k=bad), "$['k']"),
    "Counter": (lambda bad: collections.Counter({bad: 1}), "list($)[0]"),
    "namespace": (lambda bad: types.SimpleNamespace(held=bad), "$.held"),
    "closure": (closing_over, "$.__closure__[0].cell_contents"),
    "global of a function by value": (global_to, "$.__globals__['value']"),
    "default argument": (lambda bad: lambda value=bad: value, "$.__defaults__[0]"),
    "keyword default": (lambda bad: lambda *, value=bad: value, "$.__kwdefaults__['value']"),
    "partial": (lambda bad: functools.partial(print, 1, bad), "$.args[1]"),
    "keyword of a partial": (lambda bad: functools.partial(print, end=bad), "$.keywords['end']"),
    "bound method": (lambda bad: bad.method, "$.__self__"),
    "class by value": (lambda bad: class_with(held=bad), "$.held"),
    "exception": (lambda bad: KeyError(0, bad), "$.args[1]"),
    "property": (lambda bad: class_with(held=property(closing_over(bad))), "$.held.fget.__closure__[0].cell_contents"),
    "class method": (
        lambda bad: class_with(make=classmethod(closing_over(bad))),
        "$.__dict__['make'].__func__.__closure__[0].cell_contents",
    ),
    "reduce arguments": (lambda bad: FromItems(0, bad), "$.items[1]"),
    "reference to what is kept": (lambda bad: [weakref.ref(bad), Node(held=bad)], "$[1].held"),
    "value of an ephemeron": (
        lambda bad: (lambda key: [weakref.WeakKeyDictionary({key: bad}), key])(Node()),
        "list($[0].values())[0]",
    ),
    "callback": (
        lambda bad: (lambda referent: [weakref.ref(referent, bad.method), referent])(Node()),
        "$[0].__callback__.__self__",
    ),
    "hostile objects on the way": (
        lambda bad: Hostile(hidden=[Hostile(), {"k": Hostile(x=bad)}]),
        "$.hidden[1]['k'].x",
    ),
}


@pytest.mark.parametrize("protocol", [pickle.HIGHEST_PROTOCOL, 2])
@pytest.mark.parametrize(("make", "path"), CASES.values(), ids=list(CASES))
def test_path_of_a_failure_evaluates_to_the_offender(make: Any, path: str, protocol: int) -> None:
    offender = Offender()
    root = make(offender)
    error: Any = failure(root, protocol)
    assert error.pickle_path == path
    assert evaluate(path, root) is offender
    assert find_path(root, offender, a_pickler()) == path


def test_path_of_what_only_the_state_shows_is_a_call_that_a_person_can_make() -> None:
    offender = Offender()
    root = Node(inner=WithState(offender))
    path = failure(root).pickle_path  # type: ignore[attr-defined]
    assert path == "$.inner.__getstate__()['fresh'][0]"
    assert evaluate(path, root) is offender


def test_path_ends_at_the_owner_of_what_nobody_can_type() -> None:
    class Registered:
        pass

    safepickle.register(Registered, lambda obj: (Registered, (), {"fresh": [Offender()]}))
    assert failure(Node(held=Registered())).pickle_path == "$.held"  # type: ignore[attr-defined]


def test_shortest_path_is_given() -> None:
    offender = Offender()
    deep = Node(next=Node(next=Node(next=offender)))
    assert failure([deep, Node(short=offender)]).pickle_path == "$[1].short"  # type: ignore[attr-defined]


def test_offender_is_the_one_whose_message_was_raised() -> None:
    class Other:
        def __reduce__(self) -> Any:
            raise ValueError("other")

    # The other one is nearer to the root, but the pickler meets it later.
    error: Any = failure([[[[Offender()]]], Other()])
    assert error.pickle_path == "$[0][0][0][0]"


@pytest.mark.parametrize("protocol", [5, 2])
def test_exception_has_the_type_that_pickle_raises(protocol: int) -> None:
    generator = (number for number in "")
    with pytest.raises(TypeError, match="generator") as plain:
        pickle.dumps(generator, protocol)
    with pytest.raises(type(plain.value), match="cannot pickle 'generator' object") as caught:
        safepickle.dumps(Node(generator=generator), protocol)
    assert str(caught.value) == str(plain.value)
    assert caught.value.pickle_path == "$.generator"  # type: ignore[attr-defined]
    assert caught.value.__notes__ == [
        "The object that cannot be pickled is at $.generator\n"
        "safepickle.explain(obj) lists everything that cannot be pickled, and where it is."
    ]


def test_name_that_cannot_be_imported_has_a_path() -> None:
    class Named:
        def __reduce__(self) -> str:
            return "nowhere_to_be_found"

    with pytest.raises(pickle.PicklingError, match="nowhere_to_be_found") as caught:
        safepickle.dumps({"deep": [Named()]})
    assert caught.value.pickle_path == "$['deep'][0]"  # type: ignore[attr-defined]


def test_malformed_reduce_value_has_a_path() -> None:
    class Malformed:
        def __reduce__(self) -> Any:
            return 1, 2, 3

    with pytest.raises(pickle.PicklingError, match="reduce") as caught:
        safepickle.dumps(Node(held=Malformed()))
    assert caught.value.pickle_path == "$.held"  # type: ignore[attr-defined]


def test_strict_weak_reference_error_says_where() -> None:
    parent = Node()
    root = Node(layers=[0, 0, Node(_parent=weakref.ref(parent))])
    with pytest.raises(
        safepickle.WeakReferenceError, match=r"the weak reference at \$\.layers\[2\]\._parent: its"
    ) as caught:
        safepickle.dumps(root, weakrefs="strict")
    assert caught.value.path == caught.value.pickle_path == "$.layers[2]._parent"  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.path, str(copy)) == (caught.value.path, str(caught.value))


def test_strict_error_of_a_weak_container_says_where_the_container_is() -> None:
    parent = Node()
    with pytest.raises(safepickle.WeakReferenceError, match=r"at \$\['watched'\]") as caught:
        safepickle.dumps({"watched": weakref.WeakSet([parent])}, weakrefs="strict")
    assert caught.value.path == "$['watched']"


def test_offender_behind_a_strong_copy_is_reached_through_the_reference() -> None:
    owner = Node(held=Offender())
    root = [weakref.ref(owner)]
    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps(root, weakrefs="strong")
    error: Any = caught.value
    assert error.pickle_path == "$[0]().held"
    assert evaluate(error.pickle_path, root) is owner.held


def test_offender_behind_a_proxy_is_reached_as_if_there_were_none() -> None:
    owner = Node(held=Offender())
    root = [weakref.proxy(owner)]
    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps(root, weakrefs="strong")
    assert caught.value.pickle_path == "$[0].held"  # type: ignore[attr-defined]
    assert evaluate("$[0].held", root) is owner.held


def test_outside_referents_are_not_searched_when_they_are_not_pickled() -> None:
    outside = Node(held=Offender())
    inner = Node(offender=Offender())
    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps([weakref.ref(outside), Node(deep=Node(deep=inner))])
    assert caught.value.pickle_path == "$[1].deep.deep.offender"  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", ["C", "F"])
def test_element_of_an_array_of_objects_has_a_path(order: str) -> None:
    array = numpy.empty((2, 3), object, order=order)  # type: ignore[call-overload]
    array[1, 2] = Offender()
    assert failure({"k": array}).pickle_path == "$['k'][1, 2]"  # type: ignore[attr-defined]
    scalar = numpy.array(None, object)
    scalar[()] = Offender()
    assert failure(scalar).pickle_path == "$[()]"  # type: ignore[attr-defined]


def test_recursion_without_end_has_a_path() -> None:
    class Endless:
        def __getstate__(self) -> Any:
            return self.__getstate__()

    root = [Node(), Node(deep=Endless())]
    with pytest.raises(RecursionError, match="maximum recursion depth") as caught:
        safepickle.dumps(root)
    assert caught.value.pickle_path == "$[1].deep"  # type: ignore[attr-defined]


@pytest.mark.small_stack
def test_nesting_too_deep_is_shown_and_the_note_stays_short() -> None:
    root = Node(buffer=pickle.PickleBuffer(b"x"))
    for _ in range(20_000):
        root = Node(buffer=pickle.PickleBuffer(b"x"), next=root)
    with pytest.raises(RecursionError, match=r"recursion depth exceeded|Stack overflow") as caught:
        safepickle.dumps([root], buffer_callback=lambda buffer: False)
    assert caught.value.pickle_path.startswith("$[0].next.next")  # type: ignore[attr-defined]
    notes = "\n".join(caught.value.__notes__)
    assert "recurses too deeply at $[0].next" in notes
    assert len(notes) < 1000


def test_cycles_end() -> None:
    root: Any = Node()
    root.itself = root
    root.items = [root, (root, {"root": root}), Offender()]
    assert failure(root).pickle_path == "$.items[2]"  # type: ignore[attr-defined]


class Full(io.RawIOBase):
    """Takes nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError("disk full")


def test_failed_write_is_not_blamed_on_an_object() -> None:
    class Watched:
        reduced = 0

        def __reduce__(self) -> Any:
            Watched.reduced += 1
            return Watched, ()

    with pytest.raises(OSError, match="disk full") as caught:
        safepickle.dump(Watched(), Full())
    assert not hasattr(caught.value, "pickle_path")
    assert Watched.reduced == 1


def test_an_object_that_fails_over_a_file_of_its_own_has_a_path() -> None:
    class Logs:
        def __reduce__(self) -> Any:
            safepickle.dump("what is logged", Full())
            return Logs, ()

    with pytest.raises(OSError, match="disk full") as caught:
        safepickle.dump([1, Node(log=Logs())], io.BytesIO())
    assert caught.value.pickle_path == "$[1].log"  # type: ignore[attr-defined]
    with pytest.warns(safepickle.UnpicklableWarning, match=r"\$\[1\]\.log"):
        one, node = safepickle.loads(safepickle.dumps([1, Node(log=Logs())], unpicklable="tombstone"))
    assert one == 1
    assert isinstance(node.log, UnpicklableTombstone)


@pytest.mark.parametrize("unpicklable", ["raise", "tombstone"])
def test_a_file_that_fails_after_an_object_did_is_what_the_error_is_about(unpicklable: Any) -> None:
    class Fails:
        def __reduce__(self) -> Any:
            with contextlib.suppress(OSError):
                safepickle.dump("what is logged", Full())
            return Fails, ()

    for graph in ([Fails()], [Fails(), weakref.ref(forward := Node()), forward]):
        with pytest.raises(OSError, match="disk full") as caught:
            safepickle.dump(graph, Full(), unpicklable=unpicklable)
        assert not hasattr(caught.value, "pickle_path")


def test_warning_that_was_made_an_error_gets_no_path() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(safepickle.WeakReferenceWarning, match="outside the pickle") as caught:
            safepickle.dumps([weakref.ref(Node)(), weakref.ref(threading.current_thread())])
    assert not hasattr(caught.value, "pickle_path")


def test_failed_dump_leaves_the_pickler_usable() -> None:
    file = io.BytesIO()
    pickler = safepickle.Pickler(file)
    with pytest.raises(ValueError, match="not today"):
        pickler.dump([Offender()])
    pickler.dump([1, 2])
    assert pickle.loads(file.getvalue()) == [1, 2]


def test_failure_of_a_pickler_with_persistent_ids_skips_what_it_stores_elsewhere() -> None:
    class Stored(Offender):
        pass

    class Storing(safepickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return "stored" if type(obj) is Stored else None

    offender = Node(deep=Offender())
    with pytest.raises(ValueError, match="not today") as caught:
        Storing(io.BytesIO()).dump([Stored(), {"k": offender}])
    assert caught.value.pickle_path == "$[1]['k'].deep"  # type: ignore[attr-defined]


def test_find_path_knows_what_is_not_there() -> None:
    assert find_path([1, [2]], object(), a_pickler()) is None


def test_locate_failure_knows_no_path_for_an_error_that_nothing_raises() -> None:
    assert locate_failure([1, Node()], ValueError("never"), a_pickler()) is None


def test_source_objects_are_not_kept_alive() -> None:
    root = Node(inner=Node(held=Offender()))
    watch = weakref.ref(root.inner)
    with pytest.raises(ValueError, match="not today"):
        safepickle.dumps(root)
    del root
    gc.collect()
    assert watch() is None


def test_search_is_not_even_imported_while_nothing_fails() -> None:
    program = "import sys, safepickle; safepickle.dumps([object()]); print('safepickle.report' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8").stdout.strip()
        == "False"
    )


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Any, Offender]:
    """Nested containers of every kind, with one offender in a random place."""
    offender = Shown()
    made: list[Any] = [offender]
    for kind in draw(st.lists(st.sampled_from(range(9)), min_size=1, max_size=12)):
        held = made[-1] if draw(st.booleans()) else draw(st.sampled_from(made))
        other = draw(st.sampled_from(made[1:] or [0]))
        key = draw(st.one_of(st.text(max_size=3), st.integers(), st.tuples(st.integers(), st.none())))
        made.append(
            (
                lambda held, other, key: [other, held],
                lambda held, other, key: (held, other),
                lambda held, other, key: {key: held, object(): other},
                lambda held, other, key: Node(held=held, other=other),
                lambda held, other, key: slotted(held),
                lambda held, other, key: FromItems(other, held),
                lambda held, other, key: functools.partial(print, held, end=other),
                lambda held, other, key: closing_over((other, held)),
                lambda held, other, key: Dict({key: [held]}),
            )[kind](held, other, key)
        )
    return [made[-1], offender] if draw(st.booleans()) else made[-1], offender


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_every_path_evaluates_to_the_offender(graph: tuple[Any, Offender]) -> None:
    root, offender = graph
    found = find_path(root, offender, a_pickler())
    if found is None:
        safepickle.dumps(root)
    else:
        assert evaluate(found, root) is offender
        assert failure(root).pickle_path == found  # type: ignore[attr-defined]
