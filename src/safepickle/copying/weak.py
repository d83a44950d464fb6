"""How weak references are copied: those whose referent is copied lead to the copy, all others stay as they are.

Weak containers are filled at the end of the walk, when it is known what was copied. A callback belongs to whoever made
it: it is shared, unless it leads to something that was copied.
"""

from __future__ import annotations

import copyreg
import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from safepickle.copying.followers import copy_follower, copy_followers, note_callback
from safepickle.copying.memo import MISSING, Copier, Memo, Pending, known_copy
from safepickle.copying.strong import copy_by_reduction, copy_plain_instance
from safepickle.rebuild import Owner, OwningFinalize, rebuild_dead_finalize
from safepickle.reducers.classes import slot_names
from safepickle.weak_types import Kind, find_weak_type, look_behind, weak_method_callback, weak_type_of

__all__ = ["WEAK_COPIERS", "find_weak_copier", "finish", "settle"]


def find_weak_copier(cls: type) -> Copier | None:
    """Choose how instances of ``cls`` are copied, or return None for a class that is not weak or copies itself."""
    weak = find_weak_type(cls)
    if weak is None or _copies_itself(cls, weak.base):
        return None
    return _copy_owning_finalize if OwningFinalize in cls.__mro__ else _BY_KIND[weak.kind]


def _copies_itself(cls: type, base: type) -> bool:
    """Whether a class below ``base`` says itself how it is copied; what ``base`` says is what we mend."""
    own = cls.__mro__[: cls.__mro__.index(base)]
    names = ("__deepcopy__", "__reduce_ex__", "__reduce__", "__getstate__")
    found = [vars(each)[name] for each in own for name in names if name in vars(each)]
    return cls in copyreg.dispatch_table or any(not getattr(method, "__safepickle__", False) for method in found)


def _copied(original: object, memo: Memo) -> Any:
    """The copy of an object if the walk makes one, ``MISSING`` as long as nobody knows."""
    found = known_copy(memo, id(original), MISSING)
    if found is MISSING and id(original) in memo.copied_for_sure and id(original) not in memo.building:
        memo.copy_sealed(original)
        found = known_copy(memo, id(original), MISSING)
    return found


def _copy_or_same(original: object, memo: Memo) -> Any:
    copied = _copied(original, memo)
    return original if copied is MISSING else copied


def _copied_callback(callback: object, reference: object, memo: Memo) -> Any:
    """The callback of a copied reference: the same one, unless it leads to something that was copied."""
    if type(callback) is Owner:
        return Owner(_copy_or_same(callback.referent, memo), _copied_callback(callback.callback, reference, memo))
    if callback is None:
        return None
    if id(callback) in memo.left_out:
        memo.without_callback[id(reference)] = callback
        return None
    if id(callback) in memo.copied_for_sure:
        return copy_follower(callback, memo)
    return known_copy(memo, id(callback), callback)


def _relink(reference: object, pending: Pending, memo: Memo) -> Any:
    """Copy a live reference now if everything is known, else at the end of the walk.

    One with a callback waits in any case, unless this walk is the last: were the walk to be repeated, the callback
    would see the first walk's copies die.
    """
    if pending.callback is not None:
        note_callback(pending.callback, memo)
    is_early = pending.callback is not None and not memo.copied_for_sure
    if is_early or _copied(pending.referent, memo) is MISSING:
        return memo.wait(reference, pending)
    copied = _make(reference, pending, memo)
    memo.remember(reference, copied)
    return copied


def _make(reference: object, pending: Pending, memo: Memo) -> Any:
    return pending.make(_copy_or_same(pending.referent, memo), _copied_callback(pending.callback, reference, memo))


def _known(reference: object, memo: Memo) -> Any:
    """The copy of a reference that was met before, the pending reference itself, or ``MISSING``."""
    if id(reference) in memo.pending:
        memo.unplaced.append(reference)
        return reference
    return known_copy(memo, id(reference), MISSING)


def _copy_ref(reference: weakref.ref[Any], memo: Memo) -> Any:
    referent = reference()
    if referent is None:
        return reference
    callback = reference.__callback__
    if callback is None:
        # By far the commonest kind, and a call gives the same object again: there is nothing to remember.
        target = known_copy(memo, id(referent), MISSING)
        if target is MISSING and memo.copied_for_sure:
            target = _copied(referent, memo)
        if target is not MISSING:
            return weakref.ref(target)
        memo.simple[id(reference)] = referent
        memo.unplaced.append(reference)
        return reference
    known = _known(reference, memo)
    if known is not MISSING:
        return known

    def make(target: Any, new_callback: Any) -> Any:
        is_same = target is referent and new_callback is callback
        return reference if is_same else weakref.ref(target, new_callback)

    return _relink(reference, Pending(referent, callback, make), memo)


def _copy_ref_subclass(reference: weakref.ref[Any], memo: Memo) -> Any:
    known = _known(reference, memo)
    if known is not MISSING:
        return known
    referent = weakref.ref.__call__(reference)
    if referent is None:
        return reference
    callback = reference.__callback__
    if type(callback) is Owner:
        memo.copy_sealed(referent)
    cls = type(reference)

    def make(target: Any, new_callback: Any) -> Any:
        copied = weakref.ref.__new__(cls, target, new_callback)
        for name, value in state.items():
            # An identity kept for hashing is that of the new referent.
            is_identity = type(value) is int and value == id(referent)
            own = copied if value is reference else value
            object.__setattr__(copied, name, id(target) if is_identity else own)
        return copied

    state = _copy_state(reference, (), memo)
    known = _known(reference, memo)  # its own attributes may have led back to it
    return _relink(reference, Pending(referent, callback, make), memo) if known is MISSING else known


def _copy_weak_method(reference: weakref.WeakMethod[Any], memo: Memo) -> Any:
    known = _known(reference, memo)
    if known is not MISSING:
        return known
    method = weakref.WeakMethod.__call__(reference)
    if method is None:
        return reference
    callback = weak_method_callback(reference)
    if type(callback) is Owner:
        memo.copy_sealed(callback.referent)
    cls = type(reference)

    def make(target: Any, new_callback: Any) -> Any:
        function = _copy_or_same(method.__func__, memo)
        copied = weakref.WeakMethod.__new__(cls, type(method)(function, target), new_callback)
        for name, value in state.items():
            object.__setattr__(copied, name, copied if value is reference else value)
        return copied

    state = _copy_state(reference, weakref.WeakMethod.__slots__, memo)
    return _relink(reference, Pending(method.__self__, callback, make), memo)


def _copy_proxy(proxy: object, memo: Memo) -> Any:
    known = _known(proxy, memo)
    if known is not MISSING:
        return known
    referent, callback = look_behind(proxy)
    if referent is None:
        return proxy

    def make(target: Any, new_callback: Any) -> Any:
        is_same = target is referent and new_callback is callback
        return proxy if is_same else weakref.proxy(target, new_callback)

    return _relink(proxy, Pending(referent, callback, make), memo)


def _copy_finalize(finalizer: Any, memo: Memo) -> Any:
    """Copy a finalizer to a dead one: it guards what the original owns. Rearmed, it watches the copy of its object."""
    known = _known(finalizer, memo)
    if known is not MISSING:
        return known
    alive = finalizer.peek() if memo.finalizers == "rearm" else None
    if alive is None:
        return _copy_attributes(finalizer, rebuild_dead_finalize(type(finalizer)), (), memo)
    referent, function, args, keywords = alive
    call = functools.partial(function, *args, **keywords)
    note_callback(call, memo)

    def make(target: Any, _: Any) -> Any:
        copied = rebuild_dead_finalize(type(finalizer))
        for name, value in state.items():
            object.__setattr__(copied, name, value)

        def arm(memo: Memo) -> None:
            new_call = _copied_callback(call, finalizer, memo)
            if new_call is not None:
                weakref.finalize.__init__(copied, target, new_call.func, *new_call.args, **new_call.keywords)
                copied.atexit = finalizer.atexit

        # Not before the walk has succeeded: a copy that is thrown away must not be finalized.
        if target is not referent:
            memo.later.append(arm)
        return copied

    state = _copy_state(finalizer, (), memo)
    return _relink(finalizer, Pending(referent, None, make), memo)


def _copy_owning_finalize(finalizer: OwningFinalize, memo: Memo) -> Any:
    """The same for one that owns its object; rearmed, it says itself how."""
    if memo.finalizers == "rearm":
        return copy_by_reduction(finalizer, memo)
    found = known_copy(memo, id(finalizer), MISSING)
    if found is MISSING:
        found = rebuild_dead_finalize(weakref.finalize)
        memo.remember(finalizer, found)
    return found


def _copy_container(original: object, memo: Memo) -> Any:
    """Copy a weak container: an empty one of the same class, with the attributes that its class added, then entries."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    weak = weak_type_of(type(original))
    entries = weak.snapshot(original)
    copied = object.__new__(type(original))
    weak.initialize(copied, original)
    _copy_attributes(original, copied, vars(copied), memo)
    if weak.kind == "weak keys":
        memo.ephemerons.extend((key, value, lambda *pair: weak.put(copied, pair)) for key, (value,) in entries)
        return copied
    prepared = [(referent, tuple(map(memo.copy_sealed, hanging))) for referent, hanging in entries]

    def fill(memo: Memo) -> None:
        for referent, hanging in prepared:
            weak.put(copied, weak.item((_copy_or_same(referent, memo), hanging)))

    memo.later.append(fill)
    return copied


def _copy_attributes(original: object, copied: object, known: Iterable[str], memo: Memo) -> Any:
    """Give a copy what its class added to the ``known`` attributes of a base class."""
    memo.remember(original, copied)
    for name, value in _state_of(original, known).items():
        copier = memo.plans[type(value)]
        object.__setattr__(copied, name, value if copier is None else copier(value, memo))
        if memo.unplaced:
            memo.place(setattr, copied, name)
    return copied


def _copy_state(original: object, known: Iterable[str], memo: Memo) -> dict[str, Any]:
    state = _state_of(original, known)
    # An attribute that is the original itself waits: only who makes the copy can put the copy there.
    return {name: value if value is original else memo.copy_sealed(value) for name, value in state.items()}


def _state_of(original: object, known: Iterable[str]) -> dict[str, Any]:
    """Attributes, in ``__dict__`` and in slots, that are not among the ``known`` ones of a base class."""
    state = dict(getattr(original, "__dict__", {}))
    for name in slot_names(type(original)):
        value = getattr(original, name, MISSING)
        if value is not MISSING:
            state[name] = value
    return {name: value for name, value in state.items() if name not in known}


def finish(memo: Memo) -> bool:
    """Do what had to wait for the end of the walk.

    Returns:
        Whether every reference can be right. If not, one sits where it can't be replaced: the walk must be repeated.
    """
    is_open = True
    while is_open:
        _copy_values_of_copied_keys(memo)
        is_open = copy_followers(memo)
        if not is_open and memo.ephemerons:
            _copy_values_of_outside_keys(memo)
            is_open = True
    if not memo.copied_for_sure:
        wrong = [reference for reference in memo.sealed if _is_wrong(reference, memo)]
        if wrong or memo.is_undecided:
            memo.to_begin_with = [referent for each in wrong if (referent := _copied_referent(each, memo)) is not None]
            return False
    for setter, holder, key, reference in memo.places:
        setter(holder, key, settle(reference, memo))
    for finish_one in memo.later:
        finish_one(memo)
    return True


def settle(reference: object, memo: Memo) -> Any:
    """What a pending reference becomes, now that the walk has ended; anything else is left as it is."""
    referent = memo.simple.get(id(reference), MISSING)
    if referent is not MISSING:
        target = known_copy(memo, id(referent), MISSING)
        return reference if target is MISSING else weakref.ref(target)
    if id(reference) not in memo.pending:
        is_follower = id(reference) in memo.followers
        return known_copy(memo, id(reference), reference) if is_follower else reference
    settled = known_copy(memo, id(reference), MISSING)
    if settled is MISSING:
        settled = memo[id(reference)] = _make(reference, memo.pending[id(reference)], memo)
    return settled


def _is_wrong(reference: object, memo: Memo) -> bool:
    """Whether a pending reference must not stay as it is."""
    referent = memo.simple.get(id(reference), MISSING)
    if referent is not MISSING:
        return _copy_or_same(referent, memo) is not referent
    if id(reference) not in memo.pending:
        return known_copy(memo, id(reference), reference) is not reference
    referent, callback, _ = memo.pending[id(reference)]
    is_same = _copied_callback(callback, reference, memo) is callback
    return not is_same or _copy_or_same(referent, memo) is not referent


def _copied_referent(reference: object, memo: Memo) -> Any:
    """The referent of a pending reference if the walk has copied it, else None."""
    key = id(reference)
    referent = memo.simple[key] if key in memo.simple else memo.pending[key].referent if key in memo.pending else None
    return None if known_copy(memo, id(referent), MISSING) is MISSING else referent


def _copy_values_of_copied_keys(memo: Memo) -> None:
    """Copy the values whose key is copied, again and again, as they may lead to further keys."""
    has_found = True
    while has_found:
        has_found = False
        entries, memo.ephemerons = memo.ephemerons, []
        for entry in entries:
            if _copied(entry[0], memo) is MISSING:
                memo.ephemerons.append(entry)
            else:
                _copy_value(*entry, memo)
                has_found = True


def _copy_values_of_outside_keys(memo: Memo) -> None:
    """Copy the other values. Their keys stay outside: a value that leads to its own key does not cause a copy of it."""
    entries, memo.ephemerons = memo.ephemerons, []
    for key, _, _ in entries:
        memo[id(key)] = key
        memo.alive.append(key)
    for entry in entries:
        _copy_value(*entry, memo)


def _copy_value(key: object, value: object, store: Callable[[Any, Any], None], memo: Memo) -> None:
    copied_value = memo.copy_sealed(value)
    memo.later.append(lambda memo: store(_copy_or_same(key, memo), copied_value))


WEAK_COPIERS: dict[type, Copier | None] = {
    weakref.ref: _copy_ref,
    weakref.ProxyType: _copy_proxy,
    weakref.CallableProxyType: _copy_proxy,
}

_BY_KIND: dict[Kind, Copier] = {
    "method": _copy_weak_method,
    "reference": _copy_ref_subclass,
    "proxy": _copy_proxy,
    "set": _copy_container,
    "weak values": _copy_container,
    "weak keys": _copy_container,
    "finalizer": _copy_finalize,
    "handle": copy_plain_instance,
}
