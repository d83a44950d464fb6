"""Reduce values of weak containers: `WeakSet`, `WeakValueDictionary`, `WeakKeyDictionary` and their subclasses.

Entries travel as state, never as constructor arguments, so that a member which leads back to its container finds the
container built. An entry whose referent is not kept is left out, and with it what hangs on it: the value of a
`WeakKeyDictionary` is an ephemeron's value, and the key of a `WeakValueDictionary` is of no use without its value.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from safepickle import rebuild
from safepickle.reducers.classes import has_own_reduce
from safepickle.reducers.decisions import RELINK, STRONG, Dump

__all__ = [
    "REDUCERS",
    "kept_by_key",
    "own_attributes",
    "reduce_weak_key_dictionary",
    "reduce_weak_set",
    "reduce_weak_value_dictionary",
]

# What the standard constructors make afresh.
_INTERNALS: Final = frozenset({"data", "_remove", "_pending_removals", "_iterating", "_dirty_len"})


def reduce_weak_set(container: Any, dump: Dump) -> Any:
    """Reduce a `WeakSet` or an instance of a subclass to its kept members."""
    cls: Any = type(container)
    if cls.__reduce__ is not weakref.WeakSet.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__:
        return NotImplemented
    members, owned = [], []
    # One copy of the table, which no other thread can interrupt; its references are made strong one by one.
    for reference in container.data.copy():
        member = reference()
        if member is None:
            continue
        fate = dump.decide(container, member)
        if fate in (RELINK, STRONG):
            members.append(member)
        if fate == STRONG:
            owned.append(member)
    attributes = own_attributes(container)
    if cls is weakref.WeakSet and not attributes and not owned:
        return cls, (), members or None, None, None, weakref.WeakSet.update
    return _reduce_with_state(cls, attributes, members, owned)


def reduce_weak_value_dictionary(container: Any, dump: Dump) -> Any:
    """Reduce a `WeakValueDictionary` or an instance of a subclass to the entries whose values are kept."""
    if has_own_reduce(type(container)):
        return NotImplemented
    entries, owned = [], []
    for key, reference in container.data.copy().items():
        value = reference()
        if value is None:
            continue
        fate = dump.decide(container, value, key)
        if fate in (RELINK, STRONG):
            entries.append((key, value))
        if fate == STRONG:
            owned.append(value)
    return _reduce_mapping(container, weakref.WeakValueDictionary, entries, owned)


def reduce_weak_key_dictionary(container: Any, dump: Dump) -> Any:
    """Reduce a `WeakKeyDictionary` or an instance of a subclass to the entries whose keys are kept."""
    if has_own_reduce(type(container)):
        return NotImplemented
    return _reduce_mapping(container, weakref.WeakKeyDictionary, *kept_by_key(container, dump))


def kept_by_key(container: Any, dump: Dump) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Return the entries of a dictionary with weak keys that go into the pickle, and the keys that it has to own."""
    entries, owned = [], []
    # One copy of the table, as of a set's.
    for reference, value in container.data.copy().items():
        # Not through `reference()`: the references of torch mend the tensor that they return.
        key = weakref.ref.__call__(reference)
        if key is None:
            continue
        fate = dump.decide(container, key, value)
        if fate in (RELINK, STRONG):
            entries.append((key, value))
        if fate == STRONG:
            owned.append(key)
    return entries, owned


def _reduce_mapping(container: Any, base: type, entries: list[tuple[Any, Any]], owned: list[Any]) -> Any:
    cls = type(container)
    attributes = own_attributes(container)
    if cls is base and not attributes and not owned:
        return cls, (), None, None, iter(entries)
    return _reduce_with_state(cls, attributes, entries, owned)


def _reduce_with_state(cls: type, attributes: Any, entries: list[Any], owned: list[Any]) -> Any:
    state = (attributes, entries, tuple(owned))
    return rebuild.rebuild_weak_container, (cls,), state, None, None, rebuild.rebuild_weak_entries


def own_attributes(container: Any, *internal: str) -> Any:
    """Return the state of a container without what its constructor sets, or None when nothing is left.

    Args:
        container: Of the standard library, or one that is made as these are.
        internal: What its constructor sets beside what those of the standard library do.
    """
    state = container.__getstate__()
    left_out = _INTERNALS.union(internal)
    if type(state) is dict:
        return {name: value for name, value in state.items() if name not in left_out} or None
    if type(state) is tuple and len(state) == 2 and type(state[0]) is dict:
        return {name: value for name, value in state[0].items() if name not in left_out}, state[1]
    return state


REDUCERS: Final[dict[type, Callable[[Any, Dump], Any]]] = {
    weakref.WeakSet: reduce_weak_set,
    weakref.WeakValueDictionary: reduce_weak_value_dictionary,
    weakref.WeakKeyDictionary: reduce_weak_key_dictionary,
}
