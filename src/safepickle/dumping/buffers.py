"""Hand each out-of-band buffer of the final pickle to the caller once and in order, however many walks it took."""

from __future__ import annotations

from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, TypeAlias

__all__ = ["BufferCallback", "BufferRelay"]

BufferCallback: TypeAlias = Callable[[PickleBuffer], Any]


class BufferRelay:
    """Stands between the C pickler and the caller's ``buffer_callback``.

    What a walk writes up to its first unresolved weak reference, every later walk writes too, so those buffers are
    handed over at once. The others wait until the bytes are known to be right, and are taken to be out of band until
    then. Answers are remembered, so that a later walk does not ask again.

    Args:
        callback: The caller's; what it returns decides between in band (true) and out of band (false).

    Attributes:
        is_certain: Tells whether the last walk will write all that this one has written. The pickler sets it for the
            length of a dump only: it leads back to the pickler, whose memo would else wait for the cycle collector.
    """

    is_certain: Callable[[], bool] | None = None

    def __init__(self, callback: BufferCallback) -> None:
        self._callback = callback
        self._answers: list[bool] = []
        self._deferred: list[PickleBuffer] = []
        self._position = 0
        self._discarding = False

    def __call__(self, buffer: PickleBuffer) -> bool:
        """Answer the C pickler for one buffer: true for in band."""
        if self._discarding:
            return False
        self._position += 1
        if self._position <= len(self._answers):
            return self._answers[self._position - 1]
        if self._deferred or (self.is_certain is not None and not self.is_certain()):
            self._deferred.append(buffer)
            return False
        return self._ask(buffer)

    def begin_dump(self) -> None:
        """Forget the buffers of earlier dumps, which later walks do not meet again."""
        self._answers.clear()
        self.begin_walk()

    @property
    def has_asked(self) -> bool:
        """Whether the caller has been given a buffer of this dump."""
        return bool(self._answers)

    def begin_walk(self) -> None:
        """Start again with the first buffer."""
        self._position = 0
        self._discarding = False
        self._deferred.clear()

    def discard(self) -> None:
        """Ignore the buffers of the walks that only discover, until the next one begins."""
        self._discarding = True

    def settle(self) -> bool:
        """Hand over what waits; return whether the walk took every answer right."""
        waiting, self._deferred = self._deferred, []
        answers = [self._ask(buffer) for buffer in waiting]
        return not any(answers)

    def _ask(self, buffer: PickleBuffer) -> bool:
        answer = bool(self._callback(buffer))
        self._answers.append(answer)
        return answer
