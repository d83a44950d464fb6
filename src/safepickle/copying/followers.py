"""Followers: what is shared unless it leads into the graph, such as functions and callbacks.

`copy.deepcopy` shares every function, and nobody owns the callback of a weak reference. One that closes over something
that is copied, defaults to it or is bound to it would go on acting on the original: it is copied as well, with all that
lies between. What a follower holds otherwise is shared, as the follower itself would be, except weak containers: those
are its caches, in which the original would find what belongs to the copy.

Whether one leads into the graph is known at the end of the walk alone. Until then it stands for its own copy.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from safepickle import rebuild
from safepickle.copying.memo import MISSING, Copier, Memo, Setter, known_copy, set_attribute
from safepickle.messages import dotted_name
from safepickle.weak_types import PROXIES, STANDARD_CONTAINERS, look_behind

__all__ = ["FOLLOWER_COPIERS", "copy_follower", "copy_followers", "name_of_callback", "note_callback", "put"]


def copy_followers(memo: Memo) -> bool:
    """Copy the followers that lead to something that is copied by now.

    Returns:
        Whether there was one. What was copied on the way may let others lead into the graph.
    """
    if not memo.followers and not memo.callbacks:
        return False
    waiting = _not_copied(memo.followers, memo)
    callbacks = _not_copied(memo.callbacks, memo)
    if not waiting and not callbacks:
        return False
    memo.leading = _find_leading([*waiting, *callbacks], memo)
    has_found = False
    for follower in waiting:
        if id(follower) in memo.leading:
            has_found = True
            copy_follower(follower, memo)
    for callback in callbacks:
        if id(callback) in memo.leading:
            has_found = True
            _copy_callback_or_leave_it_out(callback, memo)
    memo.leading = {}
    return has_found


def copy_follower(follower: object, memo: Memo) -> Any:
    """Copy something that leads into the graph; what it holds that does not is shared."""
    found = known_copy(memo, id(follower), MISSING)
    if found is not MISSING:
        return found
    copier = _WHEN_FOLLOWING.get(type(follower)) or memo.plans[type(follower)]
    copied = follower if copier is None else copier(follower, memo)
    if memo.unplaced:
        # It waits for the end of the walk itself, and so does the place that it was noted for.
        return memo.unplaced.pop()
    memo[id(follower)] = copied
    memo.alive.append(follower)
    return copied


def note_callback(callback: object, memo: Memo) -> None:
    """Note something that a weak reference or a finalizer calls, or hands to what it calls."""
    if type(callback) is rebuild.Owner:
        callback = callback.callback
    if not _is_bare(callback, memo):
        memo.callbacks[id(callback)] = callback


def name_of_callback(callback: object) -> str:
    """Return the dotted name of a function that is called, or that of the type where it has none."""
    while type(callback) is functools.partial:
        callback = callback.func
    return dotted_name(callback if type(callback) in _NAMED else type(callback))


def _copy_callback_or_leave_it_out(callback: object, memo: Memo) -> None:
    mark = memo.mark()
    try:
        copy_follower(callback, memo)
    except RecursionError:
        raise
    except Exception:
        memo.roll_back(mark)
        memo.left_out[id(callback)] = callback


def _not_copied(noted: dict[int, Any], memo: Memo) -> list[Any]:
    done = (memo, memo.pending, memo.simple, memo.left_out)
    return [each for key, each in noted.items() if all(known_copy(known, key, MISSING) is MISSING for known in done)]


# Which followers lead into the graph


def _find_leading(followers: Iterable[Any], memo: Memo) -> dict[int, Any]:
    """Find what leads to something that is copied: of the followers, and of what lies between, all by their ids."""
    met = {id(follower): follower for follower in followers}
    holders: dict[int, list[int]] = {}
    goals: list[int] = []
    unread = list(met.values())
    while unread:
        holder = unread.pop()
        for part in _parts_of(holder, memo):
            key = id(part)
            holders.setdefault(key, []).append(id(holder))
            if key in met:
                continue
            met[key] = part
            known = known_copy(memo, key, MISSING)
            if key in memo.copied_for_sure or (known is not MISSING and known is not part):
                goals.append(key)
            elif known is MISSING:
                unread.append(part)
    leading: dict[int, Any] = {}
    while goals:
        key = goals.pop()
        if key not in leading:
            leading[key] = met[key]
            goals.extend(holders.get(key, ()))
    return leading


def _parts_of(holder: Any, memo: Memo) -> Iterable[Any]:
    """What ``holder`` owns, and the referents of a weak reference that are copied: those outside are not its own."""
    cls = type(holder)
    if cls in _WITHOUT_PARTS or issubclass(cls, _OWNED_BY_NOBODY):
        return ()
    if cls is types.FunctionType:
        return () if is_global(holder) else _parts_of_function(holder)
    if cls is functools._lru_cache_wrapper:
        # What it has cached is not what it does.
        return () if is_global(holder) else (holder.__wrapped__, holder.__dict__)
    if cls is types.BuiltinFunctionType:
        return (holder.__self__,)
    if cls is types.CellType:
        return _content(holder)
    if cls is dict and "__builtins__" in holder:
        return ()  # the globals of a module
    if cls in PROXIES:
        referent, callback = look_behind(holder)
        return callback, *_if_copied(referent, memo)
    if issubclass(cls, weakref.ref):
        return *gc.get_referents(holder), *_if_copied(weakref.ref.__call__(holder), memo)
    return gc.get_referents(holder)


def _parts_of_function(function: types.FunctionType) -> Iterable[Any]:
    keywords = function.__kwdefaults__ or {}
    return (
        *(function.__closure__ or ()),
        *(function.__defaults__ or ()),
        *keywords.values(),
        *function.__dict__.values(),
    )


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _if_copied(referent: object, memo: Memo) -> tuple[Any, ...]:
    known = known_copy(memo, id(referent), MISSING)
    is_copied = id(referent) in memo.copied_for_sure or (known is not MISSING and known is not referent)
    return (referent,) if is_copied else ()


def is_global(obj: object) -> bool:
    """Whether the name of a function or a class leads to it, so that its module owns it."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    for name in getattr(obj, "__qualname__", "").split("."):
        # Not `getattr`: a module may compute its attributes.
        found = getattr(found, "__dict__", {}).get(name)
    return getattr(found, "__func__", found) is obj


def _is_bare(follower: Any, memo: Memo) -> bool:
    """Tell at a glance that a follower leads nowhere."""
    cls = type(follower)
    if cls is types.FunctionType:
        return all(type(part) in _WITHOUT_PARTS for part in _parts_of_function(follower)) or is_global(follower)
    if cls is types.BuiltinFunctionType:
        return follower.__self__ is None or issubclass(type(follower.__self__), _OWNED_BY_NOBODY)
    if cls is functools._lru_cache_wrapper:
        return is_global(follower)
    if cls is property:
        return all(_is_bare(each, memo) for each in (follower.fget, follower.fset, follower.fdel))
    return issubclass(cls, _OWNED_BY_NOBODY) or memo.plans[cls] is None


# How a follower is copied


def _unless_shared(copy: Copier) -> Copier:
    """Make the copier of a type that is met anywhere in the graph: it copies what is known to lead into it."""

    def copy_or_wait(original: object, memo: Memo) -> Any:
        found = known_copy(memo, id(original), MISSING)
        if found is not MISSING:
            return found
        if _must_copy(original, memo):
            return copy(original, memo)
        if not _is_bare(original, memo):
            memo.followers[id(original)] = original
            memo.unplaced.append(original)
        return original

    return copy_or_wait


def _must_copy(original: object, memo: Memo) -> bool:
    key = id(original)
    return key in memo.leading or (key in memo.copied_for_sure and key not in memo.building)


def _copy_function(original: types.FunctionType, memo: Memo) -> types.FunctionType:
    cells = original.__closure__
    copied_cells = None if cells is None else tuple(_copy_own_cell(cell, memo) for cell in cells)
    copied = types.FunctionType(
        original.__code__, original.__globals__, original.__name__, original.__defaults__, copied_cells
    )
    memo.remember(original, copied)
    for name in _FUNCTION_ATTRIBUTES:
        value = getattr(original, name)
        setattr(copied, name, dict(value) if type(value) is dict else value)
    for cell, copied_cell in zip(cells or (), copied_cells or (), strict=True):
        for content in _content(cell):
            if not _content(copied_cell):
                put(setattr, copied_cell, "cell_contents", content, memo)
    for index, default in enumerate(original.__defaults__ or ()):
        put(_set_default, copied, index, default, memo)
    for name, default in (original.__kwdefaults__ or {}).items():
        put(_set_keyword_default, copied, name, default, memo)
    for name, value in original.__dict__.items():
        put(set_attribute, copied.__dict__, name, value, memo)
    return copied


def _copy_own_cell(cell: types.CellType, memo: Memo) -> types.CellType:
    """Make the cell of a function that is copied; functions that shared one go on sharing it."""
    found = known_copy(memo, id(cell), MISSING)
    if found is not MISSING:
        return found  # type: ignore[no-any-return]
    copied = types.CellType()
    memo.remember(cell, copied)
    return copied


def _set_default(function: types.FunctionType, index: int, value: object) -> None:
    defaults = function.__defaults__ or ()
    function.__defaults__ = (*defaults[:index], value, *defaults[index + 1 :])


def _set_keyword_default(function: types.FunctionType, name: str, value: object) -> None:
    function.__kwdefaults__ = {**(function.__kwdefaults__ or {}), name: value}


def _copy_builtin_method(original: types.BuiltinMethodType, memo: Memo) -> Any:
    owner = original.__self__
    copied_owner = _part(owner, memo)
    for base in type(owner).__mro__:
        method: Any = vars(base).get(original.__name__)
        # Not `getattr`: the class may have a method of that name in front of this one.
        if hasattr(method, "__get__") and method.__get__(owner, type(owner)) == original:
            copied = method.__get__(copied_owner, type(copied_owner))
            break
    else:
        copied = getattr(copied_owner, original.__name__)
    memo.remember(original, copied)
    return copied


def _copy_cache(original: Any, memo: Memo) -> Any:
    """Copy a `functools.lru_cache`, which begins empty."""
    parameters = original.cache_parameters()
    function = _part(original.__wrapped__, memo)
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    copied = rebuild.rebuild_lru_cache(function, parameters["maxsize"], parameters["typed"])
    memo.remember(original, copied)
    for name, value in original.__dict__.items():
        if name != "__wrapped__":
            put(set_attribute, copied.__dict__, name, value, memo)
    return copied


def _copy_partial(original: functools.partial[Any], memo: Memo) -> Any:
    function, *arguments = [_part(each, memo) for each in (original.func, *original.args)]
    keywords = {name: _part(value, memo) for name, value in original.keywords.items()}
    found = known_copy(memo, id(original), MISSING)
    return functools.partial(function, *arguments, **keywords) if found is MISSING else found


def _copy_property(original: property, memo: Memo) -> Any:
    getter, setter, deleter = (_part(each, memo) for each in (original.fget, original.fset, original.fdel))
    copied = property(getter, setter, deleter, original.__doc__)
    memo.remember(original, copied)
    return copied


def _copy_method(original: types.MethodType, memo: Memo) -> Any:
    function, owner = _part(original.__func__, memo), _part(original.__self__, memo)
    found = known_copy(memo, id(original), MISSING)
    return types.MethodType(function, owner) if found is MISSING else found


def put(setter: Setter, holder: object, key: object, content: object, memo: Memo) -> None:
    """Put what a follower holds into its copy, as soon as it is known whether that is copied."""
    copied = content
    if not _is_bare(content, memo):
        if _leads(content, memo):
            copied = copy_follower(content, memo)
        memo.followers[id(content)] = content
        memo.places.append((setter, holder, key, content))
    setter(holder, key, copied)


def _part(content: object, memo: Memo) -> Any:
    """The same for what a follower holds in a place that can't be written again."""
    if _is_bare(content, memo):
        return content
    if _leads(content, memo):
        copied = copy_follower(content, memo)
        if copied is content:
            memo.sealed.append(content)
        return copied
    memo.followers[id(content)] = content
    memo.sealed.append(content)
    return content


def _leads(content: object, memo: Memo) -> bool:
    is_known = known_copy(memo, id(content), MISSING) is not MISSING
    return is_known or _must_copy(content, memo) or issubclass(type(content), STANDARD_CONTAINERS)


_WITHOUT_PARTS: Final = frozenset(
    {types.NoneType, bool, int, float, complex, str, bytes, range, types.CodeType, types.EllipsisType}
)
_OWNED_BY_NOBODY: Final = (type, types.ModuleType)
_NAMED: Final = (types.FunctionType, types.MethodType)
_FUNCTION_ATTRIBUTES: Final = (
    "__module__",
    "__qualname__",
    "__doc__",
    # From 3.14 on annotations are made when they are asked for.
    "__annotate__" if hasattr(copy_follower, "__annotate__") else "__annotations__",
    "__kwdefaults__",
    *(("__type_params__",) if hasattr(copy_follower, "__type_params__") else ()),
)

FOLLOWER_COPIERS: Final[dict[type, Copier]] = {
    types.FunctionType: _unless_shared(_copy_function),
    types.BuiltinFunctionType: _unless_shared(_copy_builtin_method),
    functools._lru_cache_wrapper: _unless_shared(_copy_cache),
    property: _unless_shared(_copy_property),
}
# Of others that are met in the graph all parts are copied, as by `copy.deepcopy`.
_WHEN_FOLLOWING: Final[dict[type, Callable[[Any, Memo], Any]]] = {
    functools.partial: _copy_partial,
    types.MethodType: _copy_method,
}
