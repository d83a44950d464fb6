"""What `table` asks for the types of torch: one room that knows which of the others knows a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safepickle.reduce_value import ReduceValue
from safepickle.reducers import tensors, torch_operators, torch_parametrized, torch_weak
from safepickle.reducers.decisions import Dump

__all__ = ["find_reducer"]


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for `cls`, or None when torch's own reduce value is right."""
    for room in (tensors, torch_weak, torch_operators, torch_parametrized):
        found: Callable[[Any, Dump], ReduceValue] | None = room.find_reducer(cls)
        if found is not None:
            return found
    return None
