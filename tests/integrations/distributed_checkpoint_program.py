"""What each of the two processes of `test_distributed_checkpoint` runs."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import safepickle
from engine_objects import tree
from safepickle.integrations.distributed_checkpoint import (
    SafePickleLoadPlanner,
    SafePickleSavePlanner,
    SafePickleStager,
)
from safepickle.integrations.torch import ExtraState


class Net(ExtraState, nn.Module):
    """A model with weak references and a lazily initialised tensor in its extra state."""

    extra_state = ("tree", "p", "activation")

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)
        self.tree: Any = None
        self.p: Any = None
        self.activation: Any = None


def trained() -> Net:
    torch.manual_seed(0)
    net = Net()
    net.tree = tree()
    net.p = torch.arange(5.0)
    net.activation = lambda x: x * 3
    return net


def state_of(net: Net) -> dict[str, Any]:
    return {"model": net.state_dict(), "epoch": 3, "callback": tree(), "history": [1, {"loss": 0.5}]}


def check(state: dict[str, Any]) -> None:
    """Check a state dict that was loaded into a fresh model's, which must then be right."""
    net = Net()
    net.load_state_dict(
        {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in state["model"].items()}
    )
    expected = trained()
    assert torch.equal(net.linear.weight, expected.linear.weight)
    assert torch.equal(net.linear.bias, expected.linear.bias)
    assert torch.equal(net.p, expected.p)
    assert net.activation(2) == 6
    assert net.tree.name == "root"
    assert net.tree.children[0].parent() is net.tree
    assert (state["epoch"], state["history"]) == (3, [1, {"loss": 0.5}])
    assert state["callback"].children[0].parent() is state["callback"]


def fresh() -> dict[str, Any]:
    return {"model": Net().state_dict(), "epoch": 0, "callback": None, "history": [0, {"loss": 0.0}]}


def shard(state: dict[str, Any], mesh: Any) -> dict[str, Any]:
    for key in ("linear.weight", "linear.bias"):
        state["model"][key] = distribute_tensor(state["model"][key], mesh, [Shard(0)])
    return state


def main(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    net = trained()
    state = shard(state_of(net), mesh)
    # A sharded tensor is one of those that take torch's own reduce value, and so does its mesh.
    copied = safepickle.loads(safepickle.dumps(state["model"]["linear.weight"]))
    assert torch.equal(copied.to_local(), state["model"]["linear.weight"].to_local())
    dcp.save(state, checkpoint_id=f"{folder}/sync", planner=SafePickleSavePlanner())

    for name, stager in (("staged", SafePickleStager()), ("async", None)):
        if stager is None:
            # Without the stager, extra states are all that may hold weak references.
            state["callback"] = None
        saving = dcp.async_save(
            state, checkpoint_id=f"{folder}/{name}", planner=SafePickleSavePlanner(), async_stager=stager
        )
        # Training goes on at once, and must not show in the checkpoint.
        for key in ("linear.weight", "linear.bias"):
            state["model"][key].to_local().zero_()
        net.tree.name = "changed"
        net.p.zero_()
        saving.result()
        if stager is not None:
            stager.close()
        net = trained()
        state = shard(state_of(net), mesh)

    for name in ("sync", "staged"):
        loaded = shard(fresh(), mesh)
        dcp.load(loaded, checkpoint_id=f"{folder}/{name}", planner=SafePickleLoadPlanner())
        assert loaded["model"]["linear.weight"].to_local().shape == (4, 6)
        check(loaded)
    with torch.device("meta"):
        unsharded = fresh()
    dcp.load(unsharded, checkpoint_id=f"{folder}/sync", planner=SafePickleLoadPlanner())
    check(unsharded)
    dist.destroy_process_group()


if __name__ == "__main__":
    # Imported by its name, so that its classes are pickled by reference.
    from distributed_checkpoint_program import main as run

    run(int(sys.argv[1]), sys.argv[2])
    sys.stdout.flush()
    # Without the end of the interpreter: torch's gloo threads may drop a tensor meanwhile, which aborts the process.
    os._exit(0)
