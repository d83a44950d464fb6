"""The table of opcodes is the one of the standard library."""

from __future__ import annotations

import pickletools

import pytest

from safepickle.guard.machine.table import BY_BYTE, on_unknown
from safepickle.guard.opcodes import OPCODES


def test_table_holds_every_opcode():
    assert {code: opcode.name for code, opcode in OPCODES.items()} == {
        ord(op.code): op.name for op in pickletools.opcodes
    }


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_argument_is_laid_out_as_the_standard_library_says(opcode: pickletools.OpcodeInfo):
    entry = OPCODES[ord(opcode.code)]
    if opcode.arg is None:
        assert (entry.width, entry.lines, entry.prefixed) == (0, 0, False)
    elif opcode.arg.n >= 0:
        assert (entry.width, entry.prefixed) == (opcode.arg.n, False)
    elif opcode.arg.n == pickletools.UP_TO_NEWLINE:
        assert entry.lines == (2 if "pair" in opcode.arg.name else 1)
    else:
        widths = {
            "TAKEN_FROM_ARGUMENT1": 1,
            "TAKEN_FROM_ARGUMENT4": 4,
            "TAKEN_FROM_ARGUMENT4U": 4,
            "TAKEN_FROM_ARGUMENT8U": 8,
        }
        named = {getattr(pickletools, constant): width for constant, width in widths.items()}
        assert (entry.width, entry.prefixed) == (named[opcode.arg.n], True)


def test_every_opcode_has_a_handler():
    assert all(BY_BYTE[code] is not on_unknown for code in OPCODES)
    assert sum(handler is on_unknown for handler in BY_BYTE) == 256 - len(OPCODES)
