"""What `explain` says of models, held against the dump and against the peers."""

from __future__ import annotations

import pickle
import warnings
import weakref
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch

import safepickle


class Trainer:
    def __init__(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(200, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.model(torch.zeros(1, 200)).sum().backward()
        self.optimizer.step()
        self.model[0].trainer = weakref.ref(self)


def test_bytes_belong_to_the_layers_rather_than_to_the_optimizer_that_holds_them_too() -> None:
    trainer = Trainer()
    explanation = safepickle.explain(trainer)
    sizes = {entry.path: entry.bytes for entry in explanation.subtrees}
    assert sizes["$.model[0]"] == pytest.approx(201 * 100 * 4, rel=0.05)
    assert sizes["$.optimizer.state"] == pytest.approx(2 * (200 * 100 + 100 + 100 * 10 + 10) * 4, rel=0.1)
    assert explanation.bytes == pytest.approx(len(safepickle.dumps(trainer)), rel=0.02)


def test_weak_reference_of_a_module_is_named_as_one_types_it() -> None:
    entries = {entry.path: entry for entry in safepickle.explain(Trainer()).weak_references}
    assert entries["$.model[0].trainer"].becomes == "weak reference"
    assert entries["$.model[0].trainer"].referent_path == "$"


@pytest.mark.parametrize("policy", ["relink", "strong"])
def test_explanation_of_torch_weak_types_agrees_with_the_dump(policy: Any) -> None:
    kept, outside = torch.zeros(3), torch.ones(3)
    by_id = torch.utils.weak.WeakIdKeyDictionary()
    by_id[kept], by_id[outside] = 1, 2
    root = [kept, by_id, torch.utils.weak.WeakIdRef(kept), torch.utils.weak.WeakIdRef(outside)]
    explanation = safepickle.explain(root, weakrefs=policy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy = safepickle.loads(safepickle.dumps(root, weakrefs=policy))
    states = [entry.state for entry in explanation.weak_references]
    assert sorted(states) == ["kept", "kept", "outside", "outside"]
    messages: list[Any] = [warning.message for warning in caught]
    assert sum(sum(message.counts.values()) for message in messages) == (2 if policy == "relink" else 0)
    assert len(copy[1]) == (1 if policy == "relink" else 2)
    assert (copy[3]() is None) is (policy == "relink")


def test_views_that_others_tear_apart_are_reported() -> None:
    tensor = torch.zeros(4)
    root = {"all": tensor, "first": tensor[:2]}
    (hazard,) = safepickle.explain(root).hazards
    assert (hazard.path, hazard.peers) == ("$['all']", "pickle and cloudpickle")
    for peer in (pickle, cloudpickle):
        torn = peer.loads(peer.dumps(root))
        torn["all"][0] = 1
        assert torn["first"][0] == 0
    whole = safepickle.loads(safepickle.dumps(root))
    whole["all"][0] = 1
    assert whole["first"][0] == 1


def test_picture_of_a_model_shows_its_layers(tmp_path: Path) -> None:
    safepickle.explain(Trainer()).picture(tmp_path / "model.dot")
    dot = (tmp_path / "model.dot").read_text(encoding="utf-8")
    assert 'label=".model\\nSequential' in dot
    assert "exp_avg" in dot
