"""What an allowed class may be called with where its constructor is not its own, but that of a builtin base class.

Allowing a class trusts its own code with what is in the file. What it inherits from a type written in C is no code of
its author's: `bytes` makes as many zeros as it is told, `tuple` reads whatever can be iterated, and `set` hashes.
Such a constructor gets what pickle writes for it, by the rule of the builtin list where that has one.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import tzinfo
from types import BuiltinFunctionType, WrapperDescriptorType
from typing import Any, Final

from safepickle.guard.limits import DIGITS, LimitExceeded, Malformed, Refusal
from safepickle.guard.rules import BUILT_IN, RuleContext
from safepickle.guard.rules.base import allocate, expect, no_call
from safepickle.guard.rules.copies import own_arguments
from safepickle.guard.rules.stdlib import DICT_ENTRY, members

__all__ = ["users_arguments"]


def users_arguments(
    context: RuleContext, cls: type, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool
) -> tuple[Any, ...]:
    """Judge the arguments of an allowed class, and return those to call it with.

    Args:
        context: What rules may ask.
        cls: The class.
        arguments, keywords: As the stream gives them.
        new: Whether its ``__new__`` alone is called.

    Raises:
        Refusal: A constructor that it inherits would read, call or allocate more than pickle writes for it.
    """
    if not arguments and not keywords:
        return arguments
    maker, starter = _owner(cls, "__new__"), _owner(cls, "__init__")
    owners = [] if maker in _STARTED else [(maker, "__new__")]
    if not new and (starter is not maker or maker in _STARTED):
        owners.append((starter, "__init__"))
    for owner, method in owners:
        if owner in _PASSIVE or issubclass(owner, BaseException) or _is_authors(owner, method):
            continue
        if keywords and owner not in _KEYWORDS:
            raise Refusal(f"its constructor is that of {owner.__qualname__}, which pickle calls without keywords")
        if arguments:
            arguments = _judged(context, owner, arguments)
    return arguments


def _owner(cls: type, method: str) -> type:
    """Return the class that defines a method of `cls`."""
    return next(base for base in cls.__mro__ if method in vars(base))


def _is_authors(owner: type, method: str) -> bool:
    """Tell whether a method is neither of a class on the built-in list nor written in C for the standard library."""
    if owner in _CHECKS or (owner.__module__, owner.__qualname__) in BUILT_IN:
        return False
    # Some of the standard library's classes in C are made by it at run time, and each version makes more of them so.
    is_in_c = isinstance(vars(owner)[method], (BuiltinFunctionType, WrapperDescriptorType))
    is_standard = is_in_c and owner.__module__.partition(".")[0] in sys.stdlib_module_names
    return bool(owner.__flags__ & _HEAP_TYPE) and not is_standard


def _judged(context: RuleContext, owner: type, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Judge arguments by the rule of a class on the built-in list."""
    check = _CHECKS.get(owner)
    if check is not None:
        check(context, arguments)
        return arguments
    rule = BUILT_IN.get((owner.__module__, owner.__qualname__))
    if rule is None or rule.check is no_call:
        raise Refusal(f"its constructor is that of {owner.__qualname__}, which pickle calls without arguments")
    arguments = own_arguments(context, arguments, rule.reads)
    rule.check(context, arguments)
    return arguments


def _plain(*kinds: type) -> Callable[[RuleContext, tuple[Any, ...]], None]:
    def check(context: RuleContext, arguments: tuple[Any, ...]) -> None:
        expect(arguments, kinds, least=0)

    return check


def _integer(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (int, bool, float, str), least=0)
    if type(arguments[0]) is str and len(arguments[0]) > DIGITS:
        raise LimitExceeded(f"the number has more than {DIGITS:,} digits")


def _dict(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (dict, list, tuple), least=0)
    entries = arguments[0]
    allocate(context, DICT_ENTRY * len(entries))
    if type(entries) is not dict and not all(type(pair) in (tuple, list) and len(pair) == 2 for pair in entries):
        raise Malformed("its argument is not a list of pairs")
    keys = list(entries) if type(entries) is dict else [pair[0] for pair in entries]
    if keys:
        context.check_keys(keys, entries)


_CHECKS: Final[dict[type, Callable[[RuleContext, tuple[Any, ...]], None]]] = {
    int: _integer,
    float: _plain(int, float, str),
    str: _plain(str),
    bytes: _plain(bytes, bytearray),
    bytearray: _plain(bytes, bytearray),
    tuple: _plain(tuple, list),
    list: _plain(tuple, list),
    dict: _dict,
    set: members,
    frozenset: members,
}
_PASSIVE: Final = frozenset({object, tzinfo})
"""Classes whose constructors pass over what they are given, as exceptions only keep it."""

_STARTED: Final = frozenset({list, dict, set, bytearray, deque})
"""Classes whose ``__new__`` passes over its arguments, which ``__init__`` takes."""

_KEYWORDS: Final = frozenset({dict, OrderedDict, defaultdict, Counter})
"""Classes that keep keyword arguments as their items."""

_HEAP_TYPE: Final = 1 << 9
"""The flag of classes that were made while the program runs, as by a class statement."""
