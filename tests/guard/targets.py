"""Classes and functions that the attacks use, and the tests allow."""

from __future__ import annotations

import dataclasses
import enum
import os
import weakref
from typing import Any, NamedTuple

import numpy as np


class Victim:
    """A class that users would allow."""

    touched = ""

    @property
    def trap(self) -> str:
        return ""

    @trap.setter
    def trap(self, path: str) -> None:
        os.mkdir(path)

    @classmethod
    def create(cls, path: str) -> Victim:
        os.mkdir(path)
        return cls()

    @staticmethod
    def helper(path: str) -> None:
        os.mkdir(path)


class Filling(list):
    """A list with an extend of its own, which pickle calls."""

    def extend(self, paths: Any) -> None:
        os.mkdir(paths[0])


class Mapping(dict):
    """A dict with a __setitem__ of its own."""

    def __setitem__(self, key: str, path: str) -> None:
        os.mkdir(path)


class PlainList(list):
    pass


class PlainDict(dict):
    pass


class Number(int):
    pass


class Slotted:
    __slots__ = ("a", "b")
    a: Any
    b: Any


class Stateful:
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


class Chained:
    """Hashed by what it holds, as a dataclass is."""

    held: Any

    def __hash__(self) -> int:
        return hash((self.held,))


class Alike:
    """All instances have the same hash."""

    def __hash__(self) -> int:
        return 1


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    first: Any
    second: Any


class Trapped(weakref.WeakSet):
    """A weak container with a property that acts."""

    @property
    def trap(self) -> str:
        return ""

    @trap.setter
    def trap(self, path: str) -> None:
        os.mkdir(path)


class Indexed:
    """A number, whoever asks."""

    def __index__(self) -> int:
        raise AssertionError("asked to be a number")


class Table(np.ndarray):
    pass


class View(np.ndarray):
    """Made by its own constructor, and read by numpy."""

    def __new__(cls, given: Any) -> View:
        return np.asarray(given).view(cls)


class Labelled(np.ndarray):
    """Its label stands behind numpy's part of its state."""

    label = ""

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        function, arguments, state = reduced
        return function, arguments, (*state, self.label)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:5])
        self.label = state[5]


class Measured(np.ndarray):
    """Its attributes stand beside numpy's part of its state."""

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        function, arguments, state = reduced
        return function, arguments, (state, vars(self))

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        vars(self).update(state[1])


class Reference(weakref.ref):
    """A subclass of weakref.ref."""


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Hashed and compared by what it holds."""

    left: Any
    right: Any


class Anything:
    """Takes whatever it is called with."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Anything:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.count = len(arguments)


class Octets(bytes):
    pass


class Row(tuple):
    pass


class Text(str):
    pass


class Members(set):
    pass


class FrozenMembers(frozenset):
    pass


class Matrix(np.ndarray):
    pass


ALLOWED_BY_THE_HEAVY = (
    Victim, Pair, PlainList, PlainDict, Chained, Color, Reference, Frozen, Anything, Octets, Row, Text, Members,
    FrozenMembers, Matrix,
)  # fmt: skip
"""The classes of this module that a user of the corpus of heavy work allows."""


def make_table(size: int) -> list[int]:
    return list(range(size))


def touch(path: str, *_: Any) -> None:
    os.mkdir(path)


def remake(cls: type[np.ndarray]) -> np.ndarray:
    return np.ndarray.__new__(cls, (0,))
