"""Keras objects as the object graph that they are.

Keras itself pickles a model as a ``.keras`` archive: configs and weights, all else is lost. Here a layer, model,
metric, loss or optimizer is reduced to an empty instance and its attributes, and what Keras keys by ``id()`` is written
as the objects that it stands for. What belongs to one process (compiled step functions, losses of the last forward
pass) is left out; Keras makes it again on demand.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any, Literal, get_args

from safepickle import rebuild
from safepickle.callers import warn
from safepickle.errors import KerasFallbackWarning
from safepickle.messages import dotted_name
from safepickle.rebuild import keras_internals as internals
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.decisions import Dump
from safepickle.reducers.table import Reducer

__all__ = ["Route", "current_route", "find_reducer", "use_route"]

Route = Literal["graph", "archive"]

_route: contextvars.ContextVar[Route] = contextvars.ContextVar("safepickle_keras_route", default="graph")

# Made anew by Keras when they are next needed; a JAX or TensorFlow process could not carry them to another.
_STEP_FUNCTIONS = ("train_function", "test_function", "predict_function")
_RUN_STATE = ("_jax_state", "_eval_epoch_iterator")


@contextlib.contextmanager
def use_route(route: Route) -> Iterator[None]:
    """Force a route for the Keras objects dumped inside the ``with`` block, in this thread or task alone.

    Args:
        route: ``"graph"`` for the object graph, ``"archive"`` for Keras's own archive.

    Yields:
        Nothing.

    Raises:
        ValueError: The route is unknown.

    Examples:
        >>> from safepickle.integrations.keras import current_route, use_route
        >>> with use_route("archive"):
        ...     current_route()
        'archive'
    """
    if route not in get_args(Route):
        raise ValueError(
            f"unknown route {route!r} for Keras objects: choose one of {', '.join(map(repr, get_args(Route)))}"
        )
    token = _route.set(route)
    try:
        yield
    finally:
        _route.reset(token)


def current_route() -> Route:
    """Tell which route a dump of Keras objects takes now.

    Returns:
        ``"graph"`` or ``"archive"``.

    Examples:
        >>> from safepickle.integrations.keras import current_route
        >>> current_route()
        'graph'
    """
    return _route.get()


def find_reducer(cls: type) -> Reducer | None:
    """Find the reducer of a Keras class, or of a subclass of one.

    Args:
        cls: A class with one of Keras's in its method resolution order.

    Returns:
        The reducer, or None for a class that pickles well as it is, or whose author wrote a ``__reduce__``.
    """
    try:
        parts = internals.parts()
    except (ImportError, AttributeError):
        return _reduce_to_archive if "KerasSaveable" in {base.__name__ for base in cls.__mro__} else None
    reducers: dict[type, Reducer] = {
        parts.Tracker: reduce_tracker,
        parts.TrackedList: reduce_tracked_list,
        parts.TrackedDict: reduce_tracked_dict,
        parts.TrackedOrderedDict: reduce_tracked_dict,
        parts.TrackedSet: reduce_tracked_set,
        parts.Node: reduce_node,
        parts.LossEntry: reduce_loss_entry,
        parts.Variable: reduce_variable,
        parts.KerasSaveable: reduce_saveable,
    }
    for base in cls.__mro__[:-1]:
        if base in reducers:
            return reducers[base]
        if "__reduce__" in vars(base) or "__reduce_ex__" in vars(base):
            return None
        if "__getattr__" in vars(base) and base.__module__.startswith("keras."):
            return reduce_with_getattr
    return None


@functools.cache
def _runtime() -> rebuild.KerasRuntime:
    # One object for all, so that a pickle names it once.
    return rebuild.KerasRuntime(internals.backend_name(), internals.keras_version())


def reduce_saveable(obj: object, dump: Dump) -> ReduceValue:
    """Reduce a layer, model, metric, loss, optimizer or other operation to an empty instance and its state.

    Args:
        obj: Built or unbuilt, compiled or not.
        dump: What this dump knows so far.

    Returns:
        ``(rebuild_keras_object, (cls, runtime), state, None, None, restore_keras_object)``, or NotImplemented for
        Keras's archive.
    """
    if current_route() == "archive":
        return NOT_REDUCED
    if internals.misfit() is not None:
        return _reduce_to_archive(obj, dump)
    parts = internals.parts()
    attributes = obj.__getstate__()
    derived: dict[str, Any] = {}
    if isinstance(attributes, dict):
        attributes = dict(attributes)
        if isinstance(obj, parts.Layer):
            _leave_out_layer_parts(attributes)
        if isinstance(obj, parts.Trainer):
            _leave_out_trainer_parts(obj, attributes)
        if isinstance(obj, parts.Operation):
            attributes.pop("_outbound_nodes", None)
        if isinstance(obj, parts.Function):
            derived["nodes"] = _take_network_nodes(obj, attributes)
        if isinstance(obj, parts.BaseOptimizer):
            derived["by_variable"] = _take_maps_by_variable(obj, attributes)
    upstream = _upstream(obj, dump) if isinstance(obj, parts.Operation) else []
    name = _registered_name(type(obj))
    arguments = (type(obj), _runtime()) if name is None else (type(obj), _runtime(), name)
    return (
        rebuild.rebuild_keras_object,
        arguments,
        (upstream, attributes, derived),
        None,
        None,
        rebuild.restore_keras_object,
    )


def _leave_out_layer_parts(attributes: dict[str, object]) -> None:
    for name in ("build", "quantize"):
        if internals.is_wrapper_of_new(name, attributes.get(name)):
            del attributes[name]
    for name in internals.LEFT_OUT_LOSSES:
        attributes.pop(name, None)


def _leave_out_trainer_parts(model: Any, attributes: dict[str, Any]) -> None:
    if not attributes.get("_jax_state_synced", True):
        # In the middle of a JAX fit the variables lag behind the state of the step; this brings them up to date.
        model.jax_state_sync()
    for name in _STEP_FUNCTIONS:
        if name in attributes:
            attributes[name] = None
    for name in _RUN_STATE:
        attributes.pop(name, None)
    # TensorFlow notes as a dependency whatever is set on a model, step functions too.
    references = attributes.get("_self_unconditional_checkpoint_dependencies")
    if references:
        attributes["_self_unconditional_checkpoint_dependencies"] = [
            reference for reference in references if reference.name not in _STEP_FUNCTIONS
        ]
    names = attributes.get("_self_unconditional_dependency_names")
    if names:
        attributes["_self_unconditional_dependency_names"] = {
            name: value for name, value in names.items() if name not in _STEP_FUNCTIONS
        }


def _take_network_nodes(function: Any, attributes: dict[str, Any]) -> list[tuple[Any, int]]:
    """Turn the keys of a function's nodes, which hold ``id(operation)``, into operations and indices."""
    keys = attributes.pop("_nodes")
    make_node_key = internals.parts().make_node_key
    return [
        (operation, index)
        for operation in function._operations
        for index in range(len(operation._inbound_nodes))
        if make_node_key(operation, index) in keys
    ]


def _take_maps_by_variable(optimizer: Any, attributes: dict[str, Any]) -> dict[str, tuple[type, list[tuple[Any, Any]]]]:
    """Turn an optimizer's maps that are keyed by the identity of a variable into their type, variables and values."""
    variables = {optimizer._var_key(variable): variable for variable in attributes.get("_trainable_variables", ())}
    maps = {
        name: value
        for name, value in attributes.items()
        if isinstance(value, dict) and value and variables.keys() >= value.keys()
    }
    for name in maps:
        del attributes[name]
    return {
        name: (type(keyed), [(variables[key], value) for key, value in keyed.items()]) for name, keyed in maps.items()
    }


def _registered_name(cls: type) -> str | None:
    """The name under which a class was registered with Keras, so that a class pickled by value is registered again."""
    from keras.saving import get_registered_name

    name = str(get_registered_name(cls))
    return name if ">" in name else None


def _upstream(operation: object, dump: Dump) -> list[Any]:
    """List the operations that an operation's inputs come from, inputs first, which this walk has not listed yet.

    An operation leads to the one before it through its nodes and tensors. Followed one by one, a deep model would
    outrun the recursion limit; listed in this order, each finds the ones before it in the memo already.
    """
    seen: set[int] = dump.scratch.setdefault("keras operations", set())
    if id(operation) in seen:
        return []
    order: list[Any] = []
    started: set[int] = set()
    pending = [operation]
    while pending:
        current = pending[-1]
        if id(current) in seen or id(current) in started:
            pending.pop()
            if id(current) not in seen:
                seen.add(id(current))
                order.append(current)
            continue
        started.add(id(current))
        pending.extend(
            tensor._keras_history.operation
            for node in getattr(current, "_inbound_nodes", ())
            for tensor in node.input_tensors
            if tensor._keras_history.operation is not None and id(tensor._keras_history.operation) not in started
        )
    order.pop()
    return order


def reduce_variable(variable: object, dump: Dump) -> ReduceValue:
    """Reduce a variable to its attributes, its tensor among them."""
    if internals.misfit() is not None:
        return NOT_REDUCED
    return rebuild.rebuild_keras_object, (type(variable), _runtime()), variable.__getstate__()


def reduce_tracker(tracker: object, dump: Dump) -> ReduceValue:
    """Reduce a tracker to what it tracks; the identities by which it knows them are computed afresh."""
    if internals.misfit() is not None:
        return NOT_REDUCED
    attributes = dict(vars(tracker))
    config = attributes.pop("config")
    del attributes["stored_ids"]
    stores = {name: store for name, (_, store) in config.items()}
    kind = internals.tracker_kind(tracker)
    predicates = None if kind else {name: predicate for name, (predicate, _) in config.items()}
    state = (stores, predicates, attributes)
    return rebuild.rebuild_keras_tracker, (kind,), state, None, None, rebuild.restore_keras_tracker


def reduce_tracked_list(tracked: Any, dump: Dump) -> ReduceValue:
    """Reduce a tracked list to its items and its tracker, so that no tracking hook runs on load."""
    return rebuild.rebuild_keras_container, (type(tracked),), vars(tracked), list.__iter__(tracked)


def reduce_tracked_dict(tracked: Any, dump: Dump) -> ReduceValue:
    """Reduce a tracked dict, ordered or not, likewise."""
    return rebuild.rebuild_keras_container, (type(tracked),), vars(tracked), None, iter(tracked.items())


def reduce_tracked_set(tracked: Any, dump: Dump) -> ReduceValue:
    """Reduce a tracked set likewise."""
    state = (vars(tracked), list(tracked))
    return rebuild.rebuild_keras_container, (type(tracked),), state, None, None, rebuild.restore_keras_set


def reduce_node(node: object, dump: Dump) -> ReduceValue:
    """Reduce a node of a functional graph; the operations before it learn of it again on load."""
    return rebuild.rebuild_keras_node, (), vars(node), None, None, rebuild.restore_keras_node


def reduce_with_getattr(obj: object, dump: Dump) -> ReduceValue:
    """Reduce a ``DynamicBackend``, whose ``__getattr__`` leans on attributes that an empty instance does not have."""
    return (
        rebuild.rebuild_keras_object,
        (type(obj), _runtime()),
        vars(obj),
        None,
        None,
        rebuild.restore_keras_attributes,
    )


def reduce_loss_entry(entry: Any, dump: Dump) -> ReduceValue:
    """Reduce a ``CompileLoss.Loss``, whose class no pickle can name: it says that it is called otherwise."""
    return rebuild.rebuild_keras_loss_entry, tuple(entry)


def _reduce_to_archive(obj: object, dump: Dump) -> ReduceValue:
    """Leave an object to Keras's own ``__reduce__``, and say what that loses."""
    cls = dotted_name(type(obj))
    warn(KerasFallbackWarning(cls, internals.keras_version(), internals.misfit() or ""))
    return NOT_REDUCED
