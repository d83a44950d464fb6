"""What `table` asks for the types of torch: one room that knows which of the others knows a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safepickle.reducers import tensors, torch_operators, torch_weak
from safepickle.reducers.decisions import Dump

__all__ = ["find_reducer"]


def find_reducer(cls: type) -> Callable[[Any, Dump], Any] | None:
    """Return the reducer for `cls`, or None when torch's own reduce value is right."""
    return tensors.find_reducer(cls) or torch_weak.find_reducer(cls) or torch_operators.find_reducer(cls)
