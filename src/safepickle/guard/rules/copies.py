"""What was checked cannot change: a rule sees, and what it allows is called with, containers of the guard's own.

A stream holds on to every container that it has made, and may fill it further after a call: the `fields` of a dtype,
the hooks of a tensor. So each call and each state is copied first, as deep as its rule reads, and the copy is all that
the check and the callee ever get. What lies deeper is only kept by the callee, so it stays the stream's own object:
a list among the arguments of an exception may well lead back to the exception.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

from safepickle.guard.limits import Refusal

__all__ = ["ALL", "own_arguments", "own_container"]

ALL: Final = 8
"""Levels that no argument of any rule reaches."""

_SLOT: Final = 16
"""Units of work for an item that is copied."""


class _Payer(Protocol):
    def spend(self, amount: int) -> None: ...


def own_arguments(payer: _Payer, arguments: tuple[Any, ...], levels: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the arguments of a call with containers of the guard's own.

    Args:
        payer: Charged for what is copied.
        arguments: As the stream gives them.
        levels: For each argument, how many levels of containers the rule and the callee read; the last one stands for
            all that follow.
    """
    if _COPIES.keys().isdisjoint(map(type, arguments)):
        return arguments
    last = levels[-1]
    depths = (*levels, *[last] * (len(arguments) - len(levels)))
    return tuple(own_container(payer, argument, depth) for argument, depth in zip(arguments, depths, strict=False))


def own_container(payer: _Payer, value: Any, levels: int) -> Any:
    """Return a copy of a container, `levels` deep; any other value as it is.

    Raises:
        Refusal: A dict whose values are to be copied has keys that are no strings.
    """
    copy = _COPIES.get(type(value))
    if copy is None or not levels:
        return value
    payer.spend(_SLOT * (1 + len(value)))
    return copy(payer, value, levels - 1)


def _own_tuple(payer: _Payer, value: tuple[Any, ...], levels: int) -> tuple[Any, ...]:
    if not levels or _COPIES.keys().isdisjoint(map(type, value)):
        return value
    return tuple(own_container(payer, item, levels) for item in value)


def _own_list(payer: _Payer, value: list[Any], levels: int) -> list[Any]:
    if not levels or _COPIES.keys().isdisjoint(map(type, value)):
        return value.copy()
    return [own_container(payer, item, levels) for item in value]


def _own_dict(payer: _Payer, value: dict[Any, Any], levels: int) -> dict[Any, Any]:
    # The copy of a dict uses the hashes that it has; a new dict would ask the keys again.
    if not levels or _COPIES.keys().isdisjoint(map(type, value.values())):
        return value.copy()
    if set(map(type, value)) != {str}:
        raise Refusal("it is called with a dict whose keys are no strings")
    return {key: own_container(payer, item, levels) for key, item in value.items()}


def _own_ordered(payer: _Payer, value: OrderedDict[Any, Any], levels: int) -> OrderedDict[Any, Any]:
    # One with items in it can only be kept. No rule reads any: they hold hooks.
    return value if value else OrderedDict()


def _own_set(payer: _Payer, value: set[Any], levels: int) -> set[Any]:
    return value.copy()


_COPIES: Final[dict[type, Callable[[_Payer, Any, int], Any]]] = {
    tuple: _own_tuple,
    list: _own_list,
    dict: _own_dict,
    set: _own_set,
    OrderedDict: _own_ordered,
}
