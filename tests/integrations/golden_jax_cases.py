"""What the golden pickles of Keras objects hold on JAX. The rule of `golden_cases` holds here, too."""

from __future__ import annotations

from typing import Any

import golden_keras_cases
import keras
import numpy as np

from golden_cases import Case

CASES: dict[str, Case] = {}

CASES["jax model"] = Case(golden_keras_cases.model, golden_keras_cases.check_model)
CASES["jax preprocessing"] = Case(golden_keras_cases.preprocessing, golden_keras_cases.check_preprocessing)


def masked() -> Any:
    tensor = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    return {"tensor": tensor, "again": tensor, "plain": keras.ops.ones(1)}


def check_masked(obj: Any) -> None:
    assert obj["tensor"] is obj["again"]
    assert obj["tensor"].tolist() == [[[1.0], [0.0]]]
    assert keras.src.backend.get_keras_mask(obj["tensor"]).tolist() == [[True, False]]
    assert obj["plain"].tolist() == [1.0]
    assert keras.src.backend.get_keras_mask(obj["plain"]) is None


CASES["jax masked"] = Case(masked, check_masked)
