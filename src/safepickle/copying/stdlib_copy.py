"""How `copy.deepcopy` asks the memo for a part, which differs between versions of CPython.

A `__deepcopy__` hands its parts to ``copy.deepcopy(part, memo)``, which looks into the memo first. A memo that answers
with a copy made for the occasion so gets to see every part.

==========  ============================================  =========================
CPython     asks for the object ``x`` by                  never asks for
==========  ============================================  =========================
3.11-3.13   ``memo.get(id(x), _nil)``
3.14        ``memo.get(id(x), _nil)``                     what it shares unseen
3.15        ``id(x) in memo``, and then ``memo[id(x)]``   what it shares unseen
==========  ============================================  =========================

What it shares unseen (``copy._atomic_types``) includes `weakref.ref` and functions.

Source:
    ``deepcopy`` in Lib/copy.py of each version.
"""

from __future__ import annotations

import copy
import sys
import threading
import types
import weakref
from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any, Final

from safepickle.cpython import after_fork_in_child

__all__ = ["ASKS_BY_CONTAINS", "FOLLOWED", "NOT_ASKED", "asked_for", "copied_by", "references_are_asked_for"]

NOT_ASKED: Any = object()

ASKS_BY_CONTAINS: Final = sys.version_info >= (3, 15)

FOLLOWED: Final = frozenset({weakref.ref, types.FunctionType, types.BuiltinFunctionType})
"""What `copy.deepcopy` always shares, and `safepickle.deepcopy` not always."""

_DEEPCOPY_CODE: Final = copy.deepcopy.__code__


def asked_for(frame: FrameType, key: object) -> Any:
    """Return the object that `copy.deepcopy` wants to know the copy of, or `NOT_ASKED`.

    Args:
        frame: Who looks into the memo.
        key: What it looks for.
    """
    if frame.f_code is not _DEEPCOPY_CODE:
        return NOT_ASKED
    original = frame.f_locals["x"]
    return original if id(original) == key else NOT_ASKED


def copied_by(frame: FrameType) -> Any:
    """Return the object whose ``__deepcopy__`` runs in a frame, or `NOT_ASKED` where none does or it has let go."""
    code = frame.f_code
    is_method = code.co_name == "__deepcopy__" and code.co_argcount > 0
    return frame.f_locals.get(code.co_varnames[0], NOT_ASKED) if is_method else NOT_ASKED


class _ReferencesAreAskedFor:
    """While it is entered, `copy.deepcopy` looks into the memo for all that is `FOLLOWED`, as it did before 3.14.

    There is no other way to learn of a reference or a function that a ``__deepcopy__`` copies by itself:
    `copy.deepcopy` decides by the exact type, and tells nobody. Whoever else calls it meanwhile, in this thread or in
    another one, gets what it always gets: the same object.
    """

    def __init__(self) -> None:
        self._renew_lock()
        self._entered = 0
        after_fork_in_child(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._entered += 1
            # It stays there: another thread may be about to look it up when this one leaves.
            for cls in FOLLOWED:
                copy._deepcopy_dispatch.setdefault(cls, _share)  # type: ignore[attr-defined]
            copy._atomic_types = _SHARED_UNSEEN - FOLLOWED  # type: ignore[attr-defined]

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._entered -= 1
            if self._entered == 0:
                copy._atomic_types = _SHARED_UNSEEN  # type: ignore[attr-defined]


def _share(original: object, memo: object) -> Any:
    return original


_SHARED_UNSEEN: Final[Set[type]] = getattr(copy, "_atomic_types", frozenset())

references_are_asked_for: Final[AbstractContextManager[None]] = (
    _ReferencesAreAskedFor() if weakref.ref in _SHARED_UNSEEN else nullcontext()
)
