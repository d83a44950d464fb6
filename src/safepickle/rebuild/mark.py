"""The mark of the file format: what carries it is named by pickles that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["file_format"]

Named = TypeVar("Named", bound=Callable[..., Any])


def file_format(named: Named) -> Named:
    """Mark a callable or a class as one that pickles name, which is as a member of `safepickle.rebuild` itself.

    So it may be moved from one module of this package to another, and the bytes stay the same.
    """
    named.__module__ = "safepickle.rebuild"
    return named
