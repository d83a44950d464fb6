"""Keras objects, built without their constructors, on `safepickle.rebuild.keras_internals`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from safepickle.callers import warn
from safepickle.load_errors import KerasVersionWarning
from safepickle.rebuild import keras_internals
from safepickle.rebuild.containers import set_attributes
from safepickle.rebuild.mark import file_format
from safepickle.reduce_value import ReduceTuple

__all__ = [
    "KerasRuntime",
    "rebuild_keras_container",
    "rebuild_keras_loss_entry",
    "rebuild_keras_masked",
    "rebuild_keras_node",
    "rebuild_keras_object",
    "rebuild_keras_tracker",
    "restore_keras_attributes",
    "restore_keras_node",
    "restore_keras_object",
    "restore_keras_set",
    "restore_keras_tracker",
]


@file_format
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
            warn(KerasVersionWarning(version, keras_internals.keras_version()))
        runtime = object.__new__(cls)
        runtime.backend = backend
        runtime.version = version
        return runtime

    def __reduce__(self) -> ReduceTuple:
        return type(self), (self.backend, self.version)


@file_format
def rebuild_keras_object(cls: type, runtime: KerasRuntime, registered_name: str | None = None) -> Any:
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


@file_format
def restore_keras_object(obj: Any, state: tuple[list[Any], Any, dict[str, Any]]) -> None:
    """Set the attributes of a Keras object, and compute afresh what Keras keys by identity.

    Args:
        obj: What `rebuild_keras_object` has built.
        state: The operations that come before it in a functional graph: they only need to be loaded by
            now; what ``__getstate__`` gave; what is keyed by identity, as the objects that it stands for.
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


@file_format
def rebuild_keras_tracker(kind: str | None) -> Any:
    """Build an empty tracker; state follows.

    Args:
        kind: Of which of Keras's objects it is, so that it knows as they do what to track; None when its predicates
            are in the state.
    """
    tracker = object.__new__(keras_internals.parts().Tracker)
    tracker.config = {} if kind is None else keras_internals.donor_predicates(kind)
    return tracker


@file_format
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


@file_format
def rebuild_keras_container(cls: Any) -> Any:
    """Build an empty tracked container; its items follow while it has no tracker, so that no hook runs."""
    container = cls.__new__(cls)
    container.tracker = None
    return container


@file_format
def restore_keras_set(container: Any, state: tuple[dict[str, object], list[object]]) -> None:
    """Fill a tracked set: its attributes, then its members, past the tracking hook."""
    attributes, members = state
    container.__dict__.update(attributes)
    set.update(container, members)


@file_format
def rebuild_keras_node() -> Any:
    """Build an empty node of a functional graph; state follows."""
    return object.__new__(keras_internals.parts().Node)


@file_format
def restore_keras_node(node: Any, attributes: dict[str, object]) -> None:
    """Set the attributes of a node, and tell the operations that its inputs come from about it."""
    node.__dict__.update(attributes)
    for tensor in node.arguments.keras_tensors:
        history = getattr(tensor, "_keras_history", None)
        if history is not None and history.operation is not None:
            # The operation may be under construction itself; `restore_keras_object` keeps what it finds.
            list.append(history.operation.__dict__.setdefault("_outbound_nodes", []), node)


@file_format
def restore_keras_attributes(obj: object, attributes: dict[str, object]) -> None:
    """Set attributes without asking the object for any: its ``__getattr__`` may need them."""
    obj.__dict__.update(attributes)


@file_format
def rebuild_keras_loss_entry(path: object, loss: object, loss_weights: object, name: object) -> Any:
    """Build an entry of a compiled loss."""
    return keras_internals.parts().LossEntry(path, loss, loss_weights, name)


@file_format
def rebuild_keras_masked(function: Callable[..., object], arguments: tuple[object, ...], mask: object) -> Any:
    """Build a tensor and note Keras's mask beside it."""
    from keras.src.backend.common.masking import set_keras_mask

    tensor = function(*arguments)
    set_keras_mask(tensor, mask)
    return tensor


def _untracked(cls: type, values: object, owner: object) -> Any:
    """Make a tracked container whose values the owner's tracker does not look at."""
    container = cls(values)
    container.tracker = owner.__dict__.get("_tracker")
    return container
