"""How deep values nest that C code frees by recursion, with nothing that stops it before the stack ends.

CPython puts off what it frees at the fiftieth level, but only for some types: lists, tuples, dicts, sets, exceptions
and instances of classes are covered; deques, defaultdicts, arrays of objects, dtypes and slices are not. A chain of
these is held to a depth when it is made. Any covered type in the chain breaks it. Deques and defaultdicts are known by
their type; anything else has to be noted when it is made, since it may lie in others before it holds any.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, Final

from safepickle.guard.budget import Budget
from safepickle.guard.limits import NESTED_FREED, NESTED_FREED_OBJECTS, LimitExceeded

_KNOWN: Final = frozenset({deque, defaultdict})
_HOLDER: Final = 16
"""Units for telling one holder of a value that it has become deeper."""


class _Node:
    """A value of an uncovered type: how many of its kind lie below it, in which it lies, and which are linked to it.

    Attributes:
        value: Held, so that its id stays its own.
        depth: 1 for one that holds no other.
        holders: Those that hold it.
        leader: A node nearer to the one that stands for all that are linked; itself at first.
        linked: For that one, how many they are.
    """

    __slots__ = ("depth", "holders", "leader", "linked", "value")

    def __init__(self, value: object) -> None:
        self.value = value
        self.depth = 1
        self.holders: list[_Node] = []
        self.leader = self
        self.linked = 1

    def first(self) -> _Node:
        """Return the node that stands for all that are linked."""
        node = self
        while node.leader is not node:
            node.leader = node.leader.leader
            node = node.leader
        return node


class Nesting:
    """The uncovered values of one load, and their depths.

    Args:
        budget: Pays for telling those that hold a value that it has become deeper, which may be often.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._nodes: dict[int, _Node] = {}
        self._deep = 0

    def nest(self, value: object, parts: Iterable[Any]) -> None:
        """Note that `value` holds `parts`, directly, from now on.

        It may hold others already, and may itself lie in others: their depths grow with its own.

        Args:
            value: Of a type that C frees by recursion.
            parts: Anything; what is covered counts for nothing.

        Raises:
            LimitExceeded: It nests too deeply, or to find out costs too much.
        """
        node = self._node(value)
        deepest = 0
        for part in parts:
            # One that is empty as yet may be filled later.
            inner = self._node(part) if type(part) in _KNOWN or id(part) in self._nodes else node
            if inner is not node:
                inner.holders.append(node)
                _link(inner.first(), node.first())
                deepest = max(deepest, inner.depth)
        self._deepen(node, deepest + 1)

    def _node(self, value: object) -> _Node:
        return self._nodes.get(id(value)) or self._nodes.setdefault(id(value), _Node(value))

    def _deepen(self, node: _Node, depth: int) -> None:
        waiting = [(node, depth)]
        while waiting:
            node, depth = waiting.pop()
            # Where they hold one another in a circle, no chain is longer than they are many.
            depth = min(depth, node.first().linked)
            if depth <= node.depth:
                continue
            # Chains of the uncovered with covered ones between stop late on some versions of CPython, so the long
            # ones are bounded in number too. The third level is the first that data seldom has.
            self._deep += depth > 2 >= node.depth
            node.depth = depth
            if depth > NESTED_FREED or self._deep > NESTED_FREED_OBJECTS:
                raise LimitExceeded(f"a {type(node.value).__qualname__} is nested too deeply to be freed safely")
            self._budget.spend(_HOLDER * len(node.holders))
            waiting += [(holder, depth + 1) for holder in node.holders]


def _link(one: _Node, other: _Node) -> None:
    if one is other:
        return
    if one.linked > other.linked:
        one, other = other, one
    one.leader = other
    other.linked += one.linked
