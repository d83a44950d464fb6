"""Weak references and finalizers, dead ones, ones that own, and recipes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from safepickle.rebuild.mark import file_format
from safepickle.rebuild.recomputed import Recomputed
from safepickle.reduce_value import ReduceTuple
from safepickle.weak_types import weak_method_callback

__all__ = [
    "Owner",
    "OwningFinalize",
    "OwningWeakMethod",
    "RecipeRef",
    "StrongRef",
    "Tombstone",
    "rebuild_dead_finalize",
    "rebuild_dead_proxy",
    "rebuild_dead_reference",
    "rebuild_dead_weak_method",
    "rebuild_finalize",
    "rebuild_owning_finalize",
    "rebuild_owning_reference",
    "rebuild_proxy_referent",
    "rebuild_reference",
    "weak_method_callback",
]

T = TypeVar("T")

# weakref.finalize is generic in the stubs alone.
if TYPE_CHECKING:
    _Finalize: TypeAlias = weakref.finalize[Any, Any]
else:
    _Finalize = weakref.finalize


@file_format
class Tombstone(weakref.ref[Any]):
    """A dead weak reference that says what it was.

    Calling it gives None, as any dead reference does. It is hashable and equal to itself alone, so it also serves in
    the place of a dead dict key, and it pickles again with any pickler.

    Attributes:
        reason: ``"dead"``: the referent was gone. ``"outside"``: the referent was not in the pickle. ``"cycle"``: the
            referent could not exist yet when the reference had to be made. ``"policy"``: it was asked for.
        referent_type: Dotted name of the referent's type, or None when it is unknown.

    Examples:
        >>> import weakref
        >>> class Parent:
        ...     pass
        >>> parent = Parent()
        >>> data = safepickle.dumps([weakref.ref(parent)], weakrefs="tombstone")
        >>> [reference] = safepickle.loads(data)
        >>> reference
        <safepickle.Tombstone: policy, was a weak reference to __main__.Parent>
        >>> print(reference())
        None
    """

    __slots__ = ("reason", "referent_type")

    reason: str
    referent_type: str | None

    def __new__(cls, reason: str, referent_type: str | None = None) -> Tombstone:
        tombstone = super().__new__(cls, _Nothing())
        tombstone.reason = reason
        tombstone.referent_type = referent_type
        return tombstone

    def __init__(self, reason: str, referent_type: str | None = None) -> None:
        # weakref.ref.__init__ would refuse the arguments; __new__ has used them.
        pass

    def __repr__(self) -> str:
        was = "" if self.referent_type is None else f", was a weak reference to {self.referent_type}"
        return f"<safepickle.Tombstone: {self.reason}{was}>"

    # A dead weakref.ref has no hash of its own to fall back on.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __reduce__(self) -> ReduceTuple:
        return type(self), (self.reason, self.referent_type)


class _OwningRef(weakref.ref[T]):
    """A weak reference that owns what it refers to."""

    # The callback owns the referent, not a slot: slots are cleared while the reference is still in the referent's list
    # of references, and CPython 3.11 and 3.12 crash when the referent dies then (PyObject_ClearWeakRefs drops the
    # callback of a dying reference without asking whether it has one).
    __slots__ = ()

    def __new__(cls, referent: T, callback: Callable[[object], object] | None = None) -> Self:
        return super().__new__(cls, referent, Owner(referent, callback))

    @property
    def __callback__(self) -> Callable[[Any], object] | None:  # type: ignore[override]
        owner = _owner(self)
        return None if owner is None else owner.callback

    def __reduce__(self) -> ReduceTuple:
        owner = _owner(self)
        return type(self), (owner.referent,) if owner.callback is None else (owner.referent, owner.callback)


@file_format
class StrongRef(_OwningRef[T]):
    """A weak reference by type, a strong one in effect: it owns its referent.

    It stands where a weak reference stood whose owner stayed outside the pickle: ``isinstance(x, weakref.ref)``
    holds, ``x()`` gives the copy, and deleting the reference lets the copy go.

    Args:
        referent: What it refers to and owns.
        callback: As for `weakref.ref`.

    Examples:
        >>> import weakref
        >>> class Parent:
        ...     name = "parent"
        >>> parent = Parent()
        >>> [reference] = safepickle.loads(safepickle.dumps([weakref.ref(parent)], weakrefs="strong"))
        >>> reference().name
        'parent'
        >>> isinstance(reference, weakref.ref)
        True
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<safepickle.StrongRef to {type(self()).__qualname__}>"


@file_format
class OwningWeakMethod(weakref.WeakMethod[Any]):
    """A `weakref.WeakMethod` that owns its method, and so the object that the method is bound to."""

    __slots__ = ("_method",)

    _method: Any

    def __new__(cls, method: object, callback: Callable[[object], object] | None = None) -> OwningWeakMethod:
        reference = super().__new__(cls, method, callback)
        reference._method = method
        return reference

    def __reduce__(self) -> ReduceTuple:
        callback = weak_method_callback(self)
        return type(self), (self._method,) if callback is None else (self._method, callback)


@file_format
class OwningFinalize(_Finalize):
    """A `weakref.finalize` that owns the object which it watches.

    The registry of `weakref.finalize` holds every armed finalizer, so one that owned its object would keep it for
    ever. This one stays out of the registry and arms an ordinary finalizer: deleting it lets the object go, which
    runs the callback.
    """

    __slots__ = ("_armed", "_referent")

    def __init__(self, referent: object, func: Callable[..., object], /, *args: object, **kwargs: object) -> None:
        self._referent = referent
        self._armed = weakref.finalize(referent, func, *args, **kwargs)

    def __call__(self, _: object = None) -> Any:
        try:
            return self._armed()
        finally:
            self._referent = None

    def detach(self) -> Any:
        found = self._armed.detach()
        self._referent = None
        return found

    def peek(self) -> Any:
        return self._armed.peek()

    @property
    def alive(self) -> bool:
        return self._armed.alive

    @property
    def atexit(self) -> bool:
        return self._armed.atexit

    @atexit.setter
    def atexit(self, value: bool) -> None:
        self._armed.atexit = value

    def __reduce__(self) -> ReduceTuple:
        found = self.peek()
        if found is None:
            return rebuild_dead_finalize, (weakref.finalize,)
        referent, func, args, kwargs = found
        return rebuild_owning_finalize, (referent, func, args, kwargs, self.atexit)


@file_format
class RecipeRef(_OwningRef[Any]):
    """A weak reference by type whose call builds its referent: it owns the `Recomputed` that knows how.

    It stands where a weak reference to a recomputed value stood whose owner stayed outside the pickle.
    """

    __slots__ = ()

    @property
    def recomputed(self) -> Recomputed[Any]:
        """The recipe, shared with every other reference to the same value."""
        recomputed: Recomputed[Any] = _owner(self).referent
        return recomputed

    def __call__(self) -> Any:
        return self.recomputed.value

    def __repr__(self) -> str:
        return f"<safepickle.RecipeRef to the value of {self.recomputed!r}>"


@file_format
class Owner:
    """The callback of a weak reference that owns its referent; it forwards to the reference's own callback.

    A reference of a subclass without ``__dict__`` has no other place to hold its referent. The garbage collector sees
    through a reference's callback, so deleting the reference lets the referent go.
    """

    __slots__ = ("callback", "referent")

    def __init__(self, referent: object, callback: Callable[[object], object] | None = None) -> None:
        self.referent = referent
        self.callback = callback

    def __call__(self, reference: object) -> None:
        if self.callback is not None:
            self.callback(reference)


@file_format
def rebuild_reference(cls: type[weakref.ref[object]], referent: object, callback: object = None) -> weakref.ref[Any]:
    """Build a reference of a subclass that has a constructor of its own, without calling it; state follows.

    The referent of a `WeakMethod` is its method.
    """
    return _new_reference(cls, referent, callback)


@file_format
def rebuild_owning_reference(cls: type[weakref.ref[Any]], referent: Any, callback: Any = None) -> weakref.ref[Any]:
    """Build a reference of a subclass that owns its referent; state follows."""
    return _new_reference(cls, referent, Owner(referent, callback))


@file_format
def rebuild_dead_reference(cls: type[weakref.ref[object]]) -> weakref.ref[Any]:
    """Build a dead reference of a subclass; state follows."""
    return weakref.ref.__new__(cls, _Nothing())


@file_format
def rebuild_dead_weak_method(cls: type[weakref.WeakMethod[Any]]) -> weakref.WeakMethod[Any]:
    """Build a dead `WeakMethod`."""
    return weakref.WeakMethod.__new__(cls, _Nothing().method)


@file_format
def rebuild_dead_proxy(callable_kind: bool) -> Any:
    """Build a dead proxy: a `weakref.CallableProxyType`, or else a `weakref.ProxyType`."""
    return weakref.proxy(_CallableNothing() if callable_kind else _Nothing())


@file_format
def rebuild_proxy_referent(referent: T) -> T:
    """Put the referent itself where a proxy to it stood, or where its state follows by itself."""
    return referent


@file_format
def rebuild_finalize(
    cls: type[_Finalize],
    referent: object,
    func: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    atexit: bool = True,
) -> _Finalize:
    """Arm a finalizer on `referent`, without the constructor of a subclass; the state of one follows."""
    finalizer: _Finalize = object.__new__(cls)
    weakref.finalize.__init__(finalizer, referent, func, *args, **kwargs)
    finalizer.atexit = atexit
    return finalizer


@file_format
def rebuild_dead_finalize(cls: type[_Finalize]) -> _Finalize:
    """Build a finalizer that has nothing to do: `weakref.finalize` registers itself only in ``__init__``."""
    return object.__new__(cls)


@file_format
def rebuild_owning_finalize(
    referent: object,
    func: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    atexit: bool = True,
) -> OwningFinalize:
    """Arm a finalizer on `referent` that owns it."""
    finalizer = OwningFinalize(referent, func, *args, **kwargs)
    finalizer.atexit = atexit
    return finalizer


def _new_reference(cls: type[weakref.ref[Any]], referent: Any, callback: Any) -> weakref.ref[Any]:
    if issubclass(cls, weakref.WeakMethod):
        return weakref.WeakMethod.__new__(cls, referent, callback)
    return weakref.ref.__new__(cls, referent, callback)


def _owner(reference: weakref.ref[Any]) -> Any:
    """The `Owner` that is the callback of a reference, or None once the collector has cleared it."""
    return weakref.ref.__callback__.__get__(reference)  # type: ignore[misc]


class _Nothing:
    """What a reference points at for the moment that it takes to make it dead."""

    def method(self) -> None:
        """Be the method of a `WeakMethod` that is born dead."""


class _CallableNothing:
    """The same for a proxy: `weakref.proxy` makes a `weakref.CallableProxyType` of what can be called."""

    def __call__(self) -> None:
        """Never called: nobody holds an instance."""
