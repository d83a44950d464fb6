"""The state of instances of the user's own classes: what is set in them, and how."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType
from typing import Any, Final

from safepickle.guard.limits import Malformed, Refusal, told
from safepickle.weak_types import STANDARD_CONTAINERS


def check_attributes(state: object) -> None:
    """Hold a state's names against the rule that no dunder is set."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    for part in parts:
        if type(part) is not dict:
            continue
        for name in part:
            if type(name) is str:
                _hold_name(name)


def _hold_name(name: str) -> None:
    if name[:2] == "__" and name[-2:] == "__":
        raise Refusal(f"the state sets {name!r}, which Python gives a meaning")


_EXCEPTIONS: Final = BaseException.__setstate__


def attributes_of(state: Any) -> Iterable[Any]:
    """Return the values in a state of the usual shapes: attributes, slots, or a list of values."""
    if type(state) is dict:
        return state.values()
    if type(state) is tuple and len(state) == 2 and all(type(part) in (dict, type(None)) for part in state):
        return [value for part in state if part for value in part.values()]
    return state if type(state) in (list, tuple) else (state,)


def has_own_hash(cls: object) -> bool:
    """Tell whether instances of a class are hashed by code of its own, or of a base class's."""
    if not isinstance(cls, type):
        return False
    method = next(vars(base)["__hash__"] for base in cls.__mro__ if "__hash__" in vars(base))
    return not isinstance(method, (WrapperDescriptorType, type(None)))


_RUN: Final = frozenset({"__new__", "__setstate__", "__getattribute__", "__getattr__", "__del__"})
"""What may run while an instance is made without arguments and given its attributes, or when they are replaced."""


def is_plain(cls: object) -> bool:
    """Tell whether to make an instance of a class without arguments, and to set its attributes, runs no other code.

    Nor does it then need a rule: the C unpickler does what `StateSetters` does.
    """
    if type(cls) is not type or not cls.__dictoffset__ or issubclass(cls, STANDARD_CONTAINERS):
        return False
    return all(
        type(base) is type
        and _RUN.isdisjoint(vars(base))
        and type(vars(base).get("__dict__")) in (type(None), GetSetDescriptorType)
        for base in cls.__mro__[:-1]
    )


class StateSetters(dict[type, Callable[[Any, Any], None]]):
    """By class: what gives an instance its state. It is decided once for a class."""

    def __init__(self) -> None:
        super().__init__()
        self._good_keys: set[str] = set()

    def __missing__(self, cls: type) -> Callable[[Any, Any], None]:
        setter = self[cls] = self._decide(cls)
        return setter

    def _decide(self, cls: type) -> Callable[[Any, Any], None]:
        enum = sys.modules.get("enum")
        if enum is not None and isinstance(cls, enum.EnumMeta):
            raise Refusal("members of enumerations are shared by the whole process, and take no state")
        setstate = getattr(cls, "__setstate__", None)
        if setstate is None:
            return self._set_attributes
        if setstate is _EXCEPTIONS:
            return self._set_exception

        def call_setstate(obj: object, state: object) -> None:
            check_attributes(state)
            try:
                setstate(obj, state)
            except Exception as error:
                raise Malformed(f"its __setstate__ failed with {told(error)}") from error

        return call_setstate

    def _set_exception(self, obj: object, state: object) -> None:
        """Set the attributes of an exception, whose own ``__setstate__`` would run properties."""
        if type(state) is not dict:
            raise Malformed("the state is not a dict of attributes")
        self._learn_keys(state)
        for name, value in state.items():
            owned = next((vars(cls)[name] for cls in type(obj).__mro__ if name in vars(cls)), None)
            if type(owned) is MemberDescriptorType:
                owned.__set__(obj, value)
            else:
                BaseException.__getattribute__(obj, "__dict__")[name] = value

    def _set_attributes(self, obj: object, state: object) -> None:
        if type(state) is dict and state.keys() <= self._good_keys:
            obj.__dict__.update(state)
            return
        slots = None
        if type(state) is tuple and len(state) == 2:
            state, slots = state
        if state is not None:
            if type(state) is not dict:
                raise Malformed("the state is not a dict of attributes")
            self._learn_keys(state)
            if state:
                obj.__dict__.update({sys.intern(name): value for name, value in state.items()})
        if slots is not None:
            if type(slots) is not dict:
                raise Malformed("the state is not a dict of attributes")
            self._learn_keys(slots)
            for name, value in slots.items():
                _set_slot(obj, name, value)

    def _learn_keys(self, names: Any) -> None:
        for name in names:
            if type(name) is not str:
                raise Malformed("an attribute's name is not a string")
            _hold_name(name)
        self._good_keys.update(names)


def _set_slot(obj: object, name: str, value: object) -> None:
    """Set a slot, or else an attribute of the instance; never what runs code, such as a property."""
    descriptor = next((vars(cls)[name] for cls in type(obj).__mro__ if name in vars(cls)), None)
    if type(descriptor) is MemberDescriptorType:
        descriptor.__set__(obj, value)
    elif descriptor is None and hasattr(obj, "__dict__"):
        obj.__dict__[name] = value
    else:
        raise Refusal(f"the state sets {name!r}, which is no slot of the class")
