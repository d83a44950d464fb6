"""How everything but weak references is copied: the rules of `copy.deepcopy`, with one Python frame per level.

The tables of `copy.deepcopy` are honoured (`copyreg.dispatch_table`, `__deepcopy__`, `__reduce_ex__`), in its order.
What has a reducer in the type table of a dump is copied by that: `copy.deepcopy` refuses most of it, or loses half.
"""

from __future__ import annotations

import copy
import copyreg
import operator
import types
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from safepickle.copying.memo import MISSING, Copier, Memo, Setter, known_copy, set_attribute
from safepickle.reducers.classes import is_plain
from safepickle.reducers.table import Reducer, find_reducer, find_registered

__all__ = [
    "STRONG_COPIERS",
    "by_reducer",
    "copy_by_method",
    "copy_by_reduction",
    "copy_plain_instance",
    "copy_without_method",
    "fill",
    "find_registered_copier",
    "find_strong_copier",
]

_stdlib_dispatch: dict[type, Copier] = getattr(copy, "_deepcopy_dispatch", {})
_stdlib_atomic = getattr(copy, "_deepcopy_atomic", None)

_SHARED: tuple[type, ...] = (
    types.NoneType,
    types.EllipsisType,
    types.NotImplementedType,
    bool,
    int,
    float,
    complex,
    bytes,
    str,
    type,
    range,
    types.CodeType,
)


def find_strong_copier(cls: type) -> Copier | None:
    """Choose how instances of exactly ``cls`` are copied; asked once per type and call."""
    stdlib = _stdlib_dispatch.get(cls)
    if stdlib is not None:
        return None if stdlib is _stdlib_atomic else _by_foreign_copier(stdlib)
    if issubclass(cls, type):
        return None
    if _own_method(cls) is not None:
        return copy_by_method
    reducer = find_reducer(cls)
    if reducer is not None:
        return by_reducer(reducer)
    return copy_plain_instance if _is_its_attributes(cls) else copy_by_reduction


def find_registered_copier(cls: type) -> Copier | None:
    """Choose the reducer that somebody has registered, unless a class nearer to ``cls`` says how it is copied."""
    for base in cls.__mro__:
        reducer = find_registered(base)
        if reducer is not None:
            return by_reducer(reducer)
        method = vars(base).get("__deepcopy__")
        if method is not None and not getattr(method, "__safepickle__", False):
            return None
    return None


def _own_method(cls: type) -> Any:
    """The `__deepcopy__` of a class, unless it is ours: a class may say ``__deepcopy__ = safepickle.deepcopy``."""
    method = getattr(cls, "__deepcopy__", None)
    return None if getattr(method, "__safepickle__", False) else method


def _is_its_attributes(cls: Any) -> bool:
    """Tell whether an instance is its ``__dict__`` and nothing else, so that its reduce value need not be built."""
    is_made_plainly = cls.__new__ is object.__new__ and not hasattr(cls, "__setstate__")
    return is_made_plainly and cls not in copyreg.dispatch_table and is_plain(cls)


def _copy_list(original: list[Any], memo: Memo) -> list[Any]:
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found  # type: ignore[no-any-return]
    copied: list[Any] = []
    memo[id(original)] = copied
    memo.alive.append(original)
    plans, unplaced, append = memo.plans, memo.unplaced, copied.append
    for item in original:
        copier = plans[type(item)]
        if copier is None:
            append(item)
        else:
            append(copier(item, memo))
            if unplaced:
                memo.place(operator.setitem, copied, len(copied) - 1)
    return copied


def _copy_dict(original: dict[Any, Any], memo: Memo) -> dict[Any, Any]:
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found  # type: ignore[no-any-return]
    copied: dict[Any, Any] = {}
    memo[id(original)] = copied
    memo.alive.append(original)
    # This is `fill`, written out: a frame less per level.
    plans, unplaced = memo.plans, memo.unplaced
    for key, value in original.items():
        if plans[type(key)] is not None:
            key = memo.copy_sealed(key)
        copier = plans[type(value)]
        if copier is None:
            copied[key] = value
        else:
            copied[key] = copier(value, memo)
            if unplaced:
                memo.place(operator.setitem, copied, key)
    return copied


def fill(
    copied: dict[Any, Any], items: Iterable[tuple[Any, Any]], memo: Memo, setter: Setter = operator.setitem
) -> None:
    """Copy items into a dictionary; ``setter`` is what can write a place there again."""
    plans, unplaced = memo.plans, memo.unplaced
    for key, value in items:
        if plans[type(key)] is not None:
            key = memo.copy_sealed(key)
        copier = plans[type(value)]
        if copier is None:
            copied[key] = value
        else:
            copied[key] = copier(value, memo)
            if unplaced:
                memo.place(setter, copied, key)


def copy_plain_instance(original: object, memo: Memo) -> Any:
    """Copy an instance that is its ``__dict__`` and nothing else."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    attributes = original.__dict__
    if "__deepcopy__" in attributes:
        return copy_by_method(original, memo)
    copied = object.__new__(type(original))
    memo[id(original)] = copied
    memo.alive.append(original)
    filled = copied.__dict__
    memo[id(attributes)] = filled
    # This is `fill`, written out: a frame less per level, and attribute names need no copier.
    plans, unplaced = memo.plans, memo.unplaced
    for name, value in attributes.items():
        copier = plans[type(value)]
        if copier is None:
            filled[name] = value
        else:
            filled[name] = copier(value, memo)
            if unplaced:
                memo.place(set_attribute, filled, name)
    return copied


def _copy_items(items: Iterable[Any], memo: Memo) -> list[Any]:
    """Copies of ``items`` for a holder that can't be written again."""
    plans = memo.plans
    return [item if plans[type(item)] is None else memo.copy_sealed(item) for item in items]


def _copy_immutable(original: Any, memo: Memo) -> Any:
    """Copy a tuple or a frozenset; one whose items are all their own copies is its own copy."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    plans, unplaced, sealed = memo.plans, memo.unplaced, memo.sealed
    items = []
    is_changed = False
    for item in original:
        copier = plans[type(item)]
        if copier is not None:
            part = copier(item, memo)
            if unplaced:
                sealed.append(unplaced.pop())
            is_changed |= part is not item
            item = part
        items.append(item)
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:  # an item led back to this tuple, and copied it
        return found
    if not is_changed:
        return original
    copied = type(original)(items)
    memo.remember(original, copied)
    return copied


def _copy_set(original: set[Any], memo: Memo) -> set[Any]:
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found  # type: ignore[no-any-return]
    copied: set[Any] = set()
    memo[id(original)] = copied
    memo.alive.append(original)
    copied.update(_copy_items(original, memo))
    return copied


def _copy_method(original: types.MethodType, memo: Memo) -> types.MethodType:
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found  # type: ignore[no-any-return]
    function, owner = memo.copy_sealed(original.__func__), memo.copy_sealed(original.__self__)
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:  # the owner led back to this method
        return found  # type: ignore[no-any-return]
    copied = types.MethodType(function, owner)
    memo.remember(original, copied)
    return copied


def _by_foreign_copier(copier: Copier) -> Copier:
    """A copier that somebody registered with the `copy` module."""

    def copy_by_foreign_copier(original: object, memo: Memo) -> Any:
        found = known_copy(memo, id(original), MISSING)
        if found is not MISSING:
            return found
        places = len(memo.places)
        copied = copier(original, memo)
        memo.seal(places)
        memo.remember(original, copied)
        return copied

    return copy_by_foreign_copier


def copy_by_method(original: object, memo: Memo) -> Any:
    """Call `__deepcopy__`."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    method = getattr(original, "__deepcopy__", None)
    if method is None:  # hidden by an attribute of the instance, as some methods do to copy it without them
        return copy_without_method(original, memo)
    places, sealed, handed_out = len(memo.places), len(memo.sealed), len(memo.handed_out)
    is_outermost = id(original) not in memo.building
    memo.building.add(id(original))
    try:
        copied = memo.call_method(method) if type(method) is types.MethodType else method(memo)
    finally:
        if is_outermost:
            memo.building.discard(id(original))
    if len(memo.places) > places and not _keeps(copied, memo.handed_out[handed_out:]):
        memo.seal(places)
    if len(memo.sealed) > sealed and copied is not original:
        _place_attributes(original, copied, memo, places, sealed)
    del memo.handed_out[handed_out:]
    memo.remember(original, copied)
    return copied


def _place_attributes(original: object, copied: object, memo: Memo, places: int, sealed: int) -> None:
    """Give a place to those references, sealed since there were ``sealed``, that ``copied`` holds.

    As an attribute, or in a list or a dict that is one, and is not the original's.
    """
    attributes = getattr(copied, "__dict__", {})
    originals = getattr(original, "__dict__", {})
    holders: list[tuple[Setter, Any, Iterable[tuple[Any, Any]]]] = [(set_attribute, attributes, attributes.items())]
    for name, value in attributes.items():
        if type(value) in (list, dict) and originals.get(name) is not value:
            holders.append((operator.setitem, value, value.items() if type(value) is dict else enumerate(value)))
    waiting = Counter(map(id, memo.sealed[sealed:]))
    noted = {(id(holder), key) for _, holder, key, _ in memo.places[places:]}
    for setter, holder, items in holders:
        for key, value in items:
            # One reference may be in several places, and some of them can't be written again.
            if id(value) in waiting and (id(holder), key) not in noted:
                memo.places.append((setter, holder, key, value))
                waiting[id(value)] -= 1
    still_sealed = []
    for reference in memo.sealed[sealed:]:
        if waiting[id(reference)] > 0:
            waiting[id(reference)] -= 1
            still_sealed.append(reference)
    memo.sealed[sealed:] = still_sealed


def _keeps(copied: object, parts: Iterable[Any]) -> bool:
    """Whether the containers among ``parts`` became attributes as they are, so that what was noted of them holds."""
    attributes = getattr(copied, "__dict__", None)
    kept = {id(attributes), *map(id, attributes.values())} if type(attributes) is dict else set()
    return all(id(part) in kept for part in parts if issubclass(type(part), (list, dict, set, deque)))


def copy_by_reduction(original: object, memo: Memo) -> Any:
    """Copy by the reduce value, or by a `__deepcopy__` that only the instance can tell of."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    method = getattr(original, "__deepcopy__", None)
    if method is not None and not getattr(method, "__safepickle__", False):
        return copy_by_method(original, memo)
    return copy_without_method(original, memo)


def copy_without_method(original: object, memo: Memo) -> Any:
    """Copy by the reduce value, whatever `__deepcopy__` there is."""
    value = _reduce(original)
    return original if isinstance(value, str) else _rebuild(original, memo, *value)


def by_reducer(reducer: Reducer) -> Copier:
    """A copier from the type table of a dump, whose reduce values are meant for the order in which pickle builds."""

    def copy_by_reducer(original: object, memo: Memo) -> Any:
        found = known_copy(memo, id(original), MISSING)
        if found is not MISSING:
            return found
        value = reducer(original, memo.dump)
        if value is NotImplemented:
            return copy_without_method(original, memo)
        return original if isinstance(value, str) else _rebuild(original, memo, *value, items_first=True)

    return copy_by_reducer


def _reduce(original: object) -> Any:
    reduce = copyreg.dispatch_table.get(type(original))
    if reduce is not None:
        return reduce(original)
    reduce_ex = getattr(original, "__reduce_ex__", None)
    if reduce_ex is not None:
        return reduce_ex(4)
    reduce = getattr(original, "__reduce__", None)
    if reduce is None:
        raise copy.Error(f"un(deep)copyable object of type {type(original)}")
    return reduce()


def _rebuild(
    original: object,
    memo: Memo,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    state: object = None,
    list_items: Iterable[Any] | None = None,
    dict_items: Iterable[tuple[Any, Any]] | None = None,
    set_state: Callable[[Any, Any], Any] | None = None,
    *,
    items_first: bool = False,
) -> Any:
    """Make the copy that a reduce value describes. The arguments are those of the pickle documentation.

    pickle adds the items before it sets the state, `copy.deepcopy` the other way round.
    """
    if args:
        places = len(memo.places)
        memo.building.add(id(original))
        try:
            args = tuple(_copy_items(args, memo))
        finally:
            memo.building.discard(id(original))
        memo.seal(places)
    copied = function(*args)
    memo[id(original)] = copied
    memo.alive.append(original)
    if items_first:
        _add_items(copied, list_items, dict_items, memo)
    if state is not None:
        set_state = set_state or _find_set_state(copied)
        if set_state is None:
            _set_attributes(copied, state, memo)
        else:
            _set_state(copied, state, memo, set_state)
    if not items_first:
        _add_items(copied, list_items, dict_items, memo)
    return copied


def _add_items(
    copied: Any, list_items: Iterable[Any] | None, dict_items: Iterable[tuple[Any, Any]] | None, memo: Memo
) -> None:
    if list_items is not None:
        _append_items(copied, list_items, memo)
    if dict_items is not None:
        if isinstance(copied, dict):
            fill(copied, dict_items, memo)
        else:
            for key, item in dict_items:
                copied[memo.copy_sealed(key)] = memo.copy_sealed(item)


def _find_set_state(copied: object) -> Callable[[Any, Any], Any] | None:
    method = getattr(copied, "__setstate__", None)
    return None if method is None else lambda _, state: method(state)


def _set_state(copied: object, state: object, memo: Memo, set_state: Callable[[Any, Any], Any]) -> None:
    places, sealed = len(memo.places), len(memo.sealed)
    copier = memo.plans[type(state)]  # `memo.copy_sealed`, a frame less per level
    copied_state = state if copier is None else copier(state, memo)
    if memo.unplaced:
        memo.sealed.append(memo.unplaced.pop())
    set_state(copied, copied_state)
    if len(memo.places) == places and len(memo.sealed) == sealed:
        return
    if isinstance(copied_state, dict) and _keeps(copied, copied_state.values()):
        # What was noted of the state's own items concerns a dict that has gone: find them among the attributes.
        memo.sealed.extend(ref for _, holder, _, ref in memo.places[places:] if holder is copied_state)
    else:
        memo.seal(places)
    _place_attributes(None, copied, memo, places, sealed)


def _set_attributes(copied: Any, state: Any, memo: Memo) -> None:
    """What `object.__setstate__` would do: fill ``__dict__``, then the slots."""
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes is not None:
        found = known_copy(memo, id(attributes), MISSING)
        if found is MISSING:
            memo.alive.append(attributes)
            memo[id(attributes)] = copied.__dict__
            fill(copied.__dict__, attributes.items(), memo, set_attribute)
        else:
            copied.__dict__.update(found)
    if slots is not None:
        for name, value in slots.items():
            copier = memo.plans[type(value)]
            setattr(copied, name, value if copier is None else copier(value, memo))
            if memo.unplaced:
                memo.place(setattr, copied, name)


def _append_items(copied: Any, items: Iterable[Any], memo: Memo) -> None:
    indexed = isinstance(copied, (list, deque))
    for item in items:
        copier = memo.plans[type(item)]
        copied.append(item if copier is None else copier(item, memo))
        if memo.unplaced:
            if indexed:
                memo.place(operator.setitem, copied, len(copied) - 1)
            else:
                memo.sealed.append(memo.unplaced.pop())


STRONG_COPIERS: dict[type, Copier | None] = {
    **dict.fromkeys(_SHARED),
    list: _copy_list,
    dict: _copy_dict,
    tuple: _copy_immutable,
    set: _copy_set,
    frozenset: _copy_immutable,
    types.MethodType: _copy_method,
}
