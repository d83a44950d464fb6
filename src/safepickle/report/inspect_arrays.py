"""Files of arrays as findings of `safepickle.inspect`: a path for each name, roles, and the single numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from safepickle.report.checkpoint import ElementCounts, is_buffer, is_progress, one_number
from safepickle.report.inspect_walk import Findings
from safepickle.report.inspection import OptimizerEntry, TensorEntry, ValueEntry
from safepickle.storage.contents import Contents
from safepickle.storage.formats import HDF5, KERAS, SAFETENSORS
from safepickle.tracing.naming import join, key_edge

__all__ = ["find_arrays"]

_LIBRARIES: Final = {SAFETENSORS.name: "safetensors", HDF5.name: "HDF5", KERAS.name: "HDF5"}
_MOST_NUMBERS: Final = 100
_MOST_NAMED: Final = 10

# How Keras names its arrays: "layers/dense/vars/0" and "optimizer/vars/0"; in older files "model_weights/dense/...".
_WEIGHTS: Final = re.compile(r"(?:.+/)?vars/\d+|model_weights/.+")
_OPTIMIZER: Final = re.compile(r"(optimizer|optimizer_weights)/.+")
_STEP: Final = re.compile(r"optimizer/vars/0|optimizer_weights/\w+/iterations?")


def find_arrays(form: str, contents: Contents) -> Findings:
    """Say what a file of arrays holds.

    Args:
        form: Name of its format.
        contents: What was listed; the file is open.

    Raises:
        CannotListError: A number in it cannot be read.
    """
    found = Findings(facts=contents.facts, notes=contents.notes, complete=contents.complete)
    library = _LIBRARIES.get(form, "numpy")
    parameters = ElementCounts()
    optimizer = OptimizerEntry("", contents.facts.get("optimizer", ""), None, 0, 0)
    pickled = []
    for position, (name, array) in enumerate(contents.arrays.items()):
        # The array of an npy file has no name.
        edge = key_edge(contents.arrays, name, position) if name else ""
        path = join([edge])
        role = _role(library, name)
        found.tensors.append(TensorEntry(path, library, array.dtype, array.shape, array.nbytes, role))
        number = None
        if not array.shape and array.nbytes <= 8 and array.read is not None and len(found.values) < _MOST_NUMBERS:
            number = one_number(array.read(), array.dtype)
        if number is not None:
            found.values.append(ValueEntry(path, number))
            if is_progress(edge):
                found.progress.append(found.values[-1])
        if role == "parameter":
            parameters.add(array.dtype, array.shape, array.nbytes)
        elif role == "optimizer":
            optimizer = replace(
                optimizer,
                path=join([key_edge(contents.arrays, name.partition("/")[0], 0)]),
                step=float(number) if number is not None and _STEP.fullmatch(name) else optimizer.step,
                tensors=optimizer.tensors + 1,
                nbytes=optimizer.nbytes + array.nbytes,
            )
        if array.dtype == "object":
            pickled.append(path)
    found.parameters = parameters.entries()
    found.optimizers = [optimizer] if optimizer.tensors else []
    if pickled:
        more = f" and {len(pickled) - _MOST_NAMED:,} more" if len(pickled) > _MOST_NAMED else ""
        found.notes.append(
            f"{', '.join(pickled[:_MOST_NAMED])}{more} {'is a pickle' if len(pickled) == 1 else 'are pickles'}, "
            "which numpy runs with allow_pickle=True"
        )
    return found


def _role(library: str, name: str) -> str:
    if library == "numpy":
        return ""
    if library == "safetensors":
        return "buffer" if is_buffer(name) else "parameter"
    if _OPTIMIZER.fullmatch(name):
        return "optimizer"
    return "parameter" if _WEIGHTS.fullmatch(name) else ""
