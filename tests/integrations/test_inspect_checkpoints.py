"""What `inspect` tells of checkpoints as torch, Lightning, Keras and joblib write them, held against the libraries."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import keras
import lightning
import numpy as np
import pytest
import torch

import safepickle
from safepickle.report.inspection import Inspection


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(Block(), Block())
        self.head = torch.nn.Linear(20, 50)
        self.embedding = torch.nn.Embedding(50, 20)
        self.head.weight = self.embedding.weight
        self.scales = torch.nn.Parameter(torch.zeros(7, dtype=torch.float16))
        self.width = 20


def trained(optimizer: str = "AdamW", steps: int = 3) -> tuple[Net, torch.optim.Optimizer]:
    net = Net()
    made = getattr(torch.optim, optimizer)(net.parameters(), lr=0.25)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(steps):
        made.step()
    return net, made


def saved(obj: Any, **options: Any) -> Inspection:
    file = io.BytesIO()
    torch.save(obj, file, **options)
    return safepickle.inspect(file.getvalue())


def counted(found: Inspection) -> dict[str, int]:
    return {count.dtype: count.elements for count in found.parameters}


def parameters_of(net: torch.nn.Module) -> dict[str, int]:
    counts: dict[str, int] = {}
    for parameter in net.parameters():
        name = str(parameter.dtype).removeprefix("torch.")
        counts[name] = counts.get(name, 0) + parameter.numel()
    return counts


def shown(found: Inspection) -> dict[str, Any]:
    return {entry.path: entry.value for entry in found.values}


@pytest.mark.parametrize("dump", [pickle.dumps, safepickle.dumps], ids=["pickle", "safepickle"])
def test_tensors_of_one_number_are_read_in_plain_pickles(dump: Callable[[Any], bytes]):
    both = torch.tensor([0.25, 8.0])
    found = safepickle.inspect(dump({"epoch": torch.tensor(3), "rate": both[0], "scale": both[1]}))
    assert shown(found) == {"$['epoch']": 3, "$['rate']": 0.25, "$['scale']": 8.0}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_says_what_a_person_asks_first(zipped: bool):
    net, optimizer = trained()
    checkpoint = {
        "epoch": 3,
        "global_step": 1200,
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": np.float64(0.25),
        "loss": torch.tensor(0.1),
        "rng_state": torch.get_rng_state(),
        "config": {"lr": 0.25, "name": "run-1", "sizes": [30, 60], "text": "x" * 1000},
    }
    found = saved(checkpoint, _use_new_zipfile_serialization=zipped)
    expected = parameters_of(net)
    expected["float32"] += 1  # the loss, which nobody can tell from a parameter
    assert counted(found) == expected
    (state,) = found.optimizers
    assert (state.path, state.kind) == ("$['optimizer']", "AdamW")
    assert state.tensors == sum(map(len, optimizer.state_dict()["state"].values()))
    assert {entry.path: entry.value for entry in found.progress} == {"$['epoch']": 3, "$['global_step']": 1200}
    values = shown(found)
    assert values["$['best']"] == 0.25
    assert values["$['config']['name']"] == "run-1"
    assert values["$['optimizer']['param_groups'][0]['lr']"] == 0.25
    assert values["$['optimizer']['param_groups'][0]['betas'][1]"] == 0.999
    assert [values[f"$['config']['sizes'][{place}]"] for place in range(2)] == [30, 60]
    assert "$['config']['text']" not in values
    assert not [path for path in values if "num_batches" in path or "metadata" in path or "['params']" in path]
    if zipped:
        assert (state.step, values["$['loss']"]) == (3.0, 0.1)
    roles = {entry.path: entry.role for entry in found.tensors}
    assert roles["$['model']['layers.0.norm.running_mean']"] == roles["$['rng_state']"] == "buffer"
    text = str(found)
    assert text.splitlines()[2].startswith(f"{sum(expected.values()):,} parameters in ")
    assert "optimizer AdamW" in text


def by_torch(obj: Any) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file)
    return file.getvalue()


@pytest.mark.parametrize("dump", [by_torch, safepickle.dumps])
def test_a_whole_module_shows_its_parts_and_none_of_its_internals(dump: Callable[[Any], bytes]):
    net, optimizer = trained()
    found = safepickle.inspect(dump([optimizer, net]))
    assert counted(found) == parameters_of(net)
    (entry,) = found.optimizers
    assert (entry.path, entry.kind, entry.step) == ("$[0]", "AdamW", 3.0)
    assert entry.tensors == sum(map(len, optimizer.state.values()))
    paths = {node.path for node in found.tree}
    assert {"$[1].layers", "$[1].head"} <= paths
    assert not [path for path in paths if "._" in path or "hooks" in path or path.endswith(".training")]
    assert "$[1].layers[0].conv1.weight" in {tensor.path for tensor in found.tensors}
    deep = safepickle.inspect(dump([{"run": {"trainer": [optimizer]}}, net]))
    assert counted(deep) == counted(found)
    assert [tensor.path for tensor in deep.tensors if tensor.role == "parameter"] == [
        tensor.path for tensor in found.tensors if tensor.role == "parameter"
    ]
    assert shown(found)["$[1].width"] == 20
    for path in shown(found):
        assert eval(path.replace("$", "root"), {"root": [optimizer, net]}) == shown(found)[path]


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
    ),
)
def test_every_optimizer_of_torch_is_known_by_its_state(name: str):
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = getattr(torch.optim, name)([parameter])
    (entry,) = saved(optimizer.state_dict()).optimizers
    assert (entry.path, entry.kind) == ("$", name)


class Module(lightning.LightningModule):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.linear = torch.nn.Linear(4, width)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.linear(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_checkpoint_is_known_by_its_keys(tmp_path: Path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=2, enable_checkpointing=False, default_root_dir=tmp_path, **quiet)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(4, 4)), batch_size=2)
    module = Module()
    trainer.fit(module, data)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    found = safepickle.inspect(path)
    assert found.facts == {"Lightning": lightning.__version__}
    assert counted(found) == parameters_of(module)
    assert {entry.path: entry.value for entry in found.progress} == {"$['epoch']": 2, "$['global_step']": 4}
    (entry,) = found.optimizers
    assert (entry.path, entry.kind, entry.step) == ("$['optimizer_states'][0]", "Adam", 4.0)
    assert shown(found)["$['hyper_parameters']['width']"] == 8


@pytest.mark.filterwarnings("ignore")
def test_keras_files_are_listed_without_keras(tmp_path: Path):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)
    for name in ("model.keras", "model.weights.h5"):
        path = tmp_path / name
        model.save(path) if name == "model.keras" else model.save_weights(path)
        found = safepickle.inspect(path)
        assert (found.format, found.verdict) == (".keras" if name == "model.keras" else "HDF5", "not_a_pickle")
        assert counted(found) == {"float32": model.count_params()}
        (entry,) = found.optimizers
        assert (entry.path, entry.step) == ("$['optimizer']", 1.0)
        assert entry.tensors == len(model.optimizer.variables)
        assert found.complete
    facts = safepickle.inspect(tmp_path / "model.keras").facts
    assert (facts["keras version"], facts["model"], facts["optimizer"]) == (keras.__version__, "Sequential", "Adam")


def test_a_file_of_joblib_is_named_with_what_it_imports(tmp_path: Path):
    path = tmp_path / "model.joblib"
    joblib.dump({"weights": np.zeros(1000), "net": Net()}, path)
    found = safepickle.inspect(path)
    assert (found.format, found.verdict, found.complete) == ("joblib", "refused", False)
    assert "joblib.numpy_pickle:NumpyArrayWrapper" in {use.name for use in found.globals}
    assert "runs what it says" in str(found)
