"""Change pickles as programs: opcodes, their arguments, names of the built-in list, and whole values.

Random bytes seldom get past the second opcode. Here a pickle is split into opcodes, some of which are taken out,
doubled, moved, changed, or replaced by a whole value, so that most programs still run for a while.
"""

from __future__ import annotations

import io
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable

from safepickle.guard.rules import BUILT_IN

_WIDTHS = {"uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "uint8": 8, "float8": 8}
_LINES = {
    "stringnl": 1,
    "stringnl_noescape": 1,
    "unicodestringnl": 1,
    "decimalnl_short": 1,
    "decimalnl_long": 1,
    "floatnl": 1,
}
_PREFIXES = {"string1": 1, "bytes1": 1, "unicodestring1": 1, "long1": 1, "string4": 4, "bytes4": 4, "unicodestring4": 4,
             "long4": 4, "bytes8": 8, "bytearray8": 8, "unicodestring8": 8}  # fmt: skip


def _layout(argument: pickletools.ArgumentDescriptor | None) -> tuple[str, int]:
    if argument is None:
        return "fixed", 0
    if argument.name == "stringnl_noescape_pair":
        return "lines", 2
    for shape, table in (("fixed", _WIDTHS), ("lines", _LINES), ("prefixed", _PREFIXES)):
        if argument.name in table:
            return shape, table[argument.name]
    raise KeyError(argument.name)


_LAYOUTS = {ord(opcode.code): _layout(opcode.arg) for opcode in pickletools.opcodes}
_BARE = [bytes([code]) for code, layout in _LAYOUTS.items() if layout == ("fixed", 0) and code != ord(".")]
# Reduce, make, build, append, set items, collect, and so on: the likelier, the more often.
_CONSUMERS = [bytes([code]) for code in b"RR\x81\x81\x92bbaesu\x90\x91tldo\x85\x86\x87012\x94Q\x97\x98"]

_USERS = (
    "Victim Filling Mapping PlainList PlainDict Slotted Stateful Chained Alike Color Pair Reference touch Victim.create"
)
_PAIRS = [
    *BUILT_IN,
    *(("os", "mkdir"), ("builtins", "eval"), ("__builtin__", "xrange"), ("copy_reg", "_reconstructor")),
    *(("guard.targets", name) for name in _USERS.split()),
]
_TYPES = "a f8 <f8 V8 m8 M8 O8 | < > = ns generic latin-1 latin1 utf-8 float32 cpu meta cuda:0 storage int"
_TEXTS = "1.5 1e9 nan sNaN 1/3 / .. 0 RED args extra fields data weight num_layers requires_grad is_safe _name_"
_ATTRIBUTES = "__dict__ __class__ __notes__ _metadata _backward_hooks _parameters _commit_removals _remove"
_WORDS = ["", "\0", "é", "a" * 300, *_TYPES.split(), *_TEXTS.split(), *_ATTRIBUTES.split()]
_NUMBERS = [
    *(0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 16, 24, 42, 63, 64, 127, 128, 255, 256, 1000, 65535, 65536, 2**20, 2**24, 2**30),
    *(2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 2**200),
]


def split(data: bytes) -> list[bytes]:
    """Split pickles, one after the other, into opcodes with their arguments; what is none is one piece at the end."""
    pieces = []
    position = 0
    while position < len(data):
        shape, amount = _LAYOUTS.get(data[position], ("", 0))
        end = position + 1
        if shape == "fixed":
            end += amount
        elif shape == "prefixed":
            end += amount
            end += int.from_bytes(data[position + 1 : end], "little")
        elif shape == "lines":
            for _ in range(amount):
                end = data.find(b"\n", end) + 1 or len(data) + 1
        else:
            end = len(data) + 1
        if end > len(data):
            pieces.append(data[position:])
            break
        pieces.append(data[position:end])
        position = end
    return pieces


class Author:
    """Writes and changes programs, by a seed.

    Args:
        seed: The same seed makes the same change.
        change_bytes: Changes bytes without knowing what they are.
    """

    def __init__(self, seed: int, change_bytes: Callable[[bytes, int], bytes]) -> None:
        self._random = random.Random(seed)
        self._change_bytes = change_bytes

    # Values: each is a program that pushes one.

    def name(self) -> bytes:
        module, name = self._random.choice(_PAIRS)
        if self._random.random() < 0.6:
            return f"c{module}\n{name}\n".encode()
        return self._text(module) + self._text(name) + b"\x93"

    def value(self, depth: int = 0) -> bytes:
        choose = self._random.random
        if depth > 3 or choose() < 0.5:
            return self._scalar()
        kind = self._random.randrange(8)
        if kind == 0:
            return b"(" + self._values(depth, 4) + b"t"
        if kind == 1:
            return b"(" + self._values(depth, 4) + self._random.choice([b"l", b"\x91"])
        if kind == 2:
            return (
                b"}(" + b"".join(self._key() + self.value(depth + 1) for _ in range(self._random.randrange(4))) + b"u"
            )
        if kind == 3:
            return b"\x8f(" + self._values(depth, 4) + b"\x90"
        if kind == 4:
            return self.name() if choose() < 0.5 else b"h" + bytes([self._random.randrange(12)])
        made = self.name() + b"(" + self._values(depth, 4) + b"t" + self._random.choice([b"R", b"R", b"\x81"])
        if choose() < 0.3:
            made += self.value(depth + 1) + b"b"
        return made

    def _values(self, depth: int, most: int) -> bytes:
        return b"".join(self.value(depth + 1) for _ in range(self._random.randrange(most)))

    def _key(self) -> bytes:
        return self._text(self._random.choice(_WORDS)) if self._random.random() < 0.7 else self._scalar()

    def _scalar(self) -> bytes:
        kind = self._random.randrange(9)
        if kind < 2:
            return self._random.choice([b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", b"K\x00", b"K\x01"])
        if kind < 4:
            return self._number()
        if kind == 4:
            return b"G" + struct.pack(
                ">d", self._random.choice([0.0, -0.0, 1.5, 1e300, float("inf"), float("nan"), 2**53])
            )
        if kind == 5:
            payload = self._random.randbytes(self._random.choice([0, 1, 2, 8, 9, 12, 16, 40]))
            return (
                self._random.choice([b"C" + bytes([len(payload)]), b"\x96" + struct.pack("<Q", len(payload))]) + payload
            )
        if kind == 6:
            return b"h" + bytes([self._random.randrange(12)])
        return self._text(self._random.choice(_WORDS))

    def _number(self) -> bytes:
        number = self._random.choice(_NUMBERS) * self._random.choice([1, 1, 1, -1])
        kind = self._random.randrange(4)
        if kind == 0 and 0 <= number < 256:
            return b"K" + bytes([number])
        if kind == 1 and -(2**31) <= number < 2**31:
            return b"J" + struct.pack("<i", number)
        if kind == 2:
            return b"I%d\n" % number
        data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def _text(self, text: str) -> bytes:
        data = text.encode()
        return b"\x8c" + bytes([len(data)]) + data if len(data) < 256 else b"X" + struct.pack("<I", len(data)) + data

    # Changes.

    def change(self, data: bytes, longest: int, other: bytes = b"") -> bytes:
        """Return a changed program, or changed bytes.

        Args:
            data: A program, or anything.
            longest: Most bytes of the result.
            other: Another program, of which pieces may be taken.
        """
        if self._random.random() < 0.1:
            return self._change_bytes(data, longest)
        pieces = split(data) or [b"\x80\x04", b"N", b"."]
        for _ in range(self._random.choice([1, 1, 2, 3, 5])):
            self._change_once(pieces, other)
        return b"".join(pieces)[:longest]

    def _change_once(self, pieces: list[bytes], other: bytes) -> None:
        position = self._random.randrange(len(pieces)) if pieces else 0
        last = position + self._random.choice([1, 1, 1, 2, 4])
        kind = self._random.randrange(14 if other else 12)
        if kind == 0:
            del pieces[position:last]
        elif kind == 1:
            pieces[position:position] = pieces[position:last] * self._random.choice([1, 1, 2, 8])
        elif kind == 2:
            moved = pieces[position:last]
            del pieces[position:last]
            target = self._random.randrange(len(pieces) + 1)
            pieces[target:target] = moved
        elif kind == 3:
            pieces[position:position] = [self._random.choice(_CONSUMERS)]
        elif kind == 4:
            pieces[position:position] = [self.value()]
        elif kind in (5, 6):
            pieces[position : position + 1] = [self._changed_piece(pieces[position])] if pieces else []
        elif kind == 7:
            pieces[position : position + 1] = [self.value()]
        elif kind == 8:
            pieces[-1:-1] = [self.value(), self._random.choice([b"b", b"R", b"\x86", b"a", b"0"])]
        elif kind == 9:
            pieces[-1:-1] = [self._key(), self.value(), self._random.choice([b"s", b"\x87", b"\x92"])]
        elif kind == 10:
            pieces[position:position] = self._random.choice(
                [[b"\x94"], [b"q" + bytes([self._random.randrange(12)])], [b"("]]
            )
        elif kind == 11:
            length = sum(map(len, pieces[position:])) + self._random.choice([0, 0, 0, 1, -1, 5])
            pieces[position:position] = [b"\x95" + struct.pack("<q", length)]
        else:
            taken = split(other)
            start = self._random.randrange(len(taken)) if taken else 0
            pieces[position:position] = taken[start : start + self._random.choice([1, 3, 8, len(taken)])]

    def _changed_piece(self, piece: bytes) -> bytes:
        shape, amount = _LAYOUTS.get(piece[0], ("", 0))
        if shape == "fixed" and amount == 0:
            return self._random.choice(_BARE)
        if piece[:1] in (b"c", b"\x93"):
            return self.name()
        if shape == "prefixed":
            payload = piece[1 + amount :]
            changed = self._changed_payload(payload)
            if len(changed) < 256 ** min(amount, 4):
                return piece[:1] + len(changed).to_bytes(amount, "little") + changed
        if shape == "lines":
            lines = piece[1:].split(b"\n")
            lines[0] = self._changed_payload(lines[0]).replace(b"\n", b"")
            return piece[:1] + b"\n".join(lines)
        return piece[:1] + self._change_bytes(piece[1:], len(piece))[: len(piece) - 1].ljust(len(piece) - 1, b"\0")

    def _changed_payload(self, payload: bytes) -> bytes:
        kind = self._random.randrange(4)
        if kind == 0:
            return self._random.choice(_WORDS).encode()
        if kind == 1:
            return str(self._random.choice(_NUMBERS)).encode()
        if kind == 2 and len(payload) < 100:
            return payload * self._random.choice([2, 3, 8])
        return self._change_bytes(payload, len(payload) + 8)


class TorchAuthor(Author):
    """The same, inside torch's archives: the pickle of one, or another member, or the archive's own bytes."""

    def change(self, data: bytes, longest: int, other: bytes = b"") -> bytes:
        if data[:2] != b"PK" or self._random.random() < 0.1:
            return super().change(data, longest, other if other[:2] != b"PK" else b"")
        try:
            members = members_of(data)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError):
            return super().change(data, longest)
        pickles = [name for name in members if name.endswith("data.pkl")]
        kind = self._random.random()
        if pickles and kind < 0.8:
            try:
                others = members_of(other) if other[:2] == b"PK" else {}
            except Exception:  # of a damaged archive nothing is taken
                others = {}
            taken = next((content for name, content in others.items() if name.endswith("data.pkl")), b"")
            members[pickles[0]] = super().change(members[pickles[0]], longest, taken)
        elif members:
            name = self._random.choice(list(members))
            if kind < 0.9:
                members[name] = self._change_bytes(members[name], len(members[name]) + 64)
            elif kind < 0.95:
                members[name.replace("data", self._random.choice(["DATA", "data/0", "d", "../data"]))] = members.pop(
                    name
                )
            else:
                del members[name]
        return archive(members)[:longest]


def members_of(data: bytes) -> dict[str, bytes]:
    """Return the members of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def archive(members: dict[str, bytes]) -> bytes:
    """Write an archive whose members begin on multiples of 64 bytes, as torch's do."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            room = -(file.tell() + 30 + len(info.filename.encode()) + 4) % 64
            info.extra = b"FB" + struct.pack("<H", room) + b"Z" * room
            opened.writestr(info, content)
    return file.getvalue()
