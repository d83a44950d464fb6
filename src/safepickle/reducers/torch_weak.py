"""Reduce values of torch's own weak types: `torch.utils.weak`, and the handles by which hooks are removed.

`torch.utils.weak.TensorWeakRef` needs none: it holds an ordinary `weakref.ref` as an attribute.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef, _WeakHashRef

from safepickle import rebuild
from safepickle.reduce_value import ReduceValue
from safepickle.reducers.classes import has_own_reduce, new_object, own_state
from safepickle.reducers.decisions import RELINK, STRONG, Dump
from safepickle.reducers.weak_containers import kept_items
from safepickle.weak_types import weak_type_of

__all__ = ["find_reducer", "reduce_removable_handle", "reduce_weak_dictionary", "reduce_weak_reference"]


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for `cls`, unless it says itself how its instances are pickled."""
    if has_own_reduce(cls):
        return None
    if issubclass(cls, WeakIdRef | _WeakHashRef):
        return reduce_weak_reference
    if issubclass(cls, WeakIdKeyDictionary):
        return reduce_weak_dictionary
    if issubclass(cls, RemovableHandle) and cls.__getstate__ is RemovableHandle.__getstate__:
        return reduce_removable_handle
    return None


def reduce_weak_reference(reference: WeakIdRef | _WeakHashRef, dump: Dump) -> ReduceValue:
    """Reduce a `WeakIdRef` or a `_WeakHashRef`, whose hash is that of the copy, and so is computed afresh."""
    cls = type(reference)
    # Not through `reference()`: torch's `__call__` mends the tensor that it returns.
    referent = weakref.ref.__call__(reference)
    attributes = own_state(reference, weak_type_of(cls))
    if referent is None:
        # Nothing is equal to a dead one, so any hash will do, but it needs one.
        return rebuild.rebuild_dead_reference, (cls,), reference.__getstate__()
    callback: Any = reference.__callback__
    if type(callback) is rebuild.Owner:
        return rebuild.rebuild_torch_weak_reference, (cls, referent, callback.callback, True), attributes
    arguments = (referent,) if callback is None else (referent, callback)
    fate = dump.decide(reference, *arguments)
    if fate == RELINK:
        if cls.__init__ in _CONSTRUCTORS:
            return cls, arguments, attributes
        return rebuild.rebuild_torch_weak_reference, (cls, *arguments), attributes
    if fate == STRONG:
        return rebuild.rebuild_torch_weak_reference, (cls, referent, callback, True), attributes
    return rebuild.rebuild_dead_reference, (cls,), reference.__getstate__()


def reduce_weak_dictionary(container: WeakIdKeyDictionary, dump: Dump) -> ReduceValue:
    """Reduce a `WeakIdKeyDictionary` to the entries whose keys are kept; the values hang on their keys."""
    cls = type(container)
    weak = weak_type_of(cls)
    items, owned = kept_items(container, weak, dump)
    attributes = own_state(container, weak)
    if cls is WeakIdKeyDictionary and not attributes and not owned:
        arguments = () if container.ref_type is WeakIdRef else (None, container.ref_type)
        return cls, arguments, None, None, iter(items)
    state = (attributes, items, tuple(owned))
    build = rebuild.rebuild_torch_weak_dictionary
    return build, (cls, container.ref_type), state, None, None, rebuild.rebuild_torch_weak_entries


def reduce_removable_handle(handle: RemovableHandle, dump: Dump) -> ReduceValue:
    """Reduce a handle to the dictionaries that it removes its hook from; it does not own them.

    torch's own state of a handle whose dictionaries are gone cannot be loaded.
    """
    hooks, owned = _hooks_of(handle, handle.hooks_dict_ref, dump)
    others = []
    for reference in handle.extra_dict_ref:
        other, is_owned = _hooks_of(handle, reference, dump)
        if other is not None:
            others.append(other)
            owned = owned or is_owned
    state = (hooks, handle.id, tuple(others))
    if owned:
        return new_object, (type(handle),), state, None, None, rebuild.rebuild_torch_owning_handle
    return new_object, (type(handle),), state


def _hooks_of(handle: object, reference: weakref.ref[object], dump: Dump) -> tuple[Any, bool]:
    """Return the dictionary that goes into the pickle, or None, and whether the handle has to own it."""
    hooks = reference()
    if hooks is None:
        return None, False
    fate = dump.decide_hooks(handle, hooks)
    return (hooks if fate in (RELINK, STRONG) else None), fate == STRONG


_CONSTRUCTORS: Final = (WeakIdRef.__init__, _WeakHashRef.__init__)
