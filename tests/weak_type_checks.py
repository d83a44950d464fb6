"""Checks that every weak type passes, whichever library defines it."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from typing import Any

import safepickle
from nodes import Node
from safepickle.guard.rules import BUILT_IN
from safepickle.reducers.table import TypeTable
from safepickle.tracing.naming import weak_edges
from safepickle.weak_types import WeakType, find_weak_type

WITHOUT_RULE = {"ProxyType": "weakref:proxy", "CallableProxyType": "weakref:proxy"}
"""Types that a pickle makes by another name."""


def name_of(weak: WeakType) -> str:
    return f"{weak.module}.{weak.name}"


def make(weak: WeakType, referent: Any) -> Any:
    """Return an instance that refers to one object, which nothing else in it owns."""
    if weak.kind == "set":
        return weak.base([referent])
    if weak.kind == "weak values":
        return weak.base({1: referent})
    if weak.kind == "weak keys":
        return weak.base({referent: 1})
    if weak.kind == "method":
        return weak.base(referent.method)
    if weak.kind == "finalizer":
        return weak.base(referent, print, 1)
    return weakref.proxy(referent) if weak.kind == "proxy" else weak.base(referent)


class Callable(Node):
    def __call__(self) -> None:
        """Make proxies to instances callable."""


def referent_for(weak: WeakType) -> Any:
    if weak.kind == "handle":
        return OrderedDict()
    return Callable() if weak.name in ("CallableProxyType", "WeakMethod") else Node()


class WeakTypeChecks:
    """What holds of each weak type; subclasses give the types as ``weak``."""

    def test_is_found_by_its_class_and_by_a_subclass(self, weak):
        if weak.kind != "proxy":
            assert find_weak_type(type("Own", (weak.base,), {})) is weak
        assert find_weak_type(weak.base) is weak

    def test_snapshot_gives_the_live_referent_and_nothing_of_a_dead_one(self, weak):
        referent = referent_for(weak)
        reference = make(weak, referent)
        assert any(found is referent for found, _ in weak.snapshot(reference))
        if weak.kind == "finalizer":
            reference.detach()
        del referent
        gc.collect()
        assert [found for found, _ in weak.snapshot(reference) if isinstance(found, (Node, OrderedDict))] == []

    def test_has_a_reducer(self, weak):
        assert TypeTable()[weak.base] is not None

    def test_has_a_rule_or_is_made_by_another_name(self, weak):
        made_by = WITHOUT_RULE.get(weak.name, f"{weak.module}:{weak.name}").split(":")
        assert (made_by[0], made_by[1]) in BUILT_IN

    def test_survives_a_dump_with_its_referent(self, weak):
        referent = referent_for(weak)
        copy, reference = safepickle.loads(safepickle.dumps([referent, make(weak, referent)]))
        alive = [found for found, _ in weak.snapshot(reference) if found is copy]
        assert alive or weak.kind == "finalizer"

    def test_is_copied_with_its_referent(self, weak):
        referent = referent_for(weak)
        original = make(weak, referent)
        copy, reference = safepickle.deepcopy([referent, original])
        alive = [found for found, _ in weak.snapshot(reference) if found is copy]
        assert alive or weak.kind == "finalizer"

    def test_explain_names_the_way_to_its_referent(self, weak):
        referent = referent_for(weak)
        reference = make(weak, referent)
        if weak.kind != "proxy":
            assert weak_edges(reference)[id(referent)]
        (found,) = {entry.path for entry in safepickle.explain([referent, reference]).weak_references} or {"$[1]"}
        assert found.startswith(("$[1]", "list($[1])"))

    def test_inspect_shows_its_contents_and_nothing_of_its_internals(self, weak, tmp_path):
        referent = referent_for(weak)
        path = tmp_path / "weak.pkl"
        safepickle.dump([referent, make(weak, referent)], path)
        report = str(safepickle.inspect(path))
        assert not [name for name in weak.internals if f".{name}" in report]
