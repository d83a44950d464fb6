"""The state of a user's class whose base class reads memory by it, or calls what it holds."""

from __future__ import annotations

import weakref
from typing import Any, Final

from safepickle.guard.rules.arrays import check_array
from safepickle.guard.rules.base import Facts, Judge
from safepickle.guard.rules.weak import check_attributes_of_container

__all__ = ["check_users_state"]

_CONTAINERS: Final = (weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary)


def check_users_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    """Judge the state of an instance of a user's class by what its base class does with it; return it, or a copy.

    Raises:
        Refusal: It would replace what a weak container works with.
        Damage: It is the state of an array, and contradicts itself.
    """
    kind = "" if facts is None else facts.kind
    if kind == "array":
        return check_array(judge, obj, facts, state)
    if kind in ("weak container", "weak dictionary") or issubclass(type(obj), _CONTAINERS):
        check_attributes_of_container(state)
    return state
