"""THE FILE FORMAT: every callable and class that a pickle written by safepickle names.

A name here is bytes in files that exist. So:

* a name is never renamed, moved or removed, and its arguments are never reordered;
* a new argument gets a default;
* a changed meaning gets a new name;
* every change stands in CHANGELOG.md under ``Format``, and a golden pickle of it is added to the tests.

A weak reference that was relinked names nothing from here: ``weakref.ref(copy)`` needs no safepickle to load.
This module knows nothing of how a dump decides; it only builds.
"""

from __future__ import annotations

import pickle
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from safepickle import keras_internals
from safepickle.errors import KerasVersionWarning, level_of_caller
from safepickle.recomputed import Recomputed

__all__ = [
    "KerasRuntime",
    "Owner",
    "OwningFinalize",
    "OwningWeakMethod",
    "RecipeRef",
    "StrongRef",
    "Stub",
    "StubRecord",
    "Tombstone",
    "UnpicklableTombstone",
    "rebuild_dead_finalize",
    "rebuild_dead_proxy",
    "rebuild_dead_reference",
    "rebuild_dead_weak_method",
    "rebuild_descriptor",
    "rebuild_file",
    "rebuild_finalize",
    "rebuild_global",
    "rebuild_keras_container",
    "rebuild_keras_loss_entry",
    "rebuild_keras_masked",
    "rebuild_keras_node",
    "rebuild_keras_object",
    "rebuild_keras_tracker",
    "rebuild_lru_cache",
    "rebuild_memoryview",
    "rebuild_owning_finalize",
    "rebuild_owning_reference",
    "rebuild_proxy_referent",
    "rebuild_queue_items",
    "rebuild_recomputed",
    "rebuild_reference",
    "rebuild_replacement",
    "rebuild_root",
    "rebuild_salvaged",
    "rebuild_salvaged_contents",
    "rebuild_set_members",
    "rebuild_stub_of_builtin",
    "rebuild_tf_default_strategy",
    "rebuild_tf_function",
    "rebuild_tf_mutable_table",
    "rebuild_tf_static_table",
    "rebuild_thread",
    "rebuild_torch_attributes",
    "rebuild_torch_owning_handle",
    "rebuild_torch_parameter",
    "rebuild_torch_storage",
    "rebuild_torch_tensor",
    "rebuild_torch_typed_storage",
    "rebuild_torch_weak_dictionary",
    "rebuild_torch_weak_entries",
    "rebuild_torch_weak_reference",
    "rebuild_weak_container",
    "rebuild_weak_entries",
    "restore_keras_attributes",
    "restore_keras_node",
    "restore_keras_object",
    "restore_keras_set",
    "restore_keras_tracker",
    "restore_tf_function",
]

from safepickle.errors import UnpicklableError, UnpicklableStateWarning

T = TypeVar("T")

# weakref.finalize is generic in the stubs alone.
if TYPE_CHECKING:
    _Finalize: TypeAlias = weakref.finalize[Any, Any]
else:
    _Finalize = weakref.finalize

OWNED_ATTRIBUTE = "_safepickle_owned"
"""The attribute by which a weak container owns what a strong copy brought in."""


class _Nothing:
    """What a reference points at for the moment that it takes to make it dead."""

    def method(self) -> None:
        """Be the method of a `WeakMethod` that is born dead."""


class _CallableNothing:
    """The same for a proxy: `weakref.proxy` makes a `weakref.CallableProxyType` of what can be called."""

    def __call__(self) -> None:
        """Never called: nobody holds an instance."""


class Tombstone(weakref.ref[Any]):
    """A dead weak reference that says what it was.

    Calling it gives None, as any dead reference does. It is hashable and equal to itself alone, so it also serves in
    the place of a dead dict key, and it pickles again with any pickler.

    Attributes:
        reason: ``"dead"``: the referent was gone. ``"outside"``: the referent was not in the pickle. ``"cycle"``: the
            referent could not exist yet when the reference had to be made. ``"policy"``: it was asked for.
        referent_type: Dotted name of the referent's type, or None when it is unknown.
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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.referent_type)


class StrongRef(weakref.ref[T]):
    """A weak reference by type, a strong one in effect: it owns its referent.

    It stands where a weak reference stood whose owner stayed outside the pickle: ``isinstance(x, weakref.ref)``
    holds, ``x()`` gives the copy, and deleting the reference lets the copy go.
    """

    # The callback owns the referent, not a slot: slots are cleared while the reference is still in the referent's list
    # of references, and CPython 3.11 and 3.12 crash when the referent dies then (PyObject_ClearWeakRefs drops the
    # callback of a dying reference without asking whether it has one).
    __slots__ = ()

    def __new__(cls, referent: T, callback: Callable[[Any], object] | None = None) -> StrongRef[T]:
        return super().__new__(cls, referent, Owner(referent, callback))

    @property
    def __callback__(self) -> Callable[[Any], object] | None:  # type: ignore[override]
        owner = _owner(self)
        return None if owner is None else owner.callback

    def __repr__(self) -> str:
        return f"<safepickle.StrongRef to {type(self()).__qualname__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        callback = self.__callback__
        return type(self), (self(),) if callback is None else (self(), callback)


class Owner:
    """The callback of a weak reference that owns its referent; it forwards to the reference's own callback.

    A reference of a subclass without ``__dict__`` has no other place to hold its referent. The garbage collector sees
    through a reference's callback, so deleting the reference lets the referent go.
    """

    __slots__ = ("callback", "referent")

    def __init__(self, referent: object, callback: Callable[[Any], object] | None = None) -> None:
        self.referent = referent
        self.callback = callback

    def __call__(self, reference: Any) -> None:
        if self.callback is not None:
            self.callback(reference)


def _owner(reference: weakref.ref[Any]) -> Any:
    """The `Owner` that is the callback of a reference, or None once the collector has cleared it."""
    return weakref.ref.__callback__.__get__(reference)  # type: ignore[misc]


class OwningWeakMethod(weakref.WeakMethod[Any]):
    """A `weakref.WeakMethod` that owns its method, and so the object that the method is bound to."""

    __slots__ = ("_method",)

    _method: Any

    def __new__(cls, method: Any, callback: Callable[[Any], object] | None = None) -> OwningWeakMethod:
        reference = super().__new__(cls, method, callback)
        reference._method = method
        return reference

    def __reduce__(self) -> tuple[Any, ...]:
        callback = weak_method_callback(self)
        return type(self), (self._method,) if callback is None else (self._method, callback)


class OwningFinalize(_Finalize):
    """A `weakref.finalize` that owns the object which it watches.

    The registry of `weakref.finalize` holds every armed finalizer, so one that owned its object would keep it for
    ever. This one stays out of the registry and arms an ordinary finalizer: deleting it lets the object go, which
    runs the callback.
    """

    __slots__ = ("_armed", "_referent")

    def __init__(self, referent: Any, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._referent = referent
        self._armed = weakref.finalize(referent, func, *args, **kwargs)

    def __call__(self, _: Any = None) -> Any:
        self._referent = None
        return self._armed()

    def detach(self) -> Any:
        self._referent = None
        return self._armed.detach()

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

    def __reduce__(self) -> tuple[Any, ...]:
        found = self.peek()
        if found is None:
            return rebuild_dead_finalize, (weakref.finalize,)
        referent, func, args, kwargs = found
        return rebuild_owning_finalize, (referent, func, args, kwargs, self.atexit)


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


def rebuild_reference(cls: type[weakref.ref[Any]], referent: Any, callback: Any = None) -> weakref.ref[Any]:
    """Build a reference of a subclass that has a constructor of its own, without calling it; state follows."""
    return weakref.ref.__new__(cls, referent, callback)


def rebuild_owning_reference(cls: type[weakref.ref[Any]], referent: Any, callback: Any = None) -> weakref.ref[Any]:
    """Build a reference of a subclass that owns its referent; state follows."""
    return weakref.ref.__new__(cls, referent, Owner(referent, callback))


def rebuild_dead_reference(cls: type[weakref.ref[Any]]) -> weakref.ref[Any]:
    """Build a dead reference of a subclass; state follows."""
    return weakref.ref.__new__(cls, _Nothing())


def rebuild_dead_weak_method(cls: type[weakref.WeakMethod[Any]]) -> weakref.WeakMethod[Any]:
    """Build a dead `WeakMethod`."""
    return weakref.WeakMethod.__new__(cls, _Nothing().method)


def rebuild_dead_proxy(callable_kind: bool) -> Any:
    """Build a dead proxy: a `weakref.CallableProxyType`, or else a `weakref.ProxyType`."""
    return weakref.proxy(_CallableNothing() if callable_kind else _Nothing())


def rebuild_proxy_referent(referent: T) -> T:
    """Put the referent itself where a proxy to it stood, or where its state follows by itself."""
    return referent


def rebuild_finalize(
    cls: type[_Finalize],
    referent: Any,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    atexit: bool = True,
) -> _Finalize:
    """Arm a finalizer on `referent`."""
    finalizer = cls(referent, func, *args, **kwargs)
    finalizer.atexit = atexit
    return finalizer


def rebuild_dead_finalize(cls: type[_Finalize]) -> _Finalize:
    """Build a finalizer that has nothing to do: `weakref.finalize` registers itself only in ``__init__``."""
    return object.__new__(cls)


def rebuild_owning_finalize(
    referent: Any, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], atexit: bool = True
) -> OwningFinalize:
    """Arm a finalizer on `referent` that owns it."""
    finalizer = OwningFinalize(referent, func, *args, **kwargs)
    finalizer.atexit = atexit
    return finalizer


def rebuild_weak_container(cls: Any) -> Any:
    """Build an empty weak container of `cls` with the constructor of its standard base class; state follows."""
    container = cls.__new__(cls)
    _standard_base(cls).__init__(container)
    return container


def rebuild_weak_entries(container: Any, state: tuple[Any, Iterable[Any], tuple[Any, ...]]) -> None:
    """Fill a weak container: its attributes first, then its entries, then what it owns.

    Entries go in through the standard base class, so that a subclass's own ``__setitem__`` or ``add``, which may check
    or count, does not run a second time.

    Args:
        container: What `rebuild_weak_container` has built.
        state: Attributes (what ``object.__getstate__`` gives, or None); entries (members, or pairs); owned referents.
    """
    attributes, entries, owned = state
    set_attributes(container, attributes)
    base = _standard_base(type(container))
    if base is weakref.WeakSet:
        for member in entries:
            base.add(container, member)
    else:
        for key, value in entries:
            base.__setitem__(container, key, value)
    if owned:
        setattr(container, OWNED_ATTRIBUTE, owned)


def rebuild_set_members(container: Any, state: tuple[Any, Iterable[Any]]) -> None:
    """Fill an instance of a `set` subclass: its attributes, then its members."""
    attributes, members = state
    set_attributes(container, attributes)
    set.update(container, members)


def rebuild_root(steps: Any, root: T) -> T:
    """Return the root of a graph that nests deeply, which has been built step by step."""
    return root


def rebuild_torch_storage(buffer: Any, location: str = "cpu") -> Any:
    """Build a torch storage of the bytes of `buffer`, on the device that `location` names if there is one."""
    from safepickle.tensor_storages import storage_from_buffer

    return storage_from_buffer(buffer, location)


def rebuild_torch_typed_storage(storage: Any, dtype: str) -> Any:
    """Build a `torch.TypedStorage`."""
    import torch

    from safepickle.tensor_storages import dtype_of

    return torch.TypedStorage(wrap_storage=storage, dtype=dtype_of(dtype), _internal=True)


def rebuild_torch_tensor(
    storage: Any,
    dtype: str,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    conjugate: bool = False,
    negative: bool = False,
) -> Any:
    """Build a tensor that looks at `storage`; attributes follow as state.

    Args:
        storage: What `rebuild_torch_storage` has built.
        dtype: Name of a dtype.
        offset: Of the first element, counted in elements, as the strides are.
        size: Of each dimension.
        stride: Of each dimension.
        requires_grad: Whether autograd follows it.
        conjugate: Whether the elements are the conjugates of what the storage holds.
        negative: Whether they are its negatives.
    """
    from safepickle.tensor_storages import dtype_of, strided_tensor

    tensor = strided_tensor(storage, dtype_of(dtype), offset, size, stride)
    if conjugate:
        tensor = tensor.conj()
    if negative:
        import torch

        tensor = torch._neg_view(tensor)
    return tensor.requires_grad_() if requires_grad else tensor


def rebuild_torch_parameter(
    storage: Any,
    dtype: str,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = True,
    conjugate: bool = False,
    negative: bool = False,
) -> Any:
    """Build a `torch.nn.Parameter`; the arguments are those of `rebuild_torch_tensor`."""
    from torch.nn import Parameter

    return Parameter(
        rebuild_torch_tensor(storage, dtype, offset, size, stride, False, conjugate, negative), requires_grad
    )


def rebuild_torch_attributes(tensor: Any, attributes: dict[str, Any]) -> None:
    """Give a tensor its Python attributes, without the ``__setstate__`` that torch keeps for its oldest files."""
    import torch

    if not issubclass(type(tensor), torch.Tensor):
        raise TypeError(f"these are the attributes of a tensor, not of a {type(tensor).__qualname__}")
    tensor.__dict__.update(attributes)


def rebuild_torch_weak_reference(cls: Any, referent: Any, callback: Any = None, owned: bool = False) -> Any:
    """Build a reference that torch hashes by its referent, of a subclass or one that owns; state follows."""
    from torch.utils.weak import WeakIdRef, _WeakHashRef

    if owned:
        callback = Owner(referent, callback)
    reference = weakref.ref.__new__(cls, referent, callback)
    base: Any = WeakIdRef if issubclass(cls, WeakIdRef) else _WeakHashRef
    base.__init__(reference, referent, callback)
    return reference


def rebuild_torch_weak_dictionary(cls: Any, ref_type: Any) -> Any:
    """Build an empty `torch.utils.weak.WeakIdKeyDictionary` or an instance of a subclass; state follows."""
    from torch.utils.weak import WeakIdKeyDictionary

    container = cls.__new__(cls)
    WeakIdKeyDictionary.__init__(container, None, ref_type)
    return container


def rebuild_torch_weak_entries(container: Any, state: tuple[Any, Iterable[Any], tuple[Any, ...]]) -> None:
    """Fill what `rebuild_torch_weak_dictionary` has built, as `rebuild_weak_entries` does."""
    from torch.utils.weak import WeakIdKeyDictionary

    attributes, entries, owned = state
    set_attributes(container, attributes)
    for key, value in entries:
        WeakIdKeyDictionary.__setitem__(container, key, value)
    if owned:
        setattr(container, OWNED_ATTRIBUTE, owned)


def rebuild_torch_owning_handle(handle: Any, state: tuple[Any, int, tuple[Any, ...]]) -> None:
    """Fill a `torch.utils.hooks.RemovableHandle` that owns its dictionaries."""
    handle.__setstate__(state)
    hooks, _, others = state
    if hooks is not None:
        handle.hooks_dict_ref = StrongRef(hooks)
    handle.extra_dict_ref = tuple(StrongRef(other) for other in others)


def set_attributes(obj: Any, attributes: Any) -> None:
    """Set attributes from what ``object.__getstate__`` returns: a dict, a pair of dict and slots, or None.

    A user's ``__setstate__`` comes first, as in pickle.
    """
    if attributes is None:
        return
    setstate = getattr(obj, "__setstate__", None)
    if setstate is not None:
        setstate(attributes)
        return
    slots = None
    if isinstance(attributes, tuple) and len(attributes) == 2:
        attributes, slots = attributes
    if attributes:
        obj.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        setattr(obj, name, value)


def _standard_base(cls: type[Any]) -> Any:
    for base in (weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary):
        if issubclass(cls, base):
            return base
    raise TypeError(f"{cls.__module__}.{cls.__qualname__} is no weak container of the standard library")


class RecipeRef(weakref.ref[Any]):
    """A weak reference by type whose call builds its referent: it owns the `Recomputed` that knows how.

    It stands where a weak reference to a recomputed value stood whose owner stayed outside the pickle.
    """

    __slots__ = ()

    def __new__(cls, recomputed: Recomputed[Any], callback: Callable[[Any], object] | None = None) -> RecipeRef:
        return super().__new__(cls, recomputed, Owner(recomputed, callback))

    @property
    def recomputed(self) -> Recomputed[Any]:
        """The recipe, shared with every other reference to the same value."""
        recomputed: Recomputed[Any] = _owner(self).referent
        return recomputed

    @property
    def __callback__(self) -> Callable[[Any], object] | None:  # type: ignore[override]
        owner = _owner(self)
        return None if owner is None else owner.callback

    def __call__(self) -> Any:
        return self.recomputed.value

    def __repr__(self) -> str:
        return f"<safepickle.RecipeRef to the value of {self.recomputed!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        callback = self.__callback__
        return type(self), (self.recomputed,) if callback is None else (self.recomputed, callback)


def rebuild_recomputed(cls: type[Recomputed[Any]] | None = None) -> Recomputed[Any]:
    """Build a `Recomputed`, or an instance of a subclass, that has no recipe yet; state follows."""
    return object.__new__(Recomputed if cls is None else cls)


def rebuild_file(
    name: str | bytes,
    mode: str,
    position: int | None,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    line_buffering: bool = False,
) -> Any:
    """Reopen a file where it stood. Nothing is created and nothing is cut off, whatever the mode.

    Args:
        name: As it was given to `open`.
        mode: As it was given to `open`, and as the result's ``mode`` says again.
        position: What ``tell`` returned, or None for a file that was closed.
        buffering: As for `open`.
        encoding: Of a text file.
        errors: Of a text file.
        line_buffering: Of a text file.

    Raises:
        FileNotFoundError: There is no file of that name here.
    """
    import os

    def opener(path: str | bytes, flags: int) -> int:
        if position is None:
            return os.open(os.devnull, os.O_RDWR)
        return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))

    try:
        file: Any = open(name, mode, buffering, encoding, errors, opener=opener)  # noqa: SIM115
    except FileNotFoundError as error:
        where = os.getcwd()
        message = f"a file that was open when it was pickled is not here (working directory: {where})"
        raise FileNotFoundError(error.errno, message, os.fsdecode(name)) from None
    if position is None:
        file.close()
        return file
    if line_buffering:
        file.reconfigure(line_buffering=True)
    file.seek(position)
    return file


def rebuild_memoryview(buffer: Any, format: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """Build a view of a buffer, with the format, the shape and the right to write that it had."""
    view = memoryview(buffer)
    if (view.format, view.shape) != (format, shape):
        flat = view.cast("B")
        view = flat.cast(format, shape) if all(shape) and len(shape) != 1 else flat.cast(format)  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


def rebuild_queue_items(queue: Any, items: Iterable[Any]) -> None:
    """Fill a `queue.SimpleQueue`."""
    for item in items:
        queue.put(item)


def rebuild_thread(cls: type[threading.Thread], name: str, daemon: bool, ended: bool) -> threading.Thread:
    """Build a thread that has not started, or that has ended; state follows.

    What makes a thread an ended one differs with the version of Python, so it is started, with nothing to do.
    """
    thread = cls.__new__(cls)
    threading.Thread.__init__(thread, name=name, daemon=daemon)
    if ended:
        thread.run = int  # type: ignore[method-assign, assignment]
        thread.start()
        thread.join()
        del thread.run
    return thread


def rebuild_lru_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Build an empty cache around a function."""
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def rebuild_descriptor(cls: type[Any], name: str) -> Any:
    """Get a descriptor out of the class that defines it, where looking it up would call it."""
    return vars(cls)[name]


class KerasRuntime:
    """The Keras that a pickle was written with; building one checks it against the Keras that is here.

    Attributes:
        backend: ``"torch"``, ``"jax"`` or ``"tensorflow"``.
        version: Of Keras.

    Raises:
        pickle.UnpicklingError: Keras runs on another backend here.

    Warns:
        KerasVersionWarning: The minor version differs.
    """

    __slots__ = ("backend", "version")

    backend: str
    version: str

    def __new__(cls, backend: str, version: str) -> KerasRuntime:
        here = keras_internals.backend_name()
        if backend != here:
            raise pickle.UnpicklingError(
                f"this pickle holds Keras objects of the {backend} backend, and Keras runs on {here} here. Set "
                f"KERAS_BACKEND={backend} before Keras is imported, or move the model with model.save()"
            )
        if version.split(".")[:2] != keras_internals.keras_version().split(".")[:2]:
            warnings.warn(KerasVersionWarning(version, keras_internals.keras_version()), stacklevel=level_of_caller())
        runtime = object.__new__(cls)
        runtime.backend = backend
        runtime.version = version
        return runtime

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.backend, self.version)


def rebuild_keras_object(cls: type[Any], runtime: KerasRuntime, registered_name: str | None = None) -> Any:
    """Build an empty layer, model, metric, loss, optimizer or variable without its constructor; state follows.

    Args:
        cls: Its class.
        runtime: The Keras that it was written with.
        registered_name: ``package>name``, when its class was registered with Keras.
    """
    parts = keras_internals.parts()
    if registered_name is not None:
        keras_internals.register(cls, registered_name)
    for base in (parts.Layer, parts.Operation):
        if issubclass(cls, base):
            # Wraps build and quantize, as it does for every new layer. A user's own __new__ may want arguments.
            return base.__new__(cls)
    return object.__new__(cls)


def restore_keras_object(obj: Any, state: tuple[list[Any], Any, dict[str, Any]]) -> None:
    """Set the attributes of a Keras object, and compute afresh what Keras keys by identity.

    Args:
        obj: What `rebuild_keras_object` has built.
        state: The operations that come before it in a functional graph, of which nothing is needed but that they have
            been loaded; what ``__getstate__`` gave; what is keyed by identity, as the objects that it stands for.
    """
    _, attributes, derived = state
    set_attributes(obj, attributes)
    attributes = obj.__dict__
    parts = keras_internals.parts()
    if isinstance(obj, parts.Operation):
        known = attributes.get("_outbound_nodes", ())
        attributes["_outbound_nodes"] = _untracked(parts.TrackedList, known, obj)
        if isinstance(attributes.get("name"), str):
            keras_internals.reserve_name(attributes["name"])
    if isinstance(obj, parts.Layer):
        for name, container in keras_internals.LEFT_OUT_LOSSES.items():
            attributes.setdefault(name, _untracked(getattr(parts, container), (), obj))
    if "nodes" in derived:
        attributes["_nodes"] = {parts.make_node_key(operation, index) for operation, index in derived["nodes"]}
    for name, (container, pairs) in derived.get("by_variable", {}).items():
        by_variable = {obj._var_key(variable): value for variable, value in pairs}
        is_tracked = issubclass(container, parts.TrackedDict)
        attributes[name] = _untracked(container, by_variable, obj) if is_tracked else container(by_variable)


def _untracked(cls: type[Any], values: Any, owner: Any) -> Any:
    """Make a tracked container whose values the owner's tracker does not look at."""
    container = cls(values)
    container.tracker = owner.__dict__.get("_tracker")
    return container


def rebuild_keras_tracker(kind: str | None) -> Any:
    """Build an empty tracker; state follows.

    Args:
        kind: Of which of Keras's objects it is, so that it knows as they do what to track; None when its predicates
            are in the state.
    """
    tracker = object.__new__(keras_internals.parts().Tracker)
    tracker.config = {} if kind is None else keras_internals.donor_predicates(kind)
    return tracker


def restore_keras_tracker(tracker: Any, state: tuple[dict[str, list[Any]], Any, dict[str, Any]]) -> None:
    """Give a tracker its stores, and compute afresh the identities by which it knows what is in them.

    Args:
        tracker: What `rebuild_keras_tracker` has built.
        state: Stores by name; predicates by name, or None for those of the tracker's kind; other attributes.
    """
    stores, predicates, attributes = state
    predicates = predicates or tracker.config
    tracker.__dict__.update(attributes)
    tracker.config = {name: (predicates[name], store) for name, store in stores.items()}
    tracker.stored_ids = {name: {id(value) for value in store} for name, store in stores.items()}


def rebuild_keras_container(cls: Any) -> Any:
    """Build an empty tracked container; its items follow while it has no tracker, so that no hook runs."""
    container = cls.__new__(cls)
    container.tracker = None
    return container


def restore_keras_set(container: Any, state: tuple[dict[str, Any], list[Any]]) -> None:
    """Fill a tracked set: its attributes, then its members, past the tracking hook."""
    attributes, members = state
    container.__dict__.update(attributes)
    set.update(container, members)


def rebuild_keras_node() -> Any:
    """Build an empty node of a functional graph; state follows."""
    return object.__new__(keras_internals.parts().Node)


def restore_keras_node(node: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes of a node, and tell the operations that its inputs come from about it."""
    node.__dict__.update(attributes)
    for tensor in node.arguments.keras_tensors:
        history = getattr(tensor, "_keras_history", None)
        if history is not None and history.operation is not None:
            # The operation may be under construction itself; `restore_keras_object` keeps what it finds.
            list.append(history.operation.__dict__.setdefault("_outbound_nodes", []), node)


def restore_keras_attributes(obj: Any, attributes: dict[str, Any]) -> None:
    """Set attributes without asking the object for any: its ``__getattr__`` may need them."""
    obj.__dict__.update(attributes)


def rebuild_keras_loss_entry(path: Any, loss: Any, loss_weights: Any, name: Any) -> Any:
    """Build an entry of a compiled loss."""
    return keras_internals.parts().LossEntry(path, loss, loss_weights, name)


class UnpicklableTombstone(Tombstone):
    """What stands where an object stood that nothing can pickle.

    It can be held, hashed, compared, referenced weakly and pickled again. Whatever else is asked of it raises an
    `UnpicklableError` that says what stood there, and why it could not be pickled.

    Attributes:
        reason: ``"unpicklable"``.
        referent_type: Dotted name of the type of the object.
        path: Where it stood in the graph that was dumped.
        cause: Why it could not be pickled.
    """

    __slots__ = ("__weakref__", "cause", "path")

    path: str
    cause: str

    def __new__(cls, referent_type: str, path: str, cause: str) -> UnpicklableTombstone:
        tombstone: UnpicklableTombstone = super().__new__(cls, "unpicklable", referent_type)  # type: ignore[assignment]
        object.__setattr__(tombstone, "path", path)
        object.__setattr__(tombstone, "cause", cause)
        return tombstone

    def __init__(self, referent_type: str, path: str, cause: str) -> None:
        pass

    def __repr__(self) -> str:
        return f"<safepickle.Tombstone: unpicklable, was a {self.referent_type} at {self.path} ({self.cause})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.referent_type, self.path, self.cause)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error("()")

    def __getattr__(self, name: str) -> Any:
        raise self._error(f".{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("reason", "referent_type"):
            raise self._error(f".{name}")
        object.__setattr__(self, name, value)

    def __getitem__(self, key: Any) -> Any:
        raise self._error("[...]")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise self._error("[...]")

    def __iter__(self) -> Any:
        raise self._error("iter()")

    def __next__(self) -> Any:
        raise self._error("next()")

    def __enter__(self) -> Any:
        raise self._error("with")

    def __exit__(self, *exception: object) -> None:
        raise self._error("with")

    def _error(self, wanted: str) -> UnpicklableError:
        return UnpicklableError(wanted, str(self.referent_type), self.path, self.cause)


def rebuild_replacement(replacement: T) -> T:
    """Put in place what was chosen to stand for an object that nothing can pickle."""
    return replacement


def rebuild_salvaged(function: Callable[..., Any], arguments: tuple[Any, ...], referent_type: str, path: str) -> Any:
    """Build an object from arguments among which there is a tombstone: it is one itself if that fails."""
    try:
        return function(*arguments)
    except Exception as error:
        cause = f"it is built from an object that could not be pickled: {type(error).__name__}: {error}"
        return UnpicklableTombstone(referent_type, path, cause)


def rebuild_salvaged_contents(obj: Any, contents: tuple[Any, Any, Any, Any]) -> None:
    """Set the state, the list items and the dict items of what `rebuild_salvaged` has built.

    Args:
        obj: The object, or the tombstone of it.
        contents: State; list items; pairs of key and value; what sets the state. Each may be None.
    """
    state, items, pairs, setter = contents
    if type(obj) is UnpicklableTombstone:
        return
    if items is not None:
        obj.extend(items)
    for key, value in pairs or ():
        obj[key] = value
    try:
        if setter is not None:
            setter(obj, state)
        else:
            set_attributes(obj, state)
    except Exception as error:
        import warnings

        cls = type(obj)
        warning = UnpicklableStateWarning(f"{cls.__module__}.{cls.__qualname__}", f"{type(error).__name__}: {error}")
        warnings.warn(warning, stacklevel=2)
        attributes = state[0] if isinstance(state, tuple) and state else state
        if isinstance(attributes, dict) and hasattr(obj, "__dict__"):
            obj.__dict__.update(attributes)


def rebuild_keras_masked(function: Callable[..., Any], arguments: tuple[Any, ...], mask: Any) -> Any:
    """Build a tensor and note Keras's mask beside it."""
    from keras.src.backend.common.masking import set_keras_mask

    tensor = function(*arguments)
    set_keras_mask(tensor, mask)
    return tensor


def rebuild_tf_static_table(keys: Any, values: Any, dtypes: tuple[str, str], default: Any) -> Any:
    """Build a ``tf.lookup.StaticHashTable`` of the given content."""
    import tensorflow as tf

    with tf.init_scope():
        key_dtype, value_dtype = map(tf.as_dtype, dtypes)
        if len(keys):
            content = tf.lookup.KeyValueTensorInitializer(
                tf.constant(keys, key_dtype), tf.constant(values, value_dtype), key_dtype, value_dtype
            )
        else:
            # TensorFlow imports no empty content; a layer that was not adapted holds a table that is not initialized.
            from keras.src.layers.preprocessing.index_lookup import get_null_initializer

            content = get_null_initializer(*dtypes)
        return tf.lookup.StaticHashTable(content, tf.constant(default, value_dtype))


def rebuild_tf_mutable_table(keys: Any, values: Any, dtypes: tuple[str, str], default: Any) -> Any:
    """Build a ``tf.lookup.experimental.MutableHashTable`` of the given content."""
    import tensorflow as tf

    with tf.init_scope():
        key_dtype, value_dtype = map(tf.as_dtype, dtypes)
        table = tf.lookup.experimental.MutableHashTable(key_dtype, value_dtype, tf.constant(default, value_dtype))
        if len(keys):  # An import of nothing is refused.
            table.insert(tf.constant(keys, key_dtype), tf.constant(values, value_dtype))
        return table


def rebuild_tf_function() -> Any:
    """Build a ``tf.function`` that has no Python function yet; state follows."""
    from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

    return object.__new__(Function)


def restore_tf_function(function: Any, state: tuple[Callable[..., Any], dict[str, Any]]) -> None:
    """Make a ``tf.function`` of a Python function again, to be traced when it is called."""
    import tensorflow as tf

    python_function, options = state
    function.__dict__.update(tf.function(python_function, **options).__dict__)


class _StubClass(type):
    """The class of placeholder classes: whatever is looked up in one of them is a placeholder as well."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"the placeholder class {cls.__qualname__} has no attribute {name!r}")
        return stub_class(cls.__module__, f"{cls.__qualname__}.{name}")

    def __repr__(cls) -> str:
        return f"<safepickle.Stub of {cls.__module__}.{cls.__qualname__}, which is missing>"


class StubRecord:
    """What a pickle did with a placeholder, for it to be done again to the real class.

    Attributes:
        arguments: What the instance was made from.
        keywords: The same, by name.
        called: Whether the class (or the function) was called, rather than its ``__new__`` alone.
        base: The builtin base class that the instance was made by, or None, and its value (protocols 0 and 1).
        state: What was given to ``__setstate__``, if it was no dict: that has become the attributes.
        slots: Names of the attributes that were in slots, or None.
        items: What was appended.
        pairs: Keys and values that were set.
    """

    __slots__ = ("arguments", "base", "called", "items", "keywords", "pairs", "slots", "state")

    def __init__(self, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None) -> None:
        self.arguments = arguments
        self.keywords = keywords or {}
        self.called = False
        self.base: tuple[type, Any] | None = None
        self.state: Any = None
        self.slots: tuple[str, ...] | None = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


class Stub(metaclass=_StubClass):
    """An instance of a class that no longer exists, or what a function that no longer exists returned.

    Its attributes are those that the pickle holds; ``__stub__`` is the rest of what the pickle did with it. safepickle
    pickles it again so that it loads as an instance of the real class where there is one.
    """

    __slots__ = ("__dict__", "__stub__", "__weakref__")

    __stub__: StubRecord

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Stub:
        stub = object.__new__(cls)
        stub.__stub__ = StubRecord(args, kwargs)
        return stub

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self.__stub__.called = True

    def __repr__(self) -> str:
        cls = type(self)
        attributes = ", ".join(map(str, vars(self))) or "no attributes"
        return f"<safepickle.Stub of {cls.__module__}.{cls.__qualname__}: {attributes}>"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
            return
        if isinstance(state, tuple) and len(state) == 2 and all(isinstance(part, (dict, type(None))) for part in state):
            attributes, slots = state
            self.__dict__.update(attributes or {})
            self.__dict__.update(slots or {})
            self.__stub__.slots = tuple(slots or {})
            return
        self.__stub__.state = state

    def append(self, item: Any) -> None:
        """Take one item, as a list would."""
        self.__stub__.items.append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """Take items, as a list would."""
        self.__stub__.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__stub__.pairs.append((key, value))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        import copyreg

        cls, record = type(self), self.__stub__
        made: tuple[Any, tuple[Any, ...]]
        if record.base is not None:
            made = rebuild_stub_of_builtin, (cls, *record.base)
        elif record.called and not record.keywords:
            made = cls, record.arguments
        elif record.keywords:
            made = copyreg.__newobj_ex__, (cls, record.arguments, record.keywords)  # type: ignore[attr-defined]
        else:
            made = copyreg.__newobj__, (cls, *record.arguments)  # type: ignore[attr-defined]
        state: Any = self.__dict__ or None
        if record.slots is not None:
            slots = {name: value for name, value in self.__dict__.items() if name in record.slots}
            state = ({name: value for name, value in self.__dict__.items() if name not in slots} or None, slots)
        elif record.state is not None:
            state = record.state
        return *made, state, iter(record.items), iter(record.pairs)


_STUB_CLASSES: weakref.WeakValueDictionary[tuple[str, str], type[Stub]] = weakref.WeakValueDictionary()


def stub_class(module: str, name: str) -> type[Stub]:
    """Return the placeholder class for a name; there is one for each."""
    cls = _STUB_CLASSES.get((module, name))
    if cls is None:
        namespace = {"__module__": module, "__qualname__": name, "__slots__": ()}
        made: Any = _StubClass(name.rpartition(".")[2], (Stub,), namespace)
        cls = _STUB_CLASSES.setdefault((module, name), made)
    return cls


def rebuild_global(module: str, name: str) -> Any:
    """Find the object of a name, or a placeholder class: how a placeholder class is pickled again.

    safepickle's `Unpickler` gives its own function instead, with its aliases and whatever else it was asked for.
    """
    import importlib

    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (AttributeError, ImportError):
        return stub_class(module, name)
    return found


def rebuild_stub_of_builtin(cls: type[Any], base: type[Any], value: Any) -> Any:
    """Do what ``copyreg._reconstructor`` does, which protocols 0 and 1 name, also for a placeholder class."""
    import copyreg

    if not issubclass(cls, Stub):
        return copyreg._reconstructor(cls, base, value)  # type: ignore[attr-defined]
    stub = cls.__new__(cls)
    if base is not object:
        stub.__stub__.base = (base, value)
    return stub


def reduce_stub_class(cls: type[Stub]) -> tuple[Any, ...]:
    """Return the reduce value of a placeholder class."""
    return rebuild_global, (cls.__module__, cls.__qualname__)


def rebuild_tf_default_strategy() -> Any:
    """Get the distribution strategy in force here: the default one is TensorFlow's own, one for each process."""
    import tensorflow as tf

    return tf.distribute.get_strategy()
