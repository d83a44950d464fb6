"""Opcodes of names, calls, state and persistent ids: each asks the backend, and none decides."""

from __future__ import annotations

from typing import Any

from safepickle.guard.limits import Malformed, Refusal
from safepickle.guard.machine.state import MachineState
from safepickle.guard.source import MOVED


def on_global(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    module, name, position = _two_lines(machine, position, "utf-8")
    machine.stack.append(machine.backend.find(module, name, machine.protocol))
    return position


def on_stack_global(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    stack = machine.stack
    name = stack.pop()
    module = stack.pop()
    if type(name) is not str or type(module) is not str:
        raise Malformed("STACK_GLOBAL needs two strings")
    stack.append(machine.backend.find(module, name, machine.protocol))
    return position


def _two_lines(machine: MachineState, position: int, encoding: str) -> tuple[str, str, int]:
    source = machine.source
    first, position = source.line(position)
    second, position = source.line(source.position if position == MOVED else position)
    if not first or not second:
        raise Malformed("a name is empty")
    return first.decode(encoding), second.decode(encoding), position


def on_ext1(machine: MachineState, data: object, position: int) -> int:
    # A code that was used before comes from a cache that no find_class sees, so all are refused.
    raise Refusal("extension codes stand for names that the stream does not tell")


on_ext2 = on_ext4 = on_ext1


def on_reduce(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    stack = machine.stack
    arguments = stack.pop()
    if type(arguments) is not tuple:
        raise Malformed("REDUCE needs a tuple of arguments")
    stack[-1] = machine.backend.call(stack[-1], arguments, None, False)
    return position


def on_newobj(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    stack = machine.stack
    arguments = stack.pop()
    if type(arguments) is not tuple:
        raise Malformed("NEWOBJ needs a tuple of arguments")
    stack[-1] = machine.backend.call(stack[-1], arguments, None, True)
    return position


def on_newobj_ex(machine: MachineState, data: object, position: int) -> int:
    stack = machine.stack
    keywords = stack.pop()
    arguments = stack.pop()
    if type(keywords) is dict:
        machine.budget.spend(len(keywords) << 4)
    if type(arguments) is not tuple or type(keywords) is not dict or not all(type(key) is str for key in keywords):
        raise Malformed("NEWOBJ_EX needs a tuple of arguments and a dict of keyword arguments")
    stack[-1] = machine.backend.call(stack[-1], arguments, keywords, True)
    return position


def on_inst(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    module, name, position = _two_lines(machine, position, "ascii")
    arguments = tuple(machine.to_mark())
    machine.stack.append(_instantiate(machine, machine.backend.find(module, name, machine.protocol), arguments))
    return position


def on_obj(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    items = machine.to_mark()
    machine.stack.append(_instantiate(machine, items[0], tuple(items[1:])))
    return position


def _instantiate(machine: MachineState, cls: object, arguments: tuple[Any, ...]) -> Any:
    machine.keys.enter_any(arguments)
    return machine.backend.call(cls, arguments, None, not arguments)


def on_build(machine: MachineState, data: object, position: int) -> int:
    machine.offset = machine.source.base + position - 1
    stack = machine.stack
    state = stack.pop()
    stack[-1] = machine.backend.set_state(stack[-1], state)
    return position


def on_persid(machine: MachineState, data: object, position: int) -> int:
    line, position = machine.source.line(position)
    machine.stack.append(machine.backend.persistent(line.decode("ascii")))
    return position


def on_binpersid(machine: MachineState, data: object, position: int) -> int:
    machine.keep(machine.stack[-1:])
    machine.stack[-1] = machine.backend.persistent(machine.stack[-1])
    return position
