"""Opcodes of None, booleans, numbers, text, bytes and buffers."""

from __future__ import annotations

import re
from codecs import escape_decode
from math import isinf
from struct import Struct
from typing import Any, Final

from safepickle.guard.limits import DIGITS, Malformed
from safepickle.guard.machine.state import MachineState, read_number

_INT: Final = Struct("<i")
_FLOAT: Final = Struct(">d")
_ESCAPED: Final = re.compile(
    rb"(?:[^\\]++|\\(?:[\\'\"abfnrtv]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|[0-7]{1,2}(?![0-7])))*+", re.DOTALL
)
"""Other escapes warn, and what they stand for is going to change."""
_FLOAT_TEXT: Final = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?i:inf|nan))")


def on_none(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(None)
    return position


def on_newtrue(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(True)
    return position


def on_newfalse(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(False)
    return position


def on_binint(machine: MachineState, data: Any, position: int) -> int:
    machine.stack.append(_INT.unpack_from(data, position)[0])
    return position + 4


def on_binint1(machine: MachineState, data: Any, position: int) -> int:
    machine.stack.append(data[position])
    return position + 1


def on_binint2(machine: MachineState, data: Any, position: int) -> int:
    machine.stack.append(data[position] | data[position + 1] << 8)
    return position + 2


def on_binfloat(machine: MachineState, data: Any, position: int) -> int:
    machine.stack.append(_FLOAT.unpack_from(data, position)[0])
    return position + 8


def on_long1(machine: MachineState, data: Any, position: int) -> int:
    payload, position = machine.source.take(position + 1, data[position])
    machine.keys.saw_wide_number(len(payload))
    machine.stack.append(int.from_bytes(payload, "little", signed=True))
    return position


def on_long4(machine: MachineState, data: Any, position: int) -> int:
    length = _INT.unpack_from(data, position)[0]
    if length < 0:
        raise Malformed("a number has a negative length")
    payload, position = machine.source.take(position + 4, length)
    machine.keys.saw_wide_number(length)
    machine.stack.append(int.from_bytes(payload, "little", signed=True))
    return position


def on_int(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    if line in (b"00", b"01"):
        machine.stack.append(line == b"01")
    else:
        _push_number(machine, line)
    return position


def on_long(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    _push_number(machine, line.removesuffix(b"L"))
    return position


def _push_number(machine: MachineState, line: bytes) -> None:
    machine.keys.saw_wide_number(len(line) >> 1)
    machine.stack.append(read_number(line))


def on_float(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    if len(line) > DIGITS or _FLOAT_TEXT.fullmatch(line) is None:
        raise Malformed("the text is no number as picklers write it")
    value = float(line)
    if isinf(value) and line.lstrip(b"+-")[:1] in b"0123456789.":
        raise Malformed("the number is larger than any")
    machine.stack.append(value)
    return position


def on_short_binunicode(machine: MachineState, data: Any, position: int) -> int:
    end: int = position + 1 + data[position]
    if end <= machine.source.end:
        machine.stack.append(str(data[position + 1 : end], "utf-8", "surrogatepass"))
        return end
    return _text(machine, position + 1, data[position])


def on_binunicode(machine: MachineState, data: Any, position: int) -> int:
    return _text(machine, position + 4, int.from_bytes(data[position : position + 4], "little"))


def on_binunicode8(machine: MachineState, data: Any, position: int) -> int:
    return _text(machine, position + 8, int.from_bytes(data[position : position + 8], "little"))


def _text(machine: MachineState, position: int, length: int) -> int:
    payload, position = machine.source.take(position, length)
    machine.stack.append(str(payload, "utf-8", "surrogatepass"))
    return position


def on_unicode(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    machine.stack.append(str(line, "raw-unicode-escape"))
    return position


def on_string(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise Malformed("the argument of STRING is not in quotes")
    if _ESCAPED.fullmatch(line) is None:
        raise Malformed("the argument of STRING has an escape that picklers do not write")
    _old_text(machine, escape_decode(line[1:-1])[0])
    return position


def on_binstring(machine: MachineState, data: Any, position: int) -> int:
    length = _INT.unpack_from(data, position)[0]
    if length < 0:
        raise Malformed("a string has a negative length")
    payload, position = machine.source.take(position + 4, length)
    _old_text(machine, payload)
    return position


def on_short_binstring(machine: MachineState, data: Any, position: int) -> int:
    payload, position = machine.source.take(position + 1, data[position])
    _old_text(machine, payload)
    return position


def _old_text(machine: MachineState, payload: bytes) -> None:
    """Push an 8-bit string of Python 2."""
    if machine.encoding == "bytes":
        machine.stack.append(payload)
    else:
        machine.stack.append(payload.decode(machine.encoding, machine.errors))


def on_short_binbytes(machine: MachineState, data: Any, position: int) -> int:
    payload, position = machine.source.take(position + 1, data[position])
    machine.stack.append(payload)
    return position


def on_binbytes(machine: MachineState, data: Any, position: int) -> int:
    return _payload(machine, position + 4, int.from_bytes(data[position : position + 4], "little"), False)


def on_binbytes8(machine: MachineState, data: Any, position: int) -> int:
    return _payload(machine, position + 8, int.from_bytes(data[position : position + 8], "little"), False)


def on_bytearray8(machine: MachineState, data: Any, position: int) -> int:
    return _payload(machine, position + 8, int.from_bytes(data[position : position + 8], "little"), True)


def _payload(machine: MachineState, position: int, length: int, mutable: bool) -> int:
    payload, position = machine.backend.payload(machine.source, position, length, mutable)
    machine.stack.append(payload)
    return position


def on_next_buffer(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(machine.backend.buffer())
    return position


def on_readonly_buffer(machine: MachineState, data: object, position: int) -> int:
    machine.stack[-1] = machine.backend.read_only(machine.stack[-1])
    return position
