"""Deep copies of Keras objects: trained, compiled, with weak references inside."""

from __future__ import annotations

import weakref
from typing import Any

import keras
import numpy as np
import pytest

import safepickle

VALUES, TARGETS = np.ones((8, 3)), np.ones((8, 1))


def outputs_agree(ours: Any, theirs: Any) -> bool:
    return np.array_equal(*(model(VALUES).detach().numpy() for model in (ours, theirs)))


def iterations_of(optimizer: Any) -> int:
    return int(optimizer.iterations.value.item())


@pytest.fixture(scope="module")
def trained() -> Any:
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dropout(0.1), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    model.fit(VALUES, TARGETS, epochs=2, verbose=0)
    model.owner_ref = weakref.ref(model)
    model.layers[0].parents = (weakref.ref(model),)
    return model


def test_trained_model_goes_on_training_by_itself(trained: Any) -> None:
    copied = safepickle.deepcopy(trained)
    assert copied.owner_ref() is copied
    assert copied.layers[0].parents[0]() is copied
    assert outputs_agree(copied, trained)
    before = [weight.value.tolist() for weight in trained.weights]
    copied.fit(VALUES, TARGETS, epochs=1, verbose=0)
    assert (iterations_of(copied.optimizer), iterations_of(trained.optimizer)) == (3, 2)
    assert [weight.value.tolist() for weight in trained.weights] == before


def test_optimizer_keeps_its_iterations_and_its_slots(trained: Any) -> None:
    copied = safepickle.deepcopy(trained.optimizer)
    assert copied.built
    assert iterations_of(copied) == iterations_of(trained.optimizer)
    for ours, theirs in zip(copied.variables, trained.optimizer.variables, strict=True):
        assert ours is not theirs
        assert ours.value.tolist() == theirs.value.tolist()


def test_functional_model_and_references_to_its_layers() -> None:
    given = keras.Input((3,))
    model = keras.Model(given, keras.layers.Add()([keras.layers.Dense(2)(given), keras.layers.Dense(2)(given)]))
    model.second = weakref.ref(model.layers[1])
    reference, copied = safepickle.deepcopy([weakref.ref(model.layers[-1]), model])
    assert copied.second() is copied.layers[1]
    assert reference() is copied.layers[-1]
    assert outputs_agree(copied, model)


@pytest.mark.parametrize("make", [keras.metrics.Mean, keras.losses.MeanSquaredError, lambda: keras.layers.Dense(2)])
def test_parts_that_are_not_built(make: Any) -> None:
    part = make()
    part.owner = weakref.ref(part)
    copied = safepickle.deepcopy(part)
    assert type(copied) is type(part)
    assert copied.owner() is copied
