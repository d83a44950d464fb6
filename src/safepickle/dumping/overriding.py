"""`reducer_override` as the C pickler finds it: it asks the pickler for that attribute as each walk begins.

What a walk calls in its place is an attribute of another name, `in_front`. So nothing is lost of what a subclass
defines, or a caller has set.
"""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["wrap_override"]

_NAME = "reducer_override"


class _Override:
    """The method of a class; for the picklers of which it is the outermost one, what is in front of it."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.owner: type | None = None

    def __get__(self, pickler: Any, cls: type | None = None) -> Any:
        # A subclass comes here by super(), too.
        if pickler is not None and pickler.override_owner is self.owner:
            in_front = pickler.in_front
            if in_front is not None:
                return in_front
            if _NAME in pickler.__dict__:
                return pickler.__dict__[_NAME]
        return self.method.__get__(pickler, cls)

    def __set__(self, pickler: object, override: object) -> None:
        pickler.__dict__[_NAME] = override

    def __delete__(self, pickler: object) -> None:
        try:
            del pickler.__dict__[_NAME]
        except KeyError:
            raise AttributeError(_NAME) from None


def wrap_override(cls: Any) -> None:
    """Let a walk put something in front of what a class defines itself, or takes from a class that is no pickler."""
    override = inspect.getattr_static(cls, _NAME)
    if type(override) is not _Override:
        cls.reducer_override = override = _Override(
            override if hasattr(override, "__get__") else staticmethod(override)
        )
        override.owner = cls
    cls.override_owner = override.owner
