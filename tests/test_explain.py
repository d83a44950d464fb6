"""`explain` says what a dump does: each claim is held against the dump itself."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import json
import math
import os
import pickle
import subprocess
import sys
import types
import uuid
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safepickle
from nodes import Node, Offender
from safepickle.report.explanation import Explanation, WeakReference


class Hostile(Node):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = object.__hash__


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


class KeyedRef(weakref.ref):
    __slots__ = ("key",)


def evaluate(path: str, root: Any) -> Any:
    return eval(path.replace("$", "root"), {"root": root})


def only(explanation: Explanation) -> WeakReference:
    (found,) = explanation.weak_references
    return found


def round_trip(obj: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", safepickle.WeakReferenceWarning)
        return pickle.loads(safepickle.dumps(obj, **options))


def test_kept_referent_is_named_with_its_path() -> None:
    root = Node(children=[Node()])
    root.children[0].parent = weakref.ref(root)
    entry = only(safepickle.explain(root))
    assert entry == WeakReference(
        path="$.children[0].parent",
        kind="weakref.ref",
        state="kept",
        referent_type="nodes.Node",
        becomes="weak reference",
        referent_path="$",
        adds=0,
    )


@pytest.mark.parametrize(
    ("policy", "becomes"),
    [("relink", "tombstone"), ("tombstone", "tombstone"), ("strong", "strong copy"), ("strict", "error")],
)
def test_outside_referent_becomes_what_the_policy_says(policy: Any, becomes: str) -> None:
    outside = Node(payload=b"x" * 5000)
    explanation = safepickle.explain([weakref.ref(outside)], weakrefs=policy)
    entry = only(explanation)
    assert (entry.path, entry.state, entry.becomes) == ("$[0]", "outside", becomes)
    assert explanation.picklable is (policy != "strict")
    assert 5000 < entry.adds == explanation.strong_adds_bytes < 5200


def test_callable_policy_is_asked_about_each_outside_referent_once() -> None:
    one, other, asked = Node(), Node(), []

    def policy(referent: Any) -> Any:
        asked.append(referent)
        return "strong" if referent is one else "tombstone"

    explanation = safepickle.explain([weakref.ref(one), KeyedRef(one), weakref.ref(other)], weakrefs=policy)
    assert [entry.becomes for entry in explanation.weak_references] == ["strong copy", "strong copy", "tombstone"]
    assert asked == [one, other]


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a weak-reference policy"):
        safepickle.explain(1, weakrefs="weak")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unpicklable="):
        safepickle.explain(1, unpicklable="weak")  # type: ignore[arg-type]


def test_cycle_through_reduce_arguments_is_told_apart() -> None:
    class Built:
        def __init__(self, reference: Any = None) -> None:
            self.reference = reference

        def __reduce__(self) -> Any:
            return Built, (self.reference,)

    root = Built()
    root.reference = weakref.ref(root)
    entry = only(safepickle.explain(root))
    assert (entry.path, entry.state, entry.becomes) == ("$.reference", "cycle", "tombstone")
    assert only(safepickle.explain(root, weakrefs="strict")).becomes == "error"


def dead(make: Callable[[Any], Any]) -> Any:
    return make(Node())


DEAD = {
    "ref": lambda: dead(weakref.ref),
    "subclass": lambda: dead(KeyedRef),
    "proxy": lambda: dead(weakref.proxy),
    "WeakMethod": lambda: dead(lambda node: weakref.WeakMethod(node.method)),
    "tombstone": lambda: safepickle.Tombstone("outside", "a.B"),
}


@pytest.mark.parametrize("make", DEAD.values(), ids=list(DEAD))
def test_dead_reference_is_listed(make: Callable[[], Any]) -> None:
    entry = only(safepickle.explain(Node(held=make())))
    assert (entry.path, entry.state, entry.becomes, entry.referent_type) == ("$.held", "dead", "tombstone", None)


class Guarded(weakref.WeakValueDictionary[str, Any]):
    """A dictionary that does not show its entries to everybody."""

    def items(self) -> Any:
        raise PermissionError


def test_weak_dictionary_with_items_of_its_own_is_read_as_the_pickler_reads_it() -> None:
    table = Guarded()
    outside = Node()
    table["entry"] = outside
    entry = only(safepickle.explain([table]))
    assert (entry.path, entry.state) == ("$[0]['entry']", "outside")


def test_finalizer_that_has_run_is_dead() -> None:
    node = Node()
    finalizer = weakref.finalize(node, print)
    finalizer.detach()
    for finalizers in ("dead", "rearm"):
        entry = only(safepickle.explain([finalizer], finalizers=finalizers))
        assert (entry.state, entry.becomes, entry.referent_type) == ("dead", "dead finalizer", None)


@pytest.mark.parametrize("policy", ["relink", "strong", "tombstone", "strict", lambda referent: "strong"])
def test_finalizer_is_listed_as_dead_and_what_it_would_call_is_not_in_the_pickle(policy: Any) -> None:
    node = Node()
    finalizer = weakref.finalize(node, lambda _: None, (number for number in ""))
    explanation = safepickle.explain([finalizer, node], weakrefs=policy)
    entry = only(explanation)
    assert (entry.path, entry.kind, entry.referent_type) == ("$[0]", "weakref.finalize", "nodes.Node")
    assert (entry.state, entry.becomes, entry.referent_path) == ("kept", "dead finalizer", "$[1]")
    assert explanation.picklable
    assert not explanation.hazards
    assert "dead finalizer" in str(explanation)
    outside = safepickle.explain([finalizer], weakrefs=policy)
    assert (only(outside).state, only(outside).becomes) == ("outside", "dead finalizer")
    assert outside.picklable
    assert not outside.hazards
    assert outside.strong_adds_objects == 0
    finalizer.detach()


def test_finalizer_that_is_rearmed_nowhere_is_no_hazard() -> None:
    node = Node()
    finalizer = weakref.finalize(node, print)
    assert not safepickle.explain([finalizer], finalizers="rearm").hazards
    assert safepickle.explain([finalizer], finalizers="rearm", weakrefs="strong").hazards
    finalizer.detach()


LIVE: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "ref": (weakref.ref, "weakref.ref", "$[0]"),
    "subclass": (KeyedRef, f"{__name__}.KeyedRef", "$[0]"),
    "proxy": (weakref.proxy, "weakref.proxy", "$[0]"),
    "WeakMethod": (lambda node: weakref.WeakMethod(node.method), "weakref.WeakMethod", "$[0]"),
    "WeakSet": (lambda node: weakref.WeakSet([node]), "weakref.WeakSet", "list($[0])[0]"),
    "value": (lambda node: weakref.WeakValueDictionary({"k": node}), "weakref.WeakValueDictionary", "$[0]['k']"),
    "key": (lambda node: weakref.WeakKeyDictionary({node: 1}), "weakref.WeakKeyDictionary", "list($[0])[0]"),
    "finalize": (lambda node: weakref.finalize(node, print), "weakref.finalize", "$[0]"),
}


@pytest.mark.parametrize(("make", "kind", "path"), LIVE.values(), ids=list(LIVE))
def test_each_weak_type_is_listed(make: Callable[[Any], Any], kind: str, path: str) -> None:
    node = Node()
    kept = only(safepickle.explain([make(node), node], finalizers="rearm"))
    assert (kept.kind, kept.path, kept.state, kept.becomes) == (kind, path, "kept", "weak reference")
    assert kept.referent_path == "$[1]"
    outside = only(safepickle.explain([make(node)], finalizers="rearm"))
    assert (outside.kind, outside.path, outside.state) == (kind, path, "outside")
    assert outside.becomes in ("tombstone", "left out")


def test_all_unpicklable_objects_are_listed() -> None:
    root = Node(one=Offender(), rest=[(number for number in ""), {"k": Hostile(deep=Offender())}])
    explanation = safepickle.explain(root)
    assert [(entry.path, entry.error, entry.reason) for entry in explanation.unpicklable] == [
        ("$.one", "ValueError", "not today"),
        ("$.rest[0]", "TypeError", "cannot pickle 'generator' object"),
        ("$.rest[1]['k'].deep", "ValueError", "not today"),
    ]
    assert not explanation.picklable


def test_unpicklable_objects_that_only_a_strong_copy_would_bring_in_are_told_apart() -> None:
    outside = Node(held=Offender())
    root = [weakref.ref(outside)]
    relinking, copying = safepickle.explain(root), safepickle.explain(root, weakrefs="strong")
    assert [(entry.path, entry.outside) for entry in relinking.unpicklable] == [("$[0]().held", True)]
    assert relinking.picklable
    assert [entry.outside for entry in copying.unpicklable] == [False]
    assert not copying.picklable


@pytest.mark.parametrize(
    ("option", "becomes"),
    [("raise", "error"), ("tombstone", "tombstone"), (lambda obj: "raise", "error"), (lambda obj: 1, "replacement")],
)
def test_unpicklable_objects_become_what_the_option_says(option: Any, becomes: str) -> None:
    root = Node(held=Offender())
    explanation = safepickle.explain(root, unpicklable=option)
    assert [entry.becomes for entry in explanation.unpicklable] == [becomes]
    assert explanation.picklable is succeeds(root, unpicklable=option)
    alone = safepickle.explain(Offender(), unpicklable=option)
    assert alone.picklable is succeeds(Offender(), unpicklable=option)


def succeeds(obj: Any, **options: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            safepickle.dumps(obj, **options)
        except Exception:
            return False
    return True


def test_reason_that_cannot_be_printed_does_no_harm() -> None:
    class Raising:
        def __reduce__(self) -> Any:
            raise Unprintable

    (entry,) = safepickle.explain([Raising()]).unpicklable
    assert (entry.error, entry.reason) == ("Unprintable", "an exception that cannot be printed")


def test_deep_graph_is_explained_as_it_is_dumped() -> None:
    root = last = Node()
    for _ in range(5_000):
        last.next = Node(previous=weakref.ref(last))
        last = last.next
    explanation = safepickle.explain(root)
    assert explanation.picklable is succeeds(root) is True
    assert {entry.becomes for entry in explanation.weak_references} == {"weak reference"}
    # Written out, the paths of a linked list would be as long as the square of its length.
    assert max(len(entry.path) for entry in explanation.weak_references) < 5_000
    assert explanation.weak_references[-1].path.endswith("more steps) ... " + ".next" * 9 + ".previous")


def test_recursion_without_end_is_found() -> None:
    class Endless:
        def __getstate__(self) -> Any:
            return self.__getstate__()

    explanation = safepickle.explain([Endless()])
    assert [(entry.path, entry.error) for entry in explanation.unpicklable] == [("$[0]", "RecursionError")]


def test_hazards_are_what_the_peers_do() -> None:
    outside, kept = Node(), Node()
    root = [kept, weakref.proxy(kept), weakref.finalize(kept, print), weakref.WeakSet([outside]), weakref.ref(kept)]
    hazards = {entry.path: entry.peers for entry in safepickle.explain(root, finalizers="rearm").hazards}
    assert hazards == {"$[1]": "pickle and cloudpickle", "$[2]": "pickle and cloudpickle", "$[3]": "cloudpickle"}
    for peer in (pickle, cloudpickle):
        copied = peer.loads(peer.dumps([kept, root[1]]))
        assert type(copied[1]) is Node
        assert copied[1] is not copied[0]
        assert not peer.loads(peer.dumps([kept, root[2]]))[1].alive
    assert not list(pickle.loads(cloudpickle.dumps(root[3])))
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(root[3])


def test_sizes_answer_where_the_bytes_go() -> None:
    shared = bytes(300_000)
    root = {"model": Node(weights=bytes(2_000_000), shared=shared), "cache": [bytes(500_000), shared], "name": "x"}
    explanation = safepickle.explain(root)
    sizes = {entry.path: entry.bytes for entry in explanation.subtrees}
    assert sizes["$"] == explanation.bytes == pytest.approx(len(safepickle.dumps(root)), rel=0.001)
    assert sizes["$['model']"] == pytest.approx(2_300_000, rel=0.001)
    assert sizes["$['model'].weights"] == pytest.approx(2_000_000, rel=0.001)
    # Every object is counted once: what is shared belongs to the shorter, or the earlier, path.
    assert sizes["$['cache']"] == pytest.approx(500_000, rel=0.001)


def test_strong_copies_are_part_of_the_size() -> None:
    outside = Node(payload=bytes(100_000))
    root = Node(reference=weakref.ref(outside))
    explanation = safepickle.explain(root, weakrefs="strong")
    assert explanation.bytes == pytest.approx(len(safepickle.dumps(root, weakrefs="strong")), rel=0.01)
    assert explanation.strong_adds_bytes == pytest.approx(100_000, rel=0.01)


def test_buffers_are_counted_without_being_copied() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(1_000_000)
    assert safepickle.explain({"a": array}).bytes == pytest.approx(8_000_000, rel=0.001)


def test_report_fits_a_terminal_and_groups_what_is_alike() -> None:
    root = Node(layers=[Node() for _ in range(1000)], generator=(number for number in ""))
    for layer in root.layers:
        layer.parent = KeyedRef(root)
    text = str(safepickle.explain(root))
    assert text.splitlines()[0].startswith("nodes.Node cannot be pickled: ")
    assert "$.layers[0].parent and 999 more" in text
    assert "$.generator  generator  error    TypeError: cannot pickle 'generator' object" in text
    assert len(text.splitlines()) < 40


def test_html_escapes_what_objects_say() -> None:
    class Loud:
        def __reduce__(self) -> Any:
            raise ValueError("<script>alert(1)</script>")

    html = safepickle.explain({"<b>": Loud()})._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "$[&#x27;&lt;b&gt;&#x27;]" in html


def test_data_is_ready_for_json() -> None:
    outside = Node()
    root = Node(reference=weakref.ref(outside), generator=(number for number in ""))
    data = json.loads(json.dumps(safepickle.explain(root).to_dict()))
    assert data["picklable"] is False
    assert data["weak_references"][0]["path"] == "$.reference"
    assert data["unpicklable"][0]["path"] == "$.generator"


def test_explanation_keeps_nothing_alive() -> None:
    root = Node(inner=Node(), reference=None)
    outside = Node()
    root.reference = weakref.ref(outside)
    explanation = safepickle.explain(root)
    watches = [weakref.ref(root), weakref.ref(root.inner), weakref.ref(outside)]
    del root, outside
    gc.collect()
    assert [watch() for watch in watches] == [None, None, None]
    assert explanation.weak_references


def test_nothing_is_changed_and_no_callback_runs() -> None:
    called: list[Any] = []
    node = Node()
    root = [weakref.ref(node, called.append), node]
    before = sys.getrefcount(node)
    safepickle.explain(root)
    gc.collect()
    assert sys.getrefcount(node) == before
    assert not called


def test_no_progress_is_drawn_where_nobody_looks() -> None:
    program = "import safepickle; safepickle.explain([[] for _ in range(20000)])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8")
    assert run.stderr == ""


KINDS: list[Callable[[Any, Any], Any]] = [
    lambda held, other: [held, other],
    lambda held, other: (held, other),
    lambda held, other: {"held": held, (1, 2): other},
    lambda held, other: Node(held=held, other=other),
    lambda held, other: functools.partial(print, held, end=other),
    lambda held, other: types.SimpleNamespace(held=held, other=other),
    lambda held, other: Node(reference=weakref.ref(held), other=other),
    lambda held, other: Node(reference=KeyedRef(held), other=other),
    lambda held, other: [weakref.proxy(held), other],
    lambda held, other: Node(method=weakref.WeakMethod(held.method), other=other),
    lambda held, other: Node(held=weakref.WeakValueDictionary({"k": held}), other=other),
    lambda held, other: Node(held=weakref.WeakKeyDictionary({held: other})),
    lambda held, other: Node(held=held, reference=dead(weakref.ref)),
    lambda held, other: [held, Offender()],
]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    """A graph that mixes strong and weak edges, and everything that keeps its referents alive."""
    nodes = [Node(number=number) for number in range(draw(st.integers(1, 4)))]
    made: list[Any] = list(nodes)
    for number in draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=10)):
        made.append(KINDS[number](draw(st.sampled_from(nodes)), draw(st.sampled_from(made))))
        if draw(st.booleans()):
            # Cycles, and references that point forward.
            setattr(draw(st.sampled_from(nodes)), draw(st.sampled_from("ab")), made[-1])
    return draw(st.sampled_from(made[-3:])), made


@pytest.mark.filterwarnings("ignore::safepickle.WeakReferenceWarning")
@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("policy", ["relink", "strong", "tombstone"])
def test_bytes_are_those_of_the_pickle_whatever_becomes_of_a_weak_reference(kind: int, policy: Any) -> None:
    held, other = Node(name="held"), Node(name="other")
    graph = KINDS[kind](held, other)
    for root in ([graph], [held, graph], [graph, held]):
        try:
            data = safepickle.dumps(root, weakrefs=policy)
        except ValueError:
            continue
        assert safepickle.explain(root, weakrefs=policy).bytes == pytest.approx(len(data), abs=40)


@settings(max_examples=200, deadline=None)
@given(graphs(), st.sampled_from(["relink", "strong", "tombstone", "strict"]))
def test_explanation_agrees_with_the_dump(graph: tuple[Any, list[Any]], policy: Any) -> None:
    root, alive = graph
    explanation = safepickle.explain(root, weakrefs=policy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = safepickle.dumps(root, weakrefs=policy)
        except (ValueError, safepickle.WeakReferenceError):
            assert not explanation.picklable
            return
    assert explanation.picklable
    assert explanation.bytes == pytest.approx(len(data), rel=0.05, abs=100)
    if policy == "relink":
        messages: list[Any] = [warning.message for warning in caught]
        outside = [entry for entry in explanation.weak_references if entry.becomes in ("tombstone", "left out")]
        counted = sum(count for message in messages for count in message.counts.values())
        assert counted == sum(entry.state != "dead" for entry in outside)
    copy = pickle.loads(data)
    for entry in explanation.weak_references:
        agrees_with_copy(entry, copy)
    assert alive


def agrees_with_copy(entry: WeakReference, copy: Any) -> None:
    """Hold what was said of one reference against what was loaded."""
    if entry.becomes == "left out":
        with contextlib.suppress(IndexError, KeyError):
            pytest.fail(f"{entry.path} is {evaluate(entry.path, copy)!r}")
        return
    try:
        restored = evaluate(entry.path, copy)
    except (LookupError, ReferenceError) as error:
        raise AssertionError(entry) from error
    if entry.kind in ("weakref.WeakValueDictionary", "weakref.WeakKeyDictionary"):
        referent = restored
    elif type(restored) in (weakref.ProxyType, weakref.CallableProxyType):
        try:
            referent = restored.__reduce_ex__.__self__
        except ReferenceError:
            referent = None
    elif entry.kind == "weakref.proxy":
        assert entry.becomes == "strong copy"
        referent = restored
    else:
        referent = restored()
        referent = getattr(referent, "__self__", referent)
    assert (referent is None) is (entry.becomes == "tombstone"), entry
    if entry.becomes == "weak reference":
        assert referent is evaluate(entry.referent_path or "", copy)
    if entry.kind == "weakref.ref":
        expected = {"tombstone": safepickle.Tombstone, "strong copy": safepickle.StrongRef}
        assert type(restored) is expected.get(entry.becomes, weakref.ref)


def test_reason_of_several_lines_stays_in_its_row() -> None:
    class Talkative:
        def __reduce__(self) -> Any:
            raise TypeError("the first line\n\n    the second\r\nthe third")

    explanation = safepickle.explain({"a": Talkative()})
    assert explanation.unpicklable[0].reason == "the first line\n\n    the second\r\nthe third"
    rows = [line for line in str(explanation).splitlines() if "$['a']" in line]
    assert rows[0].endswith("TypeError: the first line the second the third")
    assert "the second the third" in explanation._repr_html_()


class Registry:
    """Drops its callbacks when it is pickled, as matplotlib's registry does."""

    def __init__(self) -> None:
        self.callbacks: Any = {"changed": {1: print}}
        self.canvas: Any = Node()
        self.name = "registry"
        self.nothing: Any = []
        self.shared = [1]

    def __getstate__(self) -> Any:
        state = {**vars(self), "callbacks": {"changed": {}}, "canvas": None, "shared": self.shared}
        del state["nothing"]
        return state


class Built:
    def __init__(self, size: int) -> None:
        self.size = [size]
        self.parent: Any = None

    def __reduce__(self) -> Any:
        return Built, (self.size,)


def test_what_an_objects_own_class_leaves_out_is_told() -> None:
    built = Built(3)
    built.parent = weakref.ref(built)
    plain = Node()
    explanation = safepickle.explain({"registries": [Registry(), Registry()], "built": built, "plain": plain})
    found = {entry.path: (entry.attributes, entry.by) for entry in explanation.omissions}
    assert found == {
        "$['registries'][0]": (("callbacks", "canvas"), "test_explain.Registry.__getstate__"),
        "$['registries'][1]": (("callbacks", "canvas"), "test_explain.Registry.__getstate__"),
        "$['built']": (("parent",), "test_explain.Built.__reduce__"),
    }
    assert explanation.picklable
    text = str(explanation)
    assert "Left out by the objects' own classes, under any pickler" in text
    assert "$['registries'][0] and 1 more" in text
    assert explanation.to_dict()["omissions"][0]["attributes"]
    assert "Left out by" not in str(safepickle.explain(plain))


def test_a_state_is_compared_with_what_is_shared_many_times_in_a_moment() -> None:
    class Tabled:
        def __init__(self) -> None:
            self.table: list[Any] = [0] * 1_000
            for _ in range(4):
                self.table = [self.table] * 1_000

        def __getstate__(self) -> Any:
            return {"table": self.table[:-1]}

    [entry] = safepickle.explain(Tabled()).omissions
    assert entry.attributes == ("table",)


def test_attributes_of_a_subclass_that_its_base_does_not_know_of_are_told() -> None:
    numpy: Any = pytest.importorskip("numpy")

    class Table(numpy.ndarray):
        pass

    table: Any = numpy.zeros(3).view(Table)
    table.parent, table.units = weakref.ref(table), ["m"]
    [entry] = safepickle.explain([table]).omissions
    assert (entry.path, entry.attributes) == ("$[0]", ("parent", "units"))
    assert entry.by.startswith("numpy.ndarray.__reduce")


def test_referent_that_is_imported_is_shown_by_its_name() -> None:
    root = Node()
    referents = {"function": os.path.join, "cls": collections.OrderedDict, "module": os, "builtin": math.sin}
    referents["member"] = uuid.SafeUUID.safe
    for name, referent in referents.items():
        setattr(root, name, weakref.ref(referent))
    root.own = weakref.ref(root)
    found = {entry.path: entry.referent_path for entry in safepickle.explain(root).weak_references}
    assert found == {
        "$.function": "posixpath.join",
        "$.cls": "collections.OrderedDict",
        "$.module": "os",
        "$.builtin": "math.sin",
        "$.member": "uuid.SafeUUID.safe",
        "$.own": "$",
    }
    assert "weak reference to posixpath.join" in str(safepickle.explain({"hook": weakref.ref(os.path.join)}))


def test_keys_that_are_the_id_of_an_object_are_named() -> None:
    nodes = [Node(), Node()]
    root = Node(nodes=nodes, watchers={id(node): weakref.ref(node) for node in nodes}, numbers={1: 2, 2**40: 3})
    root.methods = {(id(Node.method), id(nodes[0])): "method"}
    root.seen = {0, id(root)}
    root.by_id = weakref.WeakValueDictionary({id(nodes[1]): nodes[1]})
    explanation = safepickle.explain(root)
    found = {(entry.path, entry.object_path) for entry in explanation.identity_keys}
    assert found == {
        ("$.watchers", "$.nodes[0]"),
        ("$.watchers", "$.nodes[1]"),
        ("$.methods", "$.nodes[0]"),
        ("$.seen", "$"),
        ("$.by_id", "$.nodes[1]"),
    }
    assert {entry.object_type for entry in explanation.identity_keys} == {"nodes.Node"}
    [line] = [line for line in str(explanation).splitlines() if line.startswith("  $.watchers ") and "Node" in line]
    assert "$.nodes[0] and 1 more" in line
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"5 integer keys are the id\(\) of an object") as caught:
        safepickle.dumps(root)
    assert caught[0].message.identity_keys == {"nodes.Node": 5}  # type: ignore[union-attr]
    assert "will load dead" not in str(caught[0].message)
    root.__dict__ = {"nodes": nodes, "first": weakref.ref(nodes[0]), "numbers": {1: 2, 2**40: 3}}
    safepickle.dumps(root)
    assert safepickle.explain(root).identity_keys == ()


def test_one_reference_in_many_places_is_one_reference():
    root, outside = Node(name="root"), Node()
    shared, lost = weakref.ref(root), weakref.ref(outside)
    root.blocks = [Node(owner=shared, lost=lost) for _ in range(8)]
    root.dead = root.dead_too = weakref.ref(Node())
    explanation = safepickle.explain(root)
    assert {entry.path: entry.places for entry in explanation.weak_references} == {
        "$.blocks[0].owner": 8,
        "$.blocks[0].lost": 8,
        "$.dead": 2,
    }
    report = str(explanation)
    assert "1 dead, 1 kept, 1 outside" in report
    assert "  $.blocks[0].lost and 7 more places  " in report
    assert "  $.dead and 1 more place " in report
    root.blocks += [Node(owner=weakref.ref(root, print)) for _ in range(2)]
    assert "  $.blocks[0].owner and 2 more, in 10 places  " in str(safepickle.explain(root))


def test_places_outside_the_pickle_do_not_count():
    root, outside = Node(), Node()
    outside.same = root.lost = weakref.ref(outside)
    [entry] = safepickle.explain(root).weak_references
    assert (entry.path, entry.places) == ("$.lost", 1)


def test_registries_that_are_called_the_same_are_one_row():
    root = Node(parts=[Node(child=Node()) for _ in range(20)])
    for part in root.parts:
        part.registry = {id(part.child): None}
        part.other = {id(part): None}
    root.watch = {id(root): None}
    explanation = safepickle.explain(root)
    assert len(explanation.identity_keys) == 41
    report = str(explanation)
    assert "  $.parts[0].registry and 19 more places  $.parts[0].child and 19 more  " in report
    assert "  $.parts[0].other and 19 more places     $.parts[0] and 19 more        " in report
    assert [line.split()[:2] for line in report.splitlines() if "$.watch" in line] == [["$.watch", "$"]]
