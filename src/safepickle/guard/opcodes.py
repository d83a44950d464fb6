"""The opcodes of pickle protocols 0 to 5, as a table: name, and how the argument is laid out.

Only the layout: what an opcode does is in `machine`.

Source:
    The names and layouts of `pickletools.opcodes`, against which the tests compare this table.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Opcode(NamedTuple):
    """One opcode.

    Attributes:
        code: The byte.
        name: The name that `pickletools` gives it.
        width: Bytes of argument, or of the length prefix where `prefixed`.
        prefixed: Whether the `width` bytes are the length of a payload.
        lines: Lines of text that follow instead.
    """

    code: int
    name: str
    width: int = 0
    prefixed: bool = False
    lines: int = 0


_TABLE: Final = (
    Opcode(ord("("), "MARK"),
    Opcode(ord("."), "STOP"),
    Opcode(ord("0"), "POP"),
    Opcode(ord("1"), "POP_MARK"),
    Opcode(ord("2"), "DUP"),
    Opcode(ord("F"), "FLOAT", lines=1),
    Opcode(ord("I"), "INT", lines=1),
    Opcode(ord("J"), "BININT", 4),
    Opcode(ord("K"), "BININT1", 1),
    Opcode(ord("L"), "LONG", lines=1),
    Opcode(ord("M"), "BININT2", 2),
    Opcode(ord("N"), "NONE"),
    Opcode(ord("P"), "PERSID", lines=1),
    Opcode(ord("Q"), "BINPERSID"),
    Opcode(ord("R"), "REDUCE"),
    Opcode(ord("S"), "STRING", lines=1),
    Opcode(ord("T"), "BINSTRING", 4, prefixed=True),
    Opcode(ord("U"), "SHORT_BINSTRING", 1, prefixed=True),
    Opcode(ord("V"), "UNICODE", lines=1),
    Opcode(ord("X"), "BINUNICODE", 4, prefixed=True),
    Opcode(ord("a"), "APPEND"),
    Opcode(ord("b"), "BUILD"),
    Opcode(ord("c"), "GLOBAL", lines=2),
    Opcode(ord("d"), "DICT"),
    Opcode(ord("}"), "EMPTY_DICT"),
    Opcode(ord("e"), "APPENDS"),
    Opcode(ord("g"), "GET", lines=1),
    Opcode(ord("h"), "BINGET", 1),
    Opcode(ord("i"), "INST", lines=2),
    Opcode(ord("j"), "LONG_BINGET", 4),
    Opcode(ord("l"), "LIST"),
    Opcode(ord("]"), "EMPTY_LIST"),
    Opcode(ord("o"), "OBJ"),
    Opcode(ord("p"), "PUT", lines=1),
    Opcode(ord("q"), "BINPUT", 1),
    Opcode(ord("r"), "LONG_BINPUT", 4),
    Opcode(ord("s"), "SETITEM"),
    Opcode(ord("t"), "TUPLE"),
    Opcode(ord(")"), "EMPTY_TUPLE"),
    Opcode(ord("u"), "SETITEMS"),
    Opcode(ord("G"), "BINFLOAT", 8),
    Opcode(0x80, "PROTO", 1),
    Opcode(0x81, "NEWOBJ"),
    Opcode(0x82, "EXT1", 1),
    Opcode(0x83, "EXT2", 2),
    Opcode(0x84, "EXT4", 4),
    Opcode(0x85, "TUPLE1"),
    Opcode(0x86, "TUPLE2"),
    Opcode(0x87, "TUPLE3"),
    Opcode(0x88, "NEWTRUE"),
    Opcode(0x89, "NEWFALSE"),
    Opcode(0x8A, "LONG1", 1, prefixed=True),
    Opcode(0x8B, "LONG4", 4, prefixed=True),
    Opcode(ord("B"), "BINBYTES", 4, prefixed=True),
    Opcode(ord("C"), "SHORT_BINBYTES", 1, prefixed=True),
    Opcode(0x8C, "SHORT_BINUNICODE", 1, prefixed=True),
    Opcode(0x8D, "BINUNICODE8", 8, prefixed=True),
    Opcode(0x8E, "BINBYTES8", 8, prefixed=True),
    Opcode(0x8F, "EMPTY_SET"),
    Opcode(0x90, "ADDITEMS"),
    Opcode(0x91, "FROZENSET"),
    Opcode(0x92, "NEWOBJ_EX"),
    Opcode(0x93, "STACK_GLOBAL"),
    Opcode(0x94, "MEMOIZE"),
    Opcode(0x95, "FRAME", 8),
    Opcode(0x96, "BYTEARRAY8", 8, prefixed=True),
    Opcode(0x97, "NEXT_BUFFER"),
    Opcode(0x98, "READONLY_BUFFER"),
)

OPCODES: Final = {opcode.code: opcode for opcode in _TABLE}
"""Every opcode by its byte."""

WIDEST: Final = 8
"""The longest fixed argument, in bytes."""
