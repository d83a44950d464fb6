"""Opcodes of marks, tuples, lists, dicts and sets."""

from __future__ import annotations

import pickle
import re
from typing import Any, Final

from safepickle.guard.limits import OPEN_MARKS, LimitExceeded, Refusal
from safepickle.guard.machine.state import MachineState

_SCALARS: Final = frozenset(b"KMJGN\x88\x89\x8a")
_SCALAR_RUN: Final = re.compile(
    rb"(?:K.|M..|J.{4}|G.{8}|[N\x88\x89]|\x8a(?:\x05.{5}|\x06.{6}|\x07.{7}|\x08.{8}|\x09.{9})){16,}+", re.DOTALL
)
"""Sixteen or more numbers, booleans and None in a row: nothing in it can name, call or refer to anything."""


def on_mark(machine: MachineState, data: Any, position: int) -> int:
    machine.outer.append(machine.stack)
    machine.stack = []
    if len(machine.outer) > OPEN_MARKS:
        raise LimitExceeded(f"more than {OPEN_MARKS:,} containers are open at once")
    if data[position : position + 1] and data[position] in _SCALARS:
        run = _SCALAR_RUN.match(data, position, min(machine.source.end, machine.frame_end - machine.source.base))
        if run is not None:
            # Nothing but numbers: the C unpickler may read them, at a tenth of the price.
            machine.stack.extend(pickle.loads(b"(" + run.group() + b"t."))
            return run.end()
    return position


def on_empty_tuple(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(())
    return position


def on_tuple1(machine: MachineState, data: object, position: int) -> int:
    stack = machine.stack
    value = (stack.pop(),)
    if type(value[0]) in machine.weighed:
        machine.keys.enter(value)
    stack.append(value)
    return position


def on_tuple2(machine: MachineState, data: object, position: int) -> int:
    stack = machine.stack
    second = stack.pop()
    first = stack.pop()
    value = (first, second)
    if type(first) in machine.weighed or type(second) in machine.weighed:
        machine.keys.enter(value)
    stack.append(value)
    return position


def on_tuple3(machine: MachineState, data: object, position: int) -> int:
    stack = machine.stack
    third = stack.pop()
    second = stack.pop()
    value = (stack.pop(), second, third)
    machine.keys.enter_any(value)
    stack.append(value)
    return position


def on_tuple(machine: MachineState, data: object, position: int) -> int:
    value = tuple(machine.to_mark())
    machine.keys.enter_any(value)
    machine.stack.append(value)
    return position


def on_empty_list(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append([])
    return position


def on_list(machine: MachineState, data: object, position: int) -> int:
    items = machine.to_mark()
    machine.keep(items)
    machine.stack.append(items)
    return position


def on_append(machine: MachineState, data: object, position: int) -> int:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])
    return position


def on_appends(machine: MachineState, data: object, position: int) -> int:
    items = machine.to_mark()
    machine.extend(machine.stack[-1], items)
    return position


def on_empty_dict(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append({})
    return position


def on_dict(machine: MachineState, data: object, position: int) -> int:
    items = machine.to_mark()
    target: dict[Any, Any] = {}
    machine.update(target, items)
    machine.stack.append(target)
    return position


def on_setitem(machine: MachineState, data: object, position: int) -> int:
    stack = machine.stack
    value = stack.pop()
    key = stack.pop()
    machine.update(stack[-1], [key, value])
    return position


def on_setitems(machine: MachineState, data: object, position: int) -> int:
    items = machine.to_mark()
    machine.update(machine.stack[-1], items)
    return position


def on_empty_set(machine: MachineState, data: object, position: int) -> int:
    machine.stack.append(set())
    return position


def on_additems(machine: MachineState, data: object, position: int) -> int:
    items = machine.to_mark()
    target = machine.stack[-1]
    if type(target) is not set:
        raise Refusal(f"ADDITEMS is for sets alone, and this is a {type(target).__qualname__}")
    if items:
        machine.keep(items)
        machine.keys.check(items, target)
        target.update(items)
    return position


def on_frozenset(machine: MachineState, data: object, position: int) -> int:
    items = machine.to_mark()
    if items:
        machine.keep(items)
        machine.keys.check(items, items)
    value = frozenset(items)
    machine.keys.enter_frozenset(value, items)
    machine.stack.append(value)
    return position
