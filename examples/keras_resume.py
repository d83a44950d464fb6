"""Train a Keras model that holds weak references, save it whole, and resume it in a new process to the last bit.

The model's classes live in this program's ``__main__``, so the new process has never seen them. One layer is the one
that people ask about: it refers weakly to large data that it must not own. The data is a `safepickle.Recomputed`, so
not a row of it is in the file, and the layer works after the load.

Run it with ``KERAS_BACKEND=torch python examples/keras_resume.py``, or jax, or tensorflow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import safepickle

RESUME = """
import json, sys
import numpy as np
import safepickle

model, x, y = safepickle.load(sys.argv[1])
predicted = model.predict(x, verbose=0)
history = model.fit(x, y, epochs=3, shuffle=False, verbose=0).history
print(json.dumps([predicted.tolist(), history["loss"]]))
"""


class Table:
    """Large data, made by a function and not worth storing."""

    def __init__(self, rows: int) -> None:
        self.values = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")


class Shift(keras.layers.Layer):
    """Shifts its inputs by the mean of a table that it does not own."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table_ref: Any = weakref.ref(table)

    def call(self, inputs: Any) -> Any:
        return inputs - keras.ops.convert_to_tensor(self.table_ref().values.mean(axis=0))


class Block(keras.layers.Layer):
    """A block that knows its model."""

    def __init__(self, parent: keras.Model) -> None:
        super().__init__()
        self.parent_ref: Any = weakref.ref(parent)
        self.dense = keras.layers.Dense(16, activation="tanh")
        self.dropout = keras.layers.Dropout(0.3, seed=1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.parent_ref().scale * self.dropout(self.dense(inputs), training=training)


class Network(keras.Model):
    """Owns the blocks that know it."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.scale = 0.7
        self.shift = Shift(table)
        self.blocks = [Block(self), Block(self)]
        self.head = keras.layers.Dense(3)

    def call(self, inputs: Any, training: bool = False) -> Any:
        hidden = self.shift(inputs)
        for block in self.blocks:
            hidden = block(hidden, training=training)
        return self.head(hidden)


def main() -> None:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
    y = np.random.default_rng(2).normal(size=(64, 3)).astype("float32")
    table = safepickle.Recomputed(Table, 200_000)
    model = Network(table.value)
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.pkl"
        safepickle.dump((model, x, y), path)
        print(f"saved: {path.stat().st_size:,} bytes, and not one of the table's {table.value.values.nbytes:,}")
        command = [sys.executable, "-c", RESUME, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    predicted, losses = json.loads(done.stdout)

    expected = model.predict(x, verbose=0)
    expected_losses = model.fit(x, y, epochs=3, shuffle=False, verbose=0).history["loss"]
    print("predictions in the new process equal to the last bit:", np.array_equal(np.float32(predicted), expected))
    print("losses of three more epochs here:                    ", expected_losses)
    print("losses of three more epochs in the new process:      ", losses)
    if not np.array_equal(np.float32(predicted), expected) or losses != expected_losses:
        raise SystemExit("the new process does not go on as this one does")


if __name__ == "__main__":
    main()
