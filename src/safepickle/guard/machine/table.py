"""Which function carries out which byte; and the opcodes that concern the stream itself."""

from __future__ import annotations

import pickle
from typing import Any, Final

from safepickle.guard.limits import Malformed
from safepickle.guard.machine import calls, memo, scalars, structures
from safepickle.guard.machine.state import NO_FRAME, Handler, MachineState
from safepickle.guard.opcodes import OPCODES
from safepickle.guard.source import MOVED


class Finished(Exception):
    """The STOP opcode was reached; carries the position behind it."""


def on_stop(machine: MachineState, data: object, position: int) -> int:
    raise Finished(position)


def on_proto(machine: MachineState, data: Any, position: int) -> int:
    machine.protocol = data[position]
    if machine.protocol > pickle.HIGHEST_PROTOCOL:
        raise Malformed(f"protocol {machine.protocol} is unknown; the newest is {pickle.HIGHEST_PROTOCOL}")
    return position + 1


def on_frame(machine: MachineState, data: Any, position: int) -> int:
    if machine.frame_end != NO_FRAME:
        raise Malformed("a frame begins inside of another")
    source = machine.source
    length = int.from_bytes(data[position : position + 8], "little")
    left = source.left(position + 8)
    if left is not None and length > left:
        raise Malformed(f"a frame claims {length:,} bytes, and {left:,} are left")
    # The loop reads up to the end of the frame, once it looks at the source again.
    source.position = position + 8
    machine.frame_end = source.base + source.position + length
    return MOVED


def on_unknown(machine: MachineState, data: Any, position: int) -> int:
    raise Malformed(f"byte 0x{data[position - 1]:02x} is no opcode")


_HANDLERS: Final[dict[str, Handler]] = {**vars(structures), **vars(scalars), **vars(memo), **vars(calls), **globals()}

BY_BYTE: Final[list[Handler]] = [
    _HANDLERS[f"on_{OPCODES[code].name.lower()}"] if code in OPCODES else on_unknown for code in range(256)
]
