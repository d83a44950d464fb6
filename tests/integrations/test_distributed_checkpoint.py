"""Sharded checkpoints: saved by two processes, loaded by two and by one."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from distributed_checkpoint_program import Net, check, fresh, state_of, trained
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from engine_objects import Node
from safepickle.integrations.distributed_checkpoint import SafePickleLoadPlanner, SafePickleSavePlanner

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let two processes save, and load on two; return the folder with what they saved."""
    folder = tmp_path_factory.mktemp("checkpoints")
    program = Path(__file__).with_name("distributed_checkpoint_program.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [rank.communicate(timeout=240)[0].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    return folder


@pytest.mark.parametrize("name", ["sync", "staged", "async"])
def test_one_process_loads_what_two_have_saved(checkpoints: Path, name: str) -> None:
    assert len(list((checkpoints / name).glob("*.distcp"))) == 2
    state = fresh()
    dcp.load(state, checkpoint_id=checkpoints / name, planner=SafePickleLoadPlanner())
    if name == "async":
        assert state["callback"] is None
        state["callback"] = state_of(trained())["callback"]
    check(state)


def test_one_process_saves_and_loads_without_a_process_group(tmp_path: Path) -> None:
    dcp.save(state_of(trained()), checkpoint_id=tmp_path, planner=SafePickleSavePlanner())
    state = fresh()
    dcp.load(state, checkpoint_id=tmp_path, planner=SafePickleLoadPlanner())
    check(state)


def test_stock_planners_lose_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointException, match=r"pickle.*(WeakSet|weakref|lambda)"):
        dcp.save(state_of(trained()), checkpoint_id=tmp_path)


def test_values_named_whole_keep_references_between_their_parts(tmp_path: Path) -> None:
    root = Node("root")
    state = {"trees": {"root": root, "back": weakref.ref(root)}, "weight": torch.ones(2)}
    dcp.save(state, checkpoint_id=tmp_path, planner=SafePickleSavePlanner(whole=["trees"]))
    loaded: dict[str, Any] = {"trees": None, "weight": torch.zeros(2)}
    dcp.load(loaded, checkpoint_id=tmp_path, planner=SafePickleLoadPlanner(whole=["trees"]))
    assert loaded["trees"]["back"]() is loaded["trees"]["root"]
    assert loaded["weight"].eq(1).all()


def test_values_that_are_not_flattened_survive_too(tmp_path: Path) -> None:
    root = Node("root")
    planner = SafePickleSavePlanner(flatten_state_dict=False)
    dcp.save({"tree": {"root": root, "back": weakref.ref(root)}}, checkpoint_id=tmp_path, planner=planner)
    loaded: dict[str, Any] = {"tree": None}
    dcp.load(loaded, checkpoint_id=tmp_path, planner=SafePickleLoadPlanner(flatten_state_dict=False))
    assert loaded["tree"]["back"]() is loaded["tree"]["root"]


def test_the_strict_policy_is_kept(tmp_path: Path) -> None:
    outside = Node("outside")
    with pytest.raises(CheckpointException, match=r"its referent .*Node.* is not in the pickle"):
        dcp.save({"a": weakref.ref(outside)}, checkpoint_id=tmp_path, planner=SafePickleSavePlanner(weakrefs="strict"))


@pytest.mark.parametrize("finalizers", ["dead", "rearm"])
def test_finalizers_are_what_the_planner_says(finalizers: Any, tmp_path: Path) -> None:
    root = Node("root")
    watched = weakref.finalize(root, print)
    planner = SafePickleSavePlanner(finalizers=finalizers, whole=["trees"])
    dcp.save({"trees": [root, watched]}, checkpoint_id=tmp_path, planner=planner)
    loaded: dict[str, Any] = {"trees": None}
    dcp.load(loaded, checkpoint_id=tmp_path, planner=SafePickleLoadPlanner(whole=["trees"]))
    assert loaded["trees"][1].alive is (finalizers == "rearm")
    loaded["trees"][1].detach()
    watched.detach()


def test_the_state_dict_is_as_it_was_after_a_save_and_a_failed_load(tmp_path: Path) -> None:
    state = state_of(trained())
    extra = state["model"]["_extra_state"]
    dcp.save(state, checkpoint_id=tmp_path, planner=SafePickleSavePlanner())
    assert state["model"]["_extra_state"] is extra
    wrong = fresh()
    wrong["model"]["surplus"] = torch.ones(1)
    before = wrong["model"]["_extra_state"]
    with pytest.raises(CheckpointException, match="surplus"):
        dcp.load(wrong, checkpoint_id=tmp_path, planner=SafePickleLoadPlanner())
    assert wrong["model"]["_extra_state"] is before


def test_a_copy_of_an_extra_state_points_into_itself() -> None:
    net = trained()
    state = copy.deepcopy(net.state_dict())
    tree = state["_extra_state"]["attributes"]["tree"]
    assert tree is not net.tree
    assert tree.children[0].parent() is tree


def test_whole_optimizers_reshard_as_ever(tmp_path: Path) -> None:
    model = nn.Sequential(Net(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters())
    model[1](model[0].linear(torch.ones(6))).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.save(state, checkpoint_id=tmp_path, planner=SafePickleSavePlanner())
    loaded = copy.deepcopy(state)
    for entry in loaded["optimizer"]["state"].values():
        entry["exp_avg"].zero_()
    dcp.load(loaded, checkpoint_id=tmp_path, planner=SafePickleLoadPlanner())
    optimizer.load_state_dict(loaded["optimizer"])
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], state["optimizer"]["state"][0]["exp_avg"])


def test_the_planners_are_torchs() -> None:
    assert issubclass(SafePickleSavePlanner, dcp.DefaultSavePlanner)
    assert issubclass(SafePickleLoadPlanner, dcp.DefaultLoadPlanner)
    with pytest.raises(ValueError, match="weakrefs"):
        SafePickleSavePlanner(weakrefs="sometimes")  # type: ignore[arg-type]
    # Asynchronous saves may send the planner to another process.
    assert pickle.loads(pickle.dumps(SafePickleSavePlanner(whole=["a"]))).flatten_state_dict is True
    assert pickle.loads(pickle.dumps(SafePickleLoadPlanner())).allow_partial_load is False
