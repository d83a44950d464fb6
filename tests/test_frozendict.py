"""`frozendict`, a builtin from CPython 3.15 on: its values are arguments that it is built from."""

from __future__ import annotations

import builtins
import pickle
import weakref
from typing import Any

import pytest

import safepickle
from nodes import round_trip

frozendict: Any = getattr(builtins, "frozendict", None)

pytestmark = pytest.mark.skipif(frozendict is None, reason="CPython 3.15 is the first to have it")


class Node:
    parent: Any = None


@pytest.mark.parametrize("copy", [round_trip, safepickle.deepcopy])
@pytest.mark.parametrize("order", [("weak", "node"), ("node", "weak")])
def test_weak_references_inside_are_relinked(copy: Any, order: tuple[str, str]) -> None:
    node = Node()
    parts = {"weak": weakref.ref(node), "node": node}
    copied = copy([frozendict({name: parts[name] for name in order})])[0]
    assert type(copied) is frozendict
    assert copied["weak"]() is copied["node"] is not node


@pytest.mark.parametrize("copy", [round_trip, safepickle.deepcopy])
def test_a_parent_pointer_inside_is_relinked(copy: Any) -> None:
    owner = Node()
    owner.parent = frozendict(owner=weakref.ref(owner))
    copied = copy(owner)
    assert copied.parent["owner"]() is copied is not owner


def test_a_guarded_load_reads_it() -> None:
    source = {"value": frozendict(a=1, b=[2]), frozendict(key=1): "key"}
    data = safepickle.dumps(source)
    assert safepickle.loads(data, allow=()) == source
    assert safepickle.inspect(data).verdict == "safe"
    assert pickle.loads(data) == source


def test_a_guarded_load_charges_for_hashing_it() -> None:
    doubled = frozendict()
    for _ in range(100):
        doubled = frozendict(left=doubled, right=doubled)
    nested = frozendict()
    for _ in range(2_000):
        nested = frozendict(inside=nested)
    for costly in (doubled, nested):
        data = safepickle.dumps(costly, 2)
        with pytest.raises(safepickle.GuardedLoadError, match="over a limit"):
            safepickle.loads(data[:2] + b"}" + data[2:-1] + b"Ns.", allow=())


def test_a_chain_of_them_is_unrolled_where_it_nests_too_deeply() -> None:
    chained = frozendict()
    for _ in range(50_000):
        chained = frozendict(inside=chained)
    copied, depth = round_trip(chained), 0
    while copied:
        copied, depth = copied["inside"], depth + 1
    assert depth == 50_000
