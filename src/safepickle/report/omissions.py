"""What the classes of objects leave out themselves when they say how these are pickled.

``ndarray.__reduce__`` knows nothing of the attributes of a subclass, and many a ``__getstate__`` drops what cannot be
pickled. No pickler has it, so a report says so.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Final

from safepickle.messages import dotted_name
from safepickle.tracing.naming import instance_dict

__all__ = ["left_out_by", "names_left_out"]

_CONTAINERS: Final = (list, tuple, dict, set, frozenset)
_DEEPEST: Final = 4


def names_left_out(obj: Any, value: Any) -> tuple[str, ...]:
    """Return the attributes of an object that its reduce value does not hold.

    Args:
        obj: What was reduced by its own class.
        value: The reduce value.
    """
    own = {} if issubclass(type(obj), enum.Enum) else instance_dict(obj)
    state = value[2] if len(value) > 2 else None
    if not own or state is own:
        return ()
    held: dict[str, Any] = {}
    for part in state if type(state) is tuple else (state,):
        if type(part) is dict:
            held.update((name, item) for name, item in part.items() if type(name) is str)
    shown: set[int] | None = None
    names = []
    for name, attribute in own.items():
        if type(name) is not str or attribute is None or (isinstance(attribute, _CONTAINERS) and not len(attribute)):
            # Nothing is lost with nothing.
            continue
        if name in held:
            if _is_less(held[name], attribute):
                names.append(name)
            continue
        if shown is None:
            shown = {id(part) for part in _parts(value[1:])}
        if id(attribute) not in shown:
            names.append(name)
    return tuple(names)


def left_out_by(obj: Any) -> str:
    """Return the method that left something out: the one that says how an object is pickled."""
    for method in ("__reduce_ex__", "__reduce__", "__getstate__"):
        for cls in type(obj).__mro__[:-1]:
            if method in vars(cls):
                return f"{dotted_name(cls)}.{method}"
    return f"the reducer of {dotted_name(type(obj))}"


def _is_less(found: Any, attribute: Any) -> bool:
    """Tell whether a state has nothing, or fewer things, where an object has an attribute."""
    if found is attribute:
        return False
    if found is None:
        return True
    if type(found) is not type(attribute) or not isinstance(found, _CONTAINERS):
        return False
    return sum(1 for _ in _parts(found)) < sum(1 for _ in _parts(attribute))


def _parts(container: Any) -> Iterator[Any]:
    """Iterate over what stands in a container, and in those within it, each of which is entered once."""
    level, entered = [container], {id(container)}
    for _ in range(_DEEPEST + 1):
        items = [item for part in level for item in ([*part, *part.values()] if isinstance(part, dict) else part)]
        yield from items
        level = []
        for item in items:
            if type(item) in _CONTAINERS and id(item) not in entered:
                entered.add(id(item))
                level.append(item)
