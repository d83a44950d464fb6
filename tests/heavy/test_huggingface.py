"""Checkpoints of accelerate and of transformers' Trainer, with the objects beside the states."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import Trainer, TrainingArguments

from safepickle.integrations.huggingface import load, register, trainer_callback

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.layer.parent = weakref.ref(self)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        output = self.layer(x)
        return {"loss": output.square().mean(), "logits": output}


class Average:
    """A moving average that refers weakly to the parameters that it averages."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = weakref.proxy(model)
        self.of = {weakref.ref(parameter): parameter.detach().clone() for parameter in model.parameters()}


def belongs_to(average: Average, model: Model) -> bool:
    owned = {id(parameter) for parameter in model.parameters()}
    same = average.model.layer is model.layer and model.layer.parent() is model
    return same and {id(reference()) for reference in average.of} == owned


def test_accelerate_checkpoint_holds_model_and_average(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(Model())
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    undo = register(accelerator, average=Average(model))
    accelerator.save_state(str(tmp_path / "first"))
    restored = load(tmp_path / "first")
    assert belongs_to(restored["average"], restored["models"][0])
    assert restored["models"][0] is not model
    assert torch.equal(restored["models"][0].layer.weight, model.layer.weight)
    before = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.layer.weight.zero_()
    accelerator.load_state(str(tmp_path / "first"))
    assert torch.equal(model.layer.weight, before)
    assert optimizer is not None
    undo()
    accelerator.save_state(str(tmp_path / "second"))
    assert not (tmp_path / "second" / "safepickle.pt").exists()


def test_trainer_checkpoint_holds_model_and_average(tmp_path: Path) -> None:
    model = Model()
    data: Any = [{"x": torch.ones(2), "labels": torch.zeros(2)}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=data, callbacks=[trainer_callback(average=Average(model))]
    )
    trainer.train()
    restored = load(tmp_path / "checkpoint-2")
    assert belongs_to(restored["average"], restored["model"])
    assert torch.equal(restored["model"].layer.weight, model.layer.weight)
