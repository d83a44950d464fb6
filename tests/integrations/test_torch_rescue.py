"""Leaves, tombstones, moved classes and placeholders in the files of torch.save."""

from __future__ import annotations

import io
import socket
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import safepickle
from safepickle.rebuild import Stub, UnpicklableTombstone

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 3)
"""


class Trainer:
    """Holds a model, and what a trainer gathers around it."""

    def __init__(self) -> None:
        self.model = nn.Linear(4, 4)
        self.lock = threading.RLock()
        self.ready = threading.Event()
        self.losses = {"train": [0.5]}
        self.names = self.losses.keys()
        self.best = weakref.ref(self.model)


def saved(obj: Any, **options: Any) -> io.BytesIO:
    """Return what torch.save writes."""
    file = io.BytesIO()
    torch.save(obj, file, pickle_module=safepickle.backend(**options))
    file.seek(0)
    return file


def loaded(file: io.BytesIO, **options: Any) -> Any:
    """Return what torch.load reads."""
    file.seek(0)
    return torch.load(file, pickle_module=safepickle.backend(**options), weights_only=False)


def test_locks_and_files_go_with_the_model() -> None:
    trainer = Trainer()
    with trainer.lock:
        restored = loaded(saved(trainer))
    assert torch.equal(restored.model.weight, trainer.model.weight)
    assert restored.best() is restored.model
    restored.losses["test"] = [0.6]
    assert list(restored.names) == ["train", "test"]
    free = threading.Thread(target=lambda: restored.lock.acquire() and restored.lock.release())
    free.start()
    free.join(timeout=10)
    assert not free.is_alive()


def test_an_unpicklable_object_does_not_cost_the_checkpoint() -> None:
    trainer: Any = Trainer()
    trainer.monitor = socket.socket()
    trainer.send = trainer.monitor.send
    trainer.batches = (number for number in range(3))
    with pytest.warns(safepickle.UnpicklableWarning, match=r"\$\.monitor: socket\.socket"):
        file = saved(trainer, unpicklable="tombstone")
    trainer.monitor.close()
    restored = loaded(file)
    assert torch.equal(restored.model.weight, trainer.model.weight)
    assert restored.best() is restored.model
    for lost in (restored.monitor, restored.send, restored.batches):
        assert type(lost) is UnpicklableTombstone
    with pytest.raises(safepickle.UnpicklableError, match=r"the socket\.socket that stood at \$\.monitor"):
        restored.monitor.recv(1)


def test_a_module_keeps_a_tombstone_through_everything_that_torch_does() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2))
    model.connection = socket.socket()
    with pytest.warns(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
        file = saved(model, unpicklable="tombstone")
    model.connection.close()
    restored = loaded(file)
    assert type(restored.connection) is UnpicklableTombstone
    restored.to(torch.float64).eval()
    assert restored(torch.ones(1, 2, dtype=torch.float64)).shape == (1, 2)
    assert "Linear" in repr(restored)
    assert set(restored.state_dict()) == {"0.weight", "0.bias"}


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of a project, with a model in it."""
    return project(monkeypatch, "old_project")


def project(monkeypatch: pytest.MonkeyPatch, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(NET, vars(module))
    return module


def test_a_model_that_moved_is_loaded_by_an_alias(old: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    net = old.Net()
    file = saved(net)
    monkeypatch.delitem(sys.modules, "old_project")
    new = project(monkeypatch, "new_project")
    restored = loaded(file, aliases={"old_project": "new_project"})
    assert type(restored) is new.Net
    assert torch.equal(restored.head.weight, net.head.weight)


@pytest.mark.parametrize("allow", [None, ["new_project:Net", nn.Linear]])
def test_a_path_to_a_torch_file_takes_aliases_too(
    old: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allow: Any
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(saved(old.Net()).getvalue())
    monkeypatch.delitem(sys.modules, "old_project")
    new = project(monkeypatch, "new_project")
    restored = safepickle.load(path, aliases={"old_project": "new_project"}, allow=allow)
    assert type(restored) is new.Net
    if allow is None:
        monkeypatch.delitem(sys.modules, "new_project")
        assert isinstance(safepickle.load(path, missing="stub"), Stub)


def test_a_model_that_vanished_is_loaded_as_a_placeholder(
    old: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = old.Net()
    file = saved({"net": net, "step": 3})
    monkeypatch.delitem(sys.modules, "old_project")
    restored = loaded(file, missing="stub")
    assert restored["step"] == 3
    assert isinstance(restored["net"], Stub)
    head = vars(restored["net"])["_modules"]["head"]
    assert type(head) is nn.Linear
    assert torch.equal(head.weight, net.head.weight)
    again = saved(restored)
    new = project(monkeypatch, "old_project")
    back = loaded(again)
    assert type(back["net"]) is new.Net
    assert torch.equal(back["net"].head.weight, net.head.weight)


def test_a_missing_model_is_an_error_that_says_where(old: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved([1, {"net": old.Net()}])
    monkeypatch.delitem(sys.modules, "old_project")
    with pytest.raises(ModuleNotFoundError, match=r"there is no module old_project.*for \$\[1\]\['net'\]"):
        loaded(file)


def test_what_changed_in_a_module_is_seen_in_its_registries() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LSTM(2, 2))
    assert safepickle.compare_attributes(model) == []
    del model[0].out_features
    (found,) = safepickle.compare_attributes(model)
    assert (found.type, found.lacking) == ("torch.nn.modules.linear.Linear", ("out_features",))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_stream_and_an_event_become_tombstones() -> None:
    graph = {"stream": torch.cuda.Stream(), "event": torch.cuda.Event(), "weights": torch.ones(3, device="cuda")}
    with pytest.warns(safepickle.UnpicklableWarning, match="2 objects could not be pickled"):
        data = safepickle.dumps(graph, unpicklable="tombstone")
    restored = safepickle.loads(data)
    assert type(restored["stream"]) is UnpicklableTombstone
    assert type(restored["event"]) is UnpicklableTombstone
    assert torch.equal(restored["weights"], graph["weights"])
