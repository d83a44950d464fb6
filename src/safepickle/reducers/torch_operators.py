"""Reduce values of torch's operators, ``torch.ops.aten.sin`` and its overloads: they go by name.

Graphs of `torch.fx` and functions that were compiled hold them. torch registers them when the library that defines
them is imported, and cannot pickle them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.decisions import Dump

__all__ = ["find_reducer", "reduce_higher_order", "reduce_overload", "reduce_packet"]


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for operators, their overloads, and operators that take functions."""
    for base, reducer in _REDUCERS.items():
        if issubclass(cls, base):
            return reducer
    return None


def reduce_overload(overload: Any, dump: Dump) -> ReduceValue:
    """Reduce ``torch.ops.aten.add.Tensor`` to an attribute of its operator."""
    return getattr, (overload.overloadpacket, overload._overloadname)


def reduce_packet(packet: Any, dump: Dump) -> ReduceValue:
    """Reduce ``torch.ops.aten.add`` to an attribute of its namespace."""
    namespace, _, name = packet._qualified_op_name.partition("::")
    return getattr, (getattr(torch.ops, namespace), name)


def reduce_higher_order(operator: Any, dump: Dump) -> ReduceValue:
    """Reduce ``torch.ops.higher_order.cond`` to an attribute of its namespace, if it is one."""
    name = operator.name()
    if getattr(torch.ops.higher_order, name, None) is not operator:
        return NOT_REDUCED
    return getattr, (torch.ops.higher_order, name)


_REDUCERS: dict[type, Callable[[Any, Dump], ReduceValue]] = {
    OpOverload: reduce_overload,
    OpOverloadPacket: reduce_packet,
    HigherOrderOperator: reduce_higher_order,
}
