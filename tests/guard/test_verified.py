"""What the compiled core grants, the machine takes; it builds the same; and all else is as it is without the core."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
import gc
import io
import pickle
import random
import struct
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import safepickle
from guard.assembler import Raw, build, call, name, new, stack_name, text, value
from guard.benign import BUILT_IN
from guard.comparing import difference
from guard.costly import COSTLY
from guard.streams import Stream
from safepickle import speedups
from safepickle.guard.allow_list import AllowList
from safepickle.guard.limits import EQUAL_HASHES, NESTED_TUPLES
from safepickle.guard.load_backend import LoadBackend
from safepickle.guard.source import CHUNK, Source, open_source, source_of_bytes
from safepickle.guard.torch_loading import load_storage
from safepickle.guard.verified import load_verified
from safepickle.options import LoadOptions

pytestmark = pytest.mark.skipif(not safepickle.COMPILED, reason="the compiled core is not on")
Item = TypeVar("Item")


class Plain:
    pass


class Derived(Plain, Generic[Item]):
    """Its methods, properties and descriptors have no part in a load."""

    kind = "derived"

    def __init__(self, size: int) -> None:
        raise AssertionError("no constructor runs")

    def __setattr__(self, name: str, given: Any) -> None:
        raise AssertionError("no attribute is set one by one")

    @property
    def size(self) -> int:
        raise AssertionError("no property is asked")

    class Inner:
        pass


@dataclasses.dataclass(frozen=True)
class Frozen:
    left: Any
    right: Any


class Mixed:
    __slots__ = ("__dict__", "a", "b")


class WithNew(Plain):
    def __new__(cls) -> WithNew:
        made: Any = super().__new__(cls)
        made.made = True
        return made


class WithState(Plain):
    def __setstate__(self, state: Any) -> None:
        vars(self).update(state, told=True)


class WithGetattr(Plain):
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class WithGetattribute(Plain):
    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class WithDel(Plain):
    def __del__(self) -> None:
        pass


class WithDict(Plain):
    __dict__ = property(lambda self: {})


class Meta(type):
    pass


class WithMeta(metaclass=Meta):
    pass


class Abstract(abc.ABC):
    @abc.abstractmethod
    def act(self) -> None:
        pass


class Slotted:
    __slots__ = ("a", "b")


class Color(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    a: Any
    b: Any


class Table(dict):
    pass


class Failure(Exception):
    pass


class Group(weakref.WeakSet):
    pass


PLAIN = (Plain, Derived, Frozen, Mixed, Derived.Inner)
OTHERS = (
    *(WithNew, WithState, WithGetattr, WithGetattribute, WithDel, WithDict, WithMeta, Abstract, Slotted, Color),
    *(Pair, Table, Failure, Group),
)
ALLOW = (*PLAIN, *OTHERS)


def finder(allow: Any = ALLOW) -> LoadBackend:
    return LoadBackend(AllowList(allow), LoadOptions(), load_storage=load_storage)


def granted(data: Any, allow: Any = ALLOW) -> tuple[Any] | None:
    """Return what the C unpickler makes of a pickle that the core has granted."""
    return load_verified(source_of_bytes(data), finder(allow).find_plain)


def by_machine(load: Callable[[], Any]) -> Any:
    with mock.patch.object(speedups, "current", speedups.PURE):
        return load()


def outcome(data: Any, **options: Any) -> tuple[Any, str]:
    """Return what a guarded load gives, and what it says."""
    try:
        return safepickle.loads(data, allow=ALLOW, **options), ""
    except safepickle.GuardedLoadError as error:
        return None, str(error)


def hold(data: bytes) -> bool:
    """Hold a load with the core against one without; return whether the core has granted it."""
    result, error = by_machine(lambda: outcome(data))
    found = granted(data)
    assert found is None or not error, data
    again, said = outcome(data)
    assert said == error, data
    if found is not None:
        assert difference(found[0], result) == "", data
        assert difference(again, result) == "", data
    return found is not None


def instance(cls: Any, attributes: dict[str, Any]) -> Any:
    made = cls.__new__(cls)
    made.__dict__.update(attributes)
    return made


def pickled(graph: Any, protocol: int) -> bytes:
    """Pickle a graph by the C pickler, with what its weak references refer to."""
    file = io.BytesIO()
    Relinking(file, protocol).dump(graph)
    return file.getvalue()


class Relinking(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return (weakref.ref, (obj(),)) if type(obj) is weakref.ref else NotImplemented


def random_graph(choose: random.Random, protocol: int = 5) -> Any:
    """Return plain data, instances that hold one another, and weak references to some, as a protocol has opcodes for."""
    parts: list[Any] = [None, True, 0, -1, 255, 1 << 16, -1 << 31, 1 << 40, 1 << 70, 0.0, 1.5, float("nan")]
    parts += ["", "a", "name", "ä€😀", "x" * 300]
    keys: list[Any] = ["", "a", "name", "ä€", None, True, 5, -7, 1 << 40]
    if protocol >= 3:
        parts += [b"", b"abc", b"y" * 300]
        keys += [b"", b"key"]
    if protocol >= 5:
        parts.append(bytearray(b"xy"))
    scalars = len(parts)
    for _ in range(choose.randint(1, 25)):
        some = choose.choices(parts, k=choose.choice([0, 1, 2, 3, 20]))
        kinds: list[Callable[[Any], Any]] = [
            list,
            tuple,
            lambda some: dict(zip(choose.sample(keys, min(len(some), len(keys))), some, strict=False)),
            lambda some: {f"key {number}": part for number, part in enumerate(some)},
            lambda some: instance(
                choose.choice(PLAIN[: 4 + (protocol > 3)]), {f"a{number}": part for number, part in enumerate(some)}
            ),
        ]
        if protocol >= 4:
            kinds += [
                lambda some: set(choose.sample(keys, min(len(some), len(keys)))),
                lambda some: frozenset(choose.sample(keys, min(len(some), len(keys)))),
            ]
        parts.append(choose.choice(kinds)(some))
        if type(parts[-1]) in PLAIN and type(parts[-1]) is not Mixed and choose.random() < 0.6:
            parts.append(weakref.ref(parts[-1]))
    for part in parts:
        if type(part) is list and choose.random() < 0.3:
            part.append(part)
    random_graph.alive = parts  # type: ignore[attr-defined]
    return choose.choice([parts, parts[scalars:], parts[-1]])


SEEDS = [pickled(random_graph(random.Random(seed), 2 + seed % 4), 2 + seed % 4) for seed in range(120)]
SEEDS += [pickle.dumps(obj, protocol) for obj in BUILT_IN.values() for protocol in (2, 4, 5)]
SEEDS = [seed for seed in SEEDS if len(seed) < 3000]
OPCODES = [
    bytes([code])
    for code in b"(.NJKMXaGbc}e])h]jqrstu\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8f\x90\x91\x93\x94\x95\x96012RQ"
]


def mutant(choose: random.Random, seeds: list[bytes]) -> bytes:
    """Return a pickle of which some bytes were changed."""
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.choice([1, 1, 1, 2, 3, 5])):
        if not data:
            break
        start = choose.randrange(len(data))
        end = min(len(data), start + choose.choice([1, 1, 2, 4, 9, 30]))
        what = choose.randrange(8)
        if what == 0:
            data[start] ^= 1 << choose.randrange(8)
        elif what == 1:
            data[start] = choose.randrange(256)
        elif what == 2:
            del data[start:end]
        elif what == 3:
            data[start:start] = choose.choice(OPCODES)
        elif what == 4:
            data[start:start] = data[start:end]
        elif what == 5:
            other = choose.choice(seeds)
            first = choose.randrange(len(other))
            data[start:end] = other[first : first + choose.choice([1, 3, 10, 60])]
        elif what == 6:
            data[start] = choose.choice(OPCODES)[0]
        else:
            _mend_frame(data, choose.choice([0, 0, 1, -1]))
    if choose.random() < 0.5:
        _mend_frame(data, 0)
    return bytes(data)


def _mend_frame(data: bytearray, difference: int) -> None:
    """Let a frame that begins in front end with the pickle, or nearly so."""
    if data[2:3] == b"\x95" and len(data) > 12:
        data[3:11] = struct.pack("<Q", max(0, len(data) - 11 + difference))


@pytest.mark.parametrize("seed", range(60))
def test_plain_graphs_are_granted(seed):
    for protocol in (2, 3, 4, 5):
        assert hold(pickled(random_graph(random.Random(seed), protocol), protocol))


@settings(deadline=None, max_examples=1500, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**12))
def test_what_is_granted_of_changed_pickles_the_machine_takes(seed):
    hold(mutant(random.Random(seed), SEEDS))


def test_changed_pickles_are_still_granted_often_enough():
    choose = random.Random(1)
    assert sum(granted(mutant(choose, SEEDS)) is not None for _ in range(2000)) > 100


@pytest.mark.parametrize("cls", PLAIN)
def test_instances_of_plain_classes_are_granted(cls):
    data = pickle.dumps([instance(cls, {"a": 1, "size": [2]})] * 2, 4)
    assert hold(data)
    assert granted(data, ()) is None


@pytest.mark.parametrize("cls", OTHERS)
def test_what_runs_code_or_has_a_rule_is_the_machine_s(cls):
    named = stack_name(cls.__module__, cls.__qualname__)
    assert not hold(b"\x80\x04" + new(named) + b".")
    assert not hold(b"\x80\x04" + named + b")\x81}" + value("a") + b"K\x01sb.")


REFERENCE = stack_name("weakref", "ReferenceType")
PLAIN_INSTANCE = new(stack_name(__name__, "Plain"))
PROGRAM = {
    "a frame that ends inside of an argument": b"\x80\x04\x95\x02" + bytes(7) + b"X\x01\0\0\0a.",
    "a frame that ends inside of a payload": b"\x80\x04\x95\x03" + bytes(7) + b"\x8c\x03abc.",
    "a frame that ends inside of a name": b"\x80\x04\x95\x04" + bytes(7) + b"cguard.test_verified\nPlain\n.",
    "a frame in a frame": b"\x80\x04\x95\x0b" + bytes(7) + b"\x95\x02" + bytes(7) + b"N.",
    "a frame that ends behind its pickle": b"\x80\x04\x95\x05" + bytes(7) + b"N.NNN",
    "a frame that is longer than the stream": b"\x80\x04\x95\x50" + bytes(7) + b"N.",
    "a frame of 2**63 bytes": b"\x80\x04\x95" + bytes(7) + b"\x80N.",
    "a frame of 2**64 - 1 bytes": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "a text of 2**64 - 1 bytes": b"\x80\x04\x8d" + b"\xff" * 8 + b"N.",
    "bytes of 2**63 bytes": b"\x80\x04\x8e" + bytes(7) + b"\x80N.",
    "a second protocol": b"\x80\x04N\x80\x02.",
    "an unknown protocol": b"\x80\x06N.",
    "a memo index with a gap": b"\x80\x04]q\x01.",
    "a memo entry that is replaced": b"\x80\x04]q\0]q\0.",
    "a memo entry that is none": b"\x80\x04h\0.",
    "a memo entry of what lies below a mark": b"\x80\x04](\x94e.",
    "more than one value": b"\x80\x04NN.",
    "no value": b"\x80\x04.",
    "an open mark": b"\x80\x04N(.",
    "an open mark with a value": b"\x80\x04(N.",
    "no mark": b"\x80\x04]e.",
    "a value from below a mark": b"\x80\x04N(\x85.",
    "a list below a mark": b"\x80\x04](Na.",
    "items of a tuple": b"\x80\x04)(Ne.",
    "an odd number of items": b"\x80\x04}(Nu.",
    "items of a list": b"\x80\x04](NNu.",
    "members of a frozenset": b"\x80\x04(\x91(N\x90.",
    "a key that is a list": b"\x80\x04}]Ns.",
    "a key that is an instance": b"\x80\x04}" + new(stack_name(__name__, "Plain")) + b"Ns.",
    "a text that is no UTF-8": b"\x80\x04\x8c\x01\xff.",
    "a name that is no UTF-8": b"\x80\x04\x8c\x01\xff\x8c\x01a\x93.",
    "a name with a line too few": b"\x80\x02cguard\nN.",
    "an empty name": b"\x80\x02c\n\n.",
    "a dotted name below protocol 4": b"\x80\x02" + name(__name__, "Derived.Inner") + b".",
    "a name that is nowhere": b"\x80\x04" + stack_name(__name__, "Nowhere") + b".",
    "a name that is no text": b"\x80\x04NN\x93.",
    "a name of the built-in list": b"\x80\x04" + stack_name("datetime", "date") + b".",
    "arguments of a class": b"\x80\x04" + new(stack_name(__name__, "Plain"), 1) + b".",
    "a reference to what takes none": b"\x80\x04" + call(REFERENCE, new(stack_name(__name__, "Mixed"))) + b".",
    "a reference to a list": b"\x80\x04" + call(REFERENCE, Raw(b"]")) + b".",
    "a reference to a set": b"\x80\x04" + call(REFERENCE, Raw(b"\x8f")) + b".",
    "a reference to a class": b"\x80\x04" + call(REFERENCE, stack_name(__name__, "Plain")) + b".",
    "a reference to a reference": b"\x80\x04" + call(REFERENCE, call(REFERENCE, PLAIN_INSTANCE)) + b".",
    "a reference with a callback": b"\x80\x04" + call(REFERENCE, PLAIN_INSTANCE, stack_name(__name__, "Plain")) + b".",
    "a reference to nothing": b"\x80\x04" + call(REFERENCE) + b".",
    "a reference to two": b"\x80\x04" + call(REFERENCE, PLAIN_INSTANCE, PLAIN_INSTANCE) + b".",
    "a reference that is a key": b"\x80\x04}" + call(REFERENCE, PLAIN_INSTANCE) + b"Ns.",
    "a reference with a state": b"\x80\x04" + call(REFERENCE, PLAIN_INSTANCE) + b"}b.",
    "a reference by NEWOBJ": b"\x80\x04" + new(REFERENCE, PLAIN_INSTANCE) + b".",
    "a state of the type of references": b"\x80\x04" + REFERENCE + b"}b.",
    "a proxy": b"\x80\x04" + call(stack_name("weakref", "proxy"), PLAIN_INSTANCE) + b".",
    "a strong reference": b"\x80\x04" + call(stack_name("safepickle.rebuild", "StrongRef"), PLAIN_INSTANCE) + b".",
    "a call": b"\x80\x04" + stack_name(__name__, "Plain") + b")R.",
    "a state of a class": b"\x80\x04" + stack_name(__name__, "Plain") + b"}b.",
    "a state of a list": b"\x80\x04]}b.",
    "a state that is a list": b"\x80\x04" + build(new(stack_name(__name__, "Plain")), [1]) + b".",
    "a state for slots": b"\x80\x04" + new(stack_name(__name__, "Mixed")) + b"N}" + text("a") + b"Ns\x86b.",
    "a state with a dunder": b"\x80\x04" + new(stack_name(__name__, "Plain")) + b"}" + text("__class__") + b"Nsb.",
    "a state with a number": b"\x80\x04" + new(stack_name(__name__, "Plain")) + b"}K\x01Nsb.",
    "a state with bytes": b"\x80\x04" + new(stack_name(__name__, "Plain")) + b"}C\x01aNsb.",
    "a dunder that comes in by the memo": (
        b"\x80\x04}\x94" + new(stack_name(__name__, "Plain")) + b"h\0" + text("__class__") + b"Nsb\x85."
    ),
    "a value that is dropped": b"\x80\x04NN0.",
    "a value that is doubled": b"\x80\x04N2\x86.",
    "a buffer": b"\x80\x05\x97.",
    "a persistent id": b"\x80\x04NQ.",
    "an extension code": b"\x80\x04\x82\x01.",
    "a number of negative length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a number in text": b"\x80\x02I5\n.",
    "nothing": b"",
}


@pytest.mark.parametrize("title", PROGRAM)
def test_is_left_to_the_machine(title):
    assert not hold(PROGRAM[title])


@pytest.mark.parametrize(
    "data",
    [
        b"N.",
        b"\x80\x02N.rest",
        b"\x80\x04\x95\x02" + bytes(7) + b"N.rest",
        b"\x80\x04\x95\x01" + bytes(7) + b"]\x95\x02" + bytes(7) + b"Na.",
        b"\x80\x04K..",
        b"\x80\x04(t.",
        b"\x80\x04\x8a\0.",
        b"\x80\x04](e(\x91\x86.",
        b"\x80\x04\x8f(\x90}(u\x86.",
        b"\x80\x04]\x94h\0a.",
        b"\x80\x04" + REFERENCE + b"\x85.",
        b"\x80\x04" + call(REFERENCE, PLAIN_INSTANCE) + b".",
        b"\x80\x02cweakref\nref\n" + PLAIN_INSTANCE + b"\x85q\0R(h\0c_weakref\nref\nh\0Rh\0t\x86.",
    ],
)
def test_unusual_pickles_are_granted(data):
    assert hold(data)


def tower(levels: int, bottom: bytes = b")") -> bytes:
    return b"\x80\x04" + bottom + b"\x85" * levels + b"."


def test_tuples_nest_to_a_depth():
    assert hold(tower(150))
    for levels in (NESTED_TUPLES - 2, NESTED_TUPLES - 1, NESTED_TUPLES, NESTED_TUPLES + 1):
        assert not hold(tower(levels))
    assert hold(b"\x80\x04" + b"]" * 3000 + b"a" * 2999 + b".")


@pytest.mark.parametrize("key", [b"K\x01", b"\x8c\x01a", b"C\x01a", b"N", b"\x88", b"\x8a\x06" + b"a" * 6])
@pytest.mark.parametrize("other", [b"", b"N", b"K\x02", b"\x8a\x10" + b"a" * 16])
def test_keys_that_come_again_and_again(key, other):
    """The machine counts the equal ones of most mixtures."""
    for count in (3, EQUAL_HASHES, EQUAL_HASHES + 2, 2 * EQUAL_HASHES):
        pairs = (key + b"N") * count
        mixed = [
            hold(b"\x80\x04}(" + (other + b"N" if other else b"") + pairs + b"u."),
            hold(b"\x80\x04\x8f(" + other + key * count + b"\x90."),
            hold(b"\x80\x04(" + other + key * count + b"\x91."),
        ]
        assert mixed == [len(other) < 9] * 3 or count > 3
        assert hold(b"\x80\x04" + (other or b"N") + b"}(" + pairs + b"u\x86.") or count > EQUAL_HASHES


def test_work_is_bounded_as_by_the_machine():
    long = b"\x80\x04\x8d" + struct.pack("<Q", 1 << 20) + b"a" * (1 << 20) + b"\x94"
    again = b"}(" + b"h\0N" * 200 + b"u\x94"
    attributes = b"}(" + b"".join(text(f"a{number}") + b"N" for number in range(2000)) + b"u\x94"
    states = b"(" + new(stack_name(__name__, "Plain")) + b"h\0b" * 2000 + b"t"
    assert not hold(long + again + b"\x86.")
    assert not hold(b"\x80\x04" + attributes + states + b"\x86.")
    assert hold(long + b"}(" + b"h\0N" * 20 + b"u\x86.")
    assert hold(b"\x80\x04" + attributes + states.replace(b"h\0b" * 1500, b"") + b"\x86.")


@pytest.mark.parametrize("title", COSTLY)
def test_costly_pickles_are_not_granted(title):
    assert not hold(COSTLY[title]())


def sources(data: bytes, folder: Path) -> Iterator[tuple[str, Any, Callable[[], int]]]:
    """Yield open files of some bytes, each with its name and with what tells how far it was read."""

    def position_in(file: Any) -> Callable[[], int]:
        return lambda: file.tell() - 5

    file = io.BytesIO(b"front" + data)
    file.seek(5)
    yield "memory", file, position_in(file)
    path = folder / "file"
    path.write_bytes(b"front" + data)
    for buffering in (0, -1):
        with path.open("rb", buffering) as opened:
            opened.seek(5)
            yield f"a file, buffering {buffering}", opened, position_in(opened)


@pytest.mark.parametrize("count", [1, 20, 5000, 20_000])
@pytest.mark.parametrize("protocol", [2, 4])
def test_several_pickles_of_a_file(count, protocol, tmp_path):
    graph = [instance(Plain, {"number": number, "text": "é" * (number % 50)}) for number in range(count)]
    one = pickle.dumps(graph, protocol)
    refused = b"\x80\x04" + stack_name("os", "mkdir") + b"."
    for _, file, position in sources(one + one + refused, tmp_path):
        for end in (len(one), 2 * len(one)):
            source = open_source(file)
            found = load_verified(source, finder().find_plain)
            assert found is not None
            assert difference(found[0], graph) == ""
            assert position() == end
        assert load_verified(open_source(file), finder().find_plain) is None
        assert position() == 2 * len(one)
        with pytest.raises(safepickle.NotAllowedError, match="os:mkdir"):
            safepickle.load(file, allow=ALLOW)


def test_opcodes_lie_across_the_borders_of_what_is_read(tmp_path):
    for length in range(CHUNK - 40, CHUNK + 5):
        data = b"\x80\x03]q\0(X" + struct.pack("<I", length) + b"a" * length + b"\x8a\x02..M..c" + b""
        data += __name__.encode() + b"\nPlain\nq\x01)\x81}q\x02X\x01\0\0\0aX\x01\0\0\0bsbe."
        for title, file, position in sources(data, tmp_path):
            found = load_verified(open_source(file), finder().find_plain)
            assert found is not None, (title, length)
            assert position() == len(data)
            assert found[0][3].a == "b"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))[:]])
def test_any_buffer(kind):
    data = pickle.dumps([instance(Plain, {"a": number}) for number in range(20_000)])
    found = granted(kind(data))
    assert found is not None
    assert difference(found[0], by_machine(lambda: safepickle.loads(kind(data), allow=[Plain]))) == ""


def test_a_buffer_that_changes_meanwhile_changes_nothing():
    data = bytearray(pickle.dumps([instance(Plain, {"a": "before"})]))

    def find(module: str, name: str, protocol: int) -> type:
        data[:] = data.replace(b"before", b"behind")
        return Plain

    found = load_verified(source_of_bytes(data), find)
    assert found is not None
    assert b"behind" in data
    assert found[0][0].a == "before"


def test_a_name_is_pinned_to_the_class_that_was_found(monkeypatch):
    data = pickle.dumps([instance(Plain, {"a": 1})])

    def find(module: str, name: str, protocol: int) -> type:
        monkeypatch.setitem(globals(), "Plain", WithState)
        return kept

    kept = Plain
    found = load_verified(source_of_bytes(data), find)
    assert found is not None
    assert type(found[0][0]) is kept


def test_a_class_that_an_import_has_changed_is_the_machine_s(monkeypatch):
    data = pickle.dumps([instance(Plain, {}), instance(Frozen, {})])

    def find(module: str, name: str, protocol: int) -> type:
        if name == "Frozen":
            monkeypatch.setattr(Plain, "__setstate__", None, raising=False)
        return globals()[name]

    assert load_verified(source_of_bytes(data), find) is None


def test_long_payloads_of_a_file_are_the_machine_s(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps([b"a" * 2_000_000, "b"]))
    with path.open("rb") as file:
        assert load_verified(open_source(file), finder().find_plain) is None
        assert safepickle.load(file, allow=())[1] == "b"


class Derivation(io.BytesIO):
    """A file whose methods may be others than those of the class that the core knows."""


@pytest.mark.parametrize("cls", [Stream, Derivation])
def test_a_stream_that_may_not_seek_is_the_machine_s(cls):
    file = cls(pickle.dumps([1]) + b"rest")
    assert load_verified(open_source(file), finder().find_plain) is None
    assert safepickle.load(file, allow=()) == [1]
    assert file.read() == b"rest"


class Watched:
    """Tells when a load has gone to the C unpickler."""

    def __init__(self) -> None:
        self.loads: list[bool] = []

    def __call__(self, source: Source, find: Any) -> Any:
        found = load_verified(source, find)
        self.loads.append(found is not None)
        return found


@pytest.fixture
def watched(monkeypatch) -> Watched:
    watcher = Watched()
    monkeypatch.setattr("safepickle.guard.loading.load_verified", watcher)
    return watcher


def test_a_guarded_load_goes_to_the_core(watched, tmp_path):
    data = pickle.dumps([instance(Plain, {"a": 1})])
    path = tmp_path / "file"
    path.write_bytes(data)
    for load in (
        lambda: safepickle.loads(data, allow=[Plain]),
        lambda: safepickle.loads(data, allow=[f"{__name__}:Plain"]),
        lambda: safepickle.load(path, allow=[Plain]),
        lambda: safepickle.load(io.BytesIO(data), allow=[Plain]),
        lambda: safepickle.loads(data.replace(b"Plain", b"Stale"), allow=[Plain], aliases={f"{__name__}.Stale": Plain}),
    ):
        assert load()[0].a == 1
    assert watched.loads == [True] * 5


def test_names_of_python_2_become_those_of_python_3(watched):
    data = b"\x80\x02ccopy_reg\nPlain\n)\x81}X\x01\0\0\0aK\x01sb."
    for fix_imports in (True, False):
        with pytest.raises(safepickle.NotAllowedError, match="copyreg:Plain" if fix_imports else "copy_reg:Plain"):
            safepickle.loads(data, allow=[Plain], fix_imports=fix_imports)
    assert watched.loads == [False, False]


def test_what_safepickle_writes_for_parents_goes_to_the_core(watched):
    parent, child = instance(Plain, {}), instance(Plain, {})
    parent.children, child.parent = [child], weakref.ref(parent)
    loaded = safepickle.loads(safepickle.dumps(parent), allow=[Plain])
    assert loaded.children[0].parent() is loaded
    assert watched.loads == [True]


def test_references_cost_what_they_cost():
    count = 400_000
    data = b"\x80\x04" + REFERENCE + b"\x94" + PLAIN_INSTANCE + b"\x85\x94](" + b"h\0h\1R" * count + b"e\x87."
    assert hold(data)
    limits = {**LIMITS, "floor": 1000}
    assert speedups.current.verifier(finder().find_plain, weakref.ref, 0, **limits).read(data) == len(data)
    limits |= {"argument": 400}
    assert speedups.current.verifier(finder().find_plain, weakref.ref, 0, **limits).read(data) is False


def test_what_may_be_referred_to_later_is_the_machine_s(watched):
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    shared = instance(Plain, {"a": (1, 2)})
    for _ in range(3):
        pickler.dump(shared)
    file.seek(0)
    unpickler = safepickle.Unpickler(file, allow=[Plain])
    first = unpickler.load()
    assert unpickler.load() is first
    assert unpickler.load() is first
    assert watched.loads == []


def test_a_find_class_of_a_subclass_is_asked(watched):
    class Own(safepickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return Frozen

    assert type(Own(io.BytesIO(pickle.dumps(instance(Plain, {}))), allow=[Plain]).load()) is Frozen
    assert watched.loads == []


def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise KeyError('broken')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    data = b"\x80\x04" + new(stack_name("broken_module", "Thing")) + b"."
    errors: list[str] = []
    for load in (lambda: safepickle.loads(data, allow=["broken_module:Thing"]),) * 2:
        with pytest.raises(safepickle.DamagedPickleError, match="broken_module:Thing: KeyError") as caught:
            by_machine(load) if errors else load()
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_a_find_that_fails_fails():
    def find(module: str, name: str, protocol: int) -> type:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        load_verified(source_of_bytes(pickle.dumps(instance(Plain, {}))), find)


def test_verifying_leaks_no_memory():
    choose = random.Random(3)
    pickles = [mutant(choose, SEEDS) for _ in range(300)] + SEEDS[:50] + list(PROGRAM.values())
    grant = sum(granted(data) is not None for data in pickles)
    assert 50 < grant < len(pickles)

    def growth() -> int:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for data in pickles:
            with contextlib.suppress(RecursionError):
                granted(data)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        # Free lists and caches of the interpreter fill up at first.
        assert min(growth() for _ in range(5)) < 500
    finally:
        tracemalloc.stop()


LIMITS = {"floor": 1 << 26, "per_byte": 64, "attribute": 64, "equal_hashes": 256, "marks": 1000, "levels": 1000}
LIMITS |= {"argument": 16, "payload": 1 << 30}


class TestVerifier:
    def test_takes_bytes_alone(self):
        with pytest.raises(TypeError, match="bytes"):
            speedups.current.verifier(None, weakref.ref, 0, **LIMITS).read(bytearray(b"N."))

    def test_takes_no_fewer_bytes_than_before(self):
        verifier = speedups.current.verifier(None, weakref.ref, 0, **LIMITS)
        assert verifier.read(b"\x80\x04\x8c\x01a") is None
        with pytest.raises(ValueError, match="begin as those before"):
            verifier.read(b"\x80\x04")
        with pytest.raises(ValueError, match="begin as those before"):
            speedups.current.verifier(None, weakref.ref, 9, **LIMITS).read(b"N.")

    @pytest.mark.parametrize("length", range(1, 40))
    def test_reads_on_where_it_stopped(self, length):
        data = pickle.dumps([instance(Plain, {"a": "text"}), 300, (1, 2.5)], 4)
        verifier = speedups.current.verifier(finder().find_plain, weakref.ref, 0, **LIMITS)
        for end in range(length, len(data), length):
            assert verifier.read(data[:end]) is None
        assert verifier.read(data) == len(data)
        assert verifier.names == {(__name__, "Plain"): Plain}

    @pytest.mark.parametrize(("marks", "is_granted"), [(1000, True), (1001, False)])
    def test_opens_as_many_marks_as_it_may(self, marks, is_granted):
        data = b"\x80\x04]" + b"(]" * marks + b"e" * marks + b"."
        found = speedups.current.verifier(None, weakref.ref, 0, **LIMITS).read(data)
        assert found == (len(data) if is_granted else False)
