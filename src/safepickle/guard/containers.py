"""Zip archives as torch writes them, read strictly: every reader must see the same members.

A zip has two tables of contents, one in front of each member and one at the end. Where they differ, where a member
comes twice, or where bytes lie between, before or behind the members, two readers see two files: a scanner one, torch
the other.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, Final, NamedTuple

from safepickle.guard.limits import Malformed, Refusal

__all__ = ["Member", "TorchArchive", "read_members", "read_torch_archive"]

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_MOST_MEMBERS: Final = 1 << 20
_ENCRYPTED: Final = 0x2041
_DESCRIPTOR: Final = 0x0008
_LITTLE_RECORD: Final = 256
_DESCRIPTORS: Final = (0, 12, 16, 20, 24)
"""Sizes of what may follow a member: nothing, or its sizes again."""


class Member(NamedTuple):
    """One member of an archive.

    Attributes:
        name: As both tables have it.
        offset: Of its data in the file.
        size: Of its data.
        start: Of its header.
        crc: What the tables say of its CRC-32; its bytes were not held against it.
    """

    name: str
    offset: int
    size: int
    start: int
    crc: int


class _Entry(NamedTuple):
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    start: int


def read_members(file: Any, start: int = 0) -> dict[str, Member]:
    """Read the table of contents of a zip archive, and hold it against the headers of the members.

    Args:
        file: Open for reading, and seekable; left standing anywhere.
        start: Where the archive begins; it must reach to the end of the file.

    Raises:
        Malformed: It is no whole archive.
        Refusal: Two readers could see two archives in it, or it is compressed or encrypted.
    """
    size = file.seek(0, os.SEEK_END) - start
    entries, directory = _read_directory(file, start, size)
    members: dict[str, Member] = {}
    folded: set[str] = set()
    for entry in entries:
        member = _check_member(file, start, directory, entry)
        if member.name.casefold() in folded:
            raise Refusal(f"the member {member.name!r} is there twice, and two readers would take different ones")
        folded.add(member.name.casefold())
        members[member.name] = member
    _check_gaps(file, start, list(members.values()), directory)
    return members


class TorchArchive(NamedTuple):
    """A zip archive that torch wrote.

    Attributes:
        pickle: The member that holds the object.
        storages: The member that holds each storage, by its key.
        byteorder: The order of the bytes in the storages, as `sys.byteorder` has it.
    """

    pickle: Member
    storages: dict[str, Member]
    byteorder: str

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each storage, by its key."""
        return {key: member.size for key, member in self.storages.items()}


def read_torch_archive(file: object, start: int = 0) -> TorchArchive:
    """Read the table of contents of a torch archive, and what torch reads beside the pickle.

    Raises:
        Refusal: Its container could be read in two ways, or it is a program.
        Malformed: It is no whole torch archive.
    """
    members = read_members(file, start)
    root = _torch_root(members)
    byteorder = _check_records(file, start, root, members)
    data = f"{root}/data/"
    storages = {name.removeprefix(data): member for name, member in members.items() if name.startswith(data)}
    return TorchArchive(members[f"{root}/data.pkl"], storages, byteorder)


def _torch_root(members: dict[str, Member]) -> str:
    """Return the folder of a torch archive in which everything lies.

    Raises:
        Refusal: It is a TorchScript program, or holds more than one such folder.
        Malformed: It holds no pickle.
    """
    roots = {name.partition("/")[0] for name in members}
    if len(roots) != 1 or any("/" not in name for name in members):
        raise Refusal("its members do not lie in one folder, and two readers would take different ones")
    root = roots.pop()
    if f"{root}/constants.pkl" in members or any(name.startswith(f"{root}/code/") for name in members):
        raise Refusal("it is a TorchScript archive, which is a program: torch.jit.load runs it unguarded")
    if f"{root}/data.pkl" not in members:
        raise Malformed("it holds no data.pkl, so torch did not write it")
    return root


def _check_records(file: Any, start: int, root: str, members: dict[str, Member]) -> str:
    """Hold the small records that torch reads beside the pickle against what it takes, and return the byte order."""
    records: dict[str, bytes] = {}
    for name in ("version", ".format_version", "byteorder", ".storage_alignment", ".data/serialization_id"):
        member = members.get(f"{root}/{name}")
        if member is not None:
            if member.size > _LITTLE_RECORD:
                raise Malformed(f"the record {name!r} is too long")
            file.seek(start + member.offset)
            records[name] = file.read(member.size)
    version = records.get("version", b"").strip()
    if not version.isdigit() or not 1 <= int(version) <= 10:
        raise Malformed("the archive does not say which version of torch's format it has")
    byteorder = records.get("byteorder", sys.byteorder.encode())
    if byteorder not in (b"little", b"big"):
        raise Malformed("the byte order of the archive is unknown")
    if not records.get(".storage_alignment", b"64").isdigit():
        raise Malformed("the alignment of the archive's storages is no number")
    if not records.get(".data/serialization_id", b"").isascii():
        raise Malformed("the archive's name for itself is no number")
    return byteorder.decode()


def _read_directory(file: object, start: int, size: int) -> tuple[list[_Entry], int]:
    """Return the entries of the central directory and where it begins."""
    if size < _END.size:
        raise Malformed("the archive is cut off")
    end_at = size - _END.size
    end = _END.unpack(_read(file, start + end_at, _END.size))
    if end[0] != b"PK\5\6" or end[7]:
        raise Malformed(
            "the archive does not end with its table of contents: it was cut off, or something was appended"
        )
    count, length, offset = end[4], end[5], end[6]
    if end[1] or end[2] or end[3] != end[4]:
        raise Refusal("the archive is split over several files")
    directory_end = end_at
    locator_at = end_at - _LOCATOR.size
    if locator_at >= 0:
        locator = _LOCATOR.unpack(_read(file, start + locator_at, _LOCATOR.size))
        if locator[0] == b"PK\6\7":
            if locator[2] + _END64.size != locator_at or locator[1] != 0 or locator[3] != 1:
                raise Malformed("the 64-bit table of contents of the archive is not where it should be")
            end64 = _END64.unpack(_read(file, start + locator[2], _END64.size))
            if end64[0] != b"PK\6\6" or end64[1] != _END64.size - 12 or end64[6] != end64[7] or end64[4] or end64[5]:
                raise Malformed("the 64-bit table of contents of the archive is malformed")
            for short, wide, full in (
                (count, end64[7], 0xFFFF),
                (length, end64[8], 0xFFFFFFFF),
                (offset, end64[9], 0xFFFFFFFF),
            ):
                if short not in (full, wide):
                    raise Refusal("the two tables of contents of the archive differ")
            count, length, offset = end64[7], end64[8], end64[9]
            directory_end = locator[2]
    if offset + length != directory_end or count > min(_MOST_MEMBERS, length // _CENTRAL.size):
        raise Refusal(
            "the table of contents of the archive is not where it says: something was put before or behind it"
        )
    data = _read(file, start + offset, length)
    entries, position = [], 0
    for _ in range(count):
        entry, position = _parse_entry(data, position)
        entries.append(entry)
    if position != len(data):
        raise Malformed("the table of contents of the archive has a rest that is no entry")
    return entries, offset


def _parse_entry(data: bytes, position: int) -> tuple[_Entry, int]:
    """Parse one entry of the central directory."""
    if position + _CENTRAL.size > len(data):
        raise Malformed("the table of contents of the archive is cut off")
    fields = _CENTRAL.unpack_from(data, position)
    flags, method, crc, packed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
    name_end = position + _CENTRAL.size + fields[10]
    extra_end = name_end + fields[11]
    end = extra_end + fields[12]
    if fields[0] != b"PK\1\2" or end > len(data) or fields[13]:
        raise Malformed("the table of contents of the archive is malformed")
    size, packed, offset = _wide(data[name_end:extra_end], size, packed, fields[16])
    name = data[position + _CENTRAL.size : name_end]
    return _Entry(name, flags, method, crc, packed, size, offset), end


def _wide(extra: bytes, *values: int) -> list[int]:
    """Replace the values that do not fit 32 bits by those of the 64-bit extra field."""
    position, found = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            if found:
                raise Refusal("a member has two 64-bit sizes")
            found = extra[position + 4 : position + 4 + length]
        position += 4 + length
    result = []
    for value in values:
        if value == 0xFFFFFFFF:
            if len(found) < 8:
                raise Malformed("a 64-bit size is missing in the archive")
            value, found = int.from_bytes(found[:8], "little"), found[8:]
        result.append(value)
    return result


def _check_member(file: object, start: int, directory: int, entry: _Entry) -> Member:
    """Hold an entry of the table of contents against the header in front of the member."""
    try:
        name = entry.name.decode()
    except UnicodeDecodeError:
        raise Malformed("the name of a member is no UTF-8") from None
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or name.startswith("/") or ".." in parts or "" in parts:
        raise Refusal("the name of a member is no plain relative path")
    if entry.flags & _ENCRYPTED:
        raise Refusal(f"the member {name!r} is encrypted")
    if entry.method or entry.packed != entry.size:
        raise Refusal(f"the member {name!r} is compressed, which torch never writes: it may be a bomb")
    if entry.start + _LOCAL.size > directory:
        raise Malformed(f"the member {name!r} lies outside the archive")
    fields = _LOCAL.unpack(_read(file, start + entry.start, _LOCAL.size))
    local = _read(file, start + entry.start + _LOCAL.size, fields[9] + fields[10])
    size, packed = _wide(local[fields[9] :], fields[8], fields[7])
    described = entry.flags & _DESCRIPTOR
    same = (size, packed, fields[6]) == (entry.size, entry.packed, entry.crc) or (
        described and not (size or packed or fields[6])
    )
    if (
        fields[0] != b"PK\3\4"
        or local[: fields[9]] != entry.name
        or fields[2:4] != (entry.flags, entry.method)
        or not same
    ):
        raise Refusal(f"the header of the member {name!r} differs from the table of contents")
    offset = entry.start + _LOCAL.size + len(local)
    if offset + entry.size > directory:
        raise Malformed(f"the member {name!r} lies outside the archive")
    return Member(name, offset, entry.size, entry.start, entry.crc)


def _check_gaps(file: object, start: int, members: list[Member], directory: int) -> None:
    """Hold that the members lie one behind the other, with nothing before, between or behind them."""
    position = 0
    for member in sorted(members, key=lambda member: member.start):
        if member.start - position not in _DESCRIPTORS or (not position and member.start):
            raise Refusal(f"bytes that belong to no member lie before {member.name!r}, or members overlap")
        position = member.offset + member.size
    if directory - position not in _DESCRIPTORS:
        raise Refusal("bytes that belong to no member lie before the table of contents")


def _read(file: Any, offset: int, length: int) -> bytes:
    file.seek(offset)
    data: bytes = file.read(length)
    if len(data) != length:
        raise Malformed("the archive is cut off")
    return data
