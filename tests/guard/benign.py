"""Objects that must load: of the built-in list, and of classes that the user allows."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import pathlib
import types
import uuid
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

import safepickle
from guard.targets import Color, Pair, PlainDict, PlainList, Reference, Slotted, Stateful, Victim, make_table


def _victim(**attributes: Any) -> Any:
    victim = Victim()
    victim.__dict__.update(attributes)
    return victim


def _parent() -> Victim:
    """An object whose child points back at it weakly."""
    child = _victim(size=1)
    parent = _victim(child=child)
    child.parent = weakref.ref(parent)
    child.proxy = weakref.proxy(parent)
    return parent


def _weak_containers() -> dict[str, Any]:
    owned = [_victim(a=1), _victim(a=2)]
    return {
        "owned": owned,
        "set": weakref.WeakSet(owned),
        "values": weakref.WeakValueDictionary({"first": owned[0]}),
        "keys": weakref.WeakKeyDictionary({owned[1]: "second"}),
    }


def _reference() -> list[Any]:
    victim = _victim()
    return [victim, Reference(victim)]


def _slotted() -> Slotted:
    slotted = Slotted()
    slotted.a = [1]
    return slotted


def _stateful() -> Stateful:
    stateful = Stateful()
    stateful.state = {"a": 1}
    return stateful


def _noted() -> ValueError:
    error = ValueError("x", 2)
    error.add_note("a note")
    return error


ordered = collections.OrderedDict(b=1, a=2)
with_metadata = collections.OrderedDict(a=1)
with_metadata._metadata = collections.OrderedDict(version=1)  # type: ignore[attr-defined]

BUILT_IN: dict[str, Any] = {
    "None": None,
    "numbers": [0, 1, -1, 255, 256, 65535, 65536, 2**31, -(2**31), 2**63, 10**400, 1.5, float("inf"), True, False, 1 + 2j],
    "many integers": list(range(-3000, 3000)),
    "many floats": [i / 3 for i in range(3000)],
    "text": ["", "abc", "é" * 300, "\ud800", "x" * 70_000],
    "bytes": [b"", b"abc", b"\xff" * 70_000, bytearray(b"abc"), bytearray(70_000)],
    "containers": [[], [[1]], (), (1,), (1, (2, (3,))), {}, {"a": {"b": 1}}, {1, 2}, frozenset({1, (2, 3)})],
    "keys of every kind": {1: 1, "a": 2, b"b": 3, None: 4, (1, ("a",)): 5, 1.5: 6, frozenset({1}): 7, False: 8},
    "shared lists": (lambda shared: [shared, shared])([1]),
    "OrderedDict": ordered,
    "OrderedDict with attributes": with_metadata,
    "Counter": collections.Counter("abracadabra"),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "defaultdict of defaultdicts": collections.defaultdict(collections.OrderedDict, {1: ordered}),
    "deque": collections.deque([1, 2], 5),
    "date": datetime.date(2020, 2, 29),
    "datetime": datetime.datetime(2020, 2, 29, 12, 30, 1, 5, tzinfo=datetime.UTC),
    "datetime elsewhere": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "X")),
    "time": datetime.time(12, 30, tzinfo=datetime.UTC),
    "timedelta": datetime.timedelta(days=-1, microseconds=7),
    "Decimal": [decimal.Decimal(text) for text in ("1.50", "-0", "NaN", "Infinity", "1E+100", "1E-100")],
    "Fraction": [fractions.Fraction(1, 3), fractions.Fraction(-5)],
    "UUID": uuid.UUID(int=2**100),
    "paths": [pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/x"), pathlib.Path("a")],
    "range and slice": [range(1, 10, 2), slice(1, None, 2)],
    "array": [array.array("d", [1.5, 2.5]), array.array("b")],
    "exceptions": [ValueError("x", 2), KeyError("k"), OSError(2, "no"), _noted(), ImportError("x", name="m")],
    "singletons and types": [Ellipsis, NotImplemented, int, dict, list, ValueError],
    "SimpleNamespace": types.SimpleNamespace(a=1, b=[2]),
    "tombstones": [safepickle.Tombstone("dead"), safepickle.Tombstone("outside", "a.B")],
    "numpy arrays": [
        np.arange(5), np.ones((2, 3), order="F"), np.zeros((0, 3)), np.array(5.0), np.arange(20_000.0), np.array([True]),
        np.array(["abc", "d"]), np.array([b"ab"]), np.array([1 + 2j]), np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([5], dtype="m8[ns]"), np.arange(6, dtype=">i4").reshape(2, 3), np.arange(10)[::2], np.array([1.5], "f2"),
    ],
    "numpy object arrays": np.array(["a", None, {"b": 1}], dtype=object),
    "numpy records": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "numpy aligned records": np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "numpy scalars": [np.float64(1.5), np.int8(3), np.bool_(True), np.str_("x"), np.datetime64("2020-01-01", "ns")],
    "numpy dtypes": [np.dtype("f4"), np.dtype("U5"), np.dtype("M8[us]"), np.dtype(("i4", (2, 2))), np.dtype("O"), np.float32],
}  # fmt: skip

ALLOWED: dict[str, tuple[Callable[[], Any], tuple[Any, ...]]] = {
    "an instance": (lambda: _victim(a=1, b=[2]), (Victim,)),
    "instances that share": (lambda: (lambda one: [one, one, _victim(other=one)])(_victim()), (Victim,)),
    "slots": (_slotted, (Slotted,)),
    "a __setstate__": (_stateful, (Stateful,)),
    "an enum": (lambda: [Color.RED, {Color.BLUE: 1}], (Color,)),
    "a named tuple": (lambda: Pair(1, Pair(2, None)), (Pair,)),
    "a subclass of list": (lambda: PlainList([1, [2]]), (PlainList,)),
    "a subclass of dict": (lambda: PlainDict(a=1), (PlainDict,)),
    "a class": (lambda: [Victim, make_table], (Victim, make_table)),
    "a name": (lambda: _victim(), ("guard.targets:Victim",)),
    "weak references": (_parent, (Victim,)),
    "weak containers": (_weak_containers, (Victim,)),
    "a subclass of ref": (_reference, (Victim, Reference)),
    "a recipe": (lambda: safepickle.Recomputed(make_table, 5), (make_table,)),
    "a strong copy": (lambda: [safepickle.StrongRef(_victim(a=1))], (Victim,)),
}
