"""What of TensorFlow a Keras layer may hold: lookup tables, ``tf.function``, the default strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safepickle.rebuild.mark import file_format

__all__ = [
    "rebuild_tf_default_strategy",
    "rebuild_tf_function",
    "rebuild_tf_mutable_table",
    "rebuild_tf_static_table",
    "restore_tf_function",
]


@file_format
def rebuild_tf_static_table(keys: Any, values: object, dtypes: tuple[str, str], default: object) -> Any:
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


@file_format
def rebuild_tf_mutable_table(keys: Any, values: object, dtypes: tuple[str, str], default: object) -> Any:
    """Build a ``tf.lookup.experimental.MutableHashTable`` of the given content."""
    import tensorflow as tf

    with tf.init_scope():
        key_dtype, value_dtype = map(tf.as_dtype, dtypes)
        table = tf.lookup.experimental.MutableHashTable(key_dtype, value_dtype, tf.constant(default, value_dtype))
        if len(keys):  # An import of nothing is refused.
            table.insert(tf.constant(keys, key_dtype), tf.constant(values, value_dtype))
        return table


@file_format
def rebuild_tf_function() -> Any:
    """Build a ``tf.function`` that has no Python function yet; state follows."""
    from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

    return object.__new__(Function)


@file_format
def restore_tf_function(function: object, state: tuple[Callable[..., object], dict[str, object]]) -> None:
    """Make a ``tf.function`` of a Python function again, to be traced when it is called."""
    import tensorflow as tf

    python_function, options = state
    function.__dict__.update(tf.function(python_function, **options).__dict__)


@file_format
def rebuild_tf_default_strategy() -> Any:
    """Get the distribution strategy in force here: the default one is TensorFlow's own, one for each process."""
    import tensorflow as tf

    return tf.distribute.get_strategy()
