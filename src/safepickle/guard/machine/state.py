"""What the opcodes work on: the stack, the marks, the memo, and what hashing may still cost."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from safepickle.guard.costs import Costs
from safepickle.guard.limits import DIGITS, MEMO_GAP, LimitExceeded, Malformed, Refusal
from safepickle.guard.machine.backend import Backend
from safepickle.guard.source import Source

NO_FRAME: Final = 1 << 62
"""The end of a frame that lies behind every stream: there is none."""

_NUMBER: Final = re.compile(rb"-?[1-9]\d*|0")
_MAPPINGS: Final = frozenset({dict, OrderedDict, defaultdict, Counter})


class MachineState:
    """The state of one run.

    Args:
        source: The bytes of the pickle.
        backend: Names, calls and state.
        memo: What earlier pickles of the same unpickler left.
        encoding: How the 8-bit strings of Python 2 are decoded; ``"bytes"`` leaves them as bytes.
        errors: As for `bytes.decode`.
        costs: The accounts of earlier pickles of the same unpickler.

    Attributes:
        stack: What was pushed since the last mark.
        outer: The stacks below the marks that are open.
        weighed: The types whose instances are weighed where a tuple holds them.
        protocol: As the stream says.
        frame_end: Where the open frame ends, from the beginning of the stream; `NO_FRAME` where none is open.
        offset: The byte of the last opcode that named or called something, or at which the run stopped.
        opcode: The name of the opcode at which the run stopped, or ``""``.
    """

    def __init__(
        self,
        source: Source,
        backend: Backend,
        memo: dict[int, Any] | None = None,
        *,
        encoding: str = "ASCII",
        errors: str = "strict",
        costs: Costs | None = None,
    ) -> None:
        self.source = source
        self.protocol = 0
        self.frame_end = NO_FRAME
        self.offset = 0
        self.opcode = ""
        self.backend = backend
        self.encoding = encoding
        self.errors = errors
        self.costs = Costs() if costs is None else costs
        self.budget = self.costs.budget
        self.keys = self.costs.keys
        self.weighed = self.keys.kinds
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {} if memo is None else memo

    def to_mark(self) -> list[Any]:
        """Close the last mark, and return what was pushed since."""
        items = self.stack
        if not self.outer:
            raise Malformed("an opcode needs a MARK, and there is none")
        self.stack = self.outer.pop()
        return items

    def keep(self, values: Iterable[Any]) -> None:
        """Hold that `values` may become part of the result, which what may only be called may not.

        Raises:
            Refusal: One is a name of that kind, or a tuple that holds one.
        """
        if self.keys.holds_function(values):
            raise Refusal("it may be called by the stream, but not be part of what is loaded")

    def extend(self, target: object, items: list[Any]) -> None:
        """Append `items` to what the stream has made."""
        if self.keys.functions:
            self.keep(items)
        if type(target) is list:
            target.extend(items)
        elif type(target) is deque:
            self.costs.nesting.nest(target, items)
            target.extend(items)
        else:
            self.backend.extend(target, items)

    def update(self, target: Any, items: list[Any]) -> None:
        """Set items, keys and values in turn, of what the stream has made."""
        if len(items) % 2:
            raise Malformed("a dict has a key without a value")
        keys = items[::2]
        if not keys:
            return
        if self.keys.functions:
            self.keep(items)
        if type(target) is dict:
            self.keys.check(keys, target)
            target.update(zip(keys, items[1::2], strict=True))
        elif type(target) in _MAPPINGS:
            self.keys.check(keys, target)
            if type(target) is defaultdict:
                self.costs.nesting.nest(target, items[1::2])
            # Counter.update would add up, and the subclasses' __setitem__ is dict's own or equal to it.
            for key, value in zip(keys, items[1::2], strict=True):
                target[key] = value
        else:
            self.backend.update(target, items)

    def put(self, index: int) -> None:
        """Remember the top of the stack."""
        if not 0 <= index <= len(self.memo) + MEMO_GAP:
            raise LimitExceeded(f"memo index {index:,} lies far beyond the {len(self.memo):,} objects in the memo")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        """Push what was remembered."""
        try:
            self.stack.append(self.memo[index])
        except KeyError:
            raise Malformed(f"memo entry {index} is read before it is written") from None


def read_number(line: bytes) -> int:
    """Read a decimal number as a pickler writes it.

    Python's readers take more: signs, spaces, underscores, other bases; and each takes something else.
    """
    if len(line) > DIGITS:
        raise LimitExceeded(f"a decimal number has more than {DIGITS:,} digits")
    if _NUMBER.fullmatch(line) is None:
        raise Malformed("the text is no decimal number as picklers write it")
    return int(line)


Handler = Callable[[MachineState, Any, int], int]
"""Carries out one opcode: ``handler(machine, data, position)``; returns the position behind its argument.

`data` is the window of the source, and `position` the one behind the opcode.
"""
