"""Train a model that holds weak references, save it whole, and resume it in a new process to the last bit.

The model has what real models have and what no pickler could carry so far: parent pointers from blocks to the model, a
head whose weight is tied to the embedding through a `weakref.ref`, a proxy to the trainer, a cache that holds its
values weakly, and an exponential moving average (the package torch-ema), which holds its parameters by `weakref.ref`.

Run it with ``make demo``, or ``python examples/train_resume.py``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_ema import ExponentialMovingAverage

import safepickle

STEPS_BEFORE, STEPS_AFTER = 60, 40


class Block(nn.Module):
    """A residual block that knows the model it belongs to."""

    def __init__(self, model: CharModel, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(0.1)
        self.parent: Any = weakref.ref(model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.parent().residual_scale * self.dropout(self.net(x))


class TiedHead(nn.Module):
    """Projects onto the vocabulary with the embedding's own weight, which it does not own."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight_ref: Any = weakref.ref(embedding.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight_ref().T


class CharModel(nn.Module):
    """Predicts the next character from the eight before it."""

    def __init__(self, vocabulary: str, width: int = 32, context: int = 8) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.residual_scale = 0.7
        self.embedding = nn.Embedding(len(vocabulary), width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.mix = nn.Linear(context * width, width)
        self.blocks = nn.ModuleList(Block(self, width) for _ in range(2))
        self.head = TiedHead(self.embedding)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.embedding(characters).flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Batch:
    """A slice of the text, as inputs and targets."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets


class Trainer:
    """Owns model, optimizer and average; the model's callback sees it through a proxy."""

    def __init__(self, text: str, context: int = 8) -> None:
        vocabulary = "".join(sorted(set(text)))
        self.codes = torch.tensor([vocabulary.index(character) for character in text])
        self.context = context
        self.model = CharModel(vocabulary, context=context)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3)
        self.ema = ExponentialMovingAverage(self.model.parameters(), decay=0.95)
        self.step = 0
        self.losses: list[float] = []
        self.pinned = [self.batch_at(0)]
        self.cache = weakref.WeakValueDictionary({0: self.pinned[0]})
        self.model.trainer = weakref.proxy(self)

    def batch_at(self, start: int) -> Batch:
        windows = self.codes[start : start + 64 + self.context].unfold(0, self.context + 1, 1)
        return Batch(windows[:, :-1], windows[:, -1])

    def train(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            start = int(torch.randint(len(self.codes) - 80, ()))
            batch = self.cache.get(start) or self.batch_at(start)
            loss = nn.functional.cross_entropy(self.model(batch.inputs), batch.targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.ema.update()
            self.step += 1
            self.losses.append(loss.item())


def check_references(trainer: Trainer) -> int:
    """Check that every weak reference points into this trainer, and return how many there are."""
    model = trainer.model
    parameters = list(model.parameters())
    held = [reference() for reference in trainer.ema._params_refs]
    checks = [
        *(block.parent() is model for block in model.blocks),
        model.head.weight_ref() is model.embedding.weight,
        type(model.trainer) is weakref.ProxyType and model.trainer.model is model,
        trainer.cache[0] is trainer.pinned[0],
        *(mine is theirs for mine, theirs in zip(held, parameters, strict=True)),
    ]
    if not all(checks):
        raise SystemExit("a weak reference points outside the loaded model")
    return len(checks)


def resume(checkpoint: Path) -> None:
    """Load the checkpoint in this process, with nothing but torch, and train on."""
    saved = torch.load(checkpoint, weights_only=False)
    trainer = saved["trainer"]
    print(f"  new process: {check_references(trainer)} weak references, all relinked into the loaded model")
    torch.set_rng_state(saved["rng"])
    trainer.train(STEPS_AFTER)
    torch.save({"losses": trainer.losses, "ema": list(trainer.ema.shadow_params)}, checkpoint.with_suffix(".after"))


def main() -> None:
    torch.manual_seed(7)
    trainer = Trainer(Path(__file__).read_text(encoding="utf-8"))
    trainer.train(STEPS_BEFORE)
    print(f"trained {STEPS_BEFORE} steps: loss {trainer.losses[0]:.3f} -> {trainer.losses[-1]:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        saved = {"trainer": trainer, "rng": torch.get_rng_state()}
        try:
            torch.save(saved, checkpoint)
        except Exception as error:
            print(f"torch.save(trainer, f)\n  {type(error).__name__}: {error}")
        torch.save(saved, checkpoint, pickle_module=safepickle)
        size = checkpoint.stat().st_size
        print(f"torch.save(trainer, f, pickle_module=safepickle)\n  saved, {size / 1e3:.0f} kB")

        subprocess.run([sys.executable, __file__, str(checkpoint)], check=True)
        after = torch.load(checkpoint.with_suffix(".after"))

    trainer.train(STEPS_AFTER)
    resumed, straight = after["losses"][-STEPS_AFTER:], trainer.losses[-STEPS_AFTER:]
    averages = zip(after["ema"], trainer.ema.shadow_params, strict=True)
    if resumed != straight or not all(torch.equal(mine, theirs) for mine, theirs in averages):
        raise SystemExit("the resumed run differs from the uninterrupted one")
    print(f"{STEPS_AFTER} more steps, resumed and uninterrupted: loss {resumed[-1]:.17g} and {straight[-1]:.17g}")
    print("equal to the last bit: every loss, every averaged parameter")


if __name__ == "__main__":
    torch.set_num_threads(1)  # so that both processes add up in the same order
    if len(sys.argv) == 2:
        resume(Path(sys.argv[1]))
    else:
        main()
