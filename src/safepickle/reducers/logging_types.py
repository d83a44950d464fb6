"""Reduce values of loggers, which go by name where that leads to them, and of handlers, which are flushed at exit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.classes import has_own_reduce, new_object
from safepickle.reducers.decisions import Dump

__all__ = ["find_reducer", "reduce_handler", "reduce_logger", "reduce_manager"]

_REDUCES = (logging.Logger.__reduce__, logging.RootLogger.__reduce__)


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for loggers, handlers and managers, unless a subclass says itself how it is pickled."""
    if issubclass(cls, logging.Logger):
        says_itself = cls.__reduce__ not in _REDUCES or cls.__reduce_ex__ is not object.__reduce_ex__
        return None if says_itself else reduce_logger
    if has_own_reduce(cls):
        return None
    if issubclass(cls, logging.Handler):
        return reduce_handler
    return reduce_manager if issubclass(cls, logging.Manager) else None


def reduce_logger(logger: logging.Logger, dump: Dump) -> ReduceValue:
    """Reduce a logger to its name where that leads to it, else to what it is, with its handlers and its level."""
    cls = type(logger)
    if cls in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    if logger is logging.root:
        return logging.getLogger, ()
    if logging.Logger.manager.loggerDict.get(logger.name) is logger:
        return logging.getLogger, (logger.name,)
    state: Any = logger.__getstate__()
    if type(state) is dict and "_cache" in state:
        # What levels are on was asked of the manager here.
        state = {**state, "_cache": {}}
    return new_object, (cls,), state


def reduce_handler(handler: logging.Handler, dump: Dump) -> ReduceValue:
    """Reduce a handler with a lock of its own, to be flushed by ``logging.shutdown`` as every handler is."""
    cls = type(handler)
    if cls in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    state: Any = handler.__getstate__()
    if type(state) is dict:
        state = {name: value for name, value in state.items() if name != "lock"}
        if issubclass(cls, logging.FileHandler) and state.get("stream") is None and not state.get("_closed"):
            # It opens its file with the first record, and would cut off what the original has written by then.
            state["mode"] = state.get("mode", "a").replace("w", "a")
    return new_object, (cls,), state, None, None, rebuild.rebuild_logging_handler


def reduce_manager(manager: logging.Manager, dump: Dump) -> ReduceValue:
    """Reduce the manager of this process to that of the other one."""
    return (getattr, (logging.Logger, "manager")) if manager is logging.Logger.manager else NotImplemented
