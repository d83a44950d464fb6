"""What the golden pickles of Keras objects hold, on the torch backend. The rule of `golden_cases` holds here, too.

The other backends have modules of their own, since a process runs on one: `cases_of` imports the right one.
"""

from __future__ import annotations

import importlib
import weakref
from typing import Any

import keras
import numpy as np

from golden_cases import Case

CASES: dict[str, Case] = {}


def model() -> Any:
    inputs = keras.Input((2,), name="inputs")
    hidden = keras.layers.Dense(2, kernel_initializer="ones", name="hidden")(inputs)
    outputs = keras.layers.Dense(1, kernel_initializer="ones", name="outputs")(keras.ops.relu(hidden))
    made = keras.Model(inputs, outputs, name="golden")
    made.layers[1].following = weakref.ref(made.layers[-1])
    made.words = {"seen", "kept"}
    made.compile(keras.optimizers.SGD(0.5, momentum=0.5), "mse", metrics=["mae"])
    made.fit(np.array([[1.0, 2.0]]), np.array([[0.0]]), verbose=0)
    for variable in made.weights:
        variable.assign(keras.ops.ones(variable.shape))
    return made


def check_model(loaded: Any) -> None:
    assert [layer.name for layer in loaded.layers] == ["inputs", "hidden", "outputs"]
    assert loaded.layers[1].following() is loaded.layers[-1]
    assert loaded.words == {"seen", "kept"}
    assert loaded.predict_on_batch(keras.ops.convert_to_tensor([[1.0, 2.0]])).tolist() == [[9.0]]
    assert int(loaded.optimizer.iterations) == 1
    loaded.fit(np.array([[1.0, 2.0]]), np.array([[9.0]]), verbose=0)
    assert int(loaded.optimizer.iterations) == 2


CASES["keras model"] = Case(model, check_model, {})


def preprocessing() -> Any:
    return keras.layers.Rescaling(0.5, offset=1.0)


def check_preprocessing(layer: Any) -> None:
    assert keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor([2.0, 4.0]))).tolist() == [2.0, 3.0]
    assert layer.backend.name == keras.backend.backend()


CASES["keras preprocessing"] = Case(preprocessing, check_preprocessing, {})


def cases_of(backend: str) -> dict[str, Case]:
    """Return the cases of the backend that Keras runs on."""
    if backend == "torch":
        return CASES
    cases: dict[str, Case] = importlib.import_module(f"golden_{backend}_cases").CASES
    return cases
