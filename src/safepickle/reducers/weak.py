"""Reduce values of weak references: `weakref.ref` and its subclasses, `WeakMethod`, proxies, `finalize`.

Each reducer asks the dump for the fate of its referent and names what the fate calls for. What the fate depends on is
the dump's business.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from safepickle import rebuild
from safepickle.rebuild.recomputed import recipe_of
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.classes import (
    has_own_reduce,
    leave_to_itself,
    new_object,
    own_state,
    parts_of_weak_method,
)
from safepickle.reducers.decisions import DEAD, RECIPE, RELINK, STRONG, Dump
from safepickle.weak_types import look_behind, weak_method_callback, weak_type_of

__all__ = [
    "REDUCERS",
    "reduce_finalize",
    "reduce_proxy",
    "reduce_weak_method",
    "reduce_weakref",
    "reduce_weakref_subclass",
]


_WEAK_METHOD: Final = weak_type_of(weakref.WeakMethod)


def reduce_weakref(reference: weakref.ref[object], dump: Dump) -> ReduceValue:
    """Reduce a weak reference without making its referent strong.

    Args:
        reference: Live or dead. Subclasses go to `reduce_weakref_subclass`.
        dump: What this dump knows so far.

    Returns:
        ``(weakref.ref, (referent,))`` when the referent is kept, else a `Tombstone`, a `StrongRef`, or a `RecipeRef`.

    Raises:
        WeakReferenceError: The policy is ``"strict"`` and the referent is outside.
    """
    referent = reference()
    if referent is None:
        return rebuild.Tombstone, (DEAD, None)
    callback = reference.__callback__
    if callback is None:
        arguments, fate = (referent,), dump.decide(reference, referent)
    else:
        arguments, fate = (referent, callback), dump.decide(reference, referent, callback)
    if fate == RELINK:
        return weakref.ref, arguments
    if fate == STRONG:
        return rebuild.StrongRef, arguments
    if fate == RECIPE:
        return rebuild.RecipeRef, (recipe_of(referent), *arguments[1:])
    return rebuild.Tombstone, dump.tombstone_arguments(fate, referent)


def reduce_weakref_subclass(reference: weakref.ref[object], dump: Dump) -> ReduceValue:
    """Reduce an instance of a subclass: the same class, with its slots, its ``__dict__`` and its callback.

    A class that says itself how it is pickled is left to say so.
    """
    cls = type(reference)
    if has_own_reduce(cls):
        return NOT_REDUCED
    state = reference.__getstate__()
    # Not `reference()`: a class may return something else when called, or count its calls.
    referent = weakref.ref.__call__(reference)
    if referent is None:
        return rebuild.rebuild_dead_reference, (cls,), state
    callback: Any = reference.__callback__
    if type(callback) is rebuild.Owner:
        return rebuild.rebuild_owning_reference, (cls, referent, callback.callback), state
    arguments = (cls, referent) if callback is None else (cls, referent, callback)
    fate = dump.decide(reference, *arguments[1:])
    if fate == RELINK:
        constructor: Any = cls.__new__
        if constructor is weakref.ref.__new__:
            return new_object, arguments, state
        if constructor is weakref.KeyedRef.__new__:
            # The key is in the state: as an argument it might lead back to this reference.
            return new_object, (cls, referent, callback, None), state
        return rebuild.rebuild_reference, arguments, state
    if fate == STRONG:
        return rebuild.rebuild_owning_reference, (cls, referent, callback), state
    return rebuild.rebuild_dead_reference, (cls,), state


def reduce_weak_method(reference: weakref.WeakMethod[Any], dump: Dump) -> ReduceValue:
    """Reduce a `WeakMethod`: it is kept when both the object and the function are."""
    cls = type(reference)
    if has_own_reduce(cls):
        return NOT_REDUCED
    method = weakref.WeakMethod.__call__(reference)
    is_subclass = cls is not weakref.WeakMethod
    state = own_state(reference, _WEAK_METHOD) if is_subclass else None
    if method is None:
        return rebuild.rebuild_dead_weak_method, (cls,), state
    callback: Any = weak_method_callback(reference)
    if type(callback) is rebuild.Owner:
        return rebuild.rebuild_owning_reference, (cls, method, callback.callback), state
    arguments = (method,) if callback is None else (method, callback)
    *function, owner = parts_of_weak_method(method)
    fates = {dump.decide(reference, part) for part in function}
    fates.add(dump.decide(reference, owner, *arguments[1:]))
    if fates == {RELINK}:
        if not is_subclass:
            return cls, arguments
        has_own_constructor = cls.__new__ is not weakref.WeakMethod.__new__
        return rebuild.rebuild_reference if has_own_constructor else new_object, (cls, *arguments), state
    if fates <= {RELINK, STRONG}:
        if not is_subclass:
            return rebuild.OwningWeakMethod, arguments
        return rebuild.rebuild_owning_reference, (cls, *arguments), state
    return rebuild.rebuild_dead_weak_method, (cls,), state


def reduce_proxy(proxy: object, dump: Dump) -> ReduceValue:
    """Reduce a proxy of either kind, touching nothing of its referent."""
    referent, callback = look_behind(proxy)
    callable_kind = type(proxy) is weakref.CallableProxyType
    if referent is None:
        return rebuild.rebuild_dead_proxy, (callable_kind,)
    arguments = (referent,) if callback is None else (referent, callback)
    fate = dump.decide(proxy, *arguments)
    if fate == RELINK:
        return weakref.proxy, arguments
    if fate == STRONG:
        return rebuild.rebuild_proxy_referent, (referent,)
    return rebuild.rebuild_dead_proxy, (callable_kind,)


def reduce_finalize(finalizer: weakref.finalize[Any, Any], dump: Dump) -> ReduceValue:
    """Reduce a finalizer to a dead one of its class, or, where the dump is to rearm it, to one armed on the copy.

    It guards what its object owns outside of the graph, which the copy of the object does not own. So nothing of what
    it would call is looked at.
    """
    cls = type(finalizer)
    if has_own_reduce(cls):
        return NOT_REDUCED
    state = None if cls is weakref.finalize else finalizer.__getstate__()
    found = finalizer.peek() if dump.finalizers == "rearm" else None
    if found is None:
        return rebuild.rebuild_dead_finalize, (cls,), state
    referent, func, args, kwargs = found
    fate = dump.decide(finalizer, referent, func, args, kwargs)
    if fate == RELINK:
        if not kwargs and cls is weakref.finalize:
            return cls, (referent, func, *args), None if finalizer.atexit else (None, {"atexit": False})
        return rebuild.rebuild_finalize, (cls, referent, func, args, kwargs, finalizer.atexit), state
    if fate == STRONG:
        return rebuild.rebuild_owning_finalize, (referent, func, args, kwargs, finalizer.atexit)
    return rebuild.rebuild_dead_finalize, (cls,), state


def _reduce_owning_finalize(finalizer: rebuild.OwningFinalize, dump: Dump) -> ReduceValue:
    """Reduce a finalizer that owns its object like any other; rearmed, it says itself how."""
    if dump.finalizers == "rearm":
        return NOT_REDUCED
    return rebuild.rebuild_dead_finalize, (weakref.finalize,)


REDUCERS: Final[dict[type, Callable[[Any, Dump], ReduceValue]]] = {
    weakref.ref: reduce_weakref,
    weakref.WeakMethod: reduce_weak_method,
    weakref.ProxyType: reduce_proxy,
    weakref.CallableProxyType: reduce_proxy,
    weakref.finalize: reduce_finalize,
    rebuild.Tombstone: leave_to_itself,
    rebuild.RecipeRef: leave_to_itself,
    rebuild.StrongRef: leave_to_itself,
    rebuild.OwningWeakMethod: leave_to_itself,
    rebuild.OwningFinalize: _reduce_owning_finalize,
}
