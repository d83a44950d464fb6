"""Functions, callbacks and finalizers of a deep copy: none of them acts on the original.

A function is shared as long as nothing that it closes over, defaults to or is bound to was copied.
"""

from __future__ import annotations

import functools
import gc
import io
import tempfile
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nodes
import safepickle
from nodes import deepcopy


class Node(nodes.Node):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{"log": []} | attributes)

    def note(self, *what: Any) -> None:
        self.log.append("noted")

    @classmethod
    def make(cls) -> Node:
        return cls()


class Noter:
    """A callable of one's own that leads to a node."""

    def __init__(self, lead: Any) -> None:
        self.lead = lead

    def __call__(self, *_: Any) -> None:
        found: Any = self.lead() if isinstance(self.lead, weakref.ref) else self.lead
        found.note()


def note(node: Any, *_: Any) -> None:
    found: Any = node() if type(node) is weakref.ref else node
    found.note()


def _closure(node: Node) -> Callable[..., None]:
    return lambda *_: node.note()


def _weak_closure(node: Node) -> Callable[..., None]:
    reference: Any = weakref.ref(node)
    return lambda *_: reference().note()


def _proxy_closure(node: Node) -> Callable[..., None]:
    proxy = weakref.proxy(node)
    return lambda *_: proxy.note()


def _nested_closure(node: Node) -> Callable[..., None]:
    inner = _closure(node)

    def outer(*_: Any) -> None:
        inner()

    return outer


def _container_closure(node: Node) -> Callable[..., None]:
    held: Any = {"nodes": [(weakref.ref(node),)]}
    return lambda *_: held["nodes"][0][0]().note()


def _default(node: Node) -> Callable[..., None]:
    def function(first: Any = None, found: Node = node) -> None:
        found.note()

    return function


def _keyword_default(node: Node) -> Callable[..., None]:
    reference = weakref.ref(node)

    def function(*_: Any, found: Any = reference) -> None:
        found().note()

    return function


def _attribute(node: Node) -> Callable[..., None]:
    def function(*_: Any) -> None:
        function.node.note()  # type: ignore[attr-defined]

    function.node = node  # type: ignore[attr-defined]
    return function


def _wrapped(node: Node) -> Callable[..., None]:
    @functools.wraps(node.note)
    def function(*_: Any) -> None:
        function.__wrapped__()

    return function


def _method_of_closure(node: Node) -> Callable[..., None]:
    return types.MethodType(_weak_closure(node), "owner")


def _cached(node: Node) -> Callable[..., None]:
    cached = functools.lru_cache(node.note)
    cached.cache_clear()
    return lambda *_: cached()


FUNCTIONS = [
    _closure,
    _weak_closure,
    _proxy_closure,
    _nested_closure,
    _container_closure,
    _default,
    _keyword_default,
    _attribute,
    _wrapped,
    _method_of_closure,
    _cached,
    lambda node: node.note,
    lambda node: functools.partial(note, node),
    lambda node: functools.partial(note, weakref.ref(node)),
    lambda node: functools.partial(_weak_closure(node)),
    lambda node: functools.partial(_keyword_default(node), 1),
    lambda node: Noter(node),
    lambda node: Noter(weakref.ref(node)),
    lambda node: Noter(node).__call__,
    lambda node: Node(node=node, call=_closure(node)).call,
]


@pytest.fixture(params=FUNCTIONS, ids=range(len(FUNCTIONS)))
def leading(request: pytest.FixtureRequest) -> Any:
    """Makes a function that notes something in the node it is made for."""
    return request.param


# Callbacks


WEAK_KINDS: list[Callable[..., Any]] = [
    weakref.ref,
    weakref.proxy,
    lambda node, callback: weakref.WeakMethod(node.note, callback),
]


@pytest.mark.parametrize(("is_sealed", "is_last"), [(False, False), (False, True), (True, False), (True, True)])
def test_callback_acts_on_the_copy_alone(leading: Any, is_sealed: bool, is_last: bool) -> None:
    for make in WEAK_KINDS:
        registry, target = Node(), Node()
        reference = make(target, leading(registry))
        held: Any = (reference,) if is_sealed else [reference]
        copied = deepcopy([registry, target, held] if is_last else [held, target, registry])
        copied_registry = copied[0 if is_last else 2]
        del copied[1]
        assert (copied_registry.log, registry.log) == (["noted"], [])
        del target
        assert (copied_registry.log, registry.log) == (["noted"], ["noted"])


def test_registry_of_the_original_survives_its_copy() -> None:
    class Registry:
        def __init__(self) -> None:
            self.refs: dict[str, Any] = {}
            self.owned: list[Any] = []

        def add(self, key: str) -> None:
            self.owned.append(node := Node())
            self.refs[key] = weakref.ref(node, lambda _: self.refs.pop(key, None))

    registry = Registry()
    registry.add("a")
    registry.add("b")
    copied = deepcopy(registry)
    del copied.owned[0]
    assert (list(copied.refs), list(registry.refs)) == (["b"], ["a", "b"])
    del copied
    gc.collect()
    assert list(registry.refs) == ["a", "b"]


def test_callback_of_a_reference_to_the_outside_acts_on_the_copy(leading: Any) -> None:
    outside, registry = Node(), Node()
    registry.watch = weakref.ref(outside, leading(registry))
    copied = deepcopy(registry)
    assert copied.watch() is outside
    del registry.watch, outside
    gc.collect()
    assert (copied.log, registry.log) == (["noted"], [])


def test_callback_that_leads_nowhere_is_the_same() -> None:
    log: list[Any] = []
    outside, target = Node(), Node()
    for callback in (_closure(outside), _weak_closure(outside), functools.partial(note, outside), log.append, print):
        copied = deepcopy([weakref.ref(target, callback), target])
        assert copied[0].__callback__ is callback


def test_what_a_callback_holds_beside_the_graph_is_shared() -> None:
    target, registry, calls = Node(), Node(), []
    copied = deepcopy([target, registry, weakref.ref(target, lambda _: calls.append(registry))])
    del copied[0]
    gc.collect()
    assert calls == [copied[0]]


def test_callbacks_that_share_a_variable_go_on_sharing_it() -> None:
    def make(registry: Node) -> tuple[Any, Any]:
        count = 0

        def up(*_: Any) -> None:
            nonlocal count
            count += 1
            registry.count = count

        def read() -> int:
            return count

        return up, read

    registry = Node()
    registry.up, registry.read = make(registry)
    copied = deepcopy(registry)
    copied.up()
    copied.up()
    assert (copied.count, copied.read(), registry.read()) == (2, 2, 0)


def test_what_lies_between_a_callback_and_the_graph_is_followed_on() -> None:
    registry, target = Node(), Node()
    between = Node(registry=registry, call=None)
    between.call = lambda: between.registry.note()
    other = Node(between=weakref.ref(between))
    reference = weakref.ref(target, lambda _: between.call())
    copied = deepcopy([other, registry, target, reference])
    assert copied[0].between() is not between
    del copied[2]
    gc.collect()
    assert (copied[1].log, registry.log) == (["noted"], [])


@pytest.mark.parametrize("is_sealed", [False, True])
def test_callback_that_cannot_be_copied_is_left_out_and_counted(is_sealed: bool) -> None:
    registry, target = Node(), Node()
    generator = (registry for _ in "ab")
    stuck = Node(generator=generator, registry=registry)
    reference = weakref.ref(target, lambda _: stuck.registry.note())
    graph: list[Any] = [(reference,) if is_sealed else reference, target, registry, (weakref.ref(registry),)]
    name = f"{__name__}.{test_callback_that_cannot_be_copied_is_left_out_and_counted.__name__}.<locals>.<lambda>"
    with pytest.warns(safepickle.CallbackWarning, match="1 weak reference came back without a callback") as caught:
        copied = deepcopy(graph)
    message: Any = caught[0].message
    assert message.counts == {name: 1}
    assert issubclass(safepickle.CallbackWarning, safepickle.WeakReferenceWarning)
    copied_reference = copied[0][0] if is_sealed else copied[0]
    assert copied_reference() is copied[1]
    assert copied_reference.__callback__ is None
    assert copied[3][0]() is copied[2]
    del copied[1]
    gc.collect()
    assert registry.log == []


# Functions that are met in the graph


@pytest.mark.parametrize("hold", ["attribute", "list", "dict", "tuple", "partial", "method"])
def test_function_acts_on_the_copy_alone(leading: Any, hold: str) -> None:
    node = Node()
    function = leading(node)
    holders: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "attribute": (function, lambda held: held),
        "list": ([function], lambda held: held[0]),
        "dict": ({"f": function}, lambda held: held["f"]),
        "tuple": ((1, (function,)), lambda held: held[1][0]),
        "partial": (functools.partial(function), lambda held: held),
        "method": (types.MethodType(function, 1), lambda held: held),
    }
    held, read = holders[hold]
    for graph in (Node(held=held, node=node), Node(node=node, held=held)):
        copied = deepcopy(graph)
        read(copied.held)()
        assert (copied.node.log, node.log) == (["noted"], [])


def test_function_that_leads_nowhere_is_shared() -> None:
    outside = Node()
    functions: list[Any] = [
        note,
        Node.note,
        Node.make,
        print,
        _closure(outside),
        _default(outside),
        lambda: 1,
        outside.log.append,
    ]
    copied = deepcopy([*functions, (*functions,)])
    shared = [each for each in functions if each != Node.make]
    assert [each for each in copied[:-1] if each != Node.make] == shared
    assert [each for each in copied[-1] if each != Node.make] == shared
    cached = functools.lru_cache(_closure(outside))
    assert deepcopy([cached])[0] is cached


def test_function_of_a_module_is_shared_whatever_it_leads_to() -> None:
    node = Node()
    note.node = node  # type: ignore[attr-defined]
    try:
        copied, function = deepcopy([node, note])
    finally:
        del note.node  # type: ignore[attr-defined]
    assert function is note
    assert copied is not node


def test_copied_function_is_the_same_but_for_what_it_holds() -> None:
    node = Node()

    def function(first: int, second: list[int] = [1], *, third: Node = node) -> Node:  # noqa: B006
        """Say what it is."""
        return third

    function.mark = "mark"  # type: ignore[attr-defined]
    reference = weakref.ref(function)
    copied, copied_node, copied_reference = deepcopy((function, node, reference))
    assert copied is copied_reference() is not function
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "__code__", "__defaults__"):
        assert getattr(copied, name) == getattr(function, name)
    assert copied.mark == "mark"
    assert copied(1) is copied_node
    assert function(1) is node


def test_functions_that_lead_to_each_other_and_to_themselves() -> None:
    node = Node()

    def first(depth: int) -> Any:
        return second(depth)

    def second(depth: int) -> Any:
        return first(depth - 1) if depth else node

    copied, again, copied_node = deepcopy([first, second, node])
    assert copied(2) is again(2) is copied_node
    assert first(2) is node


def test_empty_cell_stays_empty() -> None:
    node = Node()

    def function() -> Any:
        return node, later

    copied, _ = deepcopy([function, node])
    with pytest.raises(NameError, match="later"):
        copied()
    later = 1
    assert function()[1] == 1


def test_method_of_a_builtin_is_that_of_the_copy() -> None:
    class Loud(list[Any]):
        def append(self, item: Any) -> None:
            super().append((item, "loud"))

    node = Node(loud=Loud())
    node.add, node.quiet = node.log.append, super(Loud, node.loud).append
    copied = deepcopy(Node(first=node.add, pair=(node.quiet,), node=node))
    copied.first(1)
    copied.pair[0](2)
    assert (copied.node.log, copied.node.loud, node.log, node.loud) == ([1], [2], [], [])


def test_cache_of_a_method_asks_the_copy() -> None:
    class Squares:
        def __init__(self, base: int) -> None:
            self.base = base
            self.get = functools.lru_cache(maxsize=7)(self._get)

        def _get(self, power: int) -> int:
            return self.base**power

    squares = Squares(2)
    squares.get(3)
    copied = deepcopy(squares)
    copied.base = 3
    assert (copied.get(3), squares.get(3)) == (27, 8)
    assert copied.get.cache_parameters() == {"maxsize": 7, "typed": False}
    assert copied.get.cache_info().hits == 0
    assert copied.get.__wrapped__.__self__ is copied


def test_functions_by_type_ask_the_copy_and_share_no_cache() -> None:
    node = Node()

    @functools.singledispatch
    def by_type(value: Any) -> Node:
        return node

    node.by_type = by_type
    first, second = deepcopy(node), deepcopy(node)
    assert first.by_type(1) is first
    assert second.by_type(1) is second
    assert node.by_type(1) is node


def test_property_that_an_instance_holds() -> None:
    node = Node()
    node.leads, node.bare = property(lambda _: node), property(len)
    copied = deepcopy(node)
    assert copied.leads.fget(1) is copied
    assert copied.bare is node.bare


def test_function_that_cannot_be_copied_raises() -> None:
    node = Node()
    stuck = Node(node=node, generator=(each for each in "ab"))
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
        deepcopy([node, lambda: stuck])


# Finalizers


def test_temporary_directory_outlives_the_copy_of_its_owner() -> None:
    owner = Node(folder=tempfile.TemporaryDirectory())
    del (copied := [deepcopy([owner])])[0]
    gc.collect()
    assert copied == []
    assert Path(owner.folder.name).is_dir()
    owner.folder.cleanup()


def test_rearmed_finalizer_acts_on_the_copy_alone(leading: Any) -> None:
    registry, target = Node(), Node()
    finalizer = weakref.finalize(target, leading(registry))
    copied = deepcopy([registry, target, finalizer], finalizers="rearm")
    del copied[1]
    gc.collect()
    assert (copied[0].log, registry.log) == (["noted"], [])
    assert finalizer.detach() is not None


def test_rearmed_finalizer_that_cannot_be_copied_comes_back_dead_and_is_counted() -> None:
    registry, target = Node(), Node()
    finalizer = weakref.finalize(target, note, Node(registry=registry, generator=(each for each in "ab")))
    with pytest.warns(safepickle.CallbackWarning, match=f"{__name__}.note"):
        copied = deepcopy([registry, target, finalizer], finalizers="rearm")
    assert not copied[2].alive
    finalizer.detach()


def test_owning_finalizer_of_a_load_is_dead_in_a_copy() -> None:
    log: list[str] = []
    target = Node(log=log)
    finalizer = weakref.finalize(target, log.append, "gone")
    loaded = safepickle.loads(safepickle.dumps([finalizer], weakrefs="strong", finalizers="rearm"))
    copied = deepcopy(loaded)
    assert not copied[0].alive
    rearmed = deepcopy(loaded, finalizers="rearm")
    assert rearmed[0].alive
    assert rearmed[0].peek()[0] is not loaded[0].peek()[0]
    for each in (*loaded, *rearmed, finalizer):
        each.detach()


def test_file_in_memory_that_a_finalizer_would_close_stays_open() -> None:
    node = Node(file=io.StringIO("text"))
    node.finalizer = weakref.finalize(node, node.file.close)
    deepcopy(node)
    gc.collect()
    assert node.file.read() == "text"
    node.finalizer.detach()
