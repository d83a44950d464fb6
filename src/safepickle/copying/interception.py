"""How calls of `copy.deepcopy` come to us, whichever name they go by, in one thread or task alone.

`copy.deepcopy` looks up how to copy an object in ``copy._deepcopy_dispatch``. While somebody intercepts, a table stands
in front of it that asks the current context first; to a thread or a task that does not intercept it answers as the
table behind it does. The function itself is never replaced, so that ``from copy import deepcopy`` may come before. When
nobody intercepts any more, the table behind is in its place again.

Source:
    ``deepcopy`` in CPython Lib/copy.py: the look-up comes after that in the memo.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final, TypeAlias

from safepickle.copying.stdlib_copy import FOLLOWED
from safepickle.cpython import after_fork_in_child

__all__ = ["Copy", "Interceptor", "install", "interceptor", "uninstall"]

Copy: TypeAlias = Callable[[Any, Any], Any]
"""Called with an object and the memo of `copy.deepcopy`; returns the copy."""
Interceptor: TypeAlias = Callable[[Any, Any, "FrameType | None"], "Copy | None"]
"""Called with an object, the memo of `copy.deepcopy` and who called that; returns how to copy, or None for its way."""

interceptor: Final[ContextVar[Interceptor | None]] = ContextVar("safepickle_deepcopy_interceptor", default=None)


def install() -> None:
    """Let the interceptor of each context be asked, until `uninstall` is called as often as this."""
    with _Installed.lock:
        if _Installed.times == 0:
            _module._deepcopy_dispatch = _Front(_module._deepcopy_dispatch)
        _Installed.times += 1


def uninstall() -> None:
    """Undo one `install`."""
    with _Installed.lock:
        _Installed.times -= 1
        front = _module._deepcopy_dispatch
        # Somebody else may have put their own table in front of ours. Then ours does no harm.
        if _Installed.times == 0 and type(front) is _Front:
            _module._deepcopy_dispatch = front.behind


class _Installed:
    lock = threading.Lock()
    times = 0

    @classmethod
    def renew_lock(cls) -> None:
        cls.lock = threading.Lock()


after_fork_in_child(_Installed.renew_lock)


class _Front(MutableMapping[type, Any]):
    """The table that stands in front of the other one: what is written goes to that."""

    def __init__(self, behind: MutableMapping[type, Any]) -> None:
        self.behind = behind

    def get(self, cls: type, default: object = None) -> Any:
        found = self.behind.get(cls, default)
        intercept = interceptor.get()
        if intercept is None or (found is _ATOMIC and cls not in FOLLOWED):
            return found
        frame = sys._getframe(1)
        if frame.f_code is not _DEEPCOPY_CODE:
            return found
        names = frame.f_locals
        copier = intercept(names["x"], names["memo"], frame.f_back)
        return found if copier is None else copier

    def __getitem__(self, cls: type) -> Any:
        return self.behind[cls]

    def __setitem__(self, cls: type, copier: object) -> None:
        self.behind[cls] = copier

    def __delitem__(self, cls: type) -> None:
        del self.behind[cls]

    def __iter__(self) -> Iterator[type]:
        return iter(self.behind)

    def __len__(self) -> int:
        return len(self.behind)


_module: Final[Any] = copy
# From 3.14 on what is shared is not looked up.
_ATOMIC: Final = getattr(copy, "_deepcopy_atomic", object())
_DEEPCOPY_CODE: Final = copy.deepcopy.__code__
