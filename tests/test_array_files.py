"""Files of arrays are listed by their headers alone, and held against their length."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from safepickle.storage.array_files import CannotListError, Contents, list_arrays, numpy_dtype
from safepickle.storage.formats import look_at


def contents(data: bytes, start: int = 0) -> Contents:
    file = io.BytesIO(data)
    form = look_at(file, start)
    assert form is not None
    listed = list_arrays(file, form, start)
    assert listed is not None
    return listed


def safetensors(entries: dict[str, Any], data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def npz(save: Any = np.savez, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_are_listed_and_read():
    weights = np.arange(6, dtype="f4").reshape(2, 3)
    data = weights.tobytes() + b"\1\0"
    listed = contents(
        safetensors(
            {"__metadata__": {"format": "pt"}, "w": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [1], 24, 26)}, data
        )
    )
    assert listed.facts == {"format": "pt"}
    assert [(name, array.dtype, array.shape, array.nbytes) for name, array in listed.arrays.items()] == [
        ("w", "float32", (2, 3), 24),
        ("b", "bfloat16", (1,), 2),
    ]
    assert [array.read() for array in listed.arrays.values()] == [data[:24], data[24:]]


@pytest.mark.parametrize(
    ("entries", "data", "said"),
    [
        ({"w": entry("F32", [2], 0, 8)}, bytes(4), "claim 8 bytes, and 4"),
        ({"w": entry("F32", [3], 0, 8)}, bytes(8), "not as many bytes"),
        ({"w": entry("F32", [2], 0, 8), "v": entry("F32", [2], 4, 12)}, bytes(12), "overlap"),
        ({"w": entry("F32", [2], 4, 12)}, bytes(12), "leave bytes out"),
        ({"w": entry("F32", [-2], 0, 8)}, bytes(8), "malformed"),
        ({"w": 1}, b"", "malformed"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, "8"]}}, bytes(8), "malformed"),
    ],
)
def test_safetensors_that_contradict_themselves_are_not_listed(entries: Any, data: bytes, said: str):
    with pytest.raises(CannotListError, match=said):
        contents(safetensors(entries, data))


@pytest.mark.parametrize("header", [b'{"a":1,"a":2}', b"{" * 9_000, b'{"a":' * 9_000, b"{'a': 1}", b'{"a": 1}'[:-1]])
def test_headers_that_two_readers_could_read_in_two_ways_are_not_listed(header: bytes):
    with pytest.raises(CannotListError, match="no JSON as it should be"):
        contents(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_are_listed_and_read(save: Any):
    arrays = {
        "ones": np.ones((3, 4)),
        "fortran": np.asfortranarray(np.arange(6, dtype="i2").reshape(2, 3)),
        "flags": np.array([True, False]),
        "big": np.arange(3, dtype=">f4"),
        "texts": np.array(["a", "bc"]),
        "nothing": np.zeros((0, 3), "c8"),
        "scalar": np.array(7, "u1"),
        "pairs": np.zeros(2, [("a", "i4"), ("b", "f8")]),
        "objects": np.array([None, {}], dtype=object),
    }
    listed = contents(npz(save, **arrays)).arrays
    assert [listed[name].dtype for name in arrays] == [
        "float64", "int16", "bool", ">f4", "U2", "complex64", "uint8", "structured (2 fields)", "object",
    ]  # fmt: skip
    for name, array in arrays.items():
        found = listed[name]
        assert (found.shape, found.order) == (array.shape, "F" if name == "fortran" else "C")
        if name == "objects":
            assert found.read is None
        else:
            assert found.read() == array.tobytes(order="A")
            assert found.nbytes == array.nbytes


def test_npy_is_listed_wherever_it_begins_in_a_file():
    array = np.arange(6.0).reshape(2, 3)
    found = contents(b"before" + npy(array), 6).arrays[""]
    assert (found.dtype, found.shape, found.read()) == ("float64", (2, 3), array.tobytes())


@pytest.mark.parametrize("damage", ["cut off", "shape", "code", "nested"])
def test_npy_that_contradicts_itself_is_not_listed(damage: str):
    data = npy(np.arange(6.0))
    damaged = {
        "cut off": data[:-3],
        "shape": data.replace(b"(6,)", b"(7,)"),
        "code": data.replace(b"(6,)", b"f() "),
        "nested": data[:10] + (b"(" * 500).ljust(len(data) - 10),
    }[damage]
    with pytest.raises(CannotListError, match=r"malformed|claims"):
        contents(damaged)


def test_members_that_could_unpack_to_very_much_at_once_are_not_read():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy(np.zeros(1000)))
    with pytest.raises(CannotListError, match="compressed in an unusual way"):
        contents(file.getvalue())


def test_damage_of_a_member_is_seen_where_it_is_read():
    values = np.arange(10_000.0)
    data = npz(a=values)
    place = data.index(values.tobytes()) + 40_000
    listed = contents(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(CannotListError, match=r"damaged: Bad CRC-32"):
        listed.arrays["a"].read()


@pytest.mark.parametrize("write", ["npy", "npz", "compressed"])
def test_an_array_is_read_in_parts_forward_and_back(write: str):
    values = np.arange(50_000.0)
    file = io.BytesIO()
    {"npy": np.save, "npz": lambda f, a: np.savez(f, a=a), "compressed": lambda f, a: np.savez_compressed(f, a=a)}[
        write
    ](file, values)
    (found,) = contents(file.getvalue()).arrays.values()
    assert found.read is not None
    parts = [found.read(start, 70_001) for start in range(0, 400_000, 70_001)]
    assert b"".join(parts) == values.tobytes()
    assert found.read(8, 16) == values[1:3].tobytes()
    assert found.read(399_992) == values[-1:].tobytes()


def test_formats_without_arrays_are_not_listed():
    file = io.BytesIO(b"<html></html>")
    assert list_arrays(file, look_at(file)) is None


def test_element_types_have_the_names_that_torch_and_numpy_give_them():
    codes = {"<f4": "float32", "f2": "float16", "|b1": "bool", "<M8[ns]": "<M8[ns]", "|S5": "S5", "|O": "object"}
    assert {code: numpy_dtype(code) for code in codes} == codes
