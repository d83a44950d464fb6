"""What hashing and comparing cost: charged before it happens, because a crafted key can take for ever, or worse.

A tuple that holds tuples that hold the same tuples again is hashed anew at each visit, so n levels cost 2**n steps. A
frozenset keeps its hash, but two towers of them that are equal and not the same are compared by 2**n steps. Tuples and
references nested a million deep are hashed by recursion in C and overflow its stack. Keys whose hashes are all equal
make every lookup a search through all of them, and each step of it compares what may be a megabyte.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain
from types import FrameType
from typing import Any, Final, NamedTuple

from safepickle.guard.budget import Budget
from safepickle.guard.limits import DIGITS, EQUAL_HASHES, NESTED_IN_HASHED, NESTED_TUPLES, LimitExceeded

_MODULUS: Final = sys.hash_info.modulus
_TEXT: Final = frozenset({str, bytes})
_NUMBERS: Final = frozenset({int, bool})
_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_WORDS: Final = DIGITS * 4 >> 6
_MOST: Final = 1 << 62
"""Weights of more are all the same: no budget has them."""


class Weight(NamedTuple):
    """What a value costs that holds others.

    Attributes:
        level: How deep hashing it recurses in C.
        hashing: Units to hash it once.
        comparing: Units to compare it with an equal one.
        function: Whether it is, or holds, a name that may only be called.
        users: Whether hashing it runs a ``__hash__`` of a class that the user allows.
    """

    level: int
    hashing: int
    comparing: int
    function: bool = False
    users: bool = False


_PLAIN: Final = Weight(0, 1, 1)
_USERS: Final = Weight(1, 1, 1, users=True)
_ITEM: Final = 4
"""Units for hashing one item of a tuple."""

_LONG: Final = 16
"""A tuple of more items is not weighed twice."""

_CALL: Final = 16
"""Units for each call that a ``__hash__`` makes, and for each return."""


class _Counted:
    """How many keys of one container have which hash. The container is held so that its id stays its own."""

    __slots__ = ("container", "counts", "heaviest", "most")

    def __init__(self, container: object) -> None:
        self.container = container
        self.counts: dict[int, int] = {}
        self.heaviest: dict[int, int] = {}
        self.most = 1


class KeyGuard:
    """Weighs what can be hashed as it is made, and keys before they are hashed.

    Attributes:
        kinds: The types whose instances are weighed where they are part of another value.
        functions: What is, or holds, a name that may only be called.
        users: The classes that the user allows, whose ``__hash__`` is code of their own.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        # By id. An id that was freed and used again can only overstate, since every tuple that holds a weighed value
        # is entered when it is made. Tuples that hold functions are held, since for these that would be a refusal.
        self._weights: dict[int, Weight] = {}
        self.kinds: set[type] = {tuple}
        self._widest = 1
        self._equal: dict[int, _Counted] = {}
        self.functions: list[Any] = []
        self.users: set[type] = set()
        self._users_hold_others = False
        self._deepest = 0

    def saw_wide_number(self, size: int) -> None:
        """Note an integer of `size` bytes: integers do not keep their hash."""
        self._widest = max(self._widest, size >> 3)

    def enter_any(self, value: tuple[Any, ...]) -> None:
        """Weigh a tuple, if it holds what is weighed."""
        if not self.kinds.isdisjoint(map(type, value)):
            self.enter(value)

    def enter(self, value: tuple[Any, ...]) -> None:
        """Weigh a tuple, or an instance of a subclass.

        Raises:
            LimitExceeded: It is nested too deeply.
        """
        self._enter_holder(value, tuple.__len__(value), tuple.__iter__(value))

    def enter_frozendict(self, value: Any) -> None:
        """Weigh a `frozendict`, which is hashed and compared as its keys and values are.

        Raises:
            LimitExceeded: It is nested too deeply.
        """
        self._enter_holder(value, 2 * len(value), chain(value.keys(), value.values()))

    def _enter_holder(self, value: object, size: int, items: Iterable[Any]) -> None:
        level, hashing, comparing, function, users = 0, _ITEM * size, 0, False, False
        for item in items:
            weight = self._weight(item)
            level = max(level, weight.level)
            hashing += weight.hashing
            comparing += weight.comparing
            function, users = function or weight.function, users or weight.users
        if function:
            self.functions.append(value)
        self._note(value, Weight(level + 1, hashing, comparing, function, users))

    def enter_function(self, value: object) -> None:
        """Note what stands for a name that may only be called: tuples that hold it are known from now on."""
        self.functions.append(value)
        self._note(value, Weight(0, 1, 1, function=True))

    def enter_class(self, cls: type) -> None:
        """Note a class that the user allows, whose ``__hash__`` is code of its own."""
        self.users.add(cls)
        self.kinds.add(cls)

    def enter_parts(self, value: object, parts: Iterable[Any]) -> None:
        """Note what an instance of such a class was given: its ``__hash__`` may hash more than numbers and text."""
        if type(value) in self.users and not self._users_hold_others:
            self._users_hold_others = not _SCALARS.issuperset(map(type, parts))

    def holds_function(self, values: Iterable[Any]) -> bool:
        """Tell whether one of `values` is a name that may only be called, or a tuple that holds one."""
        if self.kinds.isdisjoint(map(type, values)):
            return False
        return any(self._weight(value).function for value in values)

    def enter_frozenset(self, value: frozenset[Any], container: object) -> None:
        """Weigh a frozenset, or an instance of a subclass, whose members were checked as keys of `container`.

        It keeps its hash, and members that share one are all compared with one another.
        """
        counted = self._equal.get(id(container))
        among = 1 if counted is None else counted.most
        size = frozenset.__len__(value)
        comparing = sum(self._weight(item).comparing for item in frozenset.__iter__(value))
        self._note(value, Weight(1, 1, size + among * comparing))

    def enter_reference(self, value: object, referent: object) -> None:
        """Weigh a weak reference: it is hashed and compared as its referent is, by recursion.

        Raises:
            LimitExceeded: It is nested too deeply.
        """
        weight = self._weight(referent)
        self._note(value, Weight(weight.level + 1, weight.hashing + 1, weight.comparing + 1, users=weight.users))

    def enter_sized(self, value: object, size: int) -> None:
        """Weigh a value that is made of `size` bytes, such as a path or a decimal number."""
        self._note(value, Weight(1, size, size))

    def _note(self, value: object, weight: Weight) -> None:
        if weight.level > NESTED_TUPLES:
            raise LimitExceeded(f"tuples, or references to references, are nested more than {NESTED_TUPLES:,} deep")
        self.kinds.add(type(value))
        self._deepest = max(self._deepest, weight.level)
        self._weights[id(value)] = weight._replace(
            hashing=min(weight.hashing, _MOST), comparing=min(weight.comparing, _MOST)
        )

    def _weight(self, value: Any) -> Weight:
        kind = type(value)
        if kind is str or kind is bytes:
            # Both keep their hash, and are compared eight bytes at a time.
            return Weight(0, 1, 1 + (len(value) >> 3))
        if kind is int:
            size = value.bit_length() >> 6
            # One that is compared with a decimal number becomes one first, which is quadratic.
            return Weight(0, 1 + size, 1 + size + (size * size if size > _WORDS else 0))
        if kind in self.kinds:
            known = self._weights.get(id(value))
            if known is not None:
                return known
            if kind in self.users:
                return _USERS
            if kind is tuple:
                return self._flat(value)
        return _PLAIN

    def _flat(self, value: tuple[Any, ...]) -> Weight:
        """Weigh a tuple that holds nothing but what is small or text."""
        hashing = _ITEM * len(value) * self._widest
        weight = Weight(1, hashing, len(value) + sum(self._weight(item).comparing for item in value))
        if len(value) > _LONG:
            self._weights[id(value)] = weight
        return weight

    def check(self, keys: Iterable[Any], container: object) -> None:
        """Charge for hashing `keys` into `container`, and for comparing them with those of equal hash.

        Raises:
            LimitExceeded: It costs too much.
        """
        kinds = set(map(type, keys))
        if kinds <= _TEXT:
            # Strings of equal hash are equal.
            self._budget.spend(sum(map(len, keys)))
            return
        if kinds <= _NUMBERS and self._widest == 1 and min(keys) > -_MODULUS and max(keys) < _MODULUS:
            return
        counted = self._equal.get(id(container))
        if counted is None:
            counted = self._equal[id(container)] = _Counted(container)
        for key in keys:
            self._check_one(key, counted)

    def _check_one(self, key: Any, counted: _Counted) -> None:
        kind = type(key)
        if kind is str or kind is bytes:
            self._budget.spend(len(key))
        elif kind is int:
            self._budget.spend(key.bit_length() >> 6)
        elif kind in self.kinds:
            weight = self._weight(key)
            self._budget.spend(weight.hashing)
            if weight.users and self._users_hold_others:
                self._hash_users(key)
        hashed = hash(key)
        count = counted.counts.get(hashed, 0) + 1
        comparing = max(self._weight(key).comparing, counted.heaviest.get(hashed, 0))
        if count > 1:
            if count > EQUAL_HASHES:
                raise LimitExceeded(f"more than {EQUAL_HASHES} keys of one container have the same hash")
            self._budget.spend((count - 1) * comparing)
            counted.most = max(counted.most, count)
        if comparing > 1:
            counted.heaviest[hashed] = comparing
        counted.counts[hashed] = count

    def _hash_users(self, key: object) -> None:
        """Hash a key whose class does so by code of its own, and charge for every call that it makes.

        Values that hold one another twice over take twice as long with each level, which nothing shows from outside.

        Raises:
            LimitExceeded: It costs too much, or recurses in C at each level of Python's recursion.
        """
        if self._deepest > NESTED_IN_HASHED:
            raise LimitExceeded(
                f"tuples are nested more than {NESTED_IN_HASHED} deep, where keys are of a class with its own __hash__"
            )
        if sys.getprofile() is not None:
            # The profiler of someone who measures this load stays.
            return

        def charge(frame: FrameType, event: str, argument: object) -> None:
            self._budget.spend(_CALL)

        sys.setprofile(charge)
        try:
            hash(key)
        finally:
            sys.setprofile(None)
