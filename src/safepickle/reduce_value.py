"""The type of a reduce value, as the pickle documentation describes it for ``object.__reduce__``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import NotImplementedType
from typing import Any, Final, TypeAlias

__all__ = ["NOT_REDUCED", "FullReduceTuple", "ReduceTuple", "ReduceValue", "in_full"]

_Build: TypeAlias = Callable[..., object]
_Arguments: TypeAlias = tuple[Any, ...]
_Items: TypeAlias = Iterator[Any] | None
_SetState: TypeAlias = Callable[[Any, Any], object] | None

FullReduceTuple: TypeAlias = tuple[_Build, _Arguments, object, _Items, _Items, _SetState]
"""What builds an object, its arguments, its state, list items, dict items, and what sets the state."""

ReduceTuple: TypeAlias = (
    tuple[_Build, _Arguments]
    | tuple[_Build, _Arguments, object]
    | tuple[_Build, _Arguments, object, _Items]
    | tuple[_Build, _Arguments, object, _Items, _Items]
    | FullReduceTuple
)
"""The same, which may end early."""

ReduceValue: TypeAlias = ReduceTuple | str | NotImplementedType
"""A reduce tuple, the name of a global, or NotImplemented: the object is left to the C pickler."""

NOT_REDUCED: Final[ReduceValue] = NotImplemented
"""What a reducer returns to leave its object to the C pickler: NotImplemented, which mypy takes for Any by itself."""


def in_full(value: ReduceTuple) -> FullReduceTuple:
    """Return a reduce tuple with None in each place that it leaves out."""
    full: Any = (*value, None, None, None, None)[:6]
    filled: FullReduceTuple = full
    return filled
