"""What a file of named arrays holds, whatever its format; and reading its parts within bounds."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import IO, Any, Final

from safepickle.storage.reading import Reader

__all__ = [
    "LONGEST_JSON",
    "CannotListError",
    "Contents",
    "MemberReader",
    "StoredArray",
    "numpy_dtype",
    "open_zip",
    "parse_json",
    "read_at",
]

LONGEST_JSON: Final = 1 << 25
"""The longest header that is parsed, in bytes; parsed, it takes some ten times as much."""

_COPY_BYTES: Final = 1 << 20
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
        read: Returns the bytes of the elements, and may raise `CannotListError` or OSError; None where they do not lie
            in the file one after the other: pickled, compressed in parts, of varying length. It works as long as the
            file is open, and leaves it standing anywhere.
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
        complete: Whether all arrays were listed.
        documents: The JSON that lies beside them, parsed, by the name of its member.
    """

    arrays: dict[str, StoredArray] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    complete: bool = True
    documents: dict[str, Any] = field(default_factory=dict)


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
    if len(data) > LONGEST_JSON:
        raise CannotListError(f"{what} is longer than {LONGEST_JSON:,} bytes")
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


def read_at(file: IO[bytes], offset: int, length: int) -> bytes:
    """Read exactly so many bytes from a place of a file.

    Raises:
        CannotListError: There are fewer.
    """
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise CannotListError("the file is cut off")
    return data
