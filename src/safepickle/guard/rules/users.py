"""The state of a user's class whose base class reads memory by it, loops as it says, or calls what it holds."""

from __future__ import annotations

import sys
from typing import Any

from safepickle.guard.limits import Refusal
from safepickle.guard.rules.arrays import check_array
from safepickle.guard.rules.base import RuleContext, ValueInfo
from safepickle.guard.rules.copies import own_container
from safepickle.guard.rules.torch_layers import own_weights
from safepickle.guard.rules.weak import check_attributes_of_container
from safepickle.weak_types import STANDARD_CONTAINERS

__all__ = ["check_users_state"]


def check_users_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Judge the state of an instance of a user's class by what its base class does with it; return it, or a copy.

    Raises:
        Refusal: It would replace what a weak container works with, or the memory of an array or a tensor that may be in
            use; or torch would make the weights of a layer anew.
        Malformed: It is the state of an array, and contradicts itself.
    """
    kind = "" if info is None else info.kind
    if kind == "array":
        return check_array(context, obj, info, state)
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(obj), numpy.ndarray):
        # Its author's code has made it. Where that reads the state, too, it knows what it is for.
        made = None if _inherits_state(obj, numpy.ndarray) else ValueInfo("array", open=True)
        return check_array(context, obj, made, state)
    torch = sys.modules.get("torch")
    if torch is not None and _inherits_state(obj, torch.Tensor):
        raise Refusal("torch gives a tensor its state as it rebuilds it, and by no other way")
    if torch is not None and type(state) is dict and _inherits_state(obj, torch.nn.RNNBase):
        own = own_container(context, state, 1)
        own_weights(context, own)
        return own
    if kind in ("weak container", "weak dictionary") or issubclass(type(obj), STANDARD_CONTAINERS):
        check_attributes_of_container(state)
    return state


def _inherits_state(obj: object, base: Any) -> bool:
    """Tell whether an instance of a subclass of `base` is given its state by the method of `base`."""
    return issubclass(type(obj), base) and type(obj).__setstate__ is base.__setstate__  # type: ignore[attr-defined]
