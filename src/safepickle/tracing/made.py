"""Tell objects that were there from those that reduce functions make, so that a walk over objects without end ends.

A ``__reduce__`` or ``__getstate__`` that returns a new instance each time leads to one more for every one that is
walked. The C pickler meets the end of its stack there. A walk with a stack of its own asks here instead.
"""

from __future__ import annotations

import gc
import types
from typing import Final

__all__ = ["EndlessError", "Made"]

_IN_A_ROW: Final = 1_000
"""How many objects in a row, each reached from the one before, may have been made on the way."""

_FEW: Final = 64
"""How many objects are met before the existing objects are looked up: small graphs pay only for the counting."""

_MANY, _SEVERAL = 2_000, 6
"""A walk that goes the nearest first meets no long row before it has met far too many objects: once so many were made
on the way, so many in a row are enough for it."""

_FROZEN_BY_PYTHON: Final = 500
"""CPython 3.12 freezes some 400 objects of its own as it starts. So few of anybody's make no long row."""

# No chain consists of these alone: there is an instance in between. They are the most frequent objects.
_PASSIVE: Final = frozenset(
    {dict, list, tuple, set, frozenset, type(gc), *(value for value in vars(types).values() if isinstance(value, type))}
)


class EndlessError(RecursionError):
    """Each object was made by the reduce function of the one before."""


class Made:
    """Counts, along each way that a walk takes, the objects in a row that were made on the way.

    What exists is looked up only once some way is long, or many objects were met, so that most walks pay for nothing
    but the counting.

    """

    def __init__(self) -> None:
        self._met = 0
        self._in_all = 0
        self._existing: set[int] | None = None
        self._frozen = 0

    def count(self, obj: object, before: int) -> int:
        """Return how many objects in a row were, or may have been, made on the way, `obj` the last of them.

        Args:
            obj: What is met now, for the first time.
            before: What was returned for the object that led here; 0 for the root.
        """
        if type(obj) in _PASSIVE:
            return before
        if self._existing is None:
            self._met += 1
            if self._met < _FEW:
                return before + 1
            # What is frozen is not shown, and cannot be told from what was made.
            self._frozen = max(0, gc.get_freeze_count() - _FROZEN_BY_PYTHON)
            self._existing = {id(there) for there in gc.get_objects() if type(there) not in _PASSIVE}
            return 0
        if id(obj) in self._existing:
            # Once only: another object may get the id of one that has died.
            self._existing.remove(id(obj))
            return 0
        self._in_all += gc.is_tracked(obj)
        return before + 1

    def is_endless(self, count: int) -> bool:
        """Tell whether a count is beyond what can be."""
        return count > _IN_A_ROW + self._frozen

    def is_broad(self, count: int) -> bool:
        """Tell whether so much was made, all along the way to this count, that there seems to be no end."""
        return count > _SEVERAL + self._frozen and self._in_all > _MANY
