"""Random graphs with weak references of every kind, and an oracle that knows what a pickle of one has to hold.

A `Plan` is a graph on paper: numbered nodes, strong edges and weak ones. `build` makes it of real objects, `kept` finds
by reachability which nodes a pickle holds, and `check` compares real objects with the plan, edge by edge. Nothing here
uses safepickle, so that an error there cannot hide behind the same error here.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

FINALIZED: list[str] = []
"""What the finalizers of built and loaded graphs have noted."""


class Plain:
    """A node of the commonest kind; also the inside of those that have no attributes."""

    name: str
    edges: list[Any]
    weak: list[Any]

    def method(self) -> str:
        return self.name


class Slotted:
    __slots__ = ("__weakref__", "edges", "name", "weak")
    name: str
    edges: list[Any]
    weak: list[Any]

    def method(self) -> str:
        return self.name


class Listed(list):
    """A node that is a list: it holds its inside as an item."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other


class NamedRef(weakref.ref):
    """A reference with state of its own, in slots."""

    __slots__ = ("label",)
    label: str


class OpenRef(weakref.ref):
    """A reference with a ``__dict__``, as a subclass that says nothing of slots has."""

    label: str


def function_node(inside: Any) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        return inside

    return function


def ignore(reference: Any) -> None:
    """Be the callback of a reference."""


def note(name: str) -> None:
    """Be the callback of a finalizer."""
    FINALIZED.append(name)


NODE_KINDS = ("plain", "slotted", "listed", "set", "function")
HASHABLE = ("plain", "slotted", "listed", "function")
WITH_METHOD = ("plain", "slotted")

CARRIERS = ("bare", "list", "tuple", "dict", "set", "cell")

SINGLE_KINDS = ("ref", "ref with callback", "ref with node as callback", "keyed", "slots", "dict", "method", "proxy")
CONTAINER_KINDS = ("set of weak", "weak values", "weak keys")
WEAK_KINDS = (*SINGLE_KINDS, "finalize", *CONTAINER_KINDS)


@dataclass(frozen=True)
class WeakEdge:
    """A weak reference, or a weak container.

    Attributes:
        holder: The node that holds it.
        kind: One of `WEAK_KINDS`.
        targets: The referents; one, unless it is a container.
        hanging: For each target, the node that the reference holds for as long as the target is there: the value of a
            weak key, or a callback. Empty for the other kinds.
    """

    holder: int
    kind: str
    targets: tuple[int, ...]
    hanging: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A graph on paper; node 0 is its root.

    Attributes:
        kinds: The kind of each node, of `NODE_KINDS`.
        strong: Edges as (holder, carrier, target).
        weak: Weak edges.
        dead: Nodes that are gone when the graph is pickled.
        weak_first: Nodes that hold their weak edges before their strong ones.
    """

    kinds: tuple[str, ...]
    strong: tuple[tuple[int, str, int], ...]
    weak: tuple[WeakEdge, ...]
    dead: frozenset[int] = frozenset()
    weak_first: frozenset[int] = frozenset()

    @property
    def alive(self) -> set[int]:
        return set(range(len(self.kinds))) - self.dead


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a plan of up to eight nodes."""
    kinds = tuple(draw(st.lists(st.sampled_from(NODE_KINDS), min_size=1, max_size=8)))
    nodes = st.integers(0, len(kinds) - 1)
    dead = draw(st.frozensets(nodes, max_size=2)) - {0}
    strong = draw(st.lists(st.tuples(nodes, st.sampled_from(CARRIERS), nodes), max_size=12))
    weak = draw(st.lists(weak_edges(kinds), min_size=1, max_size=10))
    return Plan(
        kinds,
        tuple((holder, carrier, target) for holder, carrier, target in strong if target not in dead or holder in dead),
        tuple(edge for edge in weak if edge.holder in dead or not dead.intersection(edge.hanging)),
        dead,
        draw(st.frozensets(nodes)),
    )


@st.composite
def weak_edges(draw: st.DrawFn, kinds: tuple[str, ...]) -> WeakEdge:
    def nodes_of(allowed: Iterable[str]) -> list[int]:
        return [node for node, kind in enumerate(kinds) if kind in allowed]

    holder = draw(st.integers(0, len(kinds) - 1))
    kind = draw(st.sampled_from(WEAK_KINDS))
    candidates = nodes_of(
        WITH_METHOD if kind == "method" else HASHABLE if kind in ("set of weak", "weak keys") else NODE_KINDS
    )
    functions = nodes_of(["function"])
    if not candidates or (kind == "ref with node as callback" and not functions):
        return WeakEdge(holder, "ref", (holder,))
    most = 3 if kind in CONTAINER_KINDS else 1
    targets = tuple(draw(st.lists(st.sampled_from(candidates), min_size=1, max_size=most, unique=True)))
    hanging: tuple[int, ...] = ()
    if kind == "weak keys":
        hanging = tuple(draw(st.integers(0, len(kinds) - 1)) for _ in targets)
    elif kind == "ref with node as callback":
        hanging = (draw(st.sampled_from(functions)),)
    return WeakEdge(holder, kind, targets, hanging)


def kept(plan: Plan, *, root: int = 0, known: Set[int] = frozenset(), follow_hanging: bool = True) -> set[int]:
    """Return the nodes that are reached from the root without following a weak reference.

    What hangs on a weak edge is reached once its holder and its target are.

    Args:
        plan: The graph.
        root: Where to begin.
        known: Nodes that an earlier pickle with the same memo holds; what these hold stays as it was then.
        follow_hanging: Whether there is anything to hang on.
    """
    reached: set[int] = {root, *known}
    while True:
        found = {target for holder, _, target in plan.strong if holder in reached - known}
        if follow_hanging:
            for edge in plan.weak:
                if edge.holder in reached - known:
                    found |= {
                        hanging
                        for target, hanging in zip(edge.targets, edge.hanging, strict=False)
                        if target in reached
                    }
        if found <= reached:
            return reached
        reached |= found


def reached_through_weak(plan: Plan) -> set[int]:
    """Return the live nodes that are reached from the root when weak references are followed, too."""
    reached: set[int] = {0}
    while True:
        found = {target for holder, _, target in plan.strong if holder in reached}
        for edge in plan.weak:
            if edge.holder in reached:
                found |= set(edge.targets) - plan.dead
                found |= {
                    hanging
                    for target, hanging in zip(edge.targets, edge.hanging, strict=False)
                    if target not in plan.dead
                }
        if found <= reached:
            return reached
        reached |= found


@dataclass
class Graph:
    """A plan made real.

    Attributes:
        nodes: The live nodes by number; this owns those that are outside the root's reach.
        weak: The weak objects, in the plan's order; None where the holder is dead.
    """

    nodes: dict[int, Any]
    weak: list[Any] = field(default_factory=list)

    @property
    def root(self) -> Any:
        return self.nodes[0]


def build(plan: Plan) -> Graph:
    """Make a plan real.

    What was there before is frozen, so that the many collections of a property test look at the graph alone.
    """
    gc.freeze()
    nodes: dict[int, Any] = {}
    insides = {}
    for number, kind in enumerate(plan.kinds):
        inside = Slotted() if kind == "slotted" else Plain()
        inside.name = f"node-{number};"
        # The attributes of a Plain are pickled in the order in which they were made.
        for attribute in ("weak", "edges") if number in plan.weak_first else ("edges", "weak"):
            setattr(inside, attribute, [])
        insides[number] = inside
        if kind in ("plain", "slotted"):
            nodes[number] = inside
        elif kind == "listed":
            nodes[number] = Listed([inside])
        elif kind == "set":
            nodes[number] = {inside}
        else:
            nodes[number] = function_node(inside)
    for holder, carrier, target in plan.strong:
        insides[holder].edges.append(carry(carrier, nodes[target]))
    graph = Graph(nodes)
    for edge in plan.weak:
        weak = make_weak(edge, nodes)
        insides[edge.holder].weak.append(weak)
        graph.weak.append(None if edge.holder in plan.dead else weak)
        del weak
    for number in plan.dead:
        del nodes[number]
    if plan.dead:
        del insides, inside
        gc.collect()
    return graph


def carry(carrier: str, target: Any) -> Any:
    if carrier == "list":
        return [target]
    if carrier == "tuple":
        return (target,)
    if carrier == "dict":
        return {"target": target}
    if carrier == "set" and type(target) is not set:
        return {target}
    if carrier == "cell":
        return lambda: target
    return target


def carried(carrier: str, item: Any, kind: str) -> Any:
    if carrier == "dict":
        return item["target"]
    if carrier in ("list", "tuple") or (carrier == "set" and kind != "set"):
        [target] = item
        return target
    if carrier == "cell":
        return item()
    return item


def make_weak(edge: WeakEdge, nodes: dict[int, Any]) -> Any:
    targets = [nodes[number] for number in edge.targets]
    hanging = [nodes[number] for number in edge.hanging]
    name = f"label-{edge.targets[0]}"
    match edge.kind:
        case "ref":
            return weakref.ref(targets[0])
        case "ref with callback":
            return weakref.ref(targets[0], ignore)
        case "ref with node as callback":
            return weakref.ref(targets[0], hanging[0])
        case "keyed":
            return weakref.KeyedRef(targets[0], None, name)  # type: ignore[arg-type]
        case "slots" | "dict":
            reference = NamedRef(targets[0]) if edge.kind == "slots" else OpenRef(targets[0])
            reference.label = name
            return reference
        case "method":
            return weakref.WeakMethod(targets[0].method)
        case "proxy":
            return weakref.proxy(targets[0])
        case "finalize":
            finalizer = weakref.finalize(targets[0], note, name)
            finalizer.atexit = False
            return finalizer
        case "set of weak":
            return weakref.WeakSet(targets)
        case "weak values":
            return weakref.WeakValueDictionary(zip(edge.targets, targets, strict=True))
        case "weak keys":
            return weakref.WeakKeyDictionary(zip(targets, hanging, strict=True))
    raise AssertionError(edge.kind)


def inside_of(node: Any, kind: str) -> Any:
    if kind in ("listed", "set"):
        [inside] = node
        return inside
    return node() if kind == "function" else node


def check(root: Any, plan: Plan, alive: Set[int] | Callable[[WeakEdge], Set[int]], number: int = 0) -> dict[int, Any]:
    """Compare real objects with a plan.

    Args:
        root: What stands for a node.
        plan: What it has to look like.
        alive: The nodes that a weak reference has to lead to, or how to tell; every other one has to be dead.
        number: The node that `root` stands for.

    Returns:
        The nodes that were reached, through edges of both kinds.
    """
    strong: dict[int, list[tuple[str, int]]] = {}
    for holder, carrier, target in plan.strong:
        strong.setdefault(holder, []).append((carrier, target))
    weak: dict[int, list[WeakEdge]] = {}
    for edge in plan.weak:
        weak.setdefault(edge.holder, []).append(edge)

    nodes: dict[int, Any] = {}
    to_visit: list[tuple[int, Any]] = [(number, root)]
    while to_visit:
        number, node = to_visit.pop()
        if number in nodes:
            assert same(nodes[number], node), f"node {number} is there twice"
            continue
        nodes[number] = node
        kind = plan.kinds[number]
        inside = inside_of(node, kind)
        assert type(inside) is (Slotted if kind == "slotted" else Plain)
        assert inside.name == f"node-{number};"
        for (carrier, target), item in zip(strong.get(number, []), inside.edges, strict=True):
            to_visit.append((target, carried(carrier, item, plan.kinds[target])))
        for edge, reference in zip(weak.get(number, []), inside.weak, strict=True):
            to_visit += check_weak(edge, reference, plan, alive(edge) if callable(alive) else alive)
    return nodes


def same(one: Any, other: Any) -> bool:
    """Tell whether two names lead to one object, looking through proxies."""
    return referent_of(one) is referent_of(other)


def referent_of(obj: Any) -> Any:
    if type(obj) in weakref.ProxyTypes:
        # A bound special method of a proxy is bound to the referent.
        return obj.__repr__.__self__
    return obj


def check_weak(edge: WeakEdge, weak: Any, plan: Plan, alive: Set[int]) -> list[tuple[int, Any]]:
    """Check one weak reference or container; return what it leads to."""
    there = [target for target in edge.targets if target in alive]
    match edge.kind:
        case "set of weak":
            assert type(weak) is weakref.WeakSet
            assert len(weak) == len(there)
            names = {inside_of(member, kind_of(member)).name: member for member in weak}
            return [(target, names[f"node-{target};"]) for target in there]
        case "weak values":
            assert type(weak) is weakref.WeakValueDictionary
            assert sorted(weak.keys()) == sorted(there)
            return [(target, weak[target]) for target in there]
        case "weak keys":
            assert type(weak) is weakref.WeakKeyDictionary
            assert len(weak) == len(there)
            keys = {inside_of(key, kind_of(key)).name: (key, value) for key, value in weak.items()}
            hanging = dict(zip(edge.targets, edge.hanging, strict=True))
            found = []
            for target in there:
                key, value = keys[f"node-{target};"]
                found += [(target, key), (hanging[target], value)]
            return found
        case "proxy":
            return check_proxy(edge.targets[0], weak, plan, alive)
        case "finalize":
            assert isinstance(weak, weakref.finalize)
            assert weak.alive == bool(there)
            if not there:
                return []
            peeked = weak.peek()
            assert peeked is not None
            referent, func, args, kwargs = peeked
            assert (func, args, kwargs) == (note, (f"label-{edge.targets[0]}",), {})
            assert not weak.atexit
            return [(edge.targets[0], referent)]
    return check_reference(edge, weak, plan, alive)


def check_proxy(target: int, proxy: Any, plan: Plan, alive: Set[int]) -> list[tuple[int, Any]]:
    callable_kind = plan.kinds[target] == "function"
    if target in alive:
        if type(proxy) in weakref.ProxyTypes:
            assert type(proxy) is (weakref.CallableProxyType if callable_kind else weakref.ProxyType)
        return [(target, referent_of(proxy))]
    assert type(proxy) in weakref.ProxyTypes
    try:
        proxy.name  # noqa: B018
    except ReferenceError:
        return []
    raise AssertionError("a proxy to a node that is not there does not say so")


def check_reference(edge: WeakEdge, reference: Any, plan: Plan, alive: Set[int]) -> list[tuple[int, Any]]:
    [target] = edge.targets
    assert isinstance(reference, weakref.ref)
    name = f"label-{target}"
    if edge.kind == "keyed":
        assert type(reference) is weakref.KeyedRef
        assert reference.key == name
    elif edge.kind in ("slots", "dict"):
        assert type(reference) is (NamedRef if edge.kind == "slots" else OpenRef)
        assert reference.label == name
    elif edge.kind == "method":
        assert isinstance(reference, weakref.WeakMethod)
    if target not in alive:
        assert reference() is None
        return []
    referent = reference()
    if edge.kind == "method":
        assert referent.__func__.__name__ == "method"
        return [(target, referent.__self__)]
    if edge.kind == "ref with callback":
        assert reference.__callback__ is ignore
    if edge.kind == "ref with node as callback":
        return [(target, referent), (edge.hanging[0], reference.__callback__)]
    return [(target, referent)]


def kind_of(node: Any) -> str:
    return {Plain: "plain", Slotted: "slotted", Listed: "listed", set: "set"}.get(type(node), "function")
