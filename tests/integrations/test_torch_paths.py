"""Paths in errors of torch.save."""

from __future__ import annotations

import io
import pickle
import weakref
from typing import Any

import pytest
import torch

import safepickle
from nodes import Offender


def model_with(offender: Any) -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2)}))
    model[1]["encoder"].config = {"hook": [offender]}
    return model


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save_says_where_it_failed(zipped: bool) -> None:
    offender = Offender()
    model = model_with(offender)
    with pytest.raises(ValueError, match="not today") as caught:
        torch.save({"model": model}, io.BytesIO(), pickle_module=safepickle, _use_new_zipfile_serialization=zipped)
    assert caught.value.pickle_path == "$['model'][1]['encoder'].config['hook'][0]"  # type: ignore[attr-defined]
    assert "$['model'][1]['encoder'].config['hook'][0]" in caught.value.__notes__[0]


def test_dumps_says_where_it_failed_with_submodules_named_as_one_types_them() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = model_with(Offender())

    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps(Net())
    path = "$.encoder[1]['encoder'].config['hook'][0]"
    assert caught.value.pickle_path == path  # type: ignore[attr-defined]


def test_strict_policy_says_where_through_torch_save() -> None:
    owner = torch.nn.Linear(1, 1)
    model = model_with(weakref.ref(owner))
    backend = safepickle.backend(weakrefs="strict")
    with pytest.raises(pickle.PicklingError, match=r"at \$\[1\]\['encoder'\]\.config\['hook'\]\[0\]: its referent"):
        torch.save(model, io.BytesIO(), pickle_module=backend)


@pytest.mark.parametrize("write", ["torch.save", "dumps"])
def test_paths_in_a_file_are_those_in_the_module(write, tmp_path):
    model = torch.nn.Module()
    model.blocks = torch.nn.ModuleList([torch.nn.Linear(1, 1)])
    model.named = torch.nn.ModuleDict({"a b": torch.nn.Linear(1, 1)})
    model.seq = torch.nn.Sequential(torch.nn.Linear(1, 1))
    model.register_buffer("steps", torch.ones(1))
    path = tmp_path / "model.pt"
    if write == "dumps":
        safepickle.dump({"model": model}, path)
    else:
        torch.save({"model": model}, path, pickle_module=safepickle)
    found = {tensor.path for tensor in safepickle.inspect(path).tensors}
    assert {"$['model'].blocks[0].weight", "$['model'].named['a b'].bias", "$['model'].seq[0].weight"} <= found
    assert "$['model'].steps" in found
