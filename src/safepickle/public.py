"""The mark of a public name: pickles and messages know it as a member of `safepickle` itself.

So what defines it may move from one module to another, and no file breaks. `rebuild` has a mark of its own, for what
pickles name and nobody calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["public"]

Named = TypeVar("Named", bound=Callable[..., Any])


def public(named: Named) -> Named:
    """Mark a function or a class as a member of `safepickle`, whichever module defines it."""
    named.__module__ = "safepickle"
    return named
