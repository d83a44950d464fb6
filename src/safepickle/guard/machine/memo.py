"""Opcodes of the memo, and those that drop or repeat the top of the stack."""

from __future__ import annotations

from typing import Any

from safepickle.guard.machine.state import MachineState, read_number


def on_pop(machine: MachineState, data: object, position: int) -> int:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.to_mark()
    return position


def on_pop_mark(machine: MachineState, data: object, position: int) -> int:
    machine.to_mark()
    return position


def on_dup(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(machine.stack[-1])
    return position


def on_memoize(machine: MachineState, data: object, position: int) -> int:
    memo = machine.memo
    memo[len(memo)] = machine.stack[-1]
    return position


def on_binput(machine: MachineState, data: Any, position: int) -> int:
    machine.put(data[position])
    return position + 1


def on_long_binput(machine: MachineState, data: Any, position: int) -> int:
    machine.put(int.from_bytes(data[position : position + 4], "little"))
    return position + 4


def on_put(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    machine.put(read_number(line))
    return position


def on_binget(machine: MachineState, data: Any, position: int) -> int:
    machine.get(data[position])
    return position + 1


def on_long_binget(machine: MachineState, data: Any, position: int) -> int:
    machine.get(int.from_bytes(data[position : position + 4], "little"))
    return position + 4


def on_get(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    machine.get(read_number(line))
    return position
