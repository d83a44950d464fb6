"""torch shares tensors between processes, also through safepickle's contexts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.multiprocessing  # which registers torch's reducers with multiprocessing

from averaged import Averaged
from safepickle.integrations.multiprocessing import context


def work(model: Averaged | None, arguments: Any, replies: Any, done: Any) -> None:
    given, tensor = arguments.get()
    model = given if model is None else model
    with torch.no_grad():
        for each in [*model.parameters(), tensor]:
            each += 1
    replies.put((model.is_whole(), model))
    done.wait(60)


# Both ways in which a model gets to a process: as its argument, and later through a queue.
@pytest.mark.parametrize(("method", "is_argument"), [("spawn", True), ("forkserver", False)])
def test_tensors_are_shared_and_weak_references_relinked(method: str, is_argument: bool) -> None:
    ctx = context(method)
    arguments, replies, done = ctx.Queue(), ctx.Queue(), ctx.Event()
    model, tensor = Averaged().share_memory(), torch.zeros(1000).share_memory_()
    before = model.layer.weight.detach().clone()
    process = ctx.Process(target=work, args=(model if is_argument else None, arguments, replies, done))
    process.start()
    arguments.put((None if is_argument else model, tensor))
    was_whole, copied = replies.get(timeout=120)
    assert was_whole
    assert copied.is_whole()
    assert torch.equal(tensor, torch.ones(1000))
    assert torch.equal(model.layer.weight, before + 1)
    with torch.no_grad():
        copied.layer.weight.zero_()
    assert not model.layer.weight.any()
    done.set()
    process.join()
    assert process.exitcode == 0
