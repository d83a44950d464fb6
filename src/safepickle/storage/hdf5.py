"""HDF5 files, as far as Keras and h5py write them without being asked for more: names, element types, shapes, bytes.

A reader of its own, since the library of the format is C code that was not made for files of strangers: it may crash on
them, and opens further files that they name. Links to other files are listed and never followed.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import IO, Final

from safepickle.storage.contents import CannotListError, Contents, StoredArray, read_at
from safepickle.storage.reading import Reader, read_file, read_memory

__all__ = ["list_hdf5"]

_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_NOWHERE: Final = (1 << 64) - 1
"""The address of what was never written."""

_READ_PER_BYTE: Final = 4
_READ_FLOOR: Final = 1 << 20
_READ_AT_LEAST: Final = 128
"""What listing may read: so many bytes, and so many for each byte of the file; a part counts as so many at least."""

_LONGEST_HEADER: Final = 1 << 20
_LONGEST_NAME: Final = 1 << 10
_MOST_DIMENSIONS: Final = 32

# Messages of an object's header.
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL, _LAYOUT = 1, 2, 3, 6, 7, 8
_FILTERS, _ATTRIBUTE, _CONTINUED, _TABLE = 11, 12, 16, 17

_SOFT_LINK: Final = 2
_FLOATS: Final = {2: "float16", 4: "float32", 8: "float64"}
_BFLOAT16_EXPONENT: Final = 8


def list_hdf5(file: IO[bytes], start: int, size: int | None = None) -> Contents:
    """List the arrays of an HDF5 file.

    Args:
        file: Seekable; left standing anywhere.
        start: Where it begins.
        size: How long it is; by default, it reaches to the end of the file.

    Raises:
        CannotListError: It is damaged, or newer parts of the format are used.

    Source:
        HDF5 File Format Specification, version 3.0: superblocks 0 and 1, object headers 1, groups as symbol tables.
    """
    left = file.seek(0, io.SEEK_END) - start
    size = left if size is None else size
    if size > left:
        raise CannotListError(f"it is cut off: it claims {size:,} bytes, and {left:,} are there")
    try:
        return _Reader(file, start, size).run()
    except (struct.error, IndexError) as error:
        raise CannotListError("a part of it is cut off") from error


class _Reader:
    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._left = _READ_FLOOR + _READ_PER_BYTE * size
        self._found = Contents()

    def run(self) -> Contents:
        head = self._at(0, min(self._size, 120))
        if head[:8] != _MAGIC or len(head) < 100:
            raise CannotListError("it has no superblock")
        if head[8] > 1 or head[13:15] != b"\x08\x08":
            self._leave_out("it is written in a layout of HDF5 that is not listed")
            return self._found
        # Version 1 has four more bytes.
        base, _, end, _, _, root = struct.unpack_from("<6Q", head, 24 if head[8] == 0 else 28)
        if base or end > self._size:
            raise CannotListError(f"it is cut off: it claims {end:,} bytes, and {self._size:,} are there")
        seen = {root}
        waiting = [("", root)]
        while waiting:
            path, address = waiting.pop()
            for name, child in reversed(list(self._object(path, address))):
                # Hard links make the same object known by several names, or a circle.
                if child not in seen:
                    seen.add(child)
                    waiting.append((_inside(path, name), child))
        return self._found

    def _object(self, path: str, address: int) -> Iterator[tuple[str, int]]:
        """Note the array that stands at an address, or yield the members of the group there."""
        messages: dict[int, bytes] = {}
        is_bfloat16 = False
        for kind, data in self._messages(address):
            messages.setdefault(kind, data)
            if kind == _LINK:
                yield from self._link(path, data)
            is_bfloat16 = is_bfloat16 or (kind == _ATTRIBUTE and _attribute_name(data) == b"dtype")
        if _TABLE in messages:
            table, heap = struct.unpack_from("<2Q", messages[_TABLE])
            yield from self._members(path, table, heap)
        elif _LINK_INFO in messages and messages[_LINK_INFO][-16:-8] != _NOWHERE.to_bytes(8, "little"):
            self._leave_out(f"the members of {path[:80] or 'its root'} are in a layout of HDF5 that is not listed")
        elif _DATATYPE in messages and _DATASPACE in messages and _LAYOUT in messages:
            self._found.arrays[path] = self._array(path, messages, is_bfloat16)

    def _array(self, path: str, messages: dict[int, bytes], is_bfloat16: bool) -> StoredArray:
        dtype, itemsize = _datatype(messages[_DATATYPE])
        if dtype == "V2" and is_bfloat16:
            dtype = "bfloat16"  # as Keras writes it
        shape = _dataspace(messages[_DATASPACE])
        nbytes = math.prod(shape) * itemsize
        if _EXTERNAL in messages:
            self._found.notes.append(f"{path[:80]} says that its elements lie in another file, which was not read")
            return StoredArray(dtype, shape, nbytes, None)
        layout = messages[_LAYOUT]
        read: Reader | None = None
        if _FILTERS not in messages and layout[0] in (3, 4) and not dtype.startswith("object"):
            if layout[1] == 0:
                held = layout[4 : 4 + int.from_bytes(layout[2:4], "little")]
                _hold_size(path, nbytes, len(held))
                read = read_memory(held)
            elif layout[1] == 1:
                address, length = struct.unpack_from("<2Q", layout, 2)
                if address != _NOWHERE:
                    _hold_size(path, nbytes, length)
                    self._hold_inside(address, length)
                    read = read_file(self._file, self._start + address, length)
        return StoredArray(dtype, shape, nbytes, read)

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """Yield the messages of an object's header, the blocks in which it goes on included."""
        prefix = self._at(address, 16)
        if prefix[:4] == b"OHDR":
            self._leave_out("a part of it is written in a newer layout of HDF5, which is not listed")
            return
        version, _, count, _, length = struct.unpack_from("<2BHII", prefix)
        if version != 1:
            raise CannotListError("the header of an object is malformed")
        blocks = [(address + 16, length)]
        read = 0
        while blocks:
            address, length = blocks.pop(0)
            read += length
            if read > _LONGEST_HEADER:
                raise CannotListError("the header of an object is too long")
            block, position = self._at(address, length), 0
            while position + 8 <= len(block) and count:
                kind, size = struct.unpack_from("<2H", block, position)
                data = block[position + 8 : position + 8 + size]
                position += 8 + size
                count -= 1
                if kind == _CONTINUED:
                    blocks.append(struct.unpack_from("<2Q", data))
                else:
                    yield kind, data

    def _members(self, path: str, table: int, heap: int) -> Iterator[tuple[str, int]]:
        """Yield the names and addresses of what lies in a group: a B-tree of tables, and a heap of names."""
        prefix = self._at(heap, 32)
        length, _, names = struct.unpack_from("<3Q", prefix, 8)
        if prefix[:4] != b"HEAP":
            raise CannotListError("the names of a group are malformed")
        heap_of_names = self._at(names, length)
        nodes = [(table, 32)]
        while nodes:
            address, above = nodes.pop()
            prefix = self._at(address, 24)
            kind, level, count = struct.unpack_from("<2BH", prefix, 4)
            if prefix[:4] != b"TREE" or kind != 0 or level >= above:
                raise CannotListError("the table of a group is malformed")
            entries = struct.unpack_from(f"<{2 * count}Q", self._at(address + 24, 16 * count))
            children = entries[1::2]
            if level:
                nodes += [(child, level) for child in reversed(children)]
                continue
            for child in children:
                yield from self._symbols(path, child, heap_of_names)

    def _symbols(self, path: str, address: int, names: bytes) -> Iterator[tuple[str, int]]:
        prefix = self._at(address, 8)
        if prefix[:4] != b"SNOD":
            raise CannotListError("the table of a group is malformed")
        (count,) = struct.unpack_from("<H", prefix, 6)
        block = self._at(address + 8, 40 * count)
        for position in range(0, 40 * count, 40):
            offset, header, cached = struct.unpack_from("<2QI", block, position)
            end = names.find(b"\0", offset, offset + _LONGEST_NAME)
            if end < 0:
                raise CannotListError("the names of a group are malformed")
            name = names[offset:end].decode("utf-8", "backslashreplace")
            if cached == _SOFT_LINK:
                self._note_link(path, name)
            else:
                yield name, header

    def _link(self, path: str, data: bytes) -> Iterator[tuple[str, int]]:
        """Yield the member of a group that a message names."""
        flags = data[1]
        # The kind of the link, the order in which it was made, and the encoding of its name are there on request.
        is_hard = not flags & 8 or data[2] == 0
        position = 2 + bool(flags & 8) + 8 * bool(flags & 4) + bool(flags & 16)
        width = 1 << (flags & 3)
        length = int.from_bytes(data[position : position + width], "little")
        end = position + width + length
        name = data[position + width : end].decode("utf-8", "backslashreplace")
        if is_hard:
            yield name, int.from_bytes(data[end : end + 8], "little")
        else:
            self._note_link(path, name)

    def _note_link(self, path: str, name: str) -> None:
        self._found.notes.append(f"{_inside(path, name)[:80]} is a link, and was not followed")

    def _leave_out(self, note: str) -> None:
        self._found.notes.append(note)
        self._found.complete = False

    def _hold_inside(self, address: int, length: int) -> None:
        if address + length > self._size:
            raise CannotListError("a part of it lies outside of the file: it is cut off")

    def _at(self, address: int, length: int) -> bytes:
        self._left -= max(length, _READ_AT_LEAST)
        if self._left < 0:
            raise CannotListError("its parts overlap")
        self._hold_inside(address, length)
        return read_at(self._file, self._start + address, length)


def _inside(group: str, name: str) -> str:
    return f"{group}/{name}" if group else name


def _hold_size(path: str, wanted: int, there: int) -> None:
    if wanted != there:
        raise CannotListError(f"the array {path[:80]!r} claims {wanted:,} bytes, and {there:,} are there")


def _attribute_name(data: bytes) -> bytes:
    """Return the name of an attribute, or nothing for a newer kind."""
    return data[8 : 8 + int.from_bytes(data[2:4], "little")].rstrip(b"\0") if data[:1] == b"\1" else b""


def _dataspace(data: bytes) -> tuple[int, ...]:
    version, rank = data[0], data[1]
    if version not in (1, 2) or rank > _MOST_DIMENSIONS:
        raise CannotListError("the shape of an array is malformed")
    return struct.unpack_from(f"<{rank}Q", data, 8 if version == 1 else 4)


def _datatype(data: bytes) -> tuple[str, int]:
    """Return the name of an element type, and the bytes of one element."""
    kind, bits = data[0] & 15, data[1]
    (size,) = struct.unpack_from("<I", data, 4)
    big = ">" if bits & 1 and size > 1 else ""
    match kind:
        case 0:
            signed = bits & 8
            return (f">{'i' if signed else 'u'}{size}" if big else f"{'int' if signed else 'uint'}{8 * size}"), size
        case 1 if big:
            return f">f{size}", size
        case 1:
            is_bfloat16 = size == 2 and len(data) > 13 and data[13] == _BFLOAT16_EXPONENT
            return "bfloat16" if is_bfloat16 else _FLOATS.get(size, f"f{size}"), size
        case 3:
            return f"S{size}", size
        case 8 if size == 1:
            return "bool", size  # h5py's, an enumeration of FALSE and TRUE
        case 9:
            return "object (of varying length)", size
    return f"V{size}", size
