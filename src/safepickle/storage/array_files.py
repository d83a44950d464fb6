"""Files of named arrays that are no pickles (safetensors, npy, npz, HDF5, ``.keras``): what they hold.

Headers and tables of contents are read, and held against the length of the file. Nothing of it is run, and no library
of the format is asked.
"""

from __future__ import annotations

import ast
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any, Final

from safepickle.storage.contents import (
    LONGEST_JSON,
    CannotListError,
    Contents,
    MemberReader,
    StoredArray,
    numpy_dtype,
    open_zip,
    parse_json,
    read_at,
)
from safepickle.storage.formats import HDF5, KERAS, NPY, NPZ, SAFETENSORS, Format
from safepickle.storage.hdf5 import list_hdf5
from safepickle.storage.keras_files import list_keras
from safepickle.storage.reading import Reader, read_file

__all__ = ["list_arrays"]

_LONGEST_NPY_HEADER: Final = 10_000
"""The longest header that numpy itself parses, in bytes."""

_MOST_DIMENSIONS: Final = 64

_SAFETENSORS_DTYPES: Final = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "U16": ("uint16", 16),
    "I16": ("int16", 16),
    "U32": ("uint32", 32),
    "I32": ("int32", 32),
    "U64": ("uint64", 64),
    "I64": ("int64", 64),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "C64": ("complex64", 64),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F4": ("float4_e2m1", 4),
}
"""Name in the file -> torch's name, and bits of one element."""


def list_arrays(file: IO[bytes], form: Format, start: int = 0) -> Contents | None:
    """List what a file of arrays holds.

    Args:
        file: Seekable; left standing anywhere.
        form: As `safepickle.storage.formats.look_at` has told it.
        start: Where it begins; it reaches to the end of the file.

    Returns:
        The contents, or None for a format that is not read.

    Raises:
        CannotListError: The file is damaged, or its header is too long.
    """
    reader = _READERS.get(form.name)
    try:
        return None if reader is None else reader(file, start)
    except (ValueError, OverflowError) as error:
        # zipfile takes what the tables say for places in the file, and some lie before its start.
        raise CannotListError(f"its tables are malformed: {error}") from error


def _safetensors(file: IO[bytes], start: int) -> Contents:
    """Read the header of a safetensors file.

    Source:
        The format: 8 bytes with the length of the header, little-endian; the header, JSON; the arrays, without gaps.
    """
    size = file.seek(0, io.SEEK_END) - start
    length = int.from_bytes(read_at(file, start, 8), "little")
    if length > size - 8:
        raise CannotListError(f"the header claims {length:,} bytes, and {size - 8:,} are left")
    header = parse_json(read_at(file, start + 8, min(length, LONGEST_JSON + 1)), "the header")
    contents = Contents()
    data = start + 8 + length
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            if type(entry) is dict:
                contents.facts |= {key: str(value) for key, value in entry.items()}
            continue
        dtype, shape, begin, end = _tensor_entry(name, entry)
        spans.append((begin, end))
        contents.arrays[name] = StoredArray(dtype, shape, end - begin, read_file(file, data + begin, end - begin))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise CannotListError("its tensors overlap, or leave bytes out")
        reached = end
    if reached != size - 8 - length:
        raise CannotListError(f"its tensors claim {reached:,} bytes, and {size - 8 - length:,} are there")
    return contents


def _tensor_entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if type(entry) is not dict or type(entry.get("dtype")) is not str:
        raise CannotListError(f"the entry {name[:80]!r} of the header is malformed")
    shape, span = _shape(entry.get("shape")), entry.get("data_offsets")
    if shape is None or type(span) is not list or len(span) != 2 or not all(type(end) is int for end in span):
        raise CannotListError(f"the entry {name[:80]!r} of the header is malformed")
    begin, end = span
    dtype, bits = _SAFETENSORS_DTYPES.get(entry["dtype"], (entry["dtype"], None))
    if begin > end or (bits is not None and 8 * (end - begin) != bits * math.prod(shape)):
        raise CannotListError(f"the tensor {name[:80]!r} has not as many bytes as its shape asks for")
    return dtype, shape, begin, end


def _npy(file: IO[bytes], start: int) -> Contents:
    size = file.seek(0, io.SEEK_END) - start
    dtype, shape, order, offset = _npy_header(read_at(file, start, min(size, _LONGEST_NPY_HEADER)))
    read = read_file(file, start + offset, size - offset)
    return Contents({"": _npy_array(dtype, shape, order, size - offset, read)})


def _npy_array(dtype: Any, shape: tuple[int, ...], order: str, nbytes: int, read: Reader) -> StoredArray:
    if _holds_objects(dtype):
        return StoredArray("object", shape, nbytes, None, order)
    name = numpy_dtype(dtype) if type(dtype) is str else f"structured ({len(dtype)} fields)"
    _hold_size(name, shape, nbytes)
    return StoredArray(name, shape, nbytes, read, order)


def _holds_objects(dtype: Any) -> bool:
    """Tell whether an element type, or a field of it, is that of objects: numpy pickles all elements then."""
    if type(dtype) is str:
        return numpy_dtype(dtype) == "object"
    if type(dtype) is tuple:  # of a subarray: its type and shape
        return bool(dtype) and _holds_objects(dtype[0])
    return type(dtype) is list and any(_holds_objects(field[1:]) for field in dtype if type(field) is tuple)


def _hold_size(dtype: str, shape: tuple[int, ...], nbytes: int) -> None:
    bits = re.fullmatch(r"(?:u?int|float|complex)(\d+)", dtype)
    itemsize = int(bits[1]) // 8 if bits is not None else {"bool": 1}.get(dtype)
    if itemsize is not None and math.prod(shape) * itemsize != nbytes:
        raise CannotListError(f"the array claims {math.prod(shape) * itemsize:,} bytes, and {nbytes:,} are there")


def _npy_header(head: bytes) -> tuple[Any, tuple[int, ...], str, int]:
    """Parse the header of an npy file.

    Returns:
        The code of the element type, or the list of its fields; shape; order; where the elements begin.

    Source:
        ``numpy.lib.format``: the magic word, version (2 bytes), length (2 bytes, from version 2 on 4), a literal dict.
    """
    if head[:6] != b"\x93NUMPY" or len(head) < 12:
        raise CannotListError("an array has no header")
    width = 2 if head[6] == 1 else 4
    offset = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if offset > len(head):
        raise CannotListError("the header of an array is cut off, or too long")
    try:
        fields = ast.literal_eval(head[8 + width : offset].decode("utf-8" if head[6] >= 3 else "latin-1").strip())
        dtype, shape, fortran = fields["descr"], _shape(fields["shape"]), fields["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise CannotListError("the header of an array is malformed") from error
    if shape is None or type(dtype) not in (str, list, tuple):
        raise CannotListError("the header of an array is malformed")
    return dtype, shape, "F" if fortran else "C", offset


def _npz(file: IO[bytes], start: int) -> Contents:
    contents = Contents()
    archive = open_zip(file, start)
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in contents.arrays:
            raise CannotListError(f"the member {name[:80]!r} is there twice")
        size = member.file_size
        dtype, shape, order, offset = _npy_header(MemberReader(archive, member, 0, min(size, _LONGEST_NPY_HEADER))())
        array = _npy_array(dtype, shape, order, size - offset, MemberReader(archive, member, offset, size - offset))
        contents.arrays[name] = replace(array, crc=member.CRC)
    return contents


def _shape(value: Any) -> tuple[int, ...] | None:
    if type(value) not in (list, tuple) or len(value) > _MOST_DIMENSIONS:
        return None
    if not all(type(length) is int and 0 <= length < 1 << 63 for length in value):
        return None
    return tuple(value)


_READERS: Final[dict[str, Callable[[IO[bytes], int], Contents]]] = {
    SAFETENSORS.name: _safetensors,
    NPY.name: _npy,
    NPZ.name: _npz,
    HDF5.name: list_hdf5,
    KERAS.name: list_keras,
}
