"""What the tests of weak types are made of."""

from __future__ import annotations

import weakref
from typing import Any

import safepickle


class Node:
    def __init__(self, name: str = "node") -> None:
        self.name = name

    def method(self) -> str:
        return self.name


class OpenRef(weakref.ref):
    """A reference with a ``__dict__``."""


def round_trip(obj: Any, protocol: int | None = None, **options: Any) -> Any:
    return safepickle.loads(safepickle.dumps(obj, protocol, **options))
