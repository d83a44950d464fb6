"""Hugging Face: checkpoints of accelerate and of transformers' `Trainer` that also hold the objects themselves.

Both write states: weights by name, the optimizer, the random generators. What belongs to a training run beside these,
such as a moving average that refers to parameters weakly, has no place there. Their hooks let safepickle add one file
for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

import safepickle

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["FILE_NAME", "load", "register", "trainer_callback"]

FILE_NAME = "safepickle.pt"
"""Name of the file in each checkpoint's folder."""


def register(accelerator: Accelerator, **objects: Any) -> Callable[[], None]:
    """Let ``accelerator.save_state()`` write its models and ``objects`` as one pickle into the checkpoint as well.

    What accelerate writes stays as it is, and so does ``accelerator.load_state()``. The file holds a dict: ``"models"``
    (the unwrapped models in the order of ``prepare``) and ``objects`` by name; references between them are kept. See
    `load`.

    Args:
        accelerator: The one that saves.
        **objects: What goes into the file, by name.

    Returns:
        A function that undoes it.

    Examples:
        >>> import torch
        >>> from accelerate import Accelerator
        >>> from safepickle.integrations.huggingface import load, register
        >>> accelerator = Accelerator(cpu=True)
        >>> model = accelerator.prepare(torch.nn.Linear(2, 2))
        >>> undo = register(accelerator, notes={"epoch": 3})
        >>> folder = accelerator.save_state("checkpoint")
        >>> load("checkpoint")["notes"]
        {'epoch': 3}
    """

    def save(models: list[torch.nn.Module], weights: list[Any], output_dir: str) -> None:
        if accelerator.is_main_process:
            unwrapped = [accelerator.unwrap_model(model) for model in models]
            _save({"models": unwrapped, **objects}, output_dir)

    handle = accelerator.register_save_state_pre_hook(save)
    undo: Callable[[], None] = handle.remove
    return undo


def trainer_callback(**objects: Any) -> TrainerCallback:
    """Return a callback for ``Trainer(callbacks=[...])`` that writes the model and ``objects`` into each checkpoint.

    The file holds a dict: ``"model"``, and ``objects`` by name; references between them are kept. See `load`.

    Args:
        **objects: What goes into the file, by name.

    Returns:
        The callback.

    Examples:
        >>> from safepickle.integrations.huggingface import trainer_callback
        >>> callback = trainer_callback(notes={"epoch": 3})  # Trainer(callbacks=[callback])
    """
    from transformers import TrainerCallback

    class SafepickleCallback(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                _save({"model": model, **objects}, Path(args.output_dir, f"checkpoint-{state.global_step}"))

    return SafepickleCallback()


def load(checkpoint: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Load what was written into a checkpoint's folder.

    Args:
        checkpoint: The folder.
        **options: For `torch.load`, such as ``map_location``. It runs what the file says: load only what you trust.

    Returns:
        What the file holds, by name.

    Raises:
        FileNotFoundError: Nothing was written into this folder.

    Examples:
        >>> import pathlib, torch
        >>> from safepickle.integrations.huggingface import FILE_NAME, load
        >>> pathlib.Path("saved").mkdir()
        >>> torch.save({"model": None, "notes": {"epoch": 3}}, pathlib.Path("saved", FILE_NAME))
        >>> load("saved")["notes"]
        {'epoch': 3}
    """
    loaded: dict[str, Any] = torch.load(
        Path(checkpoint, FILE_NAME), pickle_module=safepickle, weights_only=False, **options
    )
    return loaded


def _save(contents: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    torch.save(contents, Path(folder, FILE_NAME), pickle_module=safepickle)
