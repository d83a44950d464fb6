"""`deepcopying`: inside a ``with`` block, what calls `copy.deepcopy` gets `safepickle.deepcopy`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from safepickle.copying.deepcopy import copy_root
from safepickle.copying.interception import Copy, install, interceptor, uninstall
from safepickle.copying.memo import Memo
from safepickle.copying.stdlib_copy import NOT_ASKED, copied_by
from safepickle.options import Finalizers, check_finalizers
from safepickle.public import public

__all__ = ["deepcopying"]


@public
@contextmanager
def deepcopying(*, finalizers: Finalizers = "dead") -> Iterator[None]:
    """Inside the ``with`` block, let `copy.deepcopy` do what `safepickle.deepcopy` does, in this thread or task alone.

    For code of others that copies your objects: whoever calls `copy.deepcopy`, by whichever name and imported whenever,
    gets copies whose weak references point into the copy. Other threads and tasks get what they always get; a task
    that is started inside the block takes part until the block ends.

    Args:
        finalizers: What becomes of finalizers, as in `safepickle.deepcopy`.

    Yields:
        Nothing.

    Raises:
        ValueError: `finalizers` is not a known value.

    Examples:
        >>> import copy, weakref
        >>> class Node:
        ...     pass
        >>> node = Node()
        >>> node.itself = weakref.ref(node)
        >>> with safepickle.deepcopying():
        ...     copied = copy.deepcopy(node)
        >>> copied.itself() is copied
        True
    """
    check_finalizers(finalizers)
    scope = _Scope(finalizers)
    install()
    token = interceptor.set(scope.intercept)
    try:
        yield
    finally:
        scope.close()
        uninstall()
        # A generator or a fixture may leave the block in another context than it entered it in.
        with suppress(ValueError):
            interceptor.reset(token)


class _Scope:
    """What one ``with`` block knows."""

    def __init__(self, finalizers: Finalizers) -> None:
        self._finalizers: Finalizers = finalizers
        self._is_open = True
        # The `__deepcopy__` that was called without a memo and is copying its parts, and the memo that they share.
        self._method: tuple[FrameType, dict[Any, Any]] | None = None

    def close(self) -> None:
        self._is_open = False
        self._method = None

    def intercept(self, original: object, memo: object, caller: FrameType | None) -> Copy | None:
        if not self._is_open or type(memo) is Memo:
            return None
        if not memo and caller is not None and (copied := copied_by(caller)) is not NOT_ASKED:
            shared = self._memo_of(caller, copied)
            if id(original) not in shared:
                return lambda original, _: copy_root(original, shared, None, self._finalizers)
        return lambda original, memo: copy_root(original, memo, None, self._finalizers)

    def _memo_of(self, method: FrameType, original: Any) -> dict[Any, Any]:
        """The memo of a `__deepcopy__` that has none, such as pydantic's: one for all parts, and for the object itself.

        The object that it makes is known by its type: it is made before its parts are copied.
        """
        if self._method is not None and self._method[0] is method:
            return self._method[1]
        made = [each for each in method.f_locals.values() if type(each) is type(original) and each is not original]
        memo: dict[Any, Any] = {}
        if len(made) == 1:
            memo[id(original)] = made[0]
            memo[id(memo)] = [original]
        self._method = method, memo
        return memo
