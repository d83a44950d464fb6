"""CUDA tensors: back to their device where there is one, to the CPU where there is none, or where the caller says."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import safepickle
from nodes import round_trip
from safepickle.integrations.torch import ExtraState, load_state_dict, map_location, state_dict

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_return_to_their_device(protocol: int) -> None:
    tensor = torch.arange(6.0, device="cuda").reshape(2, 3).t()
    loaded = round_trip(tensor, protocol)
    assert loaded.device == tensor.device
    assert torch.equal(loaded, tensor)
    assert loaded.stride() == tensor.stride()


def test_modules_return_with_their_ties_and_weak_references() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5)}).cuda()
    model["head"].weight = model["embedding"].weight
    model.tied = weakref.ref(model["embedding"].weight)
    loaded = round_trip(model)
    assert loaded["head"].weight is loaded["embedding"].weight is loaded.tied()
    assert type(loaded["head"].weight) is nn.Parameter
    assert loaded["head"].weight.is_cuda
    assert torch.equal(loaded["head"].bias, model["head"].bias)


def test_views_share_one_storage_on_the_device() -> None:
    base = torch.zeros(100, device="cuda")
    head, everything = round_trip((base[:10], base))
    everything[3] = 7
    assert head[3] == 7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.bool, torch.float8_e4m3fn], ids=str)
def test_other_dtypes_survive(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0.0, 1.0, 1.0], device="cuda").to(dtype)
    loaded = round_trip(tensor)
    assert loaded.dtype is dtype
    assert bytes(loaded.cpu().untyped_storage()) == bytes(tensor.cpu().untyped_storage())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_and_attributed_tensors_survive() -> None:
    loaded = round_trip(torch.eye(3, device="cuda").to_sparse())
    assert loaded.is_cuda
    assert torch.equal(loaded.to_dense().cpu(), torch.eye(3))
    parameter = nn.Parameter(torch.ones(2, device="cuda"), requires_grad=False)
    parameter.note = "n"
    loaded = round_trip(parameter)
    assert (loaded.note, loaded.requires_grad, loaded.is_cuda) == ("n", False, True)


@pytest.mark.parametrize("location", ["cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda storage, name: storage])
def test_map_location_brings_them_to_the_cpu(location: Any) -> None:
    data = safepickle.dumps(torch.arange(3.0, device="cuda:0"))
    with map_location(location):
        loaded = safepickle.loads(data)
    assert loaded.device.type == "cpu"
    assert loaded.tolist() == [0.0, 1.0, 2.0]


def test_map_location_brings_cpu_tensors_to_the_device() -> None:
    data = safepickle.dumps(nn.Linear(2, 2))
    with map_location("cuda"):
        loaded = safepickle.loads(data)
    assert loaded.weight.is_cuda


def test_out_of_band_buffers_hold_the_data_of_the_device() -> None:
    buffers: list[pickle.PickleBuffer] = []
    tensor = torch.arange(1000.0, device="cuda")
    data = safepickle.dumps(tensor, buffer_callback=buffers.append)
    assert len(data) < 500
    assert torch.equal(safepickle.loads(data, buffers=buffers), tensor)


def test_a_machine_without_the_device_loads_to_the_cpu(tmp_path: Path) -> None:
    safepickle.dump(nn.Linear(2, 2).cuda(), tmp_path / "model.pkl")
    program = (
        "import safepickle, torch\n"
        "assert not torch.cuda.is_available()\n"
        f"model = safepickle.load({str(tmp_path / 'model.pkl')!r})\n"
        "assert model.weight.device.type == 'cpu' and model(torch.ones(2)).shape == (2,)"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=240)


def test_torch_save_maps_locations_as_ever() -> None:
    model = nn.Linear(2, 2).cuda()
    model.tied = weakref.ref(model.weight)
    file = io.BytesIO()
    torch.save(model, file, pickle_module=safepickle)
    file.seek(0)
    loaded = torch.load(file, weights_only=False, map_location="cpu")
    assert loaded.weight.device.type == "cpu"
    assert loaded.tied() is loaded.weight


class Lazy(ExtraState, nn.Module):
    extra_state = ("p",)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.p: torch.Tensor | None = None


@pytest.mark.parametrize(("source", "target"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_lazily_initialised_tensors_arrive_on_the_modules_device(source: str, target: str) -> None:
    saved, model = Lazy().to(source), Lazy().to(target)
    saved.p = torch.ones(3, device=source)
    load_state_dict(model, saved.state_dict())
    assert model.p.device.type == target
    assert model.p.sum() == 3


def test_weakly_held_buffers_are_resolved_on_the_device() -> None:
    mean = torch.ones(3, device="cuda")
    model = nn.Module()
    model.register_buffer("mean", weakref.proxy(mean))
    assert state_dict(model)["mean"].is_cuda
