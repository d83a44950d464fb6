"""Files of named arrays that are no pickles (safetensors, npy, npz): what they hold, and the bytes of each array.

Headers and tables of contents are read, and held against the length of the file. Nothing of it is run, and no library
of the format is asked.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final

from safepickle.storage.formats import NPY, NPZ, SAFETENSORS, Format
from safepickle.storage.reading import Reader

__all__ = ["CannotListError", "Contents", "StoredArray", "list_arrays", "numpy_dtype"]

_LONGEST_JSON: Final = 1 << 25
"""The longest header that is parsed, in bytes; parsed, it takes some ten times as much."""

_LONGEST_NPY_HEADER: Final = 10_000
"""The longest header that numpy itself parses, in bytes."""

_MOST_DIMENSIONS: Final = 64
_COPY_BYTES: Final = 1 << 20

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

_NUMPY_KINDS: Final = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
_NUMPY_CODE: Final = re.compile(r"([<>|=]?)([a-zA-Z])(\d*)")


class CannotListError(Exception):
    """The file contradicts itself, or is of a kind that is not read; the text says how."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file.

    Attributes:
        dtype: As torch and numpy call it, such as ``"float32"``; numpy's code, such as ``">f4"``, for what has no such
            name or is not little-endian; ``"object"`` for elements that are pickled.
        shape: Length of each dimension.
        nbytes: How many bytes `read` returns.
        read: Returns the bytes of the elements, and may raise `CannotListError` or OSError; None for ``"object"``.
            It works as long as the file is open, and leaves it standing anywhere.
        order: ``"C"``, or ``"F"`` where the first index runs fastest.
        crc: The CRC-32 of the array and its header, where the file says it.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    read: Reader | None
    order: str = "C"
    crc: int | None = None


@dataclass(slots=True)
class Contents:
    """What a file of arrays holds.

    Attributes:
        arrays: By name, in the order of the file. The array of an npy file has the name ``""``.
        facts: What the file says of itself.
        notes: What was not listed, and what would run code where another program loads it.
    """

    arrays: dict[str, StoredArray] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    return None if reader is None else reader(file, start)


def numpy_dtype(code: str) -> str:
    """Return the name of an element type by numpy's code: ``float32`` for ``<f4`` or ``f4``."""
    match = _NUMPY_CODE.fullmatch(code)
    if match is None:
        return code
    byteorder, kind, size = match.groups()
    if kind == "O":
        return "object"
    if byteorder == ">" and size not in ("", "0", "1"):
        return code
    if kind == "b" and size in ("", "1"):
        return "bool"
    name = _NUMPY_KINDS.get(kind)
    return f"{name}{8 * int(size)}" if name is not None and size else code.removeprefix(byteorder)


def _safetensors(file: IO[bytes], start: int) -> Contents:
    """Read the header of a safetensors file.

    Source:
        The format: 8 bytes with the length of the header, little-endian; the header, JSON; the arrays, without gaps.
    """
    size = file.seek(0, io.SEEK_END) - start
    length = int.from_bytes(_read_at(file, start, 8), "little")
    if length > size - 8:
        raise CannotListError(f"the header claims {length:,} bytes, and {size - 8:,} are left")
    header = parse_json(_read_at(file, start + 8, min(length, _LONGEST_JSON + 1)), "the header")
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
        contents.arrays[name] = StoredArray(dtype, shape, end - begin, _reading(file, data + begin, end - begin))
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
    dtype, shape, order, offset = _npy_header(_read_at(file, start, min(size, _LONGEST_NPY_HEADER)))
    read = _reading(file, start + offset, size - offset)
    return Contents({"": _npy_array(dtype, shape, order, size - offset, read)})


def _npy_array(dtype: Any, shape: tuple[int, ...], order: str, nbytes: int, read: Reader) -> StoredArray:
    name = numpy_dtype(dtype) if type(dtype) is str else f"structured ({len(dtype)} fields)"
    _hold_size(name, shape, nbytes)
    return StoredArray(name, shape, nbytes, None if name == "object" else read, order)


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


def open_zip(file: IO[bytes], start: int) -> Any:
    """Open a zip archive, whose members can be read as long as `file` is open.

    Raises:
        CannotListError: Its table of contents is damaged.
    """
    import zipfile

    file.seek(start)
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CannotListError(f"the archive is damaged: {error}") from error


class MemberReader:
    """Reads a part of a member of a zip archive, and unpacks no more than up to there, and forward nothing twice.

    Args:
        archive: Open.
        member: Of it.
        offset: Where in the member the part begins.
        size: Bytes of the part.
    """

    def __init__(self, archive: Any, member: Any, offset: int, size: int) -> None:
        self._archive = archive
        self._member = member
        self._offset = offset
        self._size = size
        self._opened: Any = None

    def __call__(self, start: int = 0, length: int | None = None, /) -> bytes:
        """Return `length` bytes from `start` on; None for all that are left.

        Raises:
            CannotListError: It is shorter, or damaged, or packed in a way that could unpack to very much at once.
        """
        import zipfile
        import zlib

        name = self._member.filename[:80]
        if self._member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or self._member.flag_bits & 1:
            raise CannotListError(f"the member {name!r} is encrypted, or compressed in an unusual way")
        begin = self._offset + start
        length = self._size - start if length is None else min(length, self._size - start)
        try:
            if self._opened is None or self._opened.tell() > begin:
                self._opened = self._archive.open(self._member)
            # Read rather than sought, so that its checksum is held against the bytes.
            while (before := begin - self._opened.tell()) and self._opened.read(min(before, _COPY_BYTES)):
                pass
            data: bytes = self._opened.read(length)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
            raise CannotListError(f"the member {name!r} is damaged: {error}") from error
        if len(data) != length:
            raise CannotListError(f"the member {name!r} is cut off")
        if start + length == self._size:
            self._opened = None
        return data


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object in which no name comes twice.

    Raises:
        CannotListError: It is none, or longer than what is parsed.
    """
    if len(data) > _LONGEST_JSON:
        raise CannotListError(f"{what} is longer than {_LONGEST_JSON:,} bytes")
    try:
        parsed = json.loads(data, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise CannotListError(f"{what} is no JSON as it should be: {error}") from error
    if type(parsed) is not dict:
        raise CannotListError(f"{what} is no JSON object")
    return parsed


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name comes twice")
    return made


def _shape(value: Any) -> tuple[int, ...] | None:
    if type(value) not in (list, tuple) or len(value) > _MOST_DIMENSIONS:
        return None
    if not all(type(length) is int and 0 <= length < 1 << 63 for length in value):
        return None
    return tuple(value)


def _reading(file: IO[bytes], offset: int, size: int) -> Reader:
    def read(start: int = 0, length: int | None = None, /) -> bytes:
        return _read_at(file, offset + start, size - start if length is None else min(length, size - start))

    return read


def _read_at(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise CannotListError("the file is cut off")
    return data


_READERS: Final[dict[str, Callable[[IO[bytes], int], Contents]]] = {
    SAFETENSORS.name: _safetensors,
    NPY.name: _npy,
    NPZ.name: _npz,
}
