"""diff of what torch, Lightning and Keras write, and of live models, one against the other."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import safepickle
from programs import run
from safepickle.report.changes import Change

Save = Any

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


def save_zip(obj: Any, path: Path) -> None:
    torch.save(obj, path)


def save_without_checksums(obj: Any, path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(obj, path)
    finally:
        torch.serialization.set_crc32_options(True)


def save_legacy(obj: Any, path: Path) -> None:
    torch.save(obj, path, _use_new_zipfile_serialization=False)


def save_plainly(obj: Any, path: Path) -> None:
    import pickle

    path.write_bytes(pickle.dumps(obj))


def save_ours(obj: Any, path: Path) -> None:
    safepickle.dump(obj, path)


SAVES = [save_zip, save_without_checksums, save_legacy, save_plainly, save_ours]


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Training:
    """A small training, whose checkpoints are what people write."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.epoch = 0

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.randn(6, 4)).square().mean().backward()
        self.optimizer.step()
        self.epoch += 1

    def checkpoint(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


@pytest.fixture
def training() -> Training:
    made = Training()
    made.step()
    return made


def found(before: Any, after: Any) -> dict[str, Change]:
    changes = safepickle.diff(before, after).changes
    return {change.where: change for change in changes if change.kind not in ("file", "global")}


@pytest.mark.parametrize("save", SAVES)
def test_two_epochs_of_a_training(save: Save, training: Training, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save(training.checkpoint(), first)
    weight = training.model[0].weight.detach().clone()
    training.step()
    training.optimizer.param_groups[0]["lr"] = 0.2
    save(training.checkpoint(), second)
    changes = found(first, second)
    assert (changes["$['epoch']"].before, changes["$['epoch']"].after) == ("1", "2")
    rate = changes["$['optimizer']['param_groups'][0]['lr']"]
    assert (rate.before, rate.after) == ("0.1", "0.2")
    step = changes["$['optimizer']['state'][0]['step']"]
    assert (step.before, step.after) == ("float32[] 1.0", "float32[] 2.0")
    after = training.model[0].weight.detach()
    elements = changes["$['model']['0.weight']"].elements
    assert elements is not None
    assert elements.changed == int((after != weight).sum())
    assert elements.largest == pytest.approx(float((after - weight).abs().max()))
    assert elements.relative == pytest.approx(float((after - weight).norm() / weight.norm()))
    assert safepickle.diff(first, first).equal_tensors == len(training.model.state_dict()) + 3 * 6
    assert safepickle.diff(first, first).same


@pytest.mark.parametrize("other", SAVES)
@pytest.mark.parametrize("save", SAVES)
def test_formats_hold_the_same(save: Save, other: Save, training: Training, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save(training.checkpoint(), first)
    other(training.checkpoint(), second)
    assert found(first, second) == {}
    training.model[2].bias.data[1] = math.inf
    other(training.checkpoint(), second)
    (change,) = found(first, second).values()
    assert change.where == "$['model']['2.bias']"
    assert change.elements is not None
    assert (change.elements.changed, change.elements.inf_appeared) == (1, 1)


def test_live_models_and_their_files(training: Training, tmp_path: Path) -> None:
    safepickle.dump(training.model, tmp_path / "model.pkl")
    torch.save(training.model, tmp_path / "model.pt")
    before = safepickle.deepcopy(training.model)
    assert safepickle.diff(training.model, before).same
    training.step()
    training.model[2].weight.requires_grad_(False)
    paths = {"$[0].weight", "$[0].bias", "$[1].weight", "$[1].bias", "$[1].running_mean", "$[1].running_var"}
    paths |= {"$[1].num_batches_tracked", "$[2].weight", "$[2].bias", "$[2].weight.requires_grad"}
    for earlier in (before, tmp_path / "model.pkl", tmp_path / "model.pt"):
        assert found(earlier, training.model).keys() == paths


def test_shared_tensors_are_told_once_at_their_first_path(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with torch.no_grad():
        model.head.weight += 1
    torch.save(model.state_dict(), tmp_path / "b.pt")
    assert list(found(tmp_path / "a.pt", tmp_path / "b.pt")) == ["$['embedding.weight']"]


DTYPES = [
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
]


@pytest.mark.parametrize("save", [save_zip, save_ours])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_compared_by_value(dtype: str, save: Save, tmp_path: Path) -> None:
    before = torch.tensor([0.0, 1.0, 1.0, 1.0]).to(getattr(torch, dtype))
    after = torch.tensor([1.0, 1.0, 1.0, 1.0]).to(getattr(torch, dtype))
    save([before], tmp_path / "a")
    save([after], tmp_path / "b")
    (change,) = found(tmp_path / "a", tmp_path / "b").values()
    assert change.before == f"{dtype}[4]"
    assert change.elements is not None
    assert (change.elements.changed, change.elements.largest) == (1, 1.0)
    assert change.elements.relative == pytest.approx(1 / math.sqrt(3))


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
def test_numbers_that_numpy_has_not_are_those_of_torch(dtype: str) -> None:
    from safepickle.report.element_blocks import _decoder

    kind = getattr(torch, dtype)
    codes = torch.arange(1 << (8 * kind.itemsize)).to(torch.uint16 if kind.itemsize == 2 else torch.uint8)
    made = _decoder(dtype)(codes.numpy()).astype(np.float32)
    assert np.array_equal(made, codes.view(kind).to(torch.float32).numpy(), equal_nan=True)


def test_files_of_machines_with_another_byte_order_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {
        name: torch.arange(6).to(getattr(torch, name)).view(2, 3).T
        for name in ("uint8", "int16", "bfloat16", "float32", "int64", "complex64", "complex128")
    }
    path = tmp_path / "big.pt"
    with monkeypatch.context() as machine:
        machine.setattr("sys.byteorder", "big")
        torch.save({**tensors, "epoch": torch.tensor(3 << 56)}, path)
    loaded = torch.load(path)
    assert int(loaded["epoch"]) == 3
    assert safepickle.diff(path, loaded).same
    assert {entry.path: entry.value for entry in safepickle.inspect(path).values} == {"$['epoch']": 3}
    changed = found(path, {**loaded, "int16": loaded["int16"] + 1})["$['int16']"].elements
    assert changed is not None
    assert (changed.changed, changed.largest) == (6, 1.0)


def test_views_of_every_kind_show_their_own_elements(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    parts = torch.arange(24.0).view(12, 2)
    views = {
        "transposed": base.view(4, 6).t(),
        "column": base.view(4, 6)[:, 2],
        "step": base[::5],
        "offset": base[3:7],
        "expanded": base[:1].expand(3, 2),
        "conjugate": torch.view_as_complex(parts).conj(),
        "negative": torch.view_as_complex(parts.clone()).conj().imag,
        "empty": base[:0],
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(3, device="meta"),
        "quantized": torch.quantize_per_tensor(base, 0.5, 0, torch.qint8),
    }
    copies = {name: view.clone() if name != "meta" else view for name, view in views.items()}
    for save in (save_zip, save_ours):
        save(views, tmp_path / "a")
        save(copies, tmp_path / "b")
        assert {where for where, change in found(tmp_path / "a", tmp_path / "b").items() if change.elements} == set()
    base += 1
    parts += 1
    unchanged = {f"$[{name!r}]" for name in ("negative", "empty", "sparse", "rows", "meta", "quantized")}
    changed = found(tmp_path / "b", views)
    assert changed.keys() == {f"$[{name!r}]" for name in views} - unchanged
    views["sparse"] = torch.eye(3).mul(2).to_sparse()
    assert found(copies, copies | {"sparse": views["sparse"]}).keys() == {"$['sparse']._values()"}


def test_safetensors_is_compared_with_the_weights_of_a_checkpoint(training: Training, tmp_path: Path) -> None:
    state = training.model.state_dict()
    state["half"] = torch.arange(4).to(torch.bfloat16)
    write_safetensors(state, tmp_path / "model.safetensors")
    torch.save({"epoch": 1, "state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "a.pt")
    result = safepickle.diff(tmp_path / "model.safetensors", tmp_path / "a.pt")
    assert [change.where for change in result.changes] == ["format"]
    assert result.equal_tensors == len(state)
    assert "$['state_dict']" in str(result)
    state["half"] = state["half"].to(torch.float32)
    assert found(tmp_path / "model.safetensors", dict(state))["$['half']"].after == "float32[4]"


def test_equal_checksums_spare_reading(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000), "b": torch.zeros(3)}, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    place = data.index(torch.arange(1000).numpy().tobytes())
    (tmp_path / "b.pt").write_bytes(data[: place + 8] + b"\5" + data[place + 9 :])
    assert safepickle.diff(tmp_path / "a.pt", tmp_path / "b.pt").same
    assert not safepickle.diff(tmp_path / "b.pt", {"a": torch.arange(1000), "b": torch.zeros(3)}).same


def test_moved_classes_of_a_whole_model() -> None:
    first = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2))
    second = torch.nn.Sequential(torch.nn.Tanh(), first[1])
    changes = found(first, second)
    assert changes["$[0]"].before == "torch.nn.modules.activation.ReLU"
    assert changes["$[0]"].after == "torch.nn.modules.activation.Tanh"


MEASURE = """
import sys, tracemalloc
import numpy
import safepickle
safepickle.diff({"w": 1}, {"w": 2})
tracemalloc.start()
result = safepickle.diff(*sys.argv[1:])
peak = tracemalloc.get_traced_memory()[1]
(change,) = [change for change in result.changes if change.kind == "tensor"]
print(peak, change.elements.changed, change.elements.largest)
"""


@pytest.mark.parametrize("save", [save_without_checksums, save_legacy, save_ours])
def test_memory_does_not_grow_with_the_tensor(save: Save, tmp_path: Path) -> None:
    tensor = torch.ones(64, 1 << 17)
    save({"w": tensor}, tmp_path / "a")
    tensor[63, 5] = 3
    save({"w": tensor}, tmp_path / "b")
    peak, changed, largest = run(MEASURE, str(tmp_path / "a"), str(tmp_path / "b")).split()
    assert (int(changed), float(largest)) == (1, 2.0)
    assert int(peak) < tensor.nbytes / 2


def test_keras_archives(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.save(tmp_path / "a.keras")
    kernel, bias = model.layers[0].get_weights()
    kernel[0, 0] = np.nan
    model.layers[0].set_weights([kernel, bias])
    model.layers[1].activation = keras.activations.relu
    model.save(tmp_path / "b.keras")
    changes = found(tmp_path / "a.keras", tmp_path / "b.keras")
    (weights,) = [change for change in changes.values() if change.kind == "tensor"]
    assert "dense" in weights.where
    assert weights.elements is not None
    assert (weights.elements.changed, weights.elements.nan_appeared) == (1, 1)
    (activation,) = [change for where, change in changes.items() if where.endswith("['activation']")]
    assert (activation.before, activation.after) == ("'linear'", "'relu'")
    assert not {change.kind for change in found(tmp_path / "a.keras", tmp_path / "a.keras").values()}


def test_live_keras_models() -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, name="first")])
    other = safepickle.deepcopy(model)
    assert not [change for change in safepickle.diff(model, other).changes if change.kind == "tensor"]
    other.layers[0].bias.assign([1.0, 2.0, 3.0])
    (change,) = [change for change in safepickle.diff(model, other).changes if change.kind == "tensor"]
    assert change.elements is not None
    assert (change.elements.changed, change.elements.largest) == (3, 3.0)
