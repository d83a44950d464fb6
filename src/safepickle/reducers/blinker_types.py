"""Reduce values of blinker's signals, which know receivers and senders by their ids.

What travels is who is connected to whom; the load connects the copies, so that they are known by ids of their own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, Final

import blinker
from blinker.base import ANY_ID

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.classes import has_own_reduce, new_object, parts_of_weak_method
from safepickle.reducers.decisions import RELINK, STRONG, Dump

__all__ = ["find_reducer", "reduce_signal"]

_INTERNALS: Final = frozenset({"receivers", "_by_receiver", "_by_sender", "_weak_senders"})


def find_reducer(cls: Any) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for signals, unless the class says itself how they are pickled."""
    says_itself = has_own_reduce(cls) or cls.__getstate__ is not object.__getstate__
    return reduce_signal if issubclass(cls, blinker.Signal) and not says_itself else None


def reduce_signal(signal: object, dump: Dump) -> ReduceValue:
    """Reduce a signal to its connections; weak ones as the entries of a weak container, by what is kept."""
    own = signal.__dict__.copy()
    if not own.keys() >= _INTERNALS or type(signal) in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    owned: list[Any] = []
    connections = []
    for key, held in own["receivers"].copy().items():
        is_weak = isinstance(held, weakref.ref)
        receiver = held() if is_weak else held
        if receiver is None:
            continue
        parts = parts_of_weak_method(receiver) if type(receiver) is MethodType else (receiver,)
        fates = {dump.decide(signal, part) for part in parts} if is_weak else {RELINK}
        if fates <= {RELINK, STRONG}:
            keys = tuple(own["_by_receiver"].get(key, ()))
            senders = list(_senders(signal, keys, dump, owned))
            # What only a strong copy brings in has no other owner.
            connections.append((receiver, is_weak and fates == {RELINK}, ANY_ID in keys, senders))
    attributes = {name: value for name, value in own.items() if name not in _INTERNALS}
    state = (attributes, connections, owned)
    return new_object, (type(signal),), state, None, None, rebuild.rebuild_blinker_connections


def _senders(signal: Any, keys: tuple[object, ...], dump: Dump, owned: list[object]) -> Iterator[Any]:
    """Yield the senders that go into the pickle, of those to whom a receiver is connected."""
    for key in keys:
        reference = signal._weak_senders.get(key)
        if reference is None:
            # A string or a number is its own key. Of other such keys blinker keeps only the id.
            if isinstance(key, str):
                yield key
        elif (sender := reference()) is not None:
            fate = dump.decide(signal, sender)
            if fate in (RELINK, STRONG):
                yield sender
            if fate == STRONG:
                owned.append(sender)
