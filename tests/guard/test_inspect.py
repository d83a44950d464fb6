"""What `inspect` tells of a file: names, tombstones, copies, recipes, arrays, sizes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import queue
import struct
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import safepickle
from guard.assembler import PROTO4, STOP, call, name, new, pickled
from guard.targets import Victim, make_table
from safepickle.report.inspection import Inspection
from safepickle.storage.contents import numpy_dtype


def test_names_come_with_their_paths_and_bytes():
    data = pickle.dumps({"a": Victim(), "b": [Victim(), {"c": Victim()}]}, 4)
    found = safepickle.inspect(data)
    (use,) = found.globals
    assert (use.name, use.status, use.count) == ("guard.targets:Victim", "needs_allow", 3)
    assert use.paths == ("$['a']", "$['b'][0]", "$['b'][1]['c']")
    assert data[use.offset : use.offset + 1] == b"\x93"
    assert (found.protocol, found.allow, found.file_bytes) == (4, ("guard.targets:Victim",), len(data))


def test_what_safepickle_wrote_for_weak_references_is_listed():
    outside, dead = Victim(), weakref.ref(Victim())
    strong = safepickle.dumps([weakref.ref(outside)], weakrefs="strong")
    found = safepickle.inspect(strong)
    assert [entry.path for entry in found.strong_copies] == ["$[0]"]
    with pytest.warns(safepickle.WeakReferenceWarning, match="will load dead"):
        data = safepickle.dumps({"out": weakref.ref(outside), "dead": dead})
    found = safepickle.inspect(data)
    assert {(entry.path, entry.referent_type, entry.reason) for entry in found.tombstones} == {
        ("$['out']", "guard.targets.Victim", "outside"),
        ("$['dead']", None, "dead"),
    }
    assert found.verdict == "safe"
    found = safepickle.inspect(safepickle.dumps({"t": safepickle.Recomputed(make_table, 5)}))
    assert [(entry.path, entry.factory) for entry in found.recipes] == [("$['t']", "guard.targets:make_table")]


def test_arrays_and_sizes_are_listed():
    state = {"weights": {"w": np.zeros((30, 40)), "b": np.arange(3, dtype="int32")}, "name": "x" * 100}
    found = safepickle.inspect(pickle.dumps(state, 5))
    assert [(entry.path, entry.dtype, entry.shape, entry.nbytes) for entry in found.tensors] == [
        ("$['weights']['w']", "float64", (30, 40), 9600),
        ("$['weights']['b']", "int32", (3,), 12),
    ]
    assert found.tensor_bytes == 9612
    tree = {node.path: node for node in found.tree}
    assert (tree["$"].type, tree["$"].entries, tree["$['weights']"].entries) == ("dict", 2, 2)
    assert tree["$['name']"].nbytes == 100


def test_element_types_are_called_as_files_of_arrays_call_them():
    arrays = {"texts": np.array(["abc"]), "big": np.zeros(3, ">f4"), "number": np.array(7), "bytes": np.array([b"ab"])}
    for protocol in (2, 5):
        found = safepickle.inspect(pickle.dumps(arrays, protocol))
        assert {entry.path[3:-2]: entry.dtype for entry in found.tensors} == {
            name: numpy_dtype(array.dtype.str) for name, array in arrays.items()
        }
        assert [(entry.path, entry.value) for entry in found.values] == [("$['number']", 7)]


def test_a_queue_is_looked_into():
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting.put({"weights": np.zeros(3)})
    found = safepickle.inspect(safepickle.dumps({"queue": waiting}))
    assert [(entry.path, entry.shape) for entry in found.tensors] == [("$['queue']", (3,))]


def test_what_is_not_listed_counts_in_the_sizes_of_what_is():
    values: list[Any] = (
        [[] for _ in range(300)] + ["x" * 10 for _ in range(300)] + [[{}, b"abc", [b"de"]] for _ in range(300)]
    )
    found = safepickle.inspect(pickle.dumps(values))
    assert (found.tree[0].entries, found.tree[0].nbytes) == (900, 300 * 15)
    assert (len(found.tree), found.complete) == (200, True)


def nested(random: np.random.Generator, levels: int, made: list[object]) -> object:
    """A random graph of plain containers, with a few objects in it, and parts that are there twice."""
    if made and random.random() < 0.05:
        return made[random.integers(len(made))]
    if not levels or random.random() < 0.2:
        return [None, 3, 2.5, "text", b"bytes", Victim(), ""][random.choice(7, p=[0.2, 0.2, 0.2, 0.15, 0.1, 0.05, 0.1])]
    parts = [nested(random, levels - 1, made) for _ in range(random.integers(0, 4))]
    container = [
        parts,
        tuple(parts),
        dict(enumerate(parts)),
        {(1, position): part for position, part in enumerate(parts)},
    ]
    made.append(container[random.integers(4)])
    return made[-1]


def weighed(value: object, seen: set[int]) -> tuple[int, int]:
    """The bytes of all leaves in a graph, and how many objects of a class lie in it."""
    if isinstance(value, (str, bytes)):
        return len(value), 0
    if not isinstance(value, (list, tuple, dict, Victim)):
        return 8, 0
    if id(value) in seen:
        return 0, 0
    seen.add(id(value))
    if isinstance(value, Victim):
        return 0, 1
    keys = [key for key in value if isinstance(key, tuple)] if isinstance(value, dict) else []
    parts = [*(value.values() if isinstance(value, dict) else value), *keys]
    sums = [weighed(part, seen) for part in parts]
    return sum(size for size, _ in sums), sum(count for _, count in sums)


@pytest.mark.parametrize("long", [False, True])
def test_sizes_and_objects_are_the_same_however_the_parts_are_gone_through(long: bool):
    found_any = 0
    for seed in range(15 if long else 60):
        random = np.random.default_rng(seed)
        made: list[object] = []
        parts = [nested(random, 10, made) for _ in range(300 if long else 4)]
        # Loaded first, so that equal constants are shared here as they are in the file.
        data = pickle.dumps(pickle.loads(pickle.dumps(parts)))
        size, count = weighed(pickle.loads(data), set())
        found = safepickle.inspect(data)
        assert found.tree[0].nbytes == size
        assert sum(use.count for use in found.globals if use.name.endswith("Victim")) == count
        found_any += count
    assert found_any > 50


def test_empty_lists_are_counted_where_the_file_names_their_type():
    data = PROTO4 + name("builtins", "list") + b"q\x00]" + b"(" + b"]" * 500 + b"h\x00" + b"e\x86" + STOP
    (use,) = safepickle.inspect(data).globals
    # The list, and those in it.
    assert (use.name, use.count) == ("builtins:list", 501)


def test_buffers_out_of_band_are_counted():
    buffers: list[Any] = []
    data = pickle.dumps([np.arange(1000.0)] * 2, protocol=5, buffer_callback=buffers.append)
    assert safepickle.inspect(data).buffers == len(buffers) == 1


@pytest.mark.parametrize(("module", "word"), [(gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")])
def test_compressed_files_are_looked_into(module, word, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(module.compress(pickle.dumps([1, Victim()])))
    found = safepickle.inspect(path)
    assert (found.compression, found.verdict, found.allow) == (word, "needs_allow", ("guard.targets:Victim",))
    path.write_bytes(module.compress(pickle.dumps(list(range(1000))))[:-10])
    assert safepickle.inspect(path).verdict == "damaged"


def test_file_that_unpacks_to_very_much_is_not_looked_into(monkeypatch):
    monkeypatch.setattr("safepickle.guard.limits.UNPACKED_FLOOR", 1 << 20)
    found = safepickle.inspect(gzip.compress(bytes(5 << 20)))
    assert found.verdict == "refused"
    assert "unpacks to more than" in found.problems[0].reason


def test_reads_paths_files_and_bytes(tmp_path: Path):
    data = pickle.dumps([1])
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    with open(path, "rb") as file:
        results = [
            safepickle.inspect(source) for source in (path, str(path), file, io.BytesIO(data), data, bytearray(data))
        ]
    assert {result.verdict for result in results} == {"safe"}
    assert [result.file for result in results] == [str(path)] * 3 + [""] * 3


def test_problems_say_where_and_why():
    found = safepickle.inspect(pickled([call(name("os", "system"), "true"), new(name("app", "Net"))]))
    assert found.verdict == "refused"
    assert found.allow == ()
    assert [(problem.verdict, problem.name) for problem in found.problems] == [
        ("refused", "os:system"),
        ("needs_allow", "app:Net"),
    ]
    assert "operating system" in found.problems[0].reason
    assert found.problems[0].offset == 3


def test_numbers_and_short_texts_that_have_a_name_are_shown():
    config = {
        "lr": 0.5,
        "name": "run",
        "fast": True,
        "none": None,
        "long": "x" * 81,
        "big": 1 << 70,
        "loss": float("nan"),
    }
    obj = {"epoch": np.int64(3), "best": np.float32(0.1), "config": config, "sizes": (3, 4), "rows": list(range(100))}
    found = safepickle.inspect(pickle.dumps(obj))
    values = {entry.path: entry.value for entry in found.values if entry.value == entry.value}
    assert values == {
        "$['epoch']": 3,
        "$['best']": 0.1,
        "$['config']['lr']": 0.5,
        "$['config']['name']": "run",
        "$['config']['fast']": True,
        "$['sizes'][0]": 3,
        "$['sizes'][1]": 4,
    }
    assert [(entry.path, entry.value) for entry in found.progress] == [("$['epoch']", 3)]
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"path": "$['config']['loss']", "value": "nan"} in plain["values"]
    assert "$['epoch'] = 3" in str(found).splitlines()
    found = safepickle.inspect(pickle.dumps({f"k{number}": number for number in range(5_000)}))
    assert (len(found.values), found.tree[0].nbytes) == (1_000, 40_000)


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_files_of_arrays_are_listed(form: str):
    file = io.BytesIO()
    if form == "npz":
        np.savez(file, w=np.zeros((3, 4)), o=np.array([{}], dtype=object), lr=np.float32(0.1))
    else:
        np.save(file, np.zeros((3, 4)))
    for packed in (False, True):
        found = safepickle.inspect(gzip.compress(file.getvalue()) if packed else file.getvalue())
        assert (found.format, found.compression, found.complete) == (form, "gzip" if packed else None, True)
        entry = found.tensors[0]
        path = "$['w']" if form == "npz" else "$"
        assert (entry.path, entry.library, entry.dtype, entry.shape) == (path, "numpy", "float64", (3, 4))
        assert (found.verdict, found.allow, found.parameters) == ("not_a_pickle", (), ())
        assert "numpy.load(allow_pickle=False)" in str(found).splitlines()[1]
        if form == "npz":
            assert {entry.path: entry.value for entry in found.values} == {"$['lr']": 0.1}
            assert found.notes == ("$['o'] is a pickle, which numpy runs with allow_pickle=True",)
        assert pickle.loads(pickle.dumps(found)) == found


def test_a_long_text_of_a_file_about_itself_is_cut_in_the_report_alone():
    header = json.dumps({"__metadata__": {"tags": "t" * 10_000}}).encode()
    found = safepickle.inspect(struct.pack("<Q", len(header)) + header)
    assert len(found.facts["tags"]) == 10_000
    assert max(map(len, str(found).splitlines())) < 120


def test_everything_is_plain_data():
    found = safepickle.inspect(pickle.dumps({"a": np.arange(3), "v": Victim()}))
    again = json.loads(json.dumps(found.to_dict()))
    assert again["verdict"] == "needs_allow"
    assert again["tensors"][0]["shape"] == [3]
    assert pickle.loads(pickle.dumps(found)) == found


def test_text_fits_a_terminal():
    data = pickle.dumps([Victim() for _ in range(1000)] + [np.arange(i) for i in range(1, 50)])
    lines = str(safepickle.inspect(data)).splitlines()
    assert lines[1].startswith("verdict needs_allow: ")
    assert lines[2] == "  allow=['guard.targets:Victim']"
    assert len(lines) < 50


def test_what_a_terminal_would_obey_is_escaped():
    letters = "\x1b[2J\u202e\udc80\nnext"
    tombstone = safepickle.Tombstone("outside", letters)
    found = safepickle.inspect(safepickle.dumps({"a": tombstone, "b": letters, letters: 1}))
    text = str(found)
    assert "\\x1b[2J" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert {entry.value for entry in found.values} == {letters, 1}


def test_a_million_levels_cost_no_more_than_their_bytes():
    data = PROTO4 + b"]" * 300_000 + b"a" * 299_999 + STOP
    found = safepickle.inspect(data)
    assert found.verdict == "safe"
    assert max(len(node.path) for node in found.tree) <= 300


def test_nothing_that_the_file_names_is_imported(tmp_path: Path):
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    program = (
        "import sys, safepickle, safepickle.report.inspect\n"
        "before = set(sys.modules)\n"
        "data = b'\\x80\\x04cloud\\nNet\\n)\\x81cnumpy\\nndarray\\n\\x86ctorch._utils\\n_rebuild_tensor\\n0.'\n"
        "assert safepickle.inspect(data).verdict == 'needs_allow'\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    source = str(Path(safepickle.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": source},
        check=True,
        encoding="utf-8",
    )
    assert ran.stdout == "[]\n"


def paths_of(found: Inspection) -> set[str]:
    return {node.path for node in found.tree}


def test_paths_are_those_that_explain_prints_and_a_person_can_type():
    member = Victim()
    root = {
        "list": [member],
        ("a", 1): Victim(),
        "set": {(1, 2)},
        "key": {Victim(): [3]},
        "weak": weakref.WeakSet([member]),
    }
    found = paths_of(safepickle.inspect(safepickle.dumps(root)))
    assert {
        "$['list'][0]",
        "$[('a', 1)]",
        "list($['set'])[0]",
        "list($['key'])[0]",
        "list($['key'].values())[0]",
    } <= found
    for path in found:
        eval(path.replace("$", "root"))


@pytest.mark.parametrize("kind", ["WeakSet", "WeakKeyDictionary", "WeakValueDictionary"])
def test_weak_containers_show_their_entries_and_no_internals(kind):
    member = Victim()
    container: Any = weakref.WeakSet([member]) if kind == "WeakSet" else getattr(weakref, kind)()
    if kind == "WeakKeyDictionary":
        container[member] = "value"
    elif kind == "WeakValueDictionary":
        container["key"] = member
    found = paths_of(safepickle.inspect(safepickle.dumps({"weak": container, "kept": [member]})))
    assert not [path for path in found if "._" in path or ".data" in path]


def test_an_instance_of_a_class_by_value_is_called_by_its_name():
    made = type("Made", (), {"__module__": "__main__"})
    found = safepickle.inspect(safepickle.dumps([made()]))
    assert [node.type for node in found.tree if node.path == "$[0]"] == ["Made (a class by value)"]


@pytest.mark.parametrize("damage", ["payload", "digest", "length", "word", "end"])
def test_file_that_is_not_what_its_checksum_says_is_damaged(damage: str, tmp_path: Path):
    path = tmp_path / "file"
    safepickle.dump({"text": "abcdefgh"}, path, checksum=True)
    data = path.read_bytes()
    assert safepickle.inspect(data).verdict == "safe"
    place = {"payload": data.index(b"cde"), "digest": 60, "length": 45, "word": 7, "end": -1}[damage]
    data = data[:-1] if damage == "end" else data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    path.write_bytes(data)
    for source in (data, path):
        found = safepickle.inspect(source)
        assert found.verdict == "damaged"
        assert "checksum" in found.problems[0].reason or "truncated" in found.problems[0].reason
    with pytest.raises(safepickle.ChecksumError, match=r"damaged|truncated"):
        safepickle.load(path, allow=())
