"""Reduce values of Lightning modules: what their trainer and their Fabric put into them stays out of the pickle.

A `LightningModule` leaves its trainer out by itself, and leaves its Fabric in: strongly after `Fabric.setup`, else
through a weak proxy, which is dead as soon as the Fabric is. The attribute comes back as None, as in a module that
nobody has attached to anything: a dead proxy there breaks ``module.trainer`` and ``module.log``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from safepickle.reduce_value import NOT_REDUCED, ReduceValue, in_full
from safepickle.reducers.decisions import Dump

__all__ = ["find_reducer", "reduce_lightning_module", "without_fabric"]

_MODULES = frozenset({"lightning.pytorch.core.module", "pytorch_lightning.core.module"})


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for subclasses of either package's `LightningModule`."""
    # Whoever has a subclass has imported the module: nothing is imported for this.
    classes = [getattr(sys.modules.get(name), "LightningModule", None) for name in _MODULES]
    return reduce_lightning_module if any(base in classes for base in cls.__mro__) else None


def reduce_lightning_module(module: object, dump: Dump) -> ReduceValue:
    """Return the module's own reduce value, its state without the Fabric that it is attached to."""
    if type(module) in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    return without_fabric(module.__reduce_ex__(dump.protocol))


def without_fabric(value: ReduceValue) -> ReduceValue:
    """Return the reduce value of a Lightning module, its state without the Fabric that it is attached to."""
    if not isinstance(value, tuple) or len(value) < 3:
        return value
    function, arguments, state = in_full(value)[:3]
    if type(state) is not dict or state.get("_fabric") is None:
        return value
    return function, arguments, {**state, "_fabric": None}, *value[3:]
