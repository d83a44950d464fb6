"""Large arrays that a load maps into memory: where they lie in the file, and what becomes of them."""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import pickletools
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safepickle
from nodes import Node
from safepickle.storage.alignment import ALIGNMENT, MARK

LARGE = 1 << 16
"""What the C pickler hands over by itself, in bytes."""


def numbers(count: int = LARGE, dtype: Any = "f8") -> np.ndarray:
    return (np.arange(count) % 251).astype(dtype)


def mapping_of(array: np.ndarray) -> mmap.mmap | None:
    """Return the mapping that an array stands on, or None."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, memoryview):
        return None
    return base.obj if isinstance(base.obj, mmap.mmap) else None


def read_only() -> np.ndarray:
    array = numbers()
    array.flags.writeable = False
    return array


ARRAYS = {
    "float64": numbers(),
    "float16": numbers(dtype="f2"),
    "complex": numbers(dtype="c16"),
    "one byte": numbers(dtype="u1"),
    "shaped": numbers(LARGE).reshape(64, -1, 4),
    "in the order of Fortran": np.asfortranarray(numbers(LARGE).reshape(64, -1)),
    "read-only": read_only(),
    "structured": np.zeros(LARGE, dtype=[("a", "i4"), ("b", "f8")]),
    "just large enough": numbers(LARGE, "u1"),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=list(ARRAYS))
@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"fsync": False, "unpicklable": "tombstone"}])
def test_large_arrays_are_mapped(array: np.ndarray, options: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump({"first": "text", "array": array, "again": array}, path, **options)
    loaded = safepickle.load(path, mmap=True)
    assert mapping_of(loaded["array"]) is not None
    assert loaded["array"] is loaded["again"]
    assert np.array_equal(loaded["array"], array)
    assert (loaded["array"].dtype, loaded["array"].shape) == (array.dtype, array.shape)
    assert loaded["array"].flags.f_contiguous == array.flags.f_contiguous
    assert loaded["array"].ctypes.data % ALIGNMENT == 0


@pytest.mark.parametrize("array", ARRAYS.values(), ids=list(ARRAYS))
def test_any_other_load_reads_them(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump([array], path)
    with path.open("rb") as file:
        (loaded,) = pickle.load(file)
    for (other,) in ([loaded], safepickle.load(path), safepickle.load(path, allow=()), pickle.loads(path.read_bytes())):
        assert mapping_of(other) is None
        assert np.array_equal(other, array)
        assert other.flags.writeable == safepickle.loads(safepickle.dumps(array)).flags.writeable
    assert safepickle.inspect(path).verdict == "safe"


def test_what_is_written_to_a_mapped_array_stays_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump([numbers(), read_only()], path)
    before = path.read_bytes()
    writable, fixed = safepickle.load(path, mmap=True)
    writable += 1
    assert np.array_equal(writable, numbers() + 1)
    with pytest.raises(ValueError, match="read-only"):
        fixed += 1
    assert path.read_bytes() == before
    assert np.array_equal(safepickle.load(path, mmap=True)[0], numbers())


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be replaced there")
def test_a_mapped_file_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump(numbers(), path)
    old = safepickle.load(path, mmap=True)
    safepickle.dump(numbers() * 2, path)
    assert np.array_equal(old, numbers())
    assert np.array_equal(safepickle.load(path, mmap=True), numbers() * 2)


def test_the_mapping_goes_with_the_last_array(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump([numbers(), numbers()], path)
    loaded = safepickle.load(path, mmap=True)
    mapping = mapping_of(loaded[0])
    assert mapping is not None
    assert mapping is mapping_of(loaded[1])
    alive = weakref.ref(mapping)
    del mapping, loaded[0]
    gc.collect()
    assert alive() is not None
    del loaded
    gc.collect()
    assert alive() is None


def test_bytes_of_users_are_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    value = [bytes(LARGE), bytearray(LARGE), "x" * LARGE, MARK, MARK * LARGE, bytearray(MARK * LARGE)]
    safepickle.dump(value, path)
    assert path.read_bytes() == safepickle.dumps(value)
    loaded = safepickle.load(path, mmap=True)
    assert loaded == value
    assert [type(item) for item in loaded] == [type(item) for item in value]


def test_a_file_in_a_file_stays_bytes(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.pkl", tmp_path / "outer.pkl"
    safepickle.dump(numbers(), inner)
    value = {"inner": inner.read_bytes(), "head": inner.read_bytes()[:1000], "array": numbers()}
    safepickle.dump(value, outer)
    loaded = safepickle.load(outer, mmap=True)
    assert (loaded["inner"], loaded["head"]) == (value["inner"], value["head"])
    assert mapping_of(loaded["array"]) is not None


class Holder:
    """Hands its buffer over as PEP 574 has it."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Holder, (pickle.PickleBuffer(self.buffer),)


def test_classes_of_users_are_given_a_view(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump([Holder(bytearray(b"a" * LARGE)), Holder(b"b" * LARGE), Holder(bytearray(9))], path)
    writable, fixed, small = safepickle.load(path, mmap=True)
    assert (writable.buffer, fixed.buffer, small.buffer) == (b"a" * LARGE, b"b" * LARGE, bytearray(9))
    assert type(writable.buffer) is type(fixed.buffer) is memoryview
    assert (writable.buffer.readonly, fixed.buffer.readonly) == (False, True)
    assert type(small.buffer) is bytearray


def test_weak_references_that_take_several_walks_are_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    node = Node(weights=numbers())
    safepickle.dump([weakref.ref(node), numbers(), node], path, checksum=True)
    reference, array, copy = safepickle.load(path, mmap=True)
    assert reference() is copy
    assert mapping_of(array) is not None
    assert mapping_of(copy.weights) is not None
    assert path.read_bytes().count(MARK) == 2


def test_graphs_that_nest_deeply_are_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    root: Any = [numbers()]
    for _ in range(100_000):
        root = [root]
    safepickle.dump(root, path)
    root = safepickle.load(path, mmap=True)
    while len(root) == 1 and isinstance(root[0], list):
        root = root[0]
    assert np.array_equal(root[0], numbers())


def test_only_large_buffers_have_a_padding_and_it_is_short(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    small = [numbers(LARGE - 1, "u1"), *(numbers(1000) for _ in range(100))]
    safepickle.dump(small, path)
    assert path.read_bytes() == safepickle.dumps(small)
    arrays = [numbers() for _ in range(10)]
    safepickle.dump(arrays, path)
    data = path.read_bytes()
    assert data.count(MARK) == 10
    assert 0 < len(data) - len(safepickle.dumps(arrays)) <= 10 * (ALIGNMENT + len(MARK) + 3)
    names = [opcode.name for opcode, _, _ in pickletools.genops(data)]
    assert [names[at + 1] for at, name in enumerate(names) if name == "SHORT_BINBYTES"] == ["POP"] * 10


@pytest.mark.parametrize("protocol", range(5))
def test_older_protocols_have_no_buffers_to_map(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump(numbers(), path, protocol)
    assert path.read_bytes() == safepickle.dumps(numbers(), protocol)
    assert np.array_equal(safepickle.load(path, mmap=True), numbers())


def test_what_lies_otherwise_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump([numbers(), "text"], path)
    data = path.read_bytes()
    for other in (
        safepickle.dumps([numbers(), "text"]),
        pickle.dumps([numbers(), "text"], 5),
        data[:2] + b"N0" + data[2:],  # all buffers stand two bytes further on
        pickletools.optimize(data),
    ):
        path.write_bytes(other)
        loaded = safepickle.load(path, mmap=True)
        assert mapping_of(loaded[0]) is None
        assert np.array_equal(loaded[0], numbers())
        assert loaded[0].flags.writeable


def test_the_first_pickle_of_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump([numbers()], path)
    with path.open("ab") as file:
        safepickle.dump([numbers() * 2], file)
        file.write(b"\xff no pickle")
    assert np.array_equal(safepickle.load(path, mmap=True)[0], numbers())


def test_buffers_out_of_band_are_left_to_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    buffers: list[pickle.PickleBuffer] = []

    def every_second_in_band(buffer: pickle.PickleBuffer) -> bool:
        buffers.append(buffer)
        return len(buffers) > 1

    safepickle.dump([numbers(), numbers()], path, buffer_callback=every_second_in_band)
    assert MARK not in path.read_bytes()
    assert np.array_equal(safepickle.load(path, buffers=buffers[:1]), [numbers(), numbers()])
    with pytest.raises(ValueError, match="leave out mmap or buffers"):
        safepickle.load(path, buffers=buffers, mmap=True)
    with pytest.raises(pickle.UnpicklingError, match="not enough out-of-band buffers"):
        safepickle.load(path, mmap=True)


def test_what_cannot_be_mapped_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl.gz"
    safepickle.dump(numbers(), path)
    with pytest.raises(ValueError, match=r"x\.pkl\.gz is compressed \(gzip\).*compress=False"):
        safepickle.load(path, mmap=True)
    with pytest.raises(ValueError, match="not for guarded loads"):
        safepickle.load(path, mmap=True, allow=())
    with pytest.raises(ValueError, match="pass its path"):
        safepickle.load("memory://x.pkl", mmap=True)
    with path.open("rb") as file, pytest.raises(ValueError, match="pass its path"):
        safepickle.load(file, mmap=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(pipe.write_bytes, b"N.")
        with pytest.raises(ValueError, match="pipe is a pipe or the like"):
            safepickle.load(pipe, mmap=True)
        writing.exception()


def test_a_checksum_is_verified_unless_it_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    safepickle.dump(numbers(), path)
    with pytest.raises(safepickle.ChecksumError, match="no checksum"):
        safepickle.load(path, mmap=True, checksum="require")
    safepickle.dump(numbers(), path, checksum=True)
    assert np.array_equal(safepickle.load(path, mmap=True, checksum="require"), numbers())
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(safepickle.ChecksumError, match="does not match"):
        safepickle.load(path, mmap=True)
    assert mapping_of(safepickle.load(path, mmap=True, checksum="ignore")) is not None


def test_files_that_are_no_whole_pickle_are_told_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"")
    with pytest.raises(safepickle.EmptyFileError, match="empty"):
        safepickle.load(path, mmap=True)
    path.write_bytes(b"<!DOCTYPE html><html>404</html>")
    with pytest.raises(safepickle.NotAPickleError, match="HTML"):
        safepickle.load(path, mmap=True)
    safepickle.dump([numbers(), numbers()], path)
    data = path.read_bytes()
    for length in range(2, len(data), 9973):
        path.write_bytes(data[:length])
        with pytest.raises((pickle.UnpicklingError, EOFError), match=r"truncated|Ran out of input"):
            safepickle.load(path, mmap=True)


def test_names_that_are_nowhere_are_told_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(safepickle.dumps(Node(weights=numbers())).replace(b"Node", b"Nope"))
    with pytest.raises(safepickle.MissingGlobalError, match="Nope"):
        safepickle.load(path, mmap=True)
    safepickle.dump(Node(weights=numbers()), path)
    loaded = safepickle.load(path, mmap=True, aliases={"nodes.Node": "types.SimpleNamespace"})
    assert mapping_of(loaded.weights) is not None


SIZES = st.sampled_from([0, 1, 1000, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])
PARTS = st.one_of(
    st.builds(lambda size: numbers(size, "u1"), SIZES),
    st.builds(lambda size: np.arange(size, dtype="u1").tobytes(), SIZES),
    st.builds(lambda size: bytearray(np.arange(size, dtype="u1").tobytes()), SIZES),
    st.lists(st.text(), max_size=3),
    st.none(),
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(PARTS, max_size=6), checksum=st.booleans())
def test_whatever_lies_between_them(tmp_path_factory: pytest.TempPathFactory, parts: list[Any], checksum: bool) -> None:
    path = tmp_path_factory.mktemp("parts") / "x.pkl"
    safepickle.dump(parts, path, checksum=checksum)
    for loaded in (safepickle.load(path, mmap=True), safepickle.load(path), pickle.loads(path.read_bytes())):
        assert len(loaded) == len(parts)
        for part, copy in zip(parts, loaded, strict=True):
            assert type(copy) is type(part)
            assert np.array_equal(copy, part) if isinstance(part, np.ndarray) else copy == part
    large = [part for part in parts if isinstance(part, np.ndarray) and part.nbytes >= LARGE]
    mapped = [copy for copy in safepickle.load(path, mmap=True) if isinstance(copy, np.ndarray)]
    assert sum(mapping_of(copy) is not None for copy in mapped) == len(large)
