"""What many tests are made of."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import safepickle


class Node:
    """An object that can be referred to weakly, with whatever attributes a test gives it."""

    name = "node"

    def __init__(self, name: str | None = None, **attributes: Any) -> None:
        if name is not None:
            self.name = name
        self.__dict__.update(attributes)

    def method(self) -> str:
        return self.name

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...


class Offender:
    """An object that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise ValueError("not today")


class OpenRef(weakref.ref):
    """A reference with a ``__dict__``."""


deepcopy: Callable[..., Any] = safepickle.deepcopy
"""The same function, for tests that take a copied graph apart: the annotation says nothing of the parts."""


def round_trip(obj: Any, protocol: int | None = None, **options: Any) -> Any:
    return safepickle.loads(safepickle.dumps(obj, protocol, **options))
