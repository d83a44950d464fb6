"""What a rule is: for one name, the arguments it may be called with, and what is known of the result.

Rules judge by exact types and by `ValueInfo`, never by asking an object, so that the load and `safepickle.inspect`,
which builds nothing of the kind, judge alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from safepickle.guard.blob import Blob
from safepickle.guard.limits import ALLOCATED, DIMENSIONS, Malformed, Refusal
from safepickle.guard.rules.copies import ALL


@dataclass(slots=True)
class ValueInfo:
    """What is known of a value, whether or not it exists.

    Attributes:
        kind: ``"storage"``, ``"tensor"``, ``"array"``, ``"dtype"``, ...
        dtype: Name of the element type.
        itemsize: Bytes of one element.
        nbytes: Bytes that back the value; None when only the load can tell.
        shape: Lengths of the dimensions.
        layout: Of a tensor; of a dtype, ``"subarray"``; of a weak dictionary, how it tells keys apart.
        open: Whether it still waits for its state.
        depth: How many references lie between it and what is no reference.
        filled: Whether a storage already holds its data.
        weight: How many element types a dtype is made of.
        levels: How deep they nest.
        swapped: Whether the bytes are in the order of another machine.
        nests: Whether C frees a value by recursion with what it will hold, as `RuleContext.nest` says.
    """

    kind: str
    dtype: str = ""
    itemsize: int = 0
    nbytes: int | None = 0
    shape: tuple[int, ...] = ()
    layout: str = "strided"
    open: bool = False
    depth: int = 0
    filled: bool = True
    weight: int = 1
    levels: int = 0
    swapped: bool = False
    nests: bool = False


class RuleContext(Protocol):
    """What a rule may ask."""

    def info(self, value: object) -> ValueInfo | None:
        """What is known of a value that this load has made or named."""

    def grant(self, value: object) -> Grant | None:
        """The grant behind a value that is a name's object, or None."""

    def kind(self, value: object) -> Grant | None:
        """The grant of the class that a value was made from, or None."""

    def spend(self, amount: int) -> None:
        """Charge for `amount` units of work: bytes that C code copies, converts, hashes, compares or allocates.

        A unit that is not a byte is some ten nanoseconds. What an argument or a state measures on its surface (the
        length of a string, 16 for each item of a container) is charged before the rule is asked, so that nothing
        memoised is handed on again and again for nothing. A rule charges for what it unfolds below that surface, and
        for what C code makes of it that is larger than what it was given.

        Raises:
            LimitExceeded: More than a stream of its length may spend.
        """

    def nest(self, value: object, parts: Iterable[Any]) -> None:
        """Note that `value` directly holds `parts` from now on, where C frees values of its type by recursion.

        For arrays of objects, queues, and what else is no list, dict, tuple, set, exception or instance of a Python
        class: a chain of values that were noted so is bounded, and is broken by any other value in it. Deques and
        defaultdicts are noted by the machine. The rule for the call that makes any other value says so by
        `ValueInfo.nests`. Charge for going through `parts` first.

        Raises:
            LimitExceeded: It is nested too deeply.
        """

    def weigh(self, value: object, units: int) -> None:
        """Note what hashing or comparing a value costs, where it is more than its arguments measure."""

    def check_keys(self, keys: object, container: object) -> None:
        """Charge for hashing `keys` into `container`, and for comparing those of equal hash with one another.

        Call it before anything is hashed. `container` is what holds the keys, or what they come from where that is
        still to be made; keys of one container are counted together.

        Raises:
            LimitExceeded: It costs too much.
        """

    def length(self, value: object) -> int | None:
        """Bytes in a bytes-like value; None when only the load can tell, -1 for anything else."""

    def nested(self, payload: object) -> Any:
        """Load a torch file that lies inside the pickle, under the same guard."""


Check = Callable[[RuleContext, tuple[Any, ...]], "ValueInfo | None"]


def no_call(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Refuse every call: the name may only be mentioned."""
    raise Refusal("it may be mentioned, but not called")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a name may do.

    Attributes:
        check: Judges the arguments of a call, and returns what is known of the result.
        make: Makes the result, in place of calling the name's object.
        reads: For each argument, how many levels of containers the check and the callee read; the last one stands for
            all that follow. These levels are copied first, so that the stream cannot change them. What lies deeper is
            only kept: it stays the stream's own object. Whoever names nothing here gets copies all the way down.
        state_reads: The same for a state.
        state: Judges a state, and says by what function it is set: ``state(context, obj, info, state)``.
        items: Judges keys that are to be set in an instance, and says by what function: ``items(context, obj, keys)``.
        data: Whether the name's object may be part of the result, as a class may. Else it may only be called.
        plain: Whether it belongs to the standard library and builds values: inspect makes those for real.
        info: What is known of the name's object itself.
        unfolds: For a name that stands for another operation, or begins with one: which.
        of_first: Whether the result is an instance of the first argument.
        functions: Whether it may be called with names that may only be called, which it does not keep.
        new_only: Whether instances are made without calling the class.
    """

    check: Check = no_call
    make: Callable[..., Any] | None = None
    reads: tuple[int, ...] = (ALL,)
    state_reads: int = ALL
    state: Callable[[RuleContext, Any, ValueInfo | None, Any], Callable[[Any, Any], None]] | None = None
    items: Callable[[RuleContext, Any, list[Any]], Callable[[Any, Any, Any], None]] | None = None
    data: bool = False
    plain: bool = False
    info: ValueInfo | None = None
    unfolds: str = ""
    of_first: bool = False
    functions: bool = False
    new_only: bool = False


@dataclass(slots=True, eq=False, weakref_slot=True)
class Grant:
    """A name that this load may use.

    Attributes:
        module, name: The exact pair.
        rule: What it may do.
        listed: ``"built-in"``, ``"user"``, or ``"needed"`` (inspect: not on any list yet).
        target: The object, once it was imported.
        offset: The byte at which the stream first named it.
    """

    module: str
    name: str
    rule: Rule
    listed: str = "built-in"
    target: Any = None
    offset: int = 0

    @property
    def key(self) -> str:
        """How the name is written in ``allow=``."""
        return f"{self.module}:{self.name}"


DATA: Final = Rule(data=True)
"""A name that may be mentioned and does nothing."""


def is_one_of(value: object, *choices: object) -> bool:
    """Tell whether a value is one of some plain ones, without asking it to compare itself with them."""
    return any(type(value) is type(choice) and value == choice for choice in choices)


def allocate(context: RuleContext, nbytes: int) -> None:
    """Charge for `nbytes` that a call allocates and fills."""
    context.spend(ALLOCATED * nbytes)


def is_size(value: object) -> bool:
    """Tell whether a value is a plain integer, 0 or more, that fits 63 bits."""
    return type(value) is int and 0 <= value < 1 << 63


def sizes(value: object, what: str) -> tuple[int, ...]:
    """Return a shape or strides as a tuple.

    Raises:
        Malformed: It is not a tuple of integers from 0 on.
    """
    if type(value) is not tuple or len(value) > DIMENSIONS or not all(map(is_size, value)):
        raise Malformed(f"the {what} is not a tuple of at most {DIMENSIONS} integers from 0 on")
    return value


def count_elements(shape: tuple[int, ...]) -> int:
    """Return the product of the dimensions, unless it overflows.

    Raises:
        Malformed: It does not fit 63 bits.
    """
    # numpy and torch multiply the other dimensions even where one of them is 0.
    widest = math.prod(size or 1 for size in shape)
    if widest >= 1 << 60:
        raise Malformed("the dimensions multiply to more than 2**60 elements")
    return 0 if 0 in shape else widest


def hold_count(arguments: tuple[Any, ...], *counts: int) -> None:
    """Hold a call to one of some numbers of arguments.

    Raises:
        Refusal: There are more or fewer.
    """
    if len(arguments) not in counts:
        raise Refusal(f"it is called with {len(arguments)} arguments")


def no_arguments(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Allow a call without arguments."""
    hold_count(arguments, 0)


def set_state(obj: Any, state: Any) -> None:
    """Set a state by the method of its object."""
    obj.__setstate__(state)


def expect(arguments: tuple[Any, ...], *kinds: type | tuple[type, ...], least: int | None = None) -> None:
    """Hold arguments against exact types.

    Raises:
        Refusal: There are more or fewer, or one is of another type.
    """
    least = len(kinds) if least is None else least
    if not least <= len(arguments) <= len(kinds):
        raise Refusal(f"it is called with {len(arguments)} arguments")
    for position, (argument, kind) in enumerate(zip(arguments, kinds, strict=False)):
        actual = argument.stands_for if type(argument) is Blob else type(argument)
        if actual not in (kind if isinstance(kind, tuple) else (kind,)):
            raise Refusal(f"argument {position + 1} is of type {actual.__qualname__}")
