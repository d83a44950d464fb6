"""Write pickles opcode by opcode, as an attacker would."""

from __future__ import annotations

import struct
from typing import Any

PROTO4 = b"\x80\x04"
STOP = b"."


class Raw(bytes):
    """Opcodes that push one value."""


def text(value: str) -> Raw:
    """Push a string."""
    data = value.encode()
    return Raw(b"\x8c" + bytes([len(data)]) + data if len(data) < 256 else b"X" + struct.pack("<I", len(data)) + data)


def name(module: str, attribute: str) -> Raw:
    """Push a global, by the opcode of protocol 0."""
    return Raw(f"c{module}\n{attribute}\n".encode())


def stack_name(module: str, attribute: str) -> Raw:
    """Push a global, by the opcode of protocol 4, which takes dotted names."""
    return Raw(text(module) + text(attribute) + b"\x93")


def value(obj: Any) -> Raw:
    """Push a plain value."""
    if isinstance(obj, Raw):
        return obj
    if obj is None:
        return Raw(b"N")
    if isinstance(obj, bool):
        return Raw(b"\x88" if obj else b"\x89")
    if isinstance(obj, int):
        return Raw(f"I{obj}\n".encode())
    if isinstance(obj, float):
        return Raw(b"G" + struct.pack(">d", obj))
    if isinstance(obj, str):
        return text(obj)
    if isinstance(obj, bytes):
        return Raw(b"B" + struct.pack("<I", len(obj)) + obj)
    if isinstance(obj, tuple):
        return Raw(b"(" + b"".join(map(value, obj)) + b"t")
    if isinstance(obj, list):
        return Raw(b"(" + b"".join(map(value, obj)) + b"l")
    if isinstance(obj, dict):
        return Raw(b"(" + b"".join(value(part) for item in obj.items() for part in item) + b"d")
    raise TypeError(type(obj).__name__)


def call(function: Raw, *arguments: Any) -> Raw:
    """Call what is pushed."""
    return Raw(function + value(arguments) + b"R")


def new(cls: Raw, *arguments: Any) -> Raw:
    """Make an instance by NEWOBJ."""
    return Raw(cls + value(arguments) + b"\x81")


def build(obj: Raw, state: Any) -> Raw:
    """Give an instance its state."""
    return Raw(obj + value(state) + b"b")


def get(index: int) -> Raw:
    """Push what was remembered."""
    return Raw(b"j" + struct.pack("<I", index))


def pickled(root: Any, protocol: bytes = PROTO4) -> bytes:
    """A whole pickle of one value."""
    return protocol + value(root) + STOP
