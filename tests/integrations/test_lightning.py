"""Lightning: a run that is interrupted and resumed through `SafePickleIO`, and modules saved whole."""

from __future__ import annotations

import gc
import io
import linecache
import pickle
import subprocess
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import cloudpickle
import dill
import lightning.pytorch as lightning
import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

import safepickle
from engine_objects import Node, tree
from safepickle.integrations.lightning import SafePickleIO

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended:UserWarning"),
]


class Regression(lightning.LightningModule):
    def __init__(self, activation: Any, plan: Node) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.activation = activation
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 1)
        self.tied = weakref.ref(self.first.weight)
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(self.second(self.activation(self.first(x))), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]


class History(lightning.Callback):
    """Keeps its best entry by weak reference, beside the list that owns it."""

    def __init__(self) -> None:
        self.entries: list[Node] = []
        self.best: Any = None

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.entries.append(Node(f"epoch {trainer.current_epoch}"))
        self.best = weakref.ref(self.entries[0])

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "entries": self.entries}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.entries = state["best"], state["entries"]


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 3, generator=generator)
    return DataLoader([(row, row.sum()[None]) for row in x], batch_size=4)


def trainer(folder: Path, epochs: int, plugin: Any, *callbacks: Any) -> Any:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        plugins=[plugin],
        callbacks=[ModelCheckpoint(dirpath=folder, save_last=True), *callbacks],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def model() -> Regression:
    torch.manual_seed(0)
    return Regression(lambda x: torch.tanh(x) * 2, tree())


def test_an_interrupted_run_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    whole = model()
    trainer(tmp_path / "whole", 4, SafePickleIO(), History()).fit(whole, data())

    first = model()
    trainer(tmp_path / "parts", 2, SafePickleIO(), History()).fit(first, data())
    second, history = model(), History()
    checkpoint = tmp_path / "parts" / "last.ckpt"
    trainer(tmp_path / "parts", 4, SafePickleIO(), history).fit(second, data(), ckpt_path=checkpoint)

    assert len(whole.losses) == 12
    assert first.losses + second.losses == whole.losses
    assert [entry.name for entry in history.entries] == [f"epoch {epoch}" for epoch in range(4)]
    assert history.best() is history.entries[0]


def test_hyper_parameters_come_back_with_their_weak_references(tmp_path: Path) -> None:
    trainer(tmp_path, 1, SafePickleIO()).fit(model(), data())
    loaded = SafePickleIO().load_checkpoint(tmp_path / "last.ckpt")
    plan = loaded["hyper_parameters"]["plan"]
    assert plan.children[0].parent() is plan
    assert loaded["hyper_parameters"]["activation"](torch.tensor(0.0)) == 0


def test_load_from_checkpoint_builds_the_module_anew(tmp_path: Path) -> None:
    trained = model()
    trainer(tmp_path, 1, SafePickleIO()).fit(trained, data())
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        Regression.load_from_checkpoint(tmp_path / "last.ckpt")
    rebuilt = Regression.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert rebuilt.hparams["plan"].children[0].parent() is rebuilt.hparams["plan"]
    assert rebuilt.activation(torch.tensor(0.0)) == 0
    assert rebuilt.tied() is rebuilt.first.weight
    assert torch.equal(rebuilt.first.weight, trained.first.weight)


def test_the_stock_plugin_refuses_them(tmp_path: Path) -> None:
    from lightning.fabric.plugins import TorchCheckpointIO

    plugin = SafePickleIO()
    module = model()
    trainer(tmp_path, 1, plugin).fit(module, data())
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError), match="pickle"):
        TorchCheckpointIO().save_checkpoint(plugin.load_checkpoint(tmp_path / "last.ckpt"), tmp_path / "stock.ckpt")
    module.trainer = None
    del plugin
    gc.collect()
    with pytest.warns(UserWarning, match="removed from hparams because it cannot be pickled"):
        trainer(tmp_path / "stock", 1, TorchCheckpointIO()).fit(module, data())


@pytest.mark.parametrize("finalizers", ["dead", "rearm"])
def test_finalizers_of_a_checkpoint_are_what_the_plugin_says(finalizers: Any, tmp_path: Path) -> None:
    plan = Node("root")
    watched = weakref.finalize(plan, print)
    plugin = SafePickleIO(finalizers=finalizers)
    plugin.save_checkpoint({"plan": plan, "watched": watched}, tmp_path / "last.ckpt")
    loaded = plugin.load_checkpoint(tmp_path / "last.ckpt")
    assert loaded["watched"].alive is (finalizers == "rearm")
    loaded["watched"].detach()
    watched.detach()


def test_a_failed_save_leaves_the_last_checkpoint_standing(tmp_path: Path) -> None:
    plugin = SafePickleIO(weakrefs="strict")
    plugin.save_checkpoint({"epoch": 1}, tmp_path / "deep" / "last.ckpt")
    gone_elsewhere = Node("outside")
    with pytest.raises(safepickle.WeakReferenceError, match="Node"):
        plugin.save_checkpoint({"seen": weakref.ref(gone_elsewhere)}, tmp_path / "deep" / "last.ckpt")
    assert plugin.load_checkpoint(tmp_path / "deep" / "last.ckpt") == {"epoch": 1}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["last.ckpt"]
    plugin.remove_checkpoint(tmp_path / "deep" / "last.ckpt")
    plugin.remove_checkpoint(tmp_path / "deep" / "last.ckpt")
    assert not list((tmp_path / "deep").iterdir())


def test_missing_files_and_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SafePickleIO().load_checkpoint(tmp_path / "nowhere.ckpt")
    with pytest.raises(TypeError, match="has no storage options"):
        SafePickleIO().save_checkpoint({}, tmp_path / "a.ckpt", storage_options={})


def test_remote_file_systems_work() -> None:
    plugin = SafePickleIO()
    node = tree()
    plugin.save_checkpoint({"plan": node}, "memory://runs/1/last.ckpt")
    loaded = plugin.load_checkpoint("memory://runs/1/last.ckpt")
    assert loaded["plan"].children[0].parent() is loaded["plan"]
    plugin.remove_checkpoint("memory://runs/1/last.ckpt")
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt"):
        plugin.load_checkpoint("memory://runs/1/last.ckpt")


def test_a_plugin_that_was_sent_to_another_process_keeps_hyper_parameters() -> None:
    plugin = pickle.loads(pickle.dumps(SafePickleIO(weights_only=True)))
    assert lightning.utilities.parsing.is_picklable(lambda x: x)
    del plugin
    gc.collect()
    assert not lightning.utilities.parsing.is_picklable(lambda x: x)


def test_fabric_saves_and_loads_with_it(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", plugins=[SafePickleIO()])
    network = fabric.setup(nn.Linear(2, 2))
    state = {"model": network, "plan": tree(), "step": 7}
    fabric.save(tmp_path / "fabric.ckpt", state)
    expected = network.weight.clone()
    with torch.no_grad():
        network.weight.zero_()
    state |= {"plan": None, "step": 0}
    fabric.load(tmp_path / "fabric.ckpt", state)
    assert state["step"] == 7
    assert state["plan"].children[0].parent() is state["plan"]
    assert torch.equal(network.weight, expected)


def test_weights_only_reads_what_is_plain(tmp_path: Path) -> None:
    plugin = SafePickleIO(weights_only=True)
    owner = Node("gone")
    dead = weakref.ref(owner)
    del owner
    plugin.save_checkpoint({"state_dict": {"w": torch.ones(2)}, "dead": dead}, tmp_path / "a.ckpt")
    assert plugin.load_checkpoint(tmp_path / "a.ckpt")["dead"].reason == "dead"
    plugin.save_checkpoint({"plan": tree()}, tmp_path / "b.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        plugin.load_checkpoint(tmp_path / "b.ckpt")
    assert plugin.load_checkpoint(tmp_path / "b.ckpt", weights_only=False)["plan"].name == "root"


def test_a_load_leaves_the_safe_globals_as_they_were(tmp_path: Path) -> None:
    plugin = SafePickleIO()
    plugin.save_checkpoint({"epoch": 1}, tmp_path / "plain.ckpt")
    registered = torch.serialization.get_safe_globals()
    try:
        for before in ([], [safepickle.Tombstone]):
            with torch.serialization.safe_globals(before):
                known = set(torch.serialization.get_safe_globals())
                plugin.load_checkpoint(tmp_path / "plain.ckpt", weights_only=True)
                assert set(torch.serialization.get_safe_globals()) == known
    finally:
        # Leaving the block has forgotten what other tests have registered.
        torch.serialization.add_safe_globals(registered)


def test_the_other_package_takes_the_plugin_too() -> None:
    program = (
        "import pytorch_lightning\n"
        "from safepickle.integrations.lightning import SafePickleIO\n"
        "trainer = pytorch_lightning.Trainer(plugins=[SafePickleIO()], logger=False, accelerator='cpu')\n"
        "assert isinstance(trainer.strategy.checkpoint_io, SafePickleIO)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, capture_output=True)


def test_without_lightning_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    room = sys.modules["safepickle.integrations.lightning"]
    monkeypatch.setattr(room, "_PACKAGES", ("no_such_lightning.fabric", "no_such_lightning_fabric"))
    with pytest.raises(ModuleNotFoundError, match="pip install lightning"):
        room._checkpoint_io_classes()


def save_whole(module: Any) -> tuple[Any, int]:
    file = io.BytesIO()
    torch.save(module, file, pickle_module=safepickle)
    file.seek(0)
    return torch.load(file, weights_only=False), len(file.getvalue())


def test_a_module_saves_whole_beside_its_live_trainer(tmp_path: Path) -> None:
    module = model()
    running = trainer(tmp_path, 1, SafePickleIO(), History())
    running.fit(module, data())
    assert module._trainer is running
    loaded, size = save_whole(module)
    assert loaded._trainer is None
    assert loaded.tied() is loaded.first.weight
    assert loaded.losses == module.losses
    assert size < 20_000
    assert safepickle.loads(safepickle.dumps(module)).tied is not None
    assert module._trainer is running


@pytest.mark.parametrize("held", ["weakly", "strongly"])
def test_a_module_saves_whole_beside_its_live_fabric(held: str) -> None:
    fabric = Fabric(accelerator="cpu")
    fabric.ballast = nn.Linear(300, 300)
    module = model()
    if held == "weakly":
        module.fabric = fabric
        assert type(module._fabric) in weakref.ProxyTypes
    else:
        module._fabric = fabric
    for loaded, size in (save_whole(module), (safepickle.loads(safepickle.dumps(module)), 0)):
        assert loaded.fabric is None
        assert loaded.tied() is loaded.first.weight
        assert size < 20_000
        with pytest.raises(RuntimeError, match="is not attached to a `Trainer`"):
            _ = loaded.trainer
    assert module._fabric is not None


def test_a_module_saves_whole_after_its_fabric_is_gone() -> None:
    module = nn.Sequential(lightning.LightningModule())
    fabric = Fabric(accelerator="cpu")
    module[0].fabric = fabric
    del fabric
    gc.collect()
    for pickler in (pickle, cloudpickle):
        with pytest.raises(ReferenceError, match="weakly-referenced object"):
            pickler.dumps(module)
    for pickler in (pickle, cloudpickle, dill):
        with pytest.raises(ReferenceError, match="weakly-referenced object"):
            torch.save(module, io.BytesIO(), pickle_module=pickler)
    loaded, _ = save_whole(module)
    assert loaded[0].fabric is None
    assert loaded[0].training


class SaysItself(lightning.LightningModule):
    def __reduce__(self) -> Any:
        return SaysItself, ()


def test_a_module_that_says_how_it_is_pickled_is_obeyed() -> None:
    assert type(safepickle.loads(safepickle.dumps(SaysItself()))) is SaysItself


class Watch(lightning.Callback):
    """Refers to what is in no checkpoint: at each of its epochs to the next of some objects."""

    def __init__(self, *watched: Node) -> None:
        self.watched = watched
        self.epoch = 0

    def state_dict(self) -> dict[str, Any]:
        self.epoch += 1
        return {"watched": weakref.ref(self.watched[min(self.epoch, len(self.watched)) - 1])}


def warnings_of_a_run(folder: Path, plugin: SafePickleIO, callback: Watch) -> list[str]:
    """Train for three epochs, with a checkpoint each, and return the lines that warnings point at."""
    run = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        plugins=[plugin],
        callbacks=[callback, ModelCheckpoint(dirpath=folder, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", safepickle.WeakReferenceWarning)
        run.fit(Regression(torch.tanh, tree()), data())
    assert callback.epoch == len(list(folder.glob("*.ckpt"))) == 3
    lost = [entry for entry in caught if issubclass(entry.category, safepickle.WeakReferenceWarning)]
    assert {entry.message.paths for entry in lost} <= {("$['callbacks']['Watch']['watched']",)}  # type: ignore[union-attr]
    return [linecache.getline(entry.filename, entry.lineno).strip() for entry in lost]


def test_a_run_warns_once_of_the_same_object_and_points_at_fit(tmp_path: Path) -> None:
    plugin, watched = SafePickleIO(), Node("watched")
    line = "run.fit(Regression(torch.tanh, tree()), data())"
    assert warnings_of_a_run(tmp_path / "first", plugin, Watch(watched)) == [line]
    assert warnings_of_a_run(tmp_path / "again", plugin, Watch(watched)) == []
    assert warnings_of_a_run(tmp_path / "another", SafePickleIO(), Watch(watched)) == [line]
    assert warnings_of_a_run(tmp_path / "next", plugin, Watch(watched, Node("new"), Node("newer"))) == [line] * 2
    sent = pickle.loads(pickle.dumps(plugin))
    assert warnings_of_a_run(tmp_path / "sent", sent, Watch(watched)) == [line]
    alive = weakref.ref(watched)
    del watched
    gc.collect()
    assert alive() is None
