"""What of TensorFlow a Keras layer may hold and TensorFlow itself does not pickle: lookup tables and ``tf.function``.

A table is written as its content. A ``tf.function`` is written as the Python function that it was made from, with its
options; it is traced again when it is next called. Variables, tensors and dtypes TensorFlow pickles itself.
"""

from __future__ import annotations

from typing import Any

from safepickle import rebuild
from safepickle.reduce_value import ReduceValue
from safepickle.reducers import keras_masks
from safepickle.reducers.decisions import Dump
from safepickle.reducers.table import Reducer

__all__ = [
    "find_reducer",
    "reduce_default_strategy",
    "reduce_function",
    "reduce_mutable_table",
    "reduce_static_table",
    "refuse_distributed",
]


def find_reducer(cls: type) -> Reducer | None:
    """Return the reducer for a class of TensorFlow, or None where TensorFlow pickles it itself.

    Args:
        cls: A class with one of TensorFlow's in its method resolution order.
    """
    import tensorflow as tf

    reducers: dict[Any, Reducer] = {
        tf.lookup.StaticHashTable: reduce_static_table,
        tf.lookup.experimental.MutableHashTable: reduce_mutable_table,
    }
    if cls.__name__.startswith("_DefaultDistribution"):
        return reduce_default_strategy
    if {"StrategyBase", "DistributedValues"} & {base.__name__ for base in cls.__mro__}:
        return refuse_distributed
    if cls.__name__ == "Function" and hasattr(cls, "python_function") and hasattr(cls, "get_concrete_function"):
        return reduce_function
    return reducers.get(cls) or keras_masks.find_reducer(cls)


def reduce_static_table(table: Any, dump: Dump) -> ReduceValue:
    """Reduce a ``tf.lookup.StaticHashTable`` to its keys and values; where they were read from does not matter."""
    keys, values = ([], []) if int(table.size()) == 0 else _content(table)
    dtypes = (table.key_dtype.name, table.value_dtype.name)
    return rebuild.rebuild_tf_static_table, (keys, values, dtypes, _value(table._default_value))


def reduce_mutable_table(table: Any, dump: Dump) -> ReduceValue:
    """Reduce a ``tf.lookup.experimental.MutableHashTable`` to its keys and values."""
    keys, values = _content(table)
    dtypes = (table.key_dtype.name, table.value_dtype.name)
    return rebuild.rebuild_tf_mutable_table, (keys, values, dtypes, _value(table._default_value))


def reduce_function(function: Any, dump: Dump) -> ReduceValue:
    """Reduce a ``tf.function`` to its Python function and the options that it was made with."""
    options = {
        "autograph": function._autograph,
        "input_signature": function.input_signature,
        "jit_compile": function._jit_compile,
        "reduce_retracing": function._reduce_retracing,
    }
    changed = {name: value for name, value in options.items() if value != _DEFAULT_OPTIONS[name]}
    # The arguments may lead back to the function, as a bound method does to its model: they are state of a shell.
    return rebuild.rebuild_tf_function, (), (function.python_function, changed), None, None, rebuild.restore_tf_function


def reduce_default_strategy(strategy: object, dump: Dump) -> ReduceValue:
    """Reduce the default strategy, which distributes nothing, to the one that is in force when it is loaded."""
    return rebuild.rebuild_tf_default_strategy, ()


def refuse_distributed(obj: object, dump: Dump) -> ReduceValue:
    """Refuse a strategy that distributes, or what it has distributed: it is tied to the devices of its process.

    Args:
        obj: A strategy, or a variable that was made in its scope.
        dump: Not asked.

    Raises:
        TypeError: Always.
    """
    raise TypeError(
        f"cannot pickle {type(obj).__qualname__!r} object: it belongs to a tf.distribute strategy, which is tied to "
        "the devices of this process. Save the model with model.save(), and load it in the scope of a strategy"
    )


_DEFAULT_OPTIONS = {"autograph": True, "input_signature": None, "jit_compile": None, "reduce_retracing": False}


def _content(table: Any) -> tuple[Any, Any]:
    keys, values = table.export()
    return _value(keys), _value(values)


def _value(tensor: Any) -> Any:
    return tensor.numpy()
