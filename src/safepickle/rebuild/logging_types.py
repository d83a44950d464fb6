"""Handlers of `logging`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safepickle.rebuild.containers import set_attributes
from safepickle.rebuild.mark import file_format

if TYPE_CHECKING:
    import logging

__all__ = ["rebuild_logging_handler"]


@file_format
def rebuild_logging_handler(handler: logging.Handler, state: object) -> None:
    """Give a handler its state and a lock, and have ``logging.shutdown`` flush and close it.

    What it passes its records on to is whole by then, and so stands before it in the list: it is closed later.
    """
    import logging

    set_attributes(handler, state)
    handler.createLock()
    logging._addHandlerRef(handler)  # type: ignore[attr-defined]
