"""What safepickle knows of the inside of Keras, in one place.

Keras has no public way to take a model apart and put it together again, so this leans on names below ``keras.src``.
It imports nothing of ours, and Keras only when asked. Where an installed Keras does not fit, `misfit` says why.

Source:
    Keras 3.15, below ``keras/src``: ``utils/tracking.py``, ``layers/layer.py``, ``ops/function.py``, ``ops/node.py``,
    ``optimizers/base_optimizer.py``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = [
    "LEFT_OUT_LOSSES",
    "TRACKER_DONORS",
    "backend_name",
    "donor_predicates",
    "is_wrapper_of_new",
    "keras_version",
    "misfit",
    "parts",
    "register",
    "reserve_name",
    "tracker_kind",
]

# Losses of the last forward pass: tensors of a graph or a trace that is over.
LEFT_OUT_LOSSES = {"_losses": "TrackedList", "_loss_ids": "TrackedSet", "_losses_override": "TrackedList"}


class _Missing:
    """In place of a class that this Keras does not have; nothing is an instance of it."""


@functools.cache
def parts() -> SimpleNamespace:
    """Import the classes of Keras that the object graph is made of. Older ones lack a few.

    Raises:
        ImportError: This Keras keeps them elsewhere.
        AttributeError: Likewise.
    """
    from keras.src.backend.common import variables
    from keras.src.layers.layer import Layer
    from keras.src.metrics.metric import Metric
    from keras.src.ops.function import Function, make_node_key
    from keras.src.ops.node import Node
    from keras.src.ops.operation import Operation
    from keras.src.optimizers.base_optimizer import BaseOptimizer
    from keras.src.saving.keras_saveable import KerasSaveable
    from keras.src.trainers.compile_utils import CompileLoss
    from keras.src.trainers.trainer import Trainer
    from keras.src.utils import tracking

    return SimpleNamespace(
        BaseOptimizer=BaseOptimizer,
        CompileLoss=CompileLoss,
        Function=Function,
        KerasSaveable=KerasSaveable,
        Layer=Layer,
        LossEntry=getattr(CompileLoss, "Loss", _Missing),
        Metric=Metric,
        Node=Node,
        Operation=Operation,
        TrackedDict=tracking.TrackedDict,
        TrackedList=tracking.TrackedList,
        TrackedOrderedDict=getattr(tracking, "TrackedOrderedDict", tracking.TrackedDict),
        TrackedSet=tracking.TrackedSet,
        Tracker=tracking.Tracker,
        Trainer=Trainer,
        Variable=getattr(variables, "Variable", None) or variables.KerasVariable,
        make_node_key=make_node_key,
    )


def keras_version() -> str:
    """The version of the Keras that is imported."""
    import keras

    return str(keras.__version__)


def backend_name() -> str:
    """The backend that Keras runs on in this process: ``"torch"``, ``"jax"``, ``"tensorflow"``."""
    import keras

    return str(keras.backend.backend())


def _donor_layer() -> Any:
    return parts().Layer(name="safepickle_donor")


def _donor_metric() -> Any:
    return parts().Metric(name="safepickle_donor")


def _donor_optimizer() -> Any:
    import keras

    return keras.optimizers.SGD(name="safepickle_donor")


def _donor_loss() -> Any:
    return parts().CompileLoss(loss="mse")


# A tracker tells what to track by functions that Keras defines on the spot, so no pickle can name them. A fresh object
# of the same kind has the same ones: a pickle names the kind.
TRACKER_DONORS: dict[str, Callable[[], Any]] = {
    "layer": _donor_layer,
    "metric": _donor_metric,
    "optimizer": _donor_optimizer,
    "loss": _donor_loss,
}

_KIND_OF_MODULE = {
    "keras.src.layers.layer": "layer",
    "keras.src.metrics.metric": "metric",
    "keras.src.optimizers.base_optimizer": "optimizer",
    "keras.src.trainers.compile_utils": "loss",
}


@functools.cache
def donor_predicates(kind: str) -> dict[str, Callable[[Any], bool]]:
    """The functions by which a tracker of that kind knows what to track, by the name of the store.

    Args:
        kind: A key of `TRACKER_DONORS`.
    """
    tracker = TRACKER_DONORS[kind]()._tracker
    return {name: predicate for name, (predicate, _) in tracker.config.items()}


def tracker_kind(tracker: Any) -> str | None:
    """Tell which of Keras's own kinds a tracker is.

    Args:
        tracker: A Keras ``Tracker``.

    Returns:
        A key of `TRACKER_DONORS`, or None for a tracker with functions of its own.
    """
    predicates = {name: predicate for name, (predicate, _) in tracker.config.items()}
    kinds = {_KIND_OF_MODULE.get(getattr(predicate, "__module__", "")) for predicate in predicates.values()}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        return None
    donors = donor_predicates(kind)
    same = predicates.keys() == donors.keys() and all(
        _code(predicate) is _code(donors[name]) for name, predicate in predicates.items()
    )
    return kind if same else None


def is_wrapper_of_new(name: str, value: object) -> bool:
    """Whether an attribute is the closure that ``Layer.__new__`` puts round ``build`` or ``quantize``.

    Args:
        name: The attribute's name.
        value: What the instance holds under it.
    """
    wrapper = _wrappers_of_new().get(name)
    return wrapper is not None and _code(value) is wrapper


@functools.cache
def _wrappers_of_new() -> dict[str, Any]:
    donor = _donor_layer()
    return {name: _code(vars(donor)[name]) for name in ("build", "quantize") if name in vars(donor)}


def _code(function: object) -> Any:
    return getattr(function, "__code__", function)


@functools.cache
def misfit() -> str | None:
    """Say in what way the installed Keras is not the one that the object graph is written for.

    Returns:
        The first difference found, or None when all is as expected.

    Examples:
        >>> from safepickle.integrations.keras import misfit
        >>> print(misfit())
        None
    """
    try:
        found = parts()
        for kind in ("layer", "metric", "loss"):
            donor_predicates(kind)
        tracker = _donor_layer()._tracker
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    expected = {"config", "stored_ids", "locked", "_lock_violation_msg", "exclusions"}
    if vars(tracker).keys() != expected:
        return f"Tracker has the attributes {sorted(vars(tracker))}, expected {sorted(expected)}"
    if tracker.stored_ids.keys() != tracker.config.keys() or not all(
        isinstance(ids, set) for ids in tracker.stored_ids.values()
    ):
        return "Tracker.stored_ids does not hold one set for each store"
    if _wrappers_of_new().keys() != {"build", "quantize"}:
        return "Layer.__new__ does not wrap build and quantize"
    if found.make_node_key(tracker, 7) != f"{id(tracker)}_ib-7":
        return "make_node_key makes other keys"
    import keras

    if getattr(keras.config, "is_nnx_enabled", lambda: False)():
        return "layers are flax.nnx modules (KERAS_NNX_ENABLED)"
    return None


def register(cls: type, registered_name: str) -> None:
    """Register a class with Keras again, when it came by value and its module's decorator never ran here.

    Args:
        cls: A class with a ``get_config``.
        registered_name: ``package>name``.
    """
    from keras.saving import get_registered_object, register_keras_serializable

    if get_registered_object(registered_name) is None:
        package, _, name = registered_name.partition(">")
        register_keras_serializable(package, name)(cls)


def reserve_name(name: str) -> None:
    """Count a loaded object's name among those that Keras has given, so that a new layer is not given the same one.

    Args:
        name: ``"dense"`` or ``"dense_3"``.
    """
    try:
        from keras.src.backend.common.global_state import get_global_attribute
        from keras.src.utils import naming
    except ImportError:
        return
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    if match is None:
        return
    counts = get_global_attribute("object_name_uids")
    if counts is None:
        naming.reset_uids()
        counts = get_global_attribute("object_name_uids")
    stem, number = match.group(1), int(match.group(2) or 0)
    counts[stem] = max(counts.get(stem, 0), number + 1)
