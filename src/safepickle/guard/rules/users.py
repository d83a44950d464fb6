"""The state of a user's class whose base class reads memory by it, or calls what it holds."""

from __future__ import annotations

import sys
from typing import Any

from safepickle.guard.rules.arrays import check_array
from safepickle.guard.rules.base import RuleContext, ValueInfo
from safepickle.guard.rules.weak import check_attributes_of_container
from safepickle.weak_types import STANDARD_CONTAINERS

__all__ = ["check_users_state"]


def check_users_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Judge the state of an instance of a user's class by what its base class does with it; return it, or a copy.

    Raises:
        Refusal: It would replace what a weak container works with, or the memory of an array that may be in use.
        Malformed: It is the state of an array, and contradicts itself.
    """
    kind = "" if info is None else info.kind
    if kind == "array":
        return check_array(context, obj, info, state)
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(obj), numpy.ndarray):
        # Its author's code has made it. Where that reads the state, too, it knows what it is for.
        is_authors = type(obj).__setstate__ is not numpy.ndarray.__setstate__
        return check_array(context, obj, ValueInfo("array", open=True) if is_authors else None, state)
    if kind in ("weak container", "weak dictionary") or issubclass(type(obj), STANDARD_CONTAINERS):
        check_attributes_of_container(state)
    return state
