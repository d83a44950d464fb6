"""What the user allows, for one load or for a block of code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from safepickle.options import AllowItem
from safepickle.public import public

if TYPE_CHECKING:
    from safepickle.guard.allow_list import AllowList

__all__ = ["allow_list", "allowing"]

_scope: ContextVar[tuple[AllowList, ...]] = ContextVar("safepickle_allowing", default=())


def allow_list(items: Iterable[AllowItem] | None) -> AllowList | None:
    """Return the list in force: `items` and every `allowing` around; None where nothing guards.

    Raises:
        TypeError: As `AllowList`.
        ValueError: As `AllowList`.
    """
    around = _scope.get()
    if items is None and not around:
        return None
    from safepickle.guard.allow_list import AllowList  # most loads are not guarded, and need none

    return AllowList(items or ()).joined(around)


@public
@contextlib.contextmanager
def allowing(*items: AllowItem) -> Iterator[None]:
    """Guard every load in a block, and allow `items` in it beside the built-in list.

    Blocks nest, and add up. The list holds for this thread, or this asyncio task, alone.

    Args:
        *items: Classes, functions, and strings ``"module:name"``.

    Yields:
        Nothing.

    Raises:
        TypeError: An item is of another kind.
        ValueError: An item can never be allowed; the message says why.

    Examples:
        >>> import argparse
        >>> data = safepickle.dumps(argparse.Namespace(epoch=3))
        >>> with safepickle.allowing(argparse.Namespace):
        ...     safepickle.loads(data)
        Namespace(epoch=3)
    """
    from safepickle.guard.allow_list import AllowList

    token = _scope.set((*_scope.get(), AllowList(items)))
    try:
        yield
    finally:
        _scope.reset(token)
