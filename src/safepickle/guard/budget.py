"""One budget for a whole load: the work that a stream may cause, in proportion to its length.

Whatever is done with values of the stream is charged before it is done: hashing, comparing, copying, setting state,
unfolding arguments, converting text and numbers, allocating. Files that lie inside a pickle are paid from the budget
of the pickle around them. Knows nothing of opcodes or names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final

from safepickle.guard.blob import Blob
from safepickle.guard.limits import WORK_FLOOR, WORK_PER_BYTE, LimitExceeded

__all__ = ["Budget", "budget_of_this_load", "extent", "is_inside_a_load", "paying_from"]

_around: ContextVar[Budget | None] = ContextVar("safepickle_budget", default=None)

_SLOT: Final = 16
"""Units for one item of a container that is copied: its pointer, and its share of the time."""

_TEXT: Final = frozenset({str, bytes, bytearray, Blob})
_CONTAINERS: Final = frozenset({tuple, list, dict, set, frozenset})


class Budget:
    """The work that a stream may still cause. A unit is a byte copied or hashed, or some ten nanoseconds.

    Args:
        outer: The budget of the load around this one, which pays for it.
    """

    __slots__ = ("_left", "_outer")

    def __init__(self, outer: Budget | None = None) -> None:
        self._outer = outer
        self._left = WORK_FLOOR

    def grow(self, read: int) -> None:
        """Add what `read` more bytes of stream entitle to. Those of a file inside another are in it already."""
        self._left += WORK_PER_BYTE * read

    def spend(self, amount: int) -> None:
        """Take `amount` off.

        Raises:
            LimitExceeded: So much is not left.
        """
        if self._outer is not None:
            self._outer.spend(amount)
            return
        self._left -= amount
        if self._left < 0:
            raise LimitExceeded("hashing and copying what it asks for costs far more than a stream of its length may")


def budget_of_this_load() -> Budget:
    """Return a new budget, paid from the one around where a load runs inside another."""
    return Budget(_around.get())


def is_inside_a_load() -> bool:
    """Tell whether a load that begins now runs inside another, which pays for it."""
    return _around.get() is not None


@contextlib.contextmanager
def paying_from(budget: Budget) -> Iterator[None]:
    """Let the loads in a block be paid from `budget`."""
    token = _around.set(budget)
    try:
        yield
    finally:
        _around.reset(token)


def extent(values: Iterable[Any]) -> int:
    """Say how much C code copies or converts when it is handed `values`: their lengths, but not what lies inside."""
    total = 0
    for value in values:
        kind = type(value)
        if kind in _TEXT:
            total += len(value)
        elif kind in _CONTAINERS:
            total += _SLOT * len(value)
        elif kind is int:
            total += value.bit_length() >> 3
    return total
