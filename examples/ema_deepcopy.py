"""An exponential moving average of a model whose layers point back at it, made with a deep copy.

Run it with `python examples/ema_deepcopy.py`; it needs torch.
"""

from __future__ import annotations

import copy
import weakref

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import safepickle


class Block(nn.Module):
    """A layer that asks its network for the scale of its output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.network = weakref.ref(network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        network = self.network()
        assert network is not None
        return self.linear(x) * network.scale


class Network(nn.Module):
    """A network that its blocks refer to."""

    # For all who copy models with `copy.deepcopy`, such as `AveragedModel`.
    __deepcopy__ = safepickle.deepcopy

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.blocks = nn.ModuleList([Block(self), Block(self)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Average:
    """A moving average: a copy of the model, drawn a little towards it after each step."""

    def __init__(self, model: nn.Module, decay: float = 0.9) -> None:
        self.model = safepickle.deepcopy(model).requires_grad_(False)
        self.decay = decay

    def update(self, model: nn.Module) -> None:
        with torch.no_grad():
            for average, parameter in zip(self.model.parameters(), model.parameters(), strict=True):
                average.lerp_(parameter, 1 - self.decay)


def main() -> None:
    torch.manual_seed(0)
    model = Network()
    average = Average(model)
    torchs_own = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    torchs_own.update_parameters(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (model(torch.randn(8, 4)) - 1).square().mean().backward()
        optimizer.step()
        average.update(model)
        torchs_own.update_parameters(model)

    for name, averaged in (("our average", average.model), ("AveragedModel", torchs_own.module)):
        print(f"{name}: blocks belong to the average: {all(block.network() is averaged for block in averaged.blocks)}")
    x = torch.ones(1, 4)
    print(f"both averages agree: {torch.allclose(average.model(x), torchs_own(x))}")

    del Network.__deepcopy__
    plain = copy.deepcopy(model)
    print(f"copy.deepcopy: blocks belong to the copy: {all(block.network() is plain for block in plain.blocks)}")


if __name__ == "__main__":
    main()
