"""What is known of each weak type: its base, its internals, and what it refers to.

Reducers, `rebuild`, rules of the guard, `deepcopy`, the walks and the reports ask here, so that what is known stands
once. A type is found by the name of its base class, so that no framework is imported. This module decides nothing: it
knows nothing of policies, bytes or paths.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from safepickle.messages import dotted_name

__all__ = [
    "CONTAINER_INTERNALS",
    "PROXIES",
    "STANDARD_CONTAINERS",
    "WEAK_TYPES",
    "Entry",
    "Kind",
    "WeakType",
    "find_weak_type",
    "look_behind",
    "weak_method_callback",
    "weak_type_of",
]

Kind: TypeAlias = Literal["reference", "method", "proxy", "set", "weak values", "weak keys", "finalizer", "handle"]
Entry: TypeAlias = tuple[Any, tuple[Any, ...]]
"""A live referent, and what hangs on it: a callback, a weak dictionary's key or value, a finalizer's function."""

PROXIES: Final = frozenset(weakref.ProxyTypes)


class WeakType(NamedTuple):
    """One weak type, and all classes that inherit from it.

    Attributes:
        module: Where the base class is defined.
        name: Its name there.
        kind: What it is, and so how it is read.
        internals: The attributes that its constructor makes afresh; no pickle may carry or replace them.
        read: Takes a snapshot of an instance.
        arguments: The attributes that its constructor takes by keyword.
    """

    module: str
    name: str
    kind: Kind
    read: Callable[[Any], Iterator[Entry]]
    internals: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()

    @property
    def base(self) -> Any:
        """The base class. Its module has been imported, because an instance or a subclass exists."""
        return getattr(sys.modules[self.module], self.name)

    @property
    def is_container(self) -> bool:
        """Whether it holds any number of entries, and is rebuilt empty and then filled."""
        return self.kind in ("set", "weak values", "weak keys")

    @property
    def is_single(self) -> bool:
        """Whether it is one reference, rather than an object that holds several."""
        return self.kind in ("reference", "method", "proxy", "finalizer")

    def snapshot(self, obj: Any) -> list[Entry]:
        """Return what an instance refers to and is alive, held strongly, in order.

        Other threads and the collector may change a container at any moment: its table is copied in one step first.
        No code of the referents or of a subclass runs.
        """
        return list(self.read(obj))

    def initialize(self, container: Any, like: Any) -> None:
        """Run the constructor of the base class on a new container, so that it is empty, and made as `like` was."""
        self.base.__init__(container, **{name: getattr(like, name) for name in self.arguments})

    def item(self, entry: Entry) -> Any:
        """Return an entry of a container as it is put in: the member of a set, the pair of a dictionary."""
        referent, hanging = entry
        if self.kind == "set":
            return referent
        return (referent, hanging[0]) if self.kind == "weak keys" else (hanging[0], referent)

    def put(self, container: Any, item: Any) -> None:
        """Put an `item` into a container by the method of the base class: a subclass's own may check or count."""
        if self.kind == "set":
            self.base.add(container, item)
        else:
            self.base.__setitem__(container, *item)


def _read_reference(reference: Any) -> Iterator[Entry]:
    # Not `reference()`: a class may return something else when called, and torch's mend the tensor that they return.
    referent = weakref.ref.__call__(reference)
    if referent is not None:
        callback = reference.__callback__
        yield referent, () if callback is None else (callback,)


def _read_method(reference: Any) -> Iterator[Entry]:
    method = weakref.WeakMethod.__call__(reference)
    if method is not None:
        callback = weak_method_callback(reference)
        yield method.__func__, ()
        yield method.__self__, () if callback is None else (callback,)


def _read_proxy(proxy: Any) -> Iterator[Entry]:
    referent, callback = look_behind(proxy)
    if referent is not None:
        yield referent, () if callback is None else (callback,)


def _read_finalizer(finalizer: Any) -> Iterator[Entry]:
    found: Any = weakref.finalize.peek(finalizer)
    if found is not None:
        yield found[0], found[1:]


def _read_set(container: Any) -> Iterator[Entry]:
    for reference in container.data.copy():
        member = reference()
        if member is not None:
            yield member, ()


def _read_weak_values(container: Any) -> Iterator[Entry]:
    for key, reference in container.data.copy().items():
        value = reference()
        if value is not None:
            yield value, (key,)


def _read_weak_keys(container: Any) -> Iterator[Entry]:
    for reference, value in container.data.copy().items():
        key = weakref.ref.__call__(reference)
        if key is not None:
            yield key, (value,)


def _read_handle(handle: Any) -> Iterator[Entry]:
    for reference in (handle.hooks_dict_ref, *handle.extra_dict_ref):
        hooks = reference()
        if hooks is not None:
            yield hooks, ()


_TABLE: Final = frozenset({"data", "_remove", "_pending_removals", "_iterating", "_dirty_len"})

WEAK_TYPES: Final = (
    WeakType("weakref", "WeakMethod", "method", _read_method, frozenset(weakref.WeakMethod.__slots__)),
    WeakType("torch.utils.weak", "WeakIdRef", "reference", _read_reference, frozenset({"_id"})),
    WeakType("torch.utils.weak", "_WeakHashRef", "reference", _read_reference, frozenset({"_id"})),
    WeakType("weakref", "ref", "reference", _read_reference),
    WeakType("weakref", "ProxyType", "proxy", _read_proxy),
    WeakType("weakref", "CallableProxyType", "proxy", _read_proxy),
    WeakType("weakref", "finalize", "finalizer", _read_finalizer),
    WeakType("weakref", "WeakSet", "set", _read_set, _TABLE),
    WeakType("weakref", "WeakValueDictionary", "weak values", _read_weak_values, _TABLE),
    WeakType("weakref", "WeakKeyDictionary", "weak keys", _read_weak_keys, _TABLE),
    WeakType(
        "torch.utils.weak", "WeakIdKeyDictionary", "weak keys", _read_weak_keys, _TABLE | {"ref_type"}, ("ref_type",)
    ),
    WeakType("torch.utils.hooks", "RemovableHandle", "handle", _read_handle),
)
"""Every weak type, a subclass before its base. `torch.utils.weak.TensorWeakRef` needs no place: it is an ordinary
object that holds a `weakref.ref`."""

STANDARD_CONTAINERS: Final = tuple(weak.base for weak in WEAK_TYPES if weak.is_container and weak.module == "weakref")
CONTAINER_INTERNALS: Final = frozenset().union(*(weak.internals for weak in WEAK_TYPES if weak.is_container))
_STANDARD: Final = {weak.base: weak for weak in WEAK_TYPES if weak.module == "weakref"}
_BY_NAME: Final = {(weak.module, weak.name): weak for weak in WEAK_TYPES if weak.module != "weakref"}
# Weak keys: what is remembered must not keep a class alive.
_found: weakref.WeakKeyDictionary[type, WeakType | None] = weakref.WeakKeyDictionary()


def find_weak_type(cls: type) -> WeakType | None:
    """Return the weak type that `cls` is or inherits from, or None."""
    try:
        return _found[cls]
    except KeyError:
        found = _found[cls] = next(filter(None, map(_of_base, cls.__mro__)), None)
        return found


def weak_type_of(cls: type) -> WeakType:
    """Return the weak type of a class that is known to have one.

    Raises:
        TypeError: It is not a weak type.
    """
    found = find_weak_type(cls)
    if found is None:
        raise TypeError(f"{dotted_name(cls)} is not a weak type")
    return found


def _of_base(base: type) -> WeakType | None:
    found = _STANDARD.get(base)
    if found is None:
        module, name = base.__dict__.get("__module__"), base.__name__
        found = _BY_NAME.get((module, name)) if type(module) is str else None
        if found is not None and getattr(sys.modules.get(found.module), name, None) is not base:
            return None
    return found


class _LookBehind:
    """The left side of an operator whose right side is a proxy: what the proxy stands for comes out.

    A proxy hides all there is to know about itself, but unwraps the operands of an operator in C, which is safe while
    other threads let go of the referent, and asks nothing of the referent's class: the left side is asked first.
    """

    def __matmul__(self, other: Any) -> Any:
        return NotImplemented if type(other) in PROXIES else other


_behind = _LookBehind()


def look_behind(proxy: Any) -> tuple[Any, Callable[[Any], object] | None]:
    """Return the referent of a proxy, or None when it is dead, and the proxy's callback."""
    try:
        referent = _behind @ proxy
    except ReferenceError:
        referent = None
    # The callback is the only object that a proxy owns.
    return referent, next(iter(gc.get_referents(proxy)), None)


def weak_method_callback(reference: weakref.WeakMethod[Any]) -> Callable[[Any], object] | None:
    """Return the callback that a `WeakMethod` was made with.

    Source:
        ``WeakMethod.__new__`` in CPython Lib/weakref.py wraps it in a closure, which ``__callback__`` shows instead.
    """
    wrapper: Any = reference.__callback__
    if wrapper is None:
        return None
    cells = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True))
    callback: Callable[[Any], object] | None = cells["callback"].cell_contents if "callback" in cells else None
    return callback
