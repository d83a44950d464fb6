"""Keras objects come back as the object graph that they were, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import safepickle
from pages import ROOT, examples
from safepickle import Recomputed
from safepickle.integrations.keras import KerasFallbackWarning, KerasVersionWarning, current_route, use_route
from safepickle.rebuild import keras_internals

# NumPy's complaint about the signature of Keras's own Variable.__array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

BACKEND = keras.backend.backend()
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="only the torch backend has this")
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(7)


def copied(obj: Any, **options: Any) -> Any:
    return safepickle.loads(safepickle.dumps(obj, **options))


def fit(model: Any, epochs: int = 3, **options: Any) -> dict[str, list[float]]:
    history: dict[str, list[float]] = model.fit(X, Y, epochs=epochs, shuffle=False, verbose=0, **options).history
    return history


def assert_resumes_exactly(model: Any, loaded: Any) -> None:
    """Check that predictions are equal to the last bit, and that three more epochs give the same losses."""
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert fit(loaded) == fit(model)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


class Scale(layers.Layer):
    """A layer with a weight, an argument that is no config, and an attribute outside the config."""

    def __init__(self, activation: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation
        self.notes: Any = {"seen": [1, 2]}

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs * self.scale)


class Network(keras.Model):
    """A subclassed model with layers in a list, in a dict and as attributes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(8, activation="relu"), layers.Dropout(0.4, seed=3)]
        self.heads = {"out": layers.Dense(3)}
        self.norm = layers.BatchNormalization()

    def call(self, inputs: Any, training: bool = False) -> Any:
        hidden = inputs
        for block in self.blocks:
            hidden = block(hidden, training=training) if isinstance(block, layers.Dropout) else block(hidden)
        return self.heads["out"](self.norm(hidden, training=training))


def sequential() -> Any:
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dropout(0.5, seed=1), layers.Dense(3)]
    )


def unbuilt_sequential() -> Any:
    return keras.Sequential([layers.Dense(8, activation="relu"), layers.Dropout(0.5, seed=1), layers.Dense(3)])


def functional() -> Any:
    inputs = keras.Input((4,))
    hidden = layers.BatchNormalization()(layers.Dense(8)(inputs))
    hidden = layers.Dropout(0.3, seed=2)(hidden) + hidden
    outputs = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")(keras.ops.tanh(hidden) * 2)
    return keras.Model(inputs, outputs)


def nested() -> Any:
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dropout(0.2, seed=5)])
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([inner(inputs), inner(inputs * 2)])))


def subclassed() -> Any:
    return Network()


def custom() -> Any:
    return keras.Sequential([keras.Input((4,)), Scale(lambda value: value * 1.5), layers.Dense(3)])


MODELS = [sequential, unbuilt_sequential, functional, nested, subclassed, custom]
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 4, 0.9)),
    "adamw_ema": lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=3),
    "sgd_momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    "rmsprop_accumulated": lambda: keras.optimizers.RMSprop(0.01, gradient_accumulation_steps=2),
    "lion_clipped": lambda: keras.optimizers.Lion(0.01, global_clipnorm=1.0),
}


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_resume_is_exact_for_every_kind_of_model(make: Callable[[], Any]) -> None:
    model = make()
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    fit(model, 2)
    assert_resumes_exactly(model, copied(model))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_is_exact_for_every_kind_of_optimizer(optimizer: str) -> None:
    if (BACKEND, optimizer) == ("jax", "adamw_ema"):
        pytest.skip(
            "Keras 3.15 itself cannot fit a second time with use_ema on JAX: the averages have lost their value"
        )
    model = sequential()
    model.compile(OPTIMIZERS[optimizer](), keras.losses.Huber(), metrics=[keras.metrics.MeanAbsoluteError()])
    fit(model, 2)
    assert_resumes_exactly(model, copied(model))


def test_model_that_was_compiled_but_not_trained_trains_alike() -> None:
    model = functional()
    model.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mse"])
    assert_resumes_exactly(model, copied(model))


def test_several_outputs_with_losses_by_name_resume_exactly() -> None:
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="hidden")(inputs)
    outputs = {"a": layers.Dense(3, name="a")(hidden), "b": layers.Dense(3, name="b")(hidden)}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"a": "mse", "b": keras.losses.MeanAbsoluteError()}, metrics={"a": ["mae"], "b": ["mse"]})
    targets = {"a": Y, "b": Y * 2}
    model.fit(X, targets, epochs=1, shuffle=False, verbose=0)
    loaded = copied(model)
    histories = [m.fit(X, targets, epochs=3, shuffle=False, verbose=0).history for m in (model, loaded)]
    assert histories[0] == histories[1]


@on_torch
def test_unseeded_dropout_resumes_exactly_with_the_generator_of_torch() -> None:
    import torch

    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dropout(0.5), layers.Dense(3)])
    model.compile("adam", "mse")
    fit(model, 2)
    loaded, random_state = copied((model, torch.get_rng_state()))
    expected = fit(model)
    torch.set_rng_state(random_state)
    assert fit(loaded) == expected


LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "dense": (lambda: layers.Dense(5, kernel_constraint="max_norm"), (2, 4)),
    "conv": (lambda: layers.Conv2D(3, 2), (2, 5, 5, 2)),
    "separable_conv": (lambda: layers.SeparableConv1D(3, 2), (2, 5, 2)),
    "batch_normalization": (layers.BatchNormalization, (2, 4)),
    "layer_normalization": (layers.LayerNormalization, (2, 4)),
    "spectral_normalization": (lambda: layers.SpectralNormalization(layers.Dense(3)), (2, 4)),
    "lstm": (lambda: layers.LSTM(4, return_sequences=True), (2, 3, 4)),
    "bidirectional_gru": (lambda: layers.Bidirectional(layers.GRU(4)), (2, 3, 4)),
    "stateful_rnn": (lambda: layers.SimpleRNN(4, stateful=True), (2, 3, 4)),
    "stacked_cells": (lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]), (2, 3, 4)),
    "time_distributed": (lambda: layers.TimeDistributed(layers.Dense(3)), (2, 3, 4)),
    "einsum": (lambda: layers.EinsumDense("ab,bc->ac", output_shape=3), (2, 4)),
    "lambda": (lambda: layers.Lambda(lambda value: value + 1), (2, 4)),
    "prelu": (layers.PReLU, (2, 4)),
    "lora": (lambda: layers.Dense(4, lora_rank=2), (2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_built_layer_gives_the_same_outputs(name: str) -> None:
    make, shape = LAYERS[name]
    layer = make()
    inputs = np.random.default_rng(2).normal(size=shape).astype("float32")
    layer(inputs)
    loaded = copied(layer)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded(inputs)), keras.ops.convert_to_numpy(layer(inputs)), strict=True
    )
    assert [variable.path for variable in loaded.weights] == [variable.path for variable in layer.weights]


@pytest.mark.parametrize("name", LAYERS)
def test_unbuilt_layer_is_built_after_the_load(name: str) -> None:
    make, shape = LAYERS[name]
    layer = make()
    loaded = copied(layer)
    assert loaded.built == layer.built
    outputs = loaded(np.ones(shape, "float32"))
    assert loaded.built
    assert outputs.shape == layer(np.ones(shape, "float32")).shape
    assert len(loaded.weights) == len(layer.weights)


def test_attention_and_embedding_with_mask_survive() -> None:
    inputs = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(10, 4, mask_zero=True)(inputs)
    attended = layers.MultiHeadAttention(2, 3, dropout=0.1, seed=1)(embedded, embedded)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.LSTM(3, return_sequences=True)(attended)))
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    np.testing.assert_array_equal(copied(model).predict(tokens, verbose=0), model.predict(tokens, verbose=0))


def test_mask_that_keras_notes_beside_a_computed_tensor_survives() -> None:
    embedded = layers.Embedding(10, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    plain, masked, again = copied((keras.ops.ones(2), embedded, embedded))
    assert masked is again
    get_mask = keras.src.backend.get_keras_mask
    assert np.asarray(get_mask(masked)).tolist() == [[True, True, False]]
    assert get_mask(plain) is None
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(masked), keras.ops.convert_to_numpy(embedded))


def all_layers(model: Any) -> list[Any]:
    return list(model._flatten_layers())


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_everything_that_keras_keys_by_identity_is_computed_afresh(make: Callable[[], Any]) -> None:
    model = make()
    model.compile("adam", "mse", metrics=["mae"])
    fit(model, 1)
    loaded = copied(model)
    trackers = [layer._tracker for layer in all_layers(loaded)] + [metric._tracker for metric in loaded.metrics]
    for tracker in [*trackers, loaded.optimizer._tracker]:
        for name, (is_tracked, store) in tracker.config.items():
            assert tracker.stored_ids[name] == {id(value) for value in store}
            assert all(is_tracked(value) or name == "trainable_variables" for value in store)
    optimizer = loaded.optimizer
    keys = [optimizer._var_key(variable) for variable in loaded.trainable_variables]
    assert dict(optimizer._trainable_variables_indices) == {key: index for index, key in enumerate(keys)}
    for layer in all_layers(loaded):
        for node in layer._inbound_nodes:
            assert all(node in tensor._keras_history.operation._outbound_nodes for tensor in node.input_tensors)
        if hasattr(layer, "_nodes_by_depth"):
            nodes = [node for at_depth in layer._nodes_by_depth.values() for node in at_depth]
            operations = {f"{id(node.operation)}_ib-{node.operation._inbound_nodes.index(node)}" for node in nodes}
            assert layer._nodes == operations


def test_loaded_objects_share_nothing_with_the_originals() -> None:
    model = functional()
    model.compile("adam", "mse")
    fit(model, 1)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    fit(copied(model), 2)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


def test_dumping_changes_nothing_in_the_model() -> None:
    model = functional()
    model.compile("adam", "mse")
    fit(model, 1)
    step = model.train_function
    first, second = safepickle.dumps(model), safepickle.dumps(model)
    assert first == second
    assert model.train_function is step
    assert copied(model).train_function is None


def test_layer_shared_by_two_models_comes_back_shared() -> None:
    inputs = keras.Input((4,))
    shared = layers.Dense(6, name="shared")
    one, other = (
        keras.Model(inputs, layers.Dense(3)(shared(inputs))),
        keras.Model(inputs, layers.Dense(2)(shared(inputs))),
    )
    one_copy, other_copy = copied((one, other))
    assert one_copy.get_layer("shared") is other_copy.get_layer("shared")
    one_copy.get_layer("shared").kernel.assign(np.zeros((4, 6), "float32"))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(other_copy.get_layer("shared").kernel), np.zeros((4, 6)))
    for model, loaded in ((one, one_copy), (other, other_copy)):
        assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


def test_part_of_a_model_does_not_bring_what_was_built_on_it() -> None:
    inputs = keras.Input((4,))
    base = keras.Model(inputs, layers.Dense(6, name="features")(inputs))
    alone = len(safepickle.dumps(base))
    keras.Model(base.input, layers.Dense(5000, name="head")(base.output))
    assert len(safepickle.dumps(base)) < alone + 1000


def test_what_keras_itself_refuses_or_loses_survives() -> None:
    layer = Scale(lambda value: value * 3)
    layer(X)
    with pytest.raises(NotImplementedError, match="override `get_config\\(\\)`"):
        pickle.dumps(layer)
    loaded = copied(layer)
    assert loaded.notes == {"seen": [1, 2]}
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded(X)), keras.ops.convert_to_numpy(layer(X)), strict=True
    )
    assert type(loaded.notes) is type(layer.notes)
    assert loaded.notes.tracker is loaded._tracker


class LargeData:
    """What a layer refers to and does not own."""

    rows: list[int]


class Referring(layers.Layer):
    """The layer of the classic question."""

    def __init__(self, large_data: LargeData) -> None:
        super().__init__()
        self.large_data_ref = weakref.ref(large_data)

    def call(self, inputs: Any) -> Any:
        return inputs


def test_weak_reference_to_what_the_model_owns_is_relinked() -> None:
    large_data = LargeData()
    model = keras.Sequential([keras.Input((4,)), Referring(large_data), layers.Dense(3)])
    model.large_data = large_data
    loaded = copied(model)
    assert type(loaded.layers[0].large_data_ref) is weakref.ref
    assert loaded.layers[0].large_data_ref() is loaded.large_data
    del loaded.large_data
    gc.collect()
    assert loaded.layers[0].large_data_ref() is None


def test_weak_reference_to_what_stays_outside_is_a_tombstone_that_says_so() -> None:
    large_data = LargeData()
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 to .*LargeData outside the pickle"):
        loaded = copied(keras.Sequential([keras.Input((4,)), Referring(large_data), layers.Dense(3)]))
    reference = loaded.layers[0].large_data_ref
    assert reference() is None
    assert (reference.reason, reference.referent_type) == ("outside", f"{__name__}.LargeData")


def test_strong_policy_carries_a_copy_of_what_stays_outside() -> None:
    large_data = LargeData()
    large_data.rows = [1, 2, 3]
    loaded = copied(Referring(large_data), weakrefs="strong")
    gc.collect()
    assert loaded.large_data_ref().rows == [1, 2, 3]


class Links:
    """Keras would track a proxy of a layer as a sublayer; it does not look in here."""

    def __init__(self, parent: Any) -> None:
        self.parent = weakref.proxy(parent)


class Child(layers.Layer):
    """Knows its parent without owning it."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent_ref = weakref.ref(parent)
        self.links = Links(parent)
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


class Parent(layers.Layer):
    """Owns children that know it, and a weak registry of them."""

    def __init__(self) -> None:
        super().__init__()
        self.members = [Child(self), Child(self)]
        self.registry = weakref.WeakValueDictionary({"first": self.members[0]})

    def call(self, inputs: Any) -> Any:
        return self.members[1](self.members[0](inputs))


def test_parent_pointers_and_weak_registries_between_layers_are_relinked() -> None:
    parent = Parent()
    parent(X)
    loaded = copied(parent)
    assert [member.parent_ref() for member in loaded.members] == [loaded, loaded]
    assert loaded.members[0].links.parent.members[1] is loaded.members[1]
    assert loaded.registry["first"] is loaded.members[0]
    assert loaded.members.tracker is loaded._tracker
    for layer in all_layers(loaded):
        for name, (_, store) in layer._tracker.config.items():
            assert layer._tracker.stored_ids[name] == {id(value) for value in store}
    first = copied(parent.members[0], weakrefs="strong")
    assert first.parent_ref().members[0] is first


class Watcher(keras.callbacks.Callback):
    """Watches a layer of the model without owning it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer_ref: Any = weakref.ref(layer)
        self.seen: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(float(np.sum(keras.ops.convert_to_numpy(self.layer_ref().kernel))))


def test_callbacks_come_back_with_their_model_and_go_on() -> None:
    model = sequential()
    model.compile("adam", "mse")
    callbacks = [
        Watcher(model.layers[0]),
        keras.callbacks.EarlyStopping("loss", patience=50, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    ]
    fit(model, 2, callbacks=callbacks)
    loaded, loaded_callbacks = copied((model, callbacks))
    assert loaded_callbacks[0].model is loaded
    assert loaded_callbacks[0].layer_ref() is loaded.layers[0]
    assert fit(loaded, callbacks=loaded_callbacks) == fit(model, callbacks=callbacks)
    assert loaded_callbacks[0].seen == callbacks[0].seen


def test_history_of_a_fit_comes_back() -> None:
    model = sequential()
    model.compile("adam", "mse")
    history = model.fit(X, Y, epochs=2, verbose=0)
    loaded = copied(history)
    assert loaded.history == history.history
    assert loaded.model.history is loaded


class Checkpoint(keras.callbacks.Callback):
    """Pickles the model from inside its fit."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.data = safepickle.dumps(self._model)
            self.weights = [keras.ops.convert_to_numpy(weight).copy() for weight in self.model.weights]


def test_dump_in_the_middle_of_a_fit_holds_the_current_weights() -> None:
    model = sequential()
    model.compile("adam", "mse")
    checkpoint = Checkpoint()
    history = model.fit(X, Y, epochs=5, shuffle=False, verbose=0, callbacks=[checkpoint]).history
    loaded = safepickle.loads(checkpoint.data)
    for weight, expected in zip(loaded.weights, checkpoint.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), expected)
    assert fit(loaded)["loss"] == history["loss"][2:]


def test_variables_seed_generators_metrics_losses_and_schedules_survive() -> None:
    variable = keras.Variable(np.arange(3.0), trainable=False, name="counter")
    generator = keras.random.SeedGenerator(5)
    generator.next()
    metric = keras.metrics.MeanAbsoluteError()
    metric.update_state([1.0, 2.0], [2.0, 4.0])
    auc = keras.metrics.AUC(num_thresholds=10)
    auc.update_state([0, 1], [0.2, 0.7])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    first, loaded, second = copied((variable, (generator, metric, auc, loss, schedule), variable))
    assert first is second
    assert (first.name, first.trainable) == ("counter", False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(first), np.arange(3.0))
    np.testing.assert_array_equal(
        keras.random.normal((3,), seed=loaded[0]), keras.ops.convert_to_numpy(keras.random.normal((3,), seed=generator))
    )
    assert float(loaded[1].result()) == float(metric.result()) == 1.5
    assert float(loaded[2].result()) == float(auc.result())
    assert float(loaded[3]([[0.0, 1.0]], [[0.3, 0.7]])) == float(loss([[0.0, 1.0]], [[0.3, 0.7]]))
    assert float(loaded[4](3)) == float(schedule(3))


def test_frozen_layers_stay_frozen() -> None:
    model = sequential()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    fit(model, 1)
    loaded = copied(model)
    assert len(loaded.trainable_variables) == len(model.trainable_variables) == 2
    assert_resumes_exactly(model, loaded)


def test_mixed_precision_resumes_exactly() -> None:
    dtype = "mixed_bfloat16"
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, dtype=dtype), layers.Dense(3, dtype=dtype)])
    model.compile("adam", "mse")
    fit(model, 1)
    loaded = copied(model)
    assert loaded.layers[0].compute_dtype == "bfloat16"
    assert_resumes_exactly(model, loaded)


class Counting(layers.Layer):
    """Adds a loss, counts its calls, and keeps a tuple of sublayers."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = (layers.Dense(4), layers.Dense(4))
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, inputs: Any) -> Any:
        self.calls.assign_add(1)
        self.add_loss(0.01 * keras.ops.sum(keras.ops.square(inputs)))
        return self.pair[1](self.pair[0](inputs))


def test_added_losses_belong_to_one_forward_pass_and_are_made_again() -> None:
    model = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(3)])
    model.compile("adam", "mse")
    fit(model, 1)
    loaded = copied(model)
    assert loaded.losses == []
    assert float(loaded.layers[0].calls) == float(model.layers[0].calls) > 0
    assert_resumes_exactly(model, loaded)


def test_loaded_models_can_be_built_upon() -> None:
    model = copied(functional())
    features = keras.Model(model.input, model.layers[1].output)
    assert features.predict(X, verbose=0).shape == (32, 8)
    longer = copied(sequential())
    longer.add(layers.Dense(2))
    assert longer(X).shape == (32, 2)
    longer.pop()
    assert longer(X).shape == (32, 3)
    assert keras.models.clone_model(model).count_params() == model.count_params()


def test_loaded_layer_tracks_what_is_set_on_it() -> None:
    network = Network()
    network(X)
    loaded = copied(network)
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        loaded.norm.extra = layers.Dense(2)
    fresh = copied(Network())
    fresh.extra = layers.Dense(2)
    fresh.blocks.append(layers.Dense(8))
    assert len(fresh.layers) == len(Network().layers) + 2


def test_loaded_model_saves_as_a_keras_archive(tmp_path: Path) -> None:
    model = functional()
    loaded = copied(model)
    loaded.save(tmp_path / "model.keras")
    archived = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(archived.predict(X, verbose=0), model.predict(X, verbose=0))


def test_new_layers_are_not_given_the_names_of_loaded_ones() -> None:
    data = safepickle.dumps(sequential())
    keras.src.utils.naming.reset_uids()
    model = safepickle.loads(data)
    names = {layer.name for layer in model.layers}
    assert layers.Dense(1).name not in names
    assert keras.Model(model.inputs, layers.Dense(1)(model.outputs[0])).count_params() > 0


def test_deep_functional_model_does_not_outrun_the_recursion_limit() -> None:
    outputs = inputs = keras.Input((2,))
    for _ in range(400):
        outputs = layers.Rescaling(1.0)(outputs)
    model = keras.Model(inputs, outputs)
    assert len(copied(model).layers) == 401
    last, tensor = copied((model.layers[-1], model.output))
    assert tensor._keras_history.operation is last
    assert len(keras.Model(tensor._keras_history.operation._inbound_nodes[0].input_tensors[0], tensor).layers) == 2


def test_proxy_of_the_users_own_works_inside_a_layer() -> None:
    layer = Referring(large_data := LargeData())
    layer.dataset = DatasetProxy("a b c")
    with pytest.warns(safepickle.WeakReferenceWarning, match="LargeData"):
        loaded = copied(layer)
    assert large_data is not None
    assert loaded.dataset.data == ["a", "b", "c"]


class DatasetProxy:
    """A user's own stand-in for data: it drops the data on the way out and makes it again on the way in."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.data = source.split()

    def __getstate__(self) -> dict[str, str]:
        return {"source": self.source}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.source = state["source"]
        self.data = self.source.split()


def generate_data() -> LargeData:
    data = LargeData()
    data.rows = list(range(100_000))
    return data


def test_layer_with_a_weak_reference_to_a_recomputed_table_is_small_and_works() -> None:
    table = Recomputed(generate_data)
    layer = Referring(table.value)
    size = len(safepickle.dumps(layer))
    assert size < len(safepickle.dumps(Referring(generate_data()), weakrefs="tombstone")) + 300
    loaded = copied(layer)
    assert len(loaded.large_data_ref().rows) == 100_000


class Locked(layers.Layer):
    """Says itself what of it is pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)
        self.handle: Any = open(os.devnull, encoding="utf-8")  # noqa: SIM115

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["handle"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.handle = None


def test_getstate_and_setstate_of_the_users_own_layer_are_honoured() -> None:
    layer = Locked()
    outputs = keras.ops.convert_to_numpy(layer(X))
    loaded = copied(layer)
    layer.handle.close()
    assert loaded.handle is None
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(X)), outputs)


def test_registered_class_of_a_main_module_is_registered_again() -> None:
    @keras.saving.register_keras_serializable("tests", "Registered")
    class Registered(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    data = safepickle.dumps(Registered())
    registry = keras.saving.get_custom_objects()
    del registry["tests>Registered"]
    loaded = safepickle.loads(data)
    try:
        assert keras.saving.get_registered_object("tests>Registered") is type(loaded)
    finally:
        registry.pop("tests>Registered", None)


def test_adapted_normalization_and_bin_boundaries_survive() -> None:
    normalization, discretization = layers.Normalization(), layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])
    normalization.adapt(X)
    loaded = copied([normalization, discretization])
    for layer, original in zip(loaded, (normalization, discretization), strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(layer(X)), keras.ops.convert_to_numpy(original(X)), strict=True
        )


@pytest.mark.parametrize("make", ["string", "adapted_string", "inverted", "integer", "text", "tf_idf", "empty"])
def test_preprocessing_layers_keep_their_vocabularies(make: str) -> None:
    pytest.importorskip("tensorflow", reason="Keras keeps vocabularies in tables of TensorFlow")
    words = np.array(["a", "b", "a", "zebra"])
    if make == "string":
        layer, inputs = layers.StringLookup(vocabulary=["a", "b"]), words
    elif make == "adapted_string":
        layer, inputs = layers.StringLookup(num_oov_indices=2), words
        layer.adapt(words)
    elif make == "inverted":
        layer, inputs = layers.IntegerLookup(vocabulary=[3, 5, 7], invert=True), np.array([1, 2, 0])
    elif make == "integer":
        layer, inputs = layers.IntegerLookup(vocabulary=[3, 5, 7]), np.array([7, 3, 9])
    elif make == "text":
        layer, inputs = layers.TextVectorization(output_sequence_length=4), np.array(["a b a", "zebra crossing"])
        layer.adapt(inputs)
    elif make == "tf_idf":
        layer, inputs = layers.TextVectorization(output_mode="tf_idf"), np.array(["a b a", "zebra crossing"])
        layer.adapt(inputs)
    else:
        layer, inputs = layers.StringLookup(), words
        copied(layer).adapt(words)
        layer.adapt(words)
    loaded = copied(layer)
    assert loaded.get_vocabulary() == layer.get_vocabulary()
    np.testing.assert_array_equal(np.asarray(loaded(inputs)), np.asarray(layer(inputs)))


def test_archive_route_leaves_objects_to_keras() -> None:
    model = sequential()
    model.extra = "outside the config"
    assert current_route() == "graph"
    with use_route("archive"):
        data = safepickle.dumps(model)
    assert current_route() == "graph"
    loaded = safepickle.loads(data)
    assert not hasattr(loaded, "extra")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert copied(model).extra == "outside the config"
    with pytest.raises(ValueError, match="unknown route 'zip' for Keras objects"), use_route("zip"):  # type: ignore[arg-type]
        pass


def test_keras_whose_inside_does_not_fit_is_left_to_keras_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sequential()
    monkeypatch.setattr(keras_internals, "misfit", lambda: "Tracker has other attributes")
    with pytest.warns(
        KerasFallbackWarning, match=r"is pickled as a Keras archive.*Tracker has other attributes"
    ) as caught:
        data = safepickle.dumps(model)
    assert [warning.category for warning in caught].count(KerasFallbackWarning) == 1
    np.testing.assert_array_equal(safepickle.loads(data).predict(X, verbose=0), model.predict(X, verbose=0))


def test_misfit_is_found_in_a_keras_with_another_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keras_internals.misfit() is None
    tracker = keras_internals.parts().Tracker
    original = tracker.__init__

    def other(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.by_name = {}

    monkeypatch.setattr(tracker, "__init__", other)
    assert "by_name" in str(keras_internals.misfit.__wrapped__())


def test_pickle_of_another_backend_is_refused() -> None:
    data = safepickle.dumps(layers.Dense(2)).replace(BACKEND.encode(), b"x" * len(BACKEND))
    with pytest.raises(pickle.UnpicklingError, match=rf"of the x+ backend, and Keras runs on {BACKEND} here"):
        safepickle.loads(data)


def test_pickle_of_another_version_is_loaded_with_a_warning() -> None:
    version = keras.__version__
    other = "2" + version[1:]
    data = safepickle.dumps(layers.Dense(2)).replace(version.encode(), other.encode())
    with pytest.warns(KerasVersionWarning, match=rf"objects of Keras {re.escape(other)}, and this is Keras") as caught:
        assert safepickle.loads(data).units == 2
    assert len(caught) == 1


@pytest.mark.parametrize("warning", [KerasFallbackWarning("a.B", "3.15.1", "why"), KerasVersionWarning("3.1", "3.2")])
def test_warnings_survive_pickling(warning: Warning) -> None:
    assert str(pickle.loads(pickle.dumps(warning))) == str(warning)


@on_torch
@pytest.mark.parametrize("backend", [safepickle, safepickle.backend(weakrefs="strong")], ids=["plain", "strong"])
def test_torch_save_carries_a_keras_model(backend: Any) -> None:
    import torch

    model = functional()
    model.compile("adam", "mse", metrics=["mae"])
    fit(model, 1)
    model.layers[1].sibling = weakref.ref(model.layers[2])
    file = io.BytesIO()
    torch.save(model, file, pickle_module=backend)
    file.seek(0)
    loaded = torch.load(file, pickle_module=backend, weights_only=False)
    assert loaded.layers[1].sibling() is loaded.layers[2]
    assert_resumes_exactly(model, loaded)


@on_torch
def test_torch_module_in_a_keras_model_resumes_exactly() -> None:
    import torch

    model = keras.Sequential([keras.Input((4,)), layers.TorchModuleWrapper(torch.nn.Linear(4, 3))])
    model.compile("adam", "mse")
    fit(model, 1)
    loaded = copied(model)
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]
    for variable in loaded.trainable_variables:
        assert any(variable.value is parameter for parameter in loaded.parameters())
    assert_resumes_exactly(model, loaded)


WRITER = """
    import json, sys, weakref
    import keras, numpy as np, safepickle

    class Vocabulary:
        def __init__(self):
            self.words = ["a", "b"]

    class Scale(keras.layers.Layer):
        def __init__(self, activation, vocabulary):
            super().__init__()
            self.activation = activation
            self.vocabulary_ref = weakref.ref(vocabulary)

        def build(self, input_shape):
            self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

        def call(self, inputs):
            return self.activation(inputs * self.scale)

    class Far(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="far")
            self.count = self.add_variable(shape=(), initializer="zeros", name="count")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.count.assign(self.count + keras.ops.sum(keras.ops.cast(abs(y_true - y_pred) > 1, "float32")))

        def result(self):
            return self.count + 0

    class Quartic(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean((y_true - y_pred) ** 4, axis=-1)

    keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")
    vocabulary = Vocabulary()
    model = keras.Sequential([
        keras.Input((4,)),
        Scale(lambda value: keras.ops.tanh(value), vocabulary),
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(3),
    ])
    model.vocabulary = vocabulary
    model.compile(keras.optimizers.Adam(0.01), Quartic(), metrics=[Far()])
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    safepickle.dump(model, sys.argv[1])
    predicted = model.predict(x, verbose=0)
    history = model.fit(x, y, epochs=3, shuffle=False, verbose=0).history
    json.dump([predicted.tolist(), history], open(sys.argv[2], "w"))
"""

READER = """
    import json, sys
    import keras, numpy as np, safepickle

    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")
    model = safepickle.load(sys.argv[1])
    assert model.layers[0].vocabulary_ref() is model.vocabulary
    predicted = model.predict(x, verbose=0)
    history = model.fit(x, y, epochs=3, shuffle=False, verbose=0).history
    json.dump([predicted.tolist(), history], open(sys.argv[2], "w"))
"""


def run(program: str, *arguments: object) -> None:
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr


def test_resume_is_exact_in_a_process_that_never_saw_the_classes(tmp_path: Path) -> None:
    run(WRITER, tmp_path / "model.pkl", tmp_path / "expected.json")
    run(READER, tmp_path / "model.pkl", tmp_path / "found.json")
    expected = json.loads((tmp_path / "expected.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == expected
    assert expected[1]["far"][0] > 0


@pytest.mark.skipif(BACKEND == "torch", reason="test_pages.py runs them on this backend")
def test_examples_of_the_page_run_as_printed_from_a_file(tmp_path: Path) -> None:
    [example] = examples(ROOT / "docs" / "keras.md")
    example.run(tmp_path)


def test_distributed_model_is_refused_with_the_way_out() -> None:
    tensorflow = pytest.importorskip("tensorflow")
    if BACKEND != "tensorflow":
        pytest.skip("only the TensorFlow backend has this")
    with tensorflow.distribute.MirroredStrategy(["cpu:0"]).scope():
        model = sequential()
    with pytest.raises(TypeError, match=r"belongs to a tf.distribute strategy.*Save the model with model.save\(\)"):
        safepickle.dumps(model)
