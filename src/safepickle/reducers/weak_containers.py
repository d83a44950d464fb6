"""Reduce values of weak containers: the standard library's, torch's `WeakIdKeyDictionary`, and their subclasses.

Entries travel as state, never as constructor arguments, so that a member which leads back to its container finds the
container built. An entry whose referent is not kept is left out, and with it what hangs on it: the value of a
`WeakKeyDictionary` is an ephemeron's value, and the key of a `WeakValueDictionary` is of no use without its value.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.classes import has_own_reduce, own_state
from safepickle.reducers.decisions import RELINK, STRONG, Dump
from safepickle.weak_types import WeakType, weak_type_of

__all__ = ["REDUCERS", "kept_items", "reduce_weak_dictionary", "reduce_weak_set"]


def reduce_weak_set(container: object, dump: Dump) -> ReduceValue:
    """Reduce a `WeakSet` or an instance of a subclass to its kept members."""
    cls: Any = type(container)
    if cls.__reduce__ is not weakref.WeakSet.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__:
        return NOT_REDUCED
    weak = weak_type_of(cls)
    members, owned = kept_items(container, weak, dump)
    attributes = own_state(container, weak)
    if cls is weakref.WeakSet and not attributes and not owned:
        return cls, (), members or None, None, None, weakref.WeakSet.update
    return _reduce_with_state(cls, attributes, members, owned)


def reduce_weak_dictionary(container: object, dump: Dump) -> ReduceValue:
    """Reduce a `WeakValueDictionary` or a `WeakKeyDictionary` to the entries whose referents are kept."""
    cls = type(container)
    if has_own_reduce(cls):
        return NOT_REDUCED
    weak = weak_type_of(cls)
    items, owned = kept_items(container, weak, dump)
    attributes = own_state(container, weak)
    if cls is weak.base and not attributes and not owned:
        return cls, (), None, None, iter(items)
    return _reduce_with_state(cls, attributes, items, owned)


def kept_items(container: object, weak: WeakType, dump: Dump) -> tuple[list[Any], list[Any]]:
    """Return the items of a container that go into the pickle, and the referents that it has to own."""
    items, owned = [], []
    for entry in weak.read(container):
        referent, hanging = entry
        fate = dump.decide(container, referent, *hanging)
        if fate in (RELINK, STRONG):
            items.append(weak.item(entry))
        if fate == STRONG:
            owned.append(referent)
    return items, owned


def _reduce_with_state(cls: type, attributes: object, items: list[object], owned: list[object]) -> ReduceValue:
    state = (attributes, items, tuple(owned))
    return rebuild.rebuild_weak_container, (cls,), state, None, None, rebuild.rebuild_weak_entries


REDUCERS: Final[dict[type, Callable[[Any, Dump], ReduceValue]]] = {
    weakref.WeakSet: reduce_weak_set,
    weakref.WeakValueDictionary: reduce_weak_dictionary,
    weakref.WeakKeyDictionary: reduce_weak_dictionary,
}
