"""diff: what changed between two files or objects, values included, with nothing of either run."""

from __future__ import annotations

import array
import enum
import functools
import gzip
import io
import json
import logging
import math
import os
import pickle
import random
import re
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from datetime import date
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

import safepickle
from programs import run
from safepickle.guard.inspect_backend import STATE_SETTERS
from safepickle.report.changes import Change, Difference
from safepickle.report.elements import ElementChanges


class Layer:
    def __init__(self, size: int, parent: Any = None) -> None:
        self.size = size
        self.parent = None if parent is None else weakref.ref(parent)


class Renamed(Layer):
    pass


class Mode(enum.Enum):
    TRAIN = 1
    TEST = 2


def changes(before: Any, after: Any) -> dict[tuple[str, str], Change]:
    """Compare two objects as pickles and live, which must tell the same, and return what changed."""
    live = safepickle.diff([before], [after]).changes
    written = safepickle.diff(safepickle.dumps([before]), safepickle.dumps([after])).changes
    assert {change for change in written if change.kind not in ("file", "global")} == set(live)
    found = {(change.kind, change.where.replace("$[0]", "$", 1)): change for change in live}
    assert len(found) == len(live)
    return found


def from_to(before: Any, after: Any) -> dict[str, tuple[str | None, str | None]]:
    return {where: (change.before, change.after) for (_, where), change in changes(before, after).items()}


def test_numbers_and_texts_that_changed_are_told_from_what_to_what() -> None:
    before = {"epoch": 3, "lr": 0.1, "name": "a", "flag": True, "none": None, "same": 1.5, "kept": ("x", 1)}
    after = {"epoch": 4, "lr": 0.2, "name": "b", "flag": False, "none": 0, "same": 1.5, "kept": ("x", 1)}
    assert from_to(before, after) == {
        "$['epoch']": ("3", "4"),
        "$['lr']": ("0.1", "0.2"),
        "$['name']": ("'a'", "'b'"),
        "$['flag']": ("True", "False"),
        "$['none']": ("None", "0"),
    }


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        (1, 1.0, ("1", "1.0")),
        (1, True, ("1", "True")),
        ("1", 1, ("'1'", "1")),
        (b"ab", b"ac", ("b'ab'", "b'ac'")),
        (1 + 2j, 1 - 2j, ("(1+2j)", "(1-2j)")),
        (Decimal("0.10"), Decimal("0.1"), ("Decimal('0.10')", "Decimal('0.1')")),
        (date(2024, 1, 1), date(2024, 1, 2), ("datetime.date(2024, 1, 1)", "datetime.date(2024, 1, 2)")),
        (Path("a"), Path("b"), ("PosixPath('a')", "PosixPath('b')")),
        (range(3), range(4), ("range(0, 3)", "range(0, 4)")),
        (np.float64(0.1), np.float64(0.2), ("0.1", "0.2")),
        (np.float32(0.1), np.float32(0.2), ("0.1", "0.2")),
        (np.float64(0.5), 0.5, ("0.5 (numpy.float64)", "0.5 (float)")),
        (np.str_("a"), np.str_("b"), ("'a'", "'b'")),
        (b"x" * 10_000, b"x" * 9_999 + b"y", ("10,000 bytes", "10,000 bytes, others")),
        (Mode.TRAIN, Mode.TEST, (f"{__name__}.Mode(1)", f"{__name__}.Mode(2)")),
        (dict, list, ("<class 'dict'>", "<class 'list'>")),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths are others there")
def test_each_kind_of_value_is_shown(before: Any, after: Any, texts: tuple[str, str]) -> None:
    assert from_to({"v": before}, {"v": after}) == {"$['v']": texts}
    assert from_to({"v": before}, {"v": before}) == {}


def test_long_texts_and_numbers_are_cut() -> None:
    text = "x" * 200
    (found,) = changes({"v": text + "a", "w": 1 << 5000}, {"v": text + "b", "w": 1 << 5000}).values()
    assert found.before == "'xxxxxxxxxxxxxxxxxxxx' ... 'xxxxxxxxxxxxxxxxxxxa' (201 characters)"
    (found,) = changes([1 << 5000], [1 << 5001]).values()
    assert (found.before, found.after) == ("an integer of 5,001 bits", "an integer of 5,002 bits")


def test_containers_of_plain_values_are_the_same_if_types_and_values_are() -> None:
    for one, other in (([1, 2], [1, 2.0]), ({"a": 1}, {"a": True}), ((0,), (False,)), ({1: "a"}, {1: "b"})):
        assert len(changes(one, other)) == 1
        assert changes(one, one) == changes(other, other) == {}


def test_nan_equals_nan() -> None:
    values = {"loss": math.nan, "list": [math.nan] * 20, "array": np.full(3, np.nan), "scalar": np.float64("nan")}
    assert changes(values, values) == {}
    assert from_to({"loss": math.nan}, {"loss": 1.0}) == {"$['loss']": ("nan", "1.0")}


def test_added_and_removed_paths_are_told_once_at_their_top() -> None:
    found = changes({"old": {"a": [1, 2], "b": "text"}}, {"new": [np.zeros(3)]})
    assert {(where, change.verb, change.before, change.after) for (_, where), change in found.items()} == {
        ("$['old']", "removed", "dict of 2", None),
        ("$['new']", "added", None, "list of 1"),
    }
    assert found["entry", "$['old']"].bytes == -(16 + 4)
    assert found["entry", "$['new']"].bytes == 24


def test_each_path_of_what_went_is_told() -> None:
    shared = {"a": 1}
    found = changes({"x": {"deep": shared}, "y": shared}, {})
    assert {where for _, where in found} == {"$['x']", "$['y']"}
    assert sorted(change.bytes for change in found.values()) == [-8, 0]


def test_buffers_that_are_not_there_are_told() -> None:
    data = safepickle.dumps([np.zeros(3)], buffer_callback=lambda buffer: None)
    result = safepickle.diff(data, [np.zeros(3)])
    (change,) = result.changes
    assert (result.complete, change.where) == (False, "$[0]")
    assert change.elements is not None
    assert change.elements.reason == "cannot be read: the bytes of its elements are not there"


def test_what_a_function_closes_over_is_told_at_its_own_path() -> None:
    def make(value: float) -> Any:
        weights = np.full(3, value)
        return {"function": lambda: weights, "deep": {"deeper": {"deepest": {"weights": weights}}}}

    found = {change.where: change.kind for change in safepickle.diff(make(1), make(2)).changes}
    assert found == {"$['deep']['deeper']['deepest']['weights']": "tensor"}


def test_order_of_sets_and_dicts_is_no_difference() -> None:
    names = [f"name {number}" for number in range(200)]
    shuffled = random.Random(0).sample(names, 200)
    before = {"dict": dict.fromkeys(names, 1), "set": set(names), "types": {int: 1, str: 2}, "nested": {("a", 1), (2,)}}
    after = {
        "nested": {(2,), ("a", 1)},
        "types": {str: 2, int: 1},
        "set": set(shuffled),
        "dict": dict.fromkeys(shuffled, 1),
    }
    assert changes(before, after) == {}


def test_sets_of_another_process_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
    import sys, safepickle
    value = {"set": {f"name {n}" for n in range(200)}, "frozen": frozenset(("a", n) for n in range(20))}
    safepickle.dump(value, sys.argv[1])
    """
    files = []
    for seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        files.append(tmp_path / f"{seed}.pkl")
        run(program, str(files[-1]))
    assert files[0].read_bytes() != files[1].read_bytes()
    assert safepickle.diff(*files).same


def test_members_of_sets_come_and_go() -> None:
    found = safepickle.diff({"tags": {"a", "b"}}, {"tags": {"a", "c"}}).changes
    assert [(change.where, change.before, change.after) for change in found] == [
        ("$['tags']", "'b'", None),
        ("$['tags']", None, "'c'"),
    ]


def test_objects_in_sets_are_known_by_what_they_belong_to_elsewhere() -> None:
    def graph(*sizes: int) -> Any:
        layers = [Layer(size) for size in sizes]
        return {"layers": layers, "set": set(layers), "weak": weakref.WeakSet(layers)}

    assert from_to(graph(1, 2, 3, 4), graph(1, 2, 3, 5)) == {"$['layers'][3].size": ("4", "5")}


def test_attributes_items_and_slots_are_compared() -> None:
    class Slotted:
        __slots__ = ("a", "b")
        a: int
        b: int

    class Items(list):
        name: str

    def make(number: int) -> Any:
        slotted = Slotted()
        slotted.a, slotted.b = number, 0
        items = Items([number, 0])
        items.name = str(number)
        return [Layer(number), slotted, items, defaultdict(list, a=[number]), deque([number]), OrderedDict(a=number)]

    assert set(from_to(make(1), make(2))) == {
        "$[0].size",
        "$[1].a",
        "$[2][0]",
        "$[2].name",
        "$[3]['a'][0]",
        "$[4][0]",
        "$[5]['a']",
    }


def test_classes_that_moved_are_told_once_and_looked_into() -> None:
    found = changes([Layer(1), Layer(2), Layer(3)], [Renamed(1), Renamed(5), Renamed(3)])
    assert found.keys() == {("entry", "$[0]"), ("value", "$[1].size")}
    change = found["entry", "$[0]"]
    assert (change.before, change.after) == (f"{__name__}.Layer", f"{__name__}.Renamed")
    assert change.places == 3
    assert "and at 2 more places" in str(
        safepickle.diff([Layer(1), Layer(2), Layer(3)], [Renamed(1), Renamed(2), Renamed(3)])
    )


def test_weak_references_lead_on_and_tombstones_are_told() -> None:
    root = Layer(1)
    orphan = Layer(2, Layer(3))
    assert changes([root, Layer(2, root)], [root, Layer(2, root)]) == {}
    found = changes([root, Layer(2, root)], [root, orphan])
    assert found["tombstone", "$[1].parent"].after == "dead, was of an unknown type"


class ByKeyword:
    size: int

    def __new__(cls, *, size: int) -> Any:
        made = super().__new__(cls)
        made.size = size
        return made

    def __getnewargs_ex__(self) -> Any:
        return (), {"size": self.size}

    def __getstate__(self) -> None:
        return None


def simple_queue(number: int) -> Any:
    queue: SimpleQueue[int] = SimpleQueue()
    queue.put(number)
    return queue


def dictionary_of_weak_keys(number: int) -> Any:
    layer = Layer(0)
    return layer, weakref.WeakKeyDictionary({layer: number})


HOLDERS = {
    "keywords": lambda number: ByKeyword(size=number),
    "a queue": simple_queue,
    "a length": lambda number: deque([0], maxlen=number),
    "a factory": lambda number: defaultdict([int, list, dict][number], a=1),
    "a recipe": lambda number: safepickle.Recomputed(Layer, number),
    "a strong copy": lambda number: safepickle.StrongRef(Layer(number)),
    "weak keys": dictionary_of_weak_keys,
    "an exception": lambda number: KeyError(number),
    "a partial": lambda number: functools.partial(print, number),
    "a method": lambda number: Layer(number).__repr__,
    "an iterator": lambda number: iter([number, 0]),
    "a tuple with names": lambda number: os.terminal_size((number, 2)),
    "a namespace": lambda number: types.SimpleNamespace(a=number),
    "a generator": lambda number: random.Random(number),
    "a pattern": lambda number: re.compile(str(number)),
    "an array": lambda number: array.array("d", [number]),
    "a logging handler": lambda number: logging.NullHandler(number),
    "an event": lambda number: [threading.Event() if number < 2 else set_event()],
    "a closure": lambda number: lambda: number,
}


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=list(HOLDERS))
def test_nothing_that_a_pickle_holds_is_overlooked(holder: Any) -> None:
    assert changes(holder(1), holder(1)) == {}
    assert not safepickle.diff([holder(1)], [holder(2)]).same


def test_what_fills_objects_in_place_of_build_is_known() -> None:
    """Its argument is the state, which is all that a pickle says of the object."""
    folder = Path(safepickle.__file__).parent / "reducers"
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    setters = set(re.findall(r"(?:None,\s+None,\s+rebuild\.|rebuild\.(?=restore_))(\w+)", sources))
    assert len(setters) > 12
    assert setters - set(STATE_SETTERS) == set()


def test_recursive_values_are_compared_once() -> None:
    def loop(number: int) -> Any:
        value: list[Any] = [number]
        value.append(value)
        return {"loop": value, "again": value}

    assert from_to(loop(1), loop(2)) == {"$['loop'][0]": ("1", "2")}


def test_code_that_travels_by_value_is_told_in_one_line() -> None:
    def make(number: int) -> Any:
        namespace: dict[str, Any] = {}
        exec(f"class Local:\n  def method(self): return {number}\n  def other(self): return self", namespace)
        return {"object": namespace["Local"](), "function": lambda x: x + number}

    safepickle.diff(make(1), make(1))
    found = safepickle.diff(make(1), make(2)).changes
    assert {change.kind for change in found} == {"code"}
    assert len(found) <= 2


# Arrays.


def elements(before: Any, after: Any) -> ElementChanges:
    (found,) = changes(before, after).values()
    assert found.kind == "tensor"
    assert found.elements is not None
    return found.elements


def test_arrays_are_told_by_how_much_they_changed() -> None:
    before = np.arange(6.0).reshape(2, 3)
    after = before.copy()
    after[1, 2] += 0.5
    after[0, 1] -= 0.25
    relative: Any = pytest.approx(math.hypot(0.5, 0.25) / np.linalg.norm(before))
    assert elements(before, after) == ElementChanges(6, 2, largest=0.5, relative=relative)


def test_nan_and_infinities_that_came_and_went_are_counted() -> None:
    before = np.array([1.0, np.nan, np.nan, np.inf, 2.0, -np.inf, 3.0])
    after = np.array([np.nan, np.nan, 4.0, 5.0, np.inf, -np.inf, 3.5])
    found = elements(before, after)
    assert (found.changed, found.largest) == (5, 0.5)
    assert (found.nan_appeared, found.nan_vanished, found.inf_appeared, found.inf_vanished) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "<i2", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16", ">f4", ">i8", "g"]
)
def test_every_type_of_numbers_is_compared(dtype: str) -> None:
    before = np.array([0, 1, 1, 0] * 10).astype(dtype)
    after = before.copy()
    after[3] = 1
    relative: Any = pytest.approx(1 / math.sqrt(20))
    assert elements(before, after) == ElementChanges(40, 1, largest=1.0, relative=relative)


def test_members_of_older_torch_modules_have_the_same_paths() -> None:
    class Module:
        def __init__(self, kind: Any, rate: float) -> None:
            self._modules, self._buffers, self._parameters = kind(), kind(), kind(rate=rate)

    changes = safepickle.diff(Module(OrderedDict, 0.5), Module(dict, 0.25)).changes
    assert [(change.where, change.before, change.after) for change in changes] == [("$.rate", "0.5", "0.25")]


def test_texts_of_arrays_and_scalars_are_named_and_shown() -> None:
    before, after = (
        {"a": np.array([text]), "s": np.str_(text), "b": np.bytes_(text.encode())} for text in ("ab", "ac")
    )
    found = {change.where: (change.before, change.after) for change in safepickle.diff(before, after).changes}
    assert found == {"$['a']": ("U2[1]", "U2[1]"), "$['s']": ("'ab'", "'ac'"), "$['b']": ("'ab'", "'ac'")}


@pytest.mark.parametrize("dtype", ["S3", "<U2", "<M8[s]", "<m8[ms]", "V4", [("a", "<f4"), ("b", "<i2")]])
def test_what_are_no_numbers_are_counted(dtype: Any) -> None:
    before = np.zeros(10, "u8").view("V8").astype("V16").view("u1")[:160].copy()
    itemsize = np.dtype(dtype).itemsize
    before = np.frombuffer(before.tobytes()[: itemsize * 10] + bytes(itemsize * 10), dtype)[:10].copy()
    bits = before.copy()
    bits.view(f"V{itemsize}")[4] = b"\1" + bytes(itemsize - 1)
    assert elements(before, bits) == ElementChanges(10, 1)


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_numpy_whatever_the_layout(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safepickle.report.elements.BLOCK", 16)
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 6, generator.integers(0, 4)))
    before = np.asarray(generator.normal(size=shape))
    after = np.asarray(np.where(generator.random(shape) < 0.3, generator.normal(size=shape), before))
    pair = [np.array(array, order="F" if generator.random() < 0.5 else "C") for array in (before, after)]
    changed = int((before != after).sum())
    if not changed:
        assert changes(*pair) == {}
        return
    found = elements(*pair)
    assert found.count == before.size
    assert found.changed == changed
    assert found.largest == pytest.approx(np.abs(after - before).max())
    assert found.relative == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before))


def test_dtypes_and_shapes_that_changed_are_told() -> None:
    (found,) = changes(np.array([1.0, 0.1]), np.array([1.0, 0.1], "f4")).values()
    assert (found.before, found.after, found.bytes) == ("float64[2]", "float32[2]", -8)
    assert found.elements is not None
    assert found.elements.changed == 1
    assert found.elements.largest == pytest.approx(1.5e-9, rel=0.01)
    (found,) = changes(np.zeros((2, 3)), np.zeros((3, 2))).values()
    assert (found.before, found.after, found.elements) == ("float64[2, 3]", "float64[3, 2]", None)


def test_tensors_are_sorted_by_how_much_they_changed() -> None:
    before = {name: np.ones(4) for name in "abcdef"}
    after = {name: array.copy() for name, array in before.items()}
    after["a"][0] += 0.1
    after["b"][0] += 10
    after["c"][0] = np.nan
    after["d"] = np.ones(5)
    after["e"][0] += 1
    after["g"] = after.pop("f")
    found = safepickle.diff(before, after).changes
    assert [change.where for change in found] == [f"$['{name}']" for name in "cdbeafg"]


def test_long_lists_of_numbers_are_compared_as_arrays() -> None:
    before = [float(number) for number in range(100)]
    after = [*before, 100.0]
    (found,) = changes({"v": before}, {"v": after}).values()
    assert (found.kind, found.before, found.after, found.elements) == ("value", "100 numbers", "101 numbers", None)
    after[7] = 9.0
    (found,) = changes({"v": before}, {"v": after}).values()
    assert found.elements is not None
    assert (found.elements.count, found.elements.changed, found.elements.largest) == (100, 1, 2.0)
    huge = [1 << 2000, *range(20)]
    (found,) = changes(huge, [*huge[:-1], 5]).values()
    assert found.elements == ElementChanges(21, 1)


def test_arrays_of_objects_are_looked_into() -> None:
    before, after = np.array([1, "a", None], object), np.array([1, "b", None], object)
    (found,) = changes({"v": before}, {"v": after}).values()
    assert (found.before, found.after) == ("'a'", "'b'")


def test_equal_arrays_are_counted() -> None:
    shared = np.arange(10)
    result = safepickle.diff({"a": shared, "b": np.ones(3)}, {"a": shared.copy(), "b": np.ones(3)})
    assert (result.same, result.equal_tensors) == (True, 2)
    assert "nothing changed; 2 tensors the same" in str(result)


def test_without_numpy_it_is_told_that_bytes_differ() -> None:
    files = [pickle.dumps({"a": np.arange(3.0), "b": array}) for array in (np.ones(2), np.zeros(2))]
    program = f"""
    import sys
    sys.modules["numpy"] = None
    import safepickle
    files = {files}
    result = safepickle.diff(*files)
    (change,) = result.changes
    print(change.where, change.elements.changed, change.elements.reason, result.equal_tensors, sep="; ")
    """
    assert run(program) == "$['b']; None; bytes differ; with numpy installed: by how much; 1"


MEASURE = """
import sys, tracemalloc
import safepickle
small = safepickle.diff({"w": 1}, {"w": 2})
import numpy
tracemalloc.start()
result = safepickle.diff(*sys.argv[1:])
peak = tracemalloc.get_traced_memory()[1]
(change,) = result.changes
print(peak, change.elements.changed, change.elements.largest)
"""


@pytest.mark.parametrize("kind", ["pkl", "npy", "npz"])
def test_memory_is_bounded_by_blocks_and_not_by_the_array(kind: str, tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.{kind}") for name in "ab"]
    array = np.ones((64, 1 << 17), "f4")
    for file in files:
        if kind == "pkl":
            safepickle.dump({"w": array}, file)
        else:
            (np.save if kind == "npy" else np.savez_compressed)(file, array)
        array[63, 5] = 3
    peak, changed, largest = run(MEASURE, *files).split()
    assert (int(changed), float(largest)) == (1, 2.0)
    assert array.nbytes == 1 << 25
    assert int(peak) < array.nbytes / 2


# Files.


def test_paths_files_bytes_and_live_objects_go_with_one_another(tmp_path: Path) -> None:
    before, after = {"epoch": 3, "w": np.zeros(3000)}, {"epoch": 4, "w": np.ones(3000)}
    path = tmp_path / "a.pkl"
    safepickle.dump(before, path)
    packed = tmp_path / "a.pkl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with path.open("rb") as file:
        for given in (path, str(path), packed, file, path.read_bytes(), io.BytesIO(path.read_bytes()), before):
            found = safepickle.diff(after, given)
            assert {change.where for change in found.changes} == {"$['epoch']", "$['w']"}


def test_npz_and_npy_are_compared_with_pickles_where_names_match(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"a": np.arange(5.0), "b": np.eye(3, order="F")}
    np.savez(tmp_path / "a.npz", **arrays)
    np.save(tmp_path / "a.npy", arrays["b"])
    assert safepickle.diff(tmp_path / "a.npz", arrays).same
    assert safepickle.diff(tmp_path / "a.npy", arrays["b"]).same
    arrays["b"] = arrays["b"] + 1
    (found,) = safepickle.diff(tmp_path / "a.npz", arrays).changes
    assert (found.where, found.elements and found.elements.changed) == ("$['b']", 9)


def test_a_file_of_arrays_is_compared_with_the_dictionary_that_has_its_names(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"layer.weight": np.ones(4), "layer.bias": np.zeros(2), "head": np.ones(1)}
    np.savez(tmp_path / "a.npz", **arrays)
    checkpoint = {"epoch": 3, "state": {"ema": {f"model.{name}": array for name, array in arrays.items()}}, "head": 1}
    result = safepickle.diff(tmp_path / "a.npz", checkpoint)
    assert (result.same, result.equal_tensors) == (True, 3)
    assert result.notes == (
        f"{tmp_path / 'a.npz'} was compared with $['state']['ema'] of builtins.dict, whose names begin with 'model.'.",
    )


def test_equal_checksums_of_archives_are_believed_without_reading(tmp_path: Path) -> None:
    array = np.arange(5000.0)
    np.savez(tmp_path / "a.npz", array)
    data = (tmp_path / "a.npz").read_bytes()
    place = data.index(array.tobytes()) + 4000
    (tmp_path / "b.npz").write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    assert safepickle.diff(tmp_path / "a.npz", tmp_path / "b.npz").same


def test_an_archive_that_is_damaged_where_it_must_be_read_is_told(tmp_path: Path) -> None:
    array = np.arange(5000.0)
    np.savez(tmp_path / "a.npz", array)
    data = (tmp_path / "a.npz").read_bytes()
    place = data.index(array.tobytes()) + 4000
    (tmp_path / "b.npz").write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    result = safepickle.diff(tmp_path / "b.npz", {"arr_0": array})
    (found,) = result.changes
    assert not result.complete
    assert found.elements is not None
    assert "Bad CRC-32" in found.elements.reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>gone</html>", "damaged: this is an HTML or XML page"),
        (b"", "damaged: this is an empty file"),
        (pickle.dumps([1] * 1000)[:-20], "damaged"),
        (b"\x93NUMPY\1\0", "damaged: an array in numpy's own format: "),
    ],
)
def test_what_cannot_be_compared_is_an_error_that_says_why(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(safepickle.DamagedPickleError, match=message) as caught:
        safepickle.diff({}, path)
    assert caught.value.file == str(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        safepickle.diff({}, tmp_path / "none.pkl")


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_nothing_of_a_file_runs(tmp_path: Path) -> None:
    files = [pickle.dumps({"a": Evil(f"touch {tmp_path / name}"), "b": number}) for number, name in enumerate("xy")]
    result = safepickle.diff(*files)
    assert not list(tmp_path.iterdir())
    assert {change.where for change in result.changes} == {"$['a']", "$['b']"}


def test_names_and_verdicts_of_files_are_compared(tmp_path: Path) -> None:
    result = safepickle.diff(safepickle.dumps([1]), safepickle.dumps([Layer(1)]))
    found = {(change.kind, change.where): (change.before, change.after) for change in result.changes}
    assert found["file", "verdict"] == ("safe", "needs_allow")
    assert found["global", f"{__name__}:Layer"] == (None, "needs_allow")


def test_what_cannot_be_pickled_is_compared_by_its_type() -> None:
    def make(number: int) -> Any:
        return {"generator": (item for item in ""), "epoch": number}

    assert [change.where for change in safepickle.diff(make(1), make(2)).changes] == ["$['epoch']"]


def test_the_result_is_data(tmp_path: Path) -> None:
    result = safepickle.diff({"w": np.zeros(3)}, {"w": np.array([0, np.nan, np.inf])})
    assert isinstance(result, Difference)
    assert pickle.loads(pickle.dumps(result)) == result
    (change,) = json.loads(json.dumps(result.to_dict(), allow_nan=False))["changes"]
    assert change["verb"] == "changed"
    assert change["elements"]["nan_appeared"] == change["elements"]["inf_appeared"] == 1
    assert "1 NaN appeared, 1 inf appeared" in str(result)


def test_tensors_that_show_the_same_bytes_again_and_again_are_not_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safepickle.report.diff._MOST_ELEMENTS", 10)
    monkeypatch.setattr("safepickle.report.diff._ELEMENTS_PER_BYTE", 0)
    result = safepickle.diff({"a": np.zeros(8), "b": np.zeros(8)}, {"a": np.zeros(8), "b": np.ones(8)})
    assert not result.complete
    assert [change.where for change in result.changes] == ["$['b']"]


def test_compressed_files_that_cannot_be_unpacked_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(pickle.dumps([1, 2, 3]))
    assert safepickle.diff(packed, [1, 2, 3]).same
    with pytest.raises(safepickle.DamagedPickleError, match="damaged or cut off"):
        safepickle.diff(packed[:-4], [1, 2, 3])
    monkeypatch.setattr("safepickle.report.diff_sides.most_unpacked", lambda size: 4)
    with pytest.raises(safepickle.NotAllowedError, match="unpacks to more than 4 bytes"):
        safepickle.diff(packed, [1, 2, 3])


def test_entries_of_weak_dictionaries_are_compared_by_their_keys() -> None:
    graphs = []
    for size in (1, 2):
        layer = Layer(size)
        graphs.append([weakref.WeakValueDictionary({"layer": layer, f"of {size}": layer}), layer])
    changes = safepickle.diff(*graphs).changes
    assert {(change.where, change.verb) for change in changes} == {
        ("$[1].size", "changed"),
        ("$[0]['of 1']", "removed"),
        ("$[0]['of 2']", "added"),
    }


def test_texts_say_what_a_single_number_and_a_long_list_became() -> None:
    text = str(safepickle.diff({"n": np.array(3), "l": [*range(20)]}, {"n": np.array(4), "l": [9, *range(1, 20)]}))
    assert "int64[] 3 -> 4" in text
    assert "20 numbers: 1 of 20 elements, by at most 9" in text
