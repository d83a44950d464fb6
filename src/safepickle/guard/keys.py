"""What hashing costs: charged before it happens, because a crafted key can take for ever or end the process.

Three things make a key dear. A tuple that holds tuples that hold the same tuples again is hashed anew at each
visit, so n levels cost 2**n steps. A tuple nested a million deep is hashed by recursion in C and overflows its stack.
And numbers whose hashes are all equal make every lookup a search through all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

from safepickle.guard.limits import EQUAL_HASHES, NESTED_TUPLES, WORK_FLOOR, WORK_PER_BYTE, Excess

_MODULUS: Final = sys.hash_info.modulus
_WIDE: Final = 1 << 13
_TEXT: Final = frozenset({str, bytes})
_NUMBERS: Final = frozenset({int, bool})


class Budget:
    """The work that a stream may still cause, in bytes hashed or copied."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = WORK_FLOOR

    def grow(self, read: int) -> None:
        """Add what `read` more bytes of stream entitle to."""
        self._left += WORK_PER_BYTE * read

    def spend(self, amount: int) -> None:
        """Take `amount` off.

        Raises:
            Excess: So much is not left.
        """
        self._left -= amount
        if self._left < 0:
            raise Excess("hashing and copying what it asks for costs far more than a stream of its length may")


class KeyGuard:
    """Weighs tuples as they are made, and keys before they are hashed."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        # By id: level and weight. An id that was freed and used again can only overstate, since every tuple that
        # holds a tuple is entered when it is made.
        self._tuples: dict[int, tuple[int, int]] = {}
        self.kinds: set[type] = {tuple}
        self._widest = 1
        self._equal: dict[int, tuple[Any, dict[int, int]]] = {}

    def saw_wide_number(self, size: int) -> None:
        """Note an integer of `size` bytes: integers do not keep their hash."""
        self._widest = max(self._widest, size >> 3)

    def enter_any(self, value: tuple[Any, ...]) -> None:
        """Weigh a tuple, if it holds tuples."""
        if not self.kinds.isdisjoint(map(type, value)):
            self.enter(value)

    def enter_subclass(self, value: tuple[Any, ...]) -> None:
        """Weigh an instance of a subclass of tuple, and watch for its type from now on."""
        self.kinds.add(type(value))
        self.enter(value)

    def enter(self, value: tuple[Any, ...]) -> None:
        """Weigh a tuple that holds tuples.

        Raises:
            Excess: It is nested too deeply.
        """
        deepest, weight = 0, len(value)
        for item in value:
            if type(item) in self.kinds:
                level, inner = self._tuples.get(id(item), (1, 0))
                deepest = max(deepest, level)
                weight += max(inner, len(item))
        if deepest >= NESTED_TUPLES:
            raise Excess(f"tuples are nested more than {NESTED_TUPLES:,} deep")
        self._tuples[id(value)] = (deepest + 1, weight)

    def check(self, keys: Iterable[Any], container: object) -> None:
        """Charge for hashing `keys` into `container`.

        Raises:
            Excess: It costs too much.
        """
        kinds = set(map(type, keys))
        if kinds <= _TEXT:
            self._budget.spend(sum(map(len, keys)))
            return
        if kinds <= _NUMBERS and self._widest == 1 and min(keys) > -_MODULUS and max(keys) < _MODULUS:
            return
        for key in keys:
            self._check_one(key, container)

    def _check_one(self, key: Any, container: object) -> None:
        kind = type(key)
        if kind is str or kind is bytes:
            self._budget.spend(len(key))
            return
        if kind is int:
            self._budget.spend(key.bit_length() >> 6)
        elif kind in self.kinds:
            weight = max(self._tuples.get(id(key), (1, 0))[1], len(key))
            self._budget.spend(weight * self._widest)
        self._count(hash(key), container)

    def _count(self, hashed: int, container: object) -> None:
        """Count keys of one container by hash; the container is held so that its id stays its own."""
        _, counts = self._equal.setdefault(id(container), (container, {}))
        count = counts.get(hashed, 0) + 1
        if count > EQUAL_HASHES:
            raise Excess(f"more than {EQUAL_HASHES} keys of one container have the same hash")
        counts[hashed] = count
