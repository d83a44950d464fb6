"""Large tensors that a load maps into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import safepickle
from safepickle.storage.alignment import ALIGNMENT, MARK


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(200, 200) for _ in range(3)])
        self.tied = self.layers[0].weight
        self.register_buffer("halves", torch.ones(2**16, dtype=torch.bfloat16))


def dumped(path: Path, obj: Any) -> Any:
    safepickle.dump(obj, path)
    assert MARK in path.read_bytes()
    return safepickle.load(path, mmap=True)


def test_a_model_is_mapped(tmp_path: Path) -> None:
    net = Net()
    loaded = dumped(tmp_path / "net.pkl", net)
    for one, other in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one, other)
        if one.nbytes >= 2**16:
            assert other.data_ptr() % ALIGNMENT == 0
    assert loaded.tied is loaded.layers[0].weight


def test_views_share_their_storage_and_can_be_written_to(tmp_path: Path) -> None:
    whole = torch.arange(2**16, dtype=torch.float32)
    loaded_whole, part = dumped(tmp_path / "x.pkl", (whole, whole[10:20]))
    part.fill_(7)
    assert loaded_whole[10:20].tolist() == [7.0] * 10
    again, _ = safepickle.load(tmp_path / "x.pkl", mmap=True)
    assert torch.equal(again, whole)


def test_an_optimizer_goes_on_with_what_is_mapped(tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())

    def step(net: Net, optimizer: Any) -> list[torch.Tensor]:
        optimizer.zero_grad()  # no pickle holds gradients
        net.layers[0](torch.ones(1, 200)).sum().backward()
        optimizer.step()
        return [parameter.detach().clone() for parameter in net.parameters()]

    step(net, optimizer)
    copy, copied_optimizer = dumped(tmp_path / "run.pkl", (net, optimizer))
    for one, other in zip(step(net, optimizer), step(copy, copied_optimizer), strict=True):
        assert torch.equal(one, other)


def test_files_of_torch_are_mapped_by_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    net = Net()
    torch.save(net, path, pickle_module=safepickle)
    loaded = safepickle.load(path, mmap=True)
    assert torch.equal(loaded.layers[1].weight, net.layers[1].weight)
    assert loaded.tied is loaded.layers[0].weight
    with torch.no_grad():
        loaded.layers[1].weight.zero_()
    assert torch.equal(safepickle.load(path, mmap=True).layers[1].weight, net.layers[1].weight)
    torch.save(net, path, pickle_module=safepickle, _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="mmap"):
        safepickle.load(path, mmap=True)
