"""What the golden pickles of Keras objects hold on TensorFlow. The rule of `golden_cases` holds here, too."""

from __future__ import annotations

import weakref
from typing import Any

import golden_keras_cases
import keras
import tensorflow as tf

from golden_cases import Case

CASES: dict[str, Case] = {}

CASES["tensorflow model"] = Case(golden_keras_cases.model, golden_keras_cases.check_model)
CASES["tensorflow preprocessing"] = Case(golden_keras_cases.preprocessing, golden_keras_cases.check_preprocessing)


def vocabularies() -> Any:
    words = keras.layers.StringLookup(vocabulary=["a", "b"])
    numbers = keras.layers.IntegerLookup(vocabulary=[4, 6], invert=True)
    numbers.words = weakref.ref(words)
    return {"words": words, "numbers": numbers, "not adapted": keras.layers.StringLookup()}


def check_vocabularies(obj: Any) -> None:
    words, numbers = obj["words"], obj["numbers"]
    assert words(tf.constant(["b", "z", "a"])).numpy().tolist() == [2, 0, 1]
    assert numbers(tf.constant([2, 0, 1])).numpy().tolist() == [6, -1, 4]
    assert numbers.words() is words
    obj["not adapted"].adapt(tf.constant(["c"]))
    assert obj["not adapted"].get_vocabulary() == ["[UNK]", "c"]


CASES["tensorflow vocabularies"] = Case(vocabularies, check_vocabularies)


def tables() -> Any:
    mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    empty = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.5)
    mutable.insert(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    content = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2], tf.int64), tf.constant([0.5, 0.25]))
    return {"mutable": mutable, "empty": empty, "static": tf.lookup.StaticHashTable(content, -1.0)}


def check_tables(obj: Any) -> None:
    mutable, empty = obj["mutable"], obj["empty"]
    assert mutable.lookup(tf.constant(["a", "b", "c"])).numpy().tolist() == [1, 2, -1]
    mutable.insert(tf.constant(["c"]), tf.constant([3], tf.int64))
    assert mutable.lookup(tf.constant(["c"])).numpy().tolist() == [3]
    assert int(empty.size()) == 0
    assert empty.lookup(tf.constant([7], tf.int64)).numpy().tolist() == [0.5]
    assert obj["static"].lookup(tf.constant([2, 3], tf.int64)).numpy().tolist() == [0.25, -1.0]


CASES["tensorflow tables"] = Case(tables, check_tables)


def doubled(tensor: Any) -> Any:
    """Be traced by a `tf.function`."""
    return tensor * 2


def functions() -> Any:
    signature = [tf.TensorSpec([None], tf.float32)]
    traced = tf.function(doubled)
    traced(tf.constant([1.0]))
    return {"traced": traced, "with options": tf.function(doubled, input_signature=signature, autograph=False)}


def check_functions(obj: Any) -> None:
    assert obj["traced"](tf.constant([1, 2])).numpy().tolist() == [2, 4]
    function = obj["with options"]
    assert function(tf.constant([1.0, 2.0])).numpy().tolist() == [2.0, 4.0]
    assert function.input_signature == (tf.TensorSpec([None], tf.float32),)
    assert function.python_function is doubled


CASES["tensorflow functions"] = Case(functions, check_functions)


def check_strategy(strategy: Any) -> None:
    assert strategy is tf.distribute.get_strategy()


CASES["tensorflow strategy"] = Case(tf.distribute.get_strategy, check_strategy)


def masked() -> Any:
    tensor = keras.layers.Masking()(tf.constant([[[1.0], [0.0]]]))
    return {"tensor": tensor, "again": tensor, "plain": tf.constant([1.0])}


def check_masked(obj: Any) -> None:
    assert obj["tensor"] is obj["again"]
    assert obj["tensor"].numpy().tolist() == [[[1.0], [0.0]]]
    assert keras.src.backend.get_keras_mask(obj["tensor"]).numpy().tolist() == [[True, False]]
    assert obj["plain"].numpy().tolist() == [1.0]
    assert keras.src.backend.get_keras_mask(obj["plain"]) is None


CASES["tensorflow masked"] = Case(masked, check_masked)
