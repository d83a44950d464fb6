"""`deepcopy`: `copy.deepcopy`, with the weak references inside pointing into the copy."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import islice
from typing import Any, TypeVar, cast

from safepickle.callers import warn
from safepickle.copying.followers import FOLLOWER_COPIERS, name_of_callback
from safepickle.copying.libraries import find_library_copier
from safepickle.copying.memo import Copier, Memo, Plans
from safepickle.copying.stdlib_copy import copied_by, references_are_asked_for
from safepickle.copying.strong import STRONG_COPIERS, copy_without_method, find_registered_copier, find_strong_copier
from safepickle.copying.weak import WEAK_COPIERS, find_weak_copier, finish, settle
from safepickle.errors import CallbackWarning
from safepickle.messages import dotted_name
from safepickle.options import Finalizers, check_finalizers
from safepickle.public import public

__all__ = ["copy_root", "deepcopy"]

T = TypeVar("T")

_MEMO_KEY = "safepickle"
_COPIERS: dict[type, Copier | None] = {**STRONG_COPIERS, **FOLLOWER_COPIERS, **WEAK_COPIERS}


@public
def deepcopy(obj: T, memo: dict[Any, Any] | None = None, *, finalizers: Finalizers = "dead") -> T:
    """Copy an object and what it holds, as `copy.deepcopy` does, and relink the weak references inside.

    A weak reference (`weakref.ref`, its subclasses, proxies, `WeakMethod`, weak containers) whose referent is copied
    leads to the copy. One whose referent is not reached from ``obj`` without following weak references leads to the
    same object as before. Functions and callbacks are shared, unless they lead to something that is copied; a callback
    that does and can't be copied is left out.

    What `dumps` has a reducer for is copied by it. Everything else follows `copy.deepcopy`: `__deepcopy__`,
    `__reduce_ex__` and `copyreg` are honoured, classes are shared. A class can say ``__deepcopy__ =
    safepickle.deepcopy``; whoever calls `copy.deepcopy` on its instances then gets this.

    Args:
        obj: What to copy. It is not changed.
        memo: For use inside a `__deepcopy__` method: the memo that it was given.
        finalizers: What becomes of `weakref.finalize`: ``"dead"``, since it guards what belongs to the original, such
            as a directory, or ``"rearm"``, armed on the copy. Inside a `__deepcopy__` method the first call decides.

    Returns:
        The copy.

    Warns:
        CallbackWarning: Callbacks were left out.

    Raises:
        copy.Error: An object says nothing of how it is copied.
        RecursionError: The object is nested deeper than Python's recursion limit allows.
        ValueError: `finalizers` is not a known value.

    Examples:
        >>> import weakref
        >>> class Node:
        ...     pass
        >>> node = Node()
        >>> node.itself = weakref.ref(node)
        >>> copy = safepickle.deepcopy(node)
        >>> copy.itself() is copy
        True
    """
    check_finalizers(finalizers)
    # A method that calls `super().__deepcopy__(memo)` wants its own object copied without being asked again.
    copier = copy_without_method if memo is not None and copied_by(sys._getframe(1)) is obj else None
    if isinstance(memo, Memo):
        return cast("T", memo.copy_part(obj, copier))
    return cast("T", copy_root(obj, memo, copier, finalizers))


deepcopy.__safepickle__ = True  # type: ignore[attr-defined]  # so that the walk doesn't take it for a class's own way


def _find_copier(cls: type) -> Copier | None:
    first = find_registered_copier(cls) or find_weak_copier(cls) or find_library_copier(cls)
    return first or find_strong_copier(cls)


def _walk(obj: object, memo: Memo, copier: Copier | None) -> Any:
    return memo.copy_sealed(obj) if copier is None else copier(obj, memo)


def copy_root(obj: object, outer: dict[Any, Any] | None, copier: Copier | None, finalizers: Finalizers = "dead") -> Any:
    """Copy ``obj`` and settle its references.

    Args:
        obj: What to copy.
        outer: The memo of a walk of `copy.deepcopy` that led here, which gets to know what is copied.
        copier: How to copy ``obj`` itself, or None for the usual way.
        finalizers: What becomes of finalizers.
    """
    memo = _new_memo(finalizers) if outer is None else _memo_beside(outer, finalizers)
    known = len(memo)
    is_done = False
    try:
        with references_are_asked_for:
            copied = _walk(obj, memo, copier)
            if not finish(memo):
                memo.start_again(outer or {})
                known = 0
                for first in memo.to_begin_with:
                    if first is not obj:
                        memo.copy_sealed(first)
                copied = _walk(obj, memo, copier)
                finish(memo)
        copied = settle(copied, memo)
        if outer is not None:
            _tell(outer, memo, len(memo) - known)
        if memo.without_callback:
            _warn_of_callbacks(memo)
        is_done = True
        return copied
    except RecursionError as error:
        error.add_note(
            f"safepickle.deepcopy: {dotted_name(type(obj))} is nested too deep to be copied "
            f"under the recursion limit of {sys.getrecursionlimit()}. Raise it with sys.setrecursionlimit(), or give "
            "the class at fault a __deepcopy__ that copies in a loop."
        )
        raise
    finally:
        memo.stop_intercepting()
        memo.forget_notes()
        memo.to_begin_with = []
        memo.copied_for_sure = frozenset()
        if outer is None or not is_done:
            # Whoever keeps the memo must not keep the originals alive.
            memo.alive = []
            memo.clear()
            if outer is not None:
                outer.pop(_MEMO_KEY, None)


def _warn_of_callbacks(memo: Memo) -> None:
    counts = Counter(map(name_of_callback, memo.without_callback.values()))
    memo.without_callback.clear()
    warn(CallbackWarning(dict(counts)))


def _new_memo(finalizers: Finalizers) -> Memo:
    def copy_apart(original: object, memo: dict[Any, Any]) -> Any:
        return copy_root(original, memo, None, finalizers)

    return Memo(Plans(_COPIERS, _find_copier), copy_apart, finalizers)


def _memo_beside(outer: dict[Any, Any], finalizers: Finalizers) -> Memo:
    """Our memo of a walk of `copy.deepcopy` that leads here again and again, up to date with its own.

    It is kept in the other, as torch keeps what it knows, so that each call takes over what is new and no more.
    """
    memo: Memo | None = outer.get(_MEMO_KEY)
    if memo is None:
        memo = _new_memo(finalizers)
        memo.update(outer)
        outer[_MEMO_KEY] = memo
    else:
        new = len(outer) - memo.known_outside
        memo.update(islice(reversed(outer.items()), new) if new >= 0 else outer)
    return memo


def _tell(outer: dict[Any, Any], memo: Memo, new: int) -> None:
    """Let the outer memo know the last ``new`` entries, but not where ours holds the originals."""
    outer.update((key, copied) for key, copied in islice(reversed(memo.items()), new) if key != id(memo))
    memo.known_outside = len(outer)
