"""A list of what is allowed: classes, functions and exact names."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from safepickle.guard.limits import Malformed, Refusal
from safepickle.guard.never import reason_against
from safepickle.messages import dotted_name
from safepickle.options import AllowItem

__all__ = ["AllowList", "check_kind"]

_LATER: Final = object()


class AllowList:
    """Names by exact pair, each with its object; strings are imported when a stream first uses them.

    Args:
        items: Classes, functions, and strings ``"module:name"``.

    Raises:
        TypeError: An item is of another kind.
        ValueError: An item can never be allowed; the message says why.
    """

    def __init__(self, items: Iterable[AllowItem] = ()) -> None:
        if isinstance(items, (str, type)) or not isinstance(items, Iterable):
            kind = dotted_name(type(items))
            raise TypeError(f"allow= takes a collection of classes, functions and 'module:name' strings, not {kind}")
        self._objects: dict[tuple[str, str], Any] = {}
        for item in items:
            self._add(item)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._objects

    def resolve(self, pair: tuple[str, str]) -> Any:
        """Return the object of an allowed name.

        Raises:
            Malformed: It cannot be imported.
            Refusal: It is no class or function, or another name for what can never be allowed.
        """
        target = self._objects[pair]
        if target is _LATER:
            target = self._objects[pair] = _import(*pair)
        return target

    def joined(self, others: Iterable[AllowList]) -> AllowList:
        """Return a list that holds the names of this one and of others."""
        joined = AllowList()
        for allowed in (*others, self):
            joined._objects.update(allowed._objects)
        return joined

    def _add(self, item: Any) -> None:
        if isinstance(item, str):
            module, colon, name = item.partition(":")
            if not (module and colon and name) or not all(
                part.isidentifier() for part in (*module.split("."), *name.split("."))
            ):
                raise TypeError(f"allow= takes exact names written as 'module:name', not {item[:100]!r}")
            target = _LATER
        else:
            check_kind(item)
            module, name, target = item.__module__, item.__qualname__, item
            # A builtin function may call its module None.
            module = module or "builtins"
        reason = reason_against(module, name)
        if reason is not None:
            raise ValueError(f"allow= cannot hold {module}:{name}: {reason}")
        self._objects[module, name] = target


def check_kind(item: object) -> None:
    """Hold that an object is a class or a function.

    Raises:
        TypeError: It is neither.
    """
    bound = isinstance(item, BuiltinFunctionType) and not isinstance(item.__self__, (ModuleType, type(None)))
    if bound or not isinstance(item, (type, FunctionType, BuiltinFunctionType)):
        raise TypeError(f"allow= takes classes, functions and 'module:name' strings, not {dotted_name(type(item))}")


def _import(module: str, name: str) -> Any:
    try:
        __import__(module)
        target: Any = sys.modules[module]
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise Malformed(f"it cannot be imported here ({error})") from error
    try:
        check_kind(target)
    except TypeError:
        raise Refusal(f"it is no class or function, but of type {dotted_name(type(target))}") from None
    if not isinstance(target, type) and "." in name:
        raise Refusal("it is a method: allowing a class allows to construct it, not to call its methods")
    # Another name for a thing that can never be allowed is no way around.
    reason = reason_against(target.__module__ or "builtins", target.__qualname__)
    if reason is not None:
        raise Refusal(f"it is another name for {target.__module__}:{target.__qualname__}, and {reason}")
    return target
