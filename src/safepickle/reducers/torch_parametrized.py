"""Reduce values of parametrized modules, which torch refuses to pickle whole: weight and spectral norm, users' own.

Each such module has a class of its own, made by `torch.nn.utils.parametrize`, whose properties compute the tensors.
What is written is the module of the class that it had, and which tensors are computed; the load makes the class anew.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceValue, in_full
from safepickle.reducers.classes import has_own_reduce
from safepickle.reducers.decisions import Dump
from safepickle.reducers.lightning import find_reducer as find_lightning_reducer
from safepickle.reducers.lightning import without_fabric

__all__ = ["find_reducer", "reduce_parametrized"]


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for a class that `torch.nn.utils.parametrize` has made."""
    refusing = vars(cls).get("__getstate__")
    if type(refusing) is not FunctionType:
        return None
    return reduce_parametrized if refusing.__code__ in parametrize._inject_new_class.__code__.co_consts else None


def reduce_parametrized(module: nn.Module, dump: Dump) -> ReduceValue:
    """Reduce a parametrized module as its original class would, and say which of its tensors are computed."""
    made: Any = type(module)
    if made in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    cls: Any = made.__bases__[0]
    if not has_own_reduce(cls):
        value: ReduceValue = (rebuild.rebuild_torch_parametrized, (cls,), cls.__getstate__(module))
    elif cls.__reduce_ex__ is not object.__reduce_ex__:
        value = cls.__reduce_ex__(module, dump.protocol)
    else:
        value = cls.__reduce__(module)
    if find_lightning_reducer(cls) is not None:
        value = without_fabric(value)
    if not isinstance(value, tuple) or len(value) > 3:
        return value
    function, arguments, state = in_full(value)[:3]
    # A reduce method of the class may say ``type(self)``, which is the class that was made.
    function, *replaced = (cls if part is made else part for part in (function, *arguments))
    contents = (state, tuple(module.parametrizations))
    return function, tuple(replaced), contents, None, None, rebuild.rebuild_torch_parametrizations
