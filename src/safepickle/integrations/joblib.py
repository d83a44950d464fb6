"""joblib: `register()` lets its process workers, loky's, exchange objects through safepickle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from joblib.externals.loky import process_executor, set_loky_pickler
from joblib.externals.loky.backend.reduction import get_loky_pickler_name

from safepickle.tracing.error_paths import pass_path_on

__all__ = ["register"]


def register() -> Callable[[], None]:
    """Make loky pickle calls and results with safepickle, here and in its workers.

    It is loky's own switch, the one that the environment variable ``LOKY_PICKLER=safepickle`` sets as well. joblib
    goes on memory-mapping large arrays, and its other reducers stay in force. `joblib.dump` and `joblib.Memory` have
    picklers of their own and are not concerned. The error that loky raises in place of a dump's gets its
    ``pickle_path``.

    Returns:
        A function that puts back the pickler that was set before.

    Examples:
        >>> import safepickle.integrations.joblib
        >>> undo = safepickle.integrations.joblib.register()  # before joblib.Parallel
        >>> undo()
    """
    before = get_loky_pickler_name()
    set_loky_pickler("safepickle")
    queue: Any = process_executor._SafeQueue
    report = queue._on_queue_feeder_error
    queue._on_queue_feeder_error = functools.partialmethod(_report, report)

    def undo() -> None:
        set_loky_pickler(before)
        queue._on_queue_feeder_error = report

    return undo


def _report(queue: Any, report: Callable[..., None], error: Exception, item: Any) -> None:
    """Report that a call could not be sent, with the path."""
    work = (queue.pending_work_items or {}).get(getattr(item, "work_id", None))
    if work is not None:
        # Whoever waits for the future goes on at once, so the path must be there before.
        set_exception = work.future.set_exception

        def set_with_path(outer: BaseException) -> None:
            pass_path_on(error, outer)
            set_exception(outer)

        work.future.set_exception = set_with_path
    report(queue, error, item)
