"""What the reducers ask of a class."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any, Final

__all__ = ["has_own_reduce", "new_object"]

new_object: Final[Callable[..., Any]] = getattr(copyreg, "__newobj__")  # noqa: B009 (the stubs do not have it)
"""``cls.__new__(cls, *args)``: the pickler knows it by its name and writes it as one opcode."""


def has_own_reduce(cls: Any) -> bool:
    """Tell whether a class says itself how its instances are pickled."""
    return cls.__reduce__ is not object.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__
