"""`torch.save` and `torch.load` with safepickle as their pickle module, in every form that they have."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_ema import ExponentialMovingAverage

import safepickle
import safepickle.integrations.torch  # registers the tombstones as safe globals


class Block(nn.Module):
    def __init__(self, parent: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.owner = weakref.ref(parent)
        object.__setattr__(self, "proxy", weakref.proxy(parent))


class Model(nn.Module):
    """Parent pointers of both kinds, tied weights by reference, a cache, forward references first."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_reference: Any = None
        self.blocks = nn.ModuleList([Block(self), Block(self)])
        self.forward_reference = weakref.ref(self.blocks[1].linear.weight)
        self.cache = weakref.WeakValueDictionary({"bias": self.blocks[0].linear.bias})


def check(model: Model, original: Model) -> None:
    for block in model.blocks:
        assert block.owner() is model
        assert block.proxy.blocks is model.blocks
    assert model.forward_reference() is model.blocks[1].linear.weight
    assert model.cache["bias"] is model.blocks[0].linear.bias
    for loaded, expected in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.equal(loaded, expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("reader", [None, safepickle, safepickle.backend()], ids=["no module", "safepickle", "backend"])
@pytest.mark.parametrize("to", ["path", "buffer"])
def test_every_form_of_file_keeps_weak_references(
    zipped: bool, protocol: int, reader: Any, to: str, tmp_path: Path
) -> None:
    model = Model()
    file: Any = tmp_path / "model.pt" if to == "path" else io.BytesIO()
    torch.save(model, file, pickle_module=safepickle, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    if to == "buffer":
        file.seek(0)
    check(torch.load(file, pickle_module=reader, weights_only=False), model)


@pytest.mark.parametrize("reader", [None, safepickle], ids=["no module", "safepickle"])
def test_map_location_and_mmap_work(reader: Any, tmp_path: Path) -> None:
    model = Model()
    torch.save(model, tmp_path / "model.pt", pickle_module=safepickle)
    check(torch.load(tmp_path / "model.pt", pickle_module=reader, weights_only=False, mmap=True), model)
    moved = torch.load(tmp_path / "model.pt", pickle_module=reader, weights_only=False, map_location="meta")
    assert moved.blocks[0].linear.weight.device.type == "meta"
    assert moved.blocks[0].owner() is moved


def test_a_process_without_safepickle_loads_a_relinked_module(tmp_path: Path) -> None:
    linear = nn.Linear(2, 2)
    linear.tied = weakref.ref(linear.weight)
    torch.save(linear, tmp_path / "linear.pt", pickle_module=safepickle)
    program = (
        "import sys, torch; sys.modules['safepickle'] = None\n"
        f"linear = torch.load({str(tmp_path / 'linear.pt')!r}, weights_only=False)\n"
        "assert linear.tied() is linear.weight"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("holder", ["attribute", "submodule"])
def test_a_module_with_a_dead_proxy_saves(zipped: bool, holder: str) -> None:
    gone = nn.Linear(1, 1)
    model = nn.Linear(2, 2)
    if holder == "submodule":
        model.peer = weakref.proxy(gone)
    else:
        object.__setattr__(model, "peer", weakref.proxy(gone))
    del gone
    with pytest.raises(ReferenceError, match="weakly-referenced object no longer exists"):
        torch.save(model, io.BytesIO())
    file = io.BytesIO()
    torch.save(model, file, pickle_module=safepickle, _use_new_zipfile_serialization=zipped)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with pytest.raises(ReferenceError, match="weakly-referenced object no longer exists"):
        loaded.peer.weight  # noqa: B018
    assert torch.equal(loaded.weight, model.weight)


@pytest.mark.parametrize("first", ["model", "average"])
@pytest.mark.parametrize("through", ["torch.save", "dumps"])
def test_an_exponential_moving_average_follows_the_loaded_model(first: str, through: str) -> None:
    model = nn.Linear(2, 2)
    average = ExponentialMovingAverage(model.parameters(), decay=0.5)
    graph = {"model": model, "average": average}
    graph = {key: graph[key] for key in sorted(graph, key=first.__ne__)}
    if through == "dumps":
        loaded = safepickle.loads(safepickle.dumps(graph))
    else:
        file = io.BytesIO()
        torch.save(graph, file, pickle_module=safepickle)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
    parameters = list(loaded["model"].parameters())
    assert all(ref() is parameter for ref, parameter in zip(loaded["average"]._params_refs, parameters, strict=True))
    for one in (graph, loaded):
        with torch.no_grad():
            one["model"].weight.add_(1.0)
        one["average"].update()
    assert torch.equal(loaded["average"].shadow_params[0], average.shadow_params[0])
    assert not torch.equal(loaded["average"].shadow_params[0], model.weight)


def storages(file: io.BytesIO) -> int:
    with zipfile.ZipFile(file) as archive:
        return sum("/data/" in name for name in archive.namelist())


@pytest.mark.parametrize("weakrefs", ["relink", "strong", "tombstone"])
def test_no_storage_is_written_that_the_pickle_does_not_name(weakrefs: Any) -> None:
    outside = nn.Linear(100, 100)
    model = Model()
    graph = {"early": weakref.ref(model), "outside": weakref.ref(outside.weight), "model": model}
    file = io.BytesIO()
    backend = safepickle.backend(weakrefs=weakrefs)
    if weakrefs == "relink":
        with pytest.warns(safepickle.WeakReferenceWarning, match=r"1 to torch\.nn\.parameter\.Parameter"):
            torch.save(graph, file, pickle_module=backend)
    else:
        torch.save(graph, file, pickle_module=backend)
    assert storages(file) == 4 + (weakrefs == "strong")
    assert len(file.getvalue()) < 40_000 or weakrefs == "strong"


class Cloning:
    """Gives its pickler a new storage each time that it is asked."""

    def __init__(self) -> None:
        self.weight = torch.zeros(10)

    def __getstate__(self) -> dict[str, Any]:
        return {"weight": self.weight.clone()}


def test_a_warning_names_the_path_and_this_line_and_writes_no_storage_more() -> None:
    outside, file = nn.Linear(2, 2), io.BytesIO()
    graph = {"cloning": Cloning(), "lost": weakref.ref(outside)}
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"outside the pickle, at \$\['lost'\]\. ") as caught:
        torch.save(graph, file, pickle_module=safepickle)
    assert [entry.filename for entry in caught] == [__file__]
    assert storages(file) == 1


def test_a_child_saved_alone_leaves_its_parent_out() -> None:
    model = Model()
    object.__setattr__(model, "ballast", nn.Linear(1000, 1000))
    file = io.BytesIO()
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"2 to .*Model"):
        torch.save(model.blocks[0], file, pickle_module=safepickle)
    assert len(file.getvalue()) < 10_000
    file.seek(0)
    block = torch.load(file, weights_only=False)
    assert block.owner() is None
    assert block.owner.reason == "outside"


def test_the_strict_policy_writes_nothing() -> None:
    model = Model()
    with pytest.raises(safepickle.WeakReferenceError, match=r"Model\) is not in the pickle"):
        torch.save(model.blocks[0], io.BytesIO(), pickle_module=safepickle.backend(weakrefs="strict"))


def test_a_state_dict_with_tombstones_loads_weights_only() -> None:
    model = nn.Linear(2, 2)
    state = model.state_dict()
    owner = nn.Linear(1, 1)
    state["dead"] = weakref.ref(owner)
    del owner
    file = io.BytesIO()
    torch.save(state, file, pickle_module=safepickle)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["dead"]() is None
    assert loaded["dead"].reason == "dead"
    assert torch.equal(loaded["weight"], model.weight)


def test_a_state_dict_with_live_references_loads_weights_only() -> None:
    weight = torch.ones(2)
    state = {"early": weakref.ref(weight), "weight": weight, "proxy": weakref.proxy(weight)}
    state["gone"] = weakref.proxy(torch.ones(1))
    file = io.BytesIO()
    torch.save(state, file, pickle_module=safepickle)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["early"]() is loaded["weight"]
    assert loaded["proxy"].sum() == 2
    with pytest.raises(ReferenceError, match="weakly-referenced object no longer exists"):
        loaded["gone"].sum()


def test_a_state_dict_with_strong_copies_loads_weights_only() -> None:
    tensor = torch.ones(2)
    file = io.BytesIO()
    torch.save({"seen": weakref.ref(tensor)}, file, pickle_module=safepickle.backend(weakrefs="strong"))
    file.seek(0)
    assert torch.load(file, weights_only=True)["seen"]().eq(1).all()


def test_the_optimizer_and_the_schedule_travel_with_the_model() -> None:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model.blocks[0].linear(torch.ones(3)).sum().backward()
    optimizer.step()
    schedule.step()
    file = io.BytesIO()
    torch.save({"schedule": schedule, "optimizer": optimizer, "model": model}, file, pickle_module=safepickle)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert loaded["optimizer"].param_groups[0]["params"][0] is next(loaded["model"].parameters())
    assert loaded["schedule"].optimizer is loaded["optimizer"]
    loaded["optimizer"].step()
    loaded["schedule"].step()


def test_torch_is_imported_only_if_the_caller_did() -> None:
    program = (
        "import sys, weakref, safepickle\n"
        "safepickle.loads(safepickle.dumps({1: weakref.ref(sys.modules['weakref'])}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
