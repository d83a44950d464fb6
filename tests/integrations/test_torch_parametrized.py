"""Parametrized modules, which torch refuses to pickle whole: saved and loaded by `dumps` and by `torch.save`."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import textwrap
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import safepickle
from nodes import round_trip


class Symmetric(nn.Module):
    def forward(self, matrix: Any) -> Any:
        return matrix.triu() + matrix.triu(1).transpose(-1, -2)

    def right_inverse(self, matrix: Any) -> Any:
        return matrix.triu()


class Positive(nn.Module):
    def forward(self, tensor: Any) -> Any:
        return tensor.exp()

    def right_inverse(self, tensor: Any) -> Any:
        return tensor.abs().log()


class Forgetful(nn.Linear):
    """Leaves something out of its state, and knows where it is."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.itself = weakref.ref(self)
        self.cache: Any = [1, 2, 3]

    def __getstate__(self) -> Any:
        return {**self.__dict__, "cache": None}


class Rebuilt(nn.Linear):
    def __reduce__(self) -> Any:
        return type(self), (self.in_features, self.out_features), self.__dict__


class Trained(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x: Any) -> Any:
        return self.layer(x) @ self.weight


def several() -> nn.Module:
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    parametrize.register_parametrization(layer, "weight", Positive())
    parametrize.register_parametrization(layer, "bias", Positive())
    return layer


def shared() -> nn.Module:
    """One parametrization in two layers."""
    positive = Positive()
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", positive)
    return layers


def nested() -> nn.Module:
    layer = weight_norm(nn.Linear(3, 3))
    parametrize.register_parametrization(layer.parametrizations.weight, "original0", Positive())
    return layer


MODULES: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: weight_norm(nn.Linear(3, 3)),
    "spectral norm": lambda: spectral_norm(nn.Linear(3, 3)),
    "orthogonal": lambda: orthogonal(nn.Linear(3, 3)),
    "several tensors": several,
    "shared": shared,
    "nested": nested,
    "in a model": lambda: nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.Tanh(), spectral_norm(nn.Linear(4, 3))),
    "own getstate": lambda: weight_norm(Forgetful()),
    "own reduce": lambda: weight_norm(Rebuilt(3, 3)),
    "lightning": lambda: orthogonal(Trained(), "weight"),
}


def through_save(model: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file, pickle_module=safepickle, **options)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "dumps": round_trip,
    "protocol 2": lambda model: round_trip(model, 2),
    "torch.save": through_save,
    "torch.save, old format": lambda model: through_save(model, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_whole_module_comes_back(make: Any, way: Any) -> None:
    model = make().eval()
    copy = way(model)
    assert [type(part).__qualname__ for part in copy.modules()] == [type(part).__qualname__ for part in model.modules()]
    found, expected = copy.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    x = torch.randn(2, 3)
    assert torch.equal(copy(x), model(x))


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_copy_trains_and_leaves_the_original_alone(make: Any) -> None:
    model = make().train()
    copy = round_trip(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(copy.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        copy(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    assert any(not torch.equal(value, before[key]) for key, value in copy.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_module_has_a_class_and_a_cache_of_its_own() -> None:
    model = weight_norm(nn.Linear(3, 3))
    first, second = round_trip(model), round_trip(model)
    assert len({type(model), type(first), type(second)}) == 3
    with torch.no_grad():
        first.parametrizations.weight.original0.add_(1)
    with parametrize.cached():
        for layer in (model, first, second):
            assert layer.weight is layer.weight
        assert first.weight is not model.weight
        assert second.weight is not model.weight
        assert not torch.equal(first.weight, model.weight)
    assert not torch.equal(first.weight, model.weight)


@pytest.mark.parametrize("leave", [True, False])
def test_parametrizations_of_the_copy_can_be_set_and_removed(leave: bool) -> None:
    copy = round_trip(several())
    copy.bias = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(copy.bias, torch.tensor([1.0, 2.0, 3.0]))
    for name in ("weight", "bias"):
        parametrize.remove_parametrizations(copy, name, leave_parametrized=leave)
    assert type(copy) is nn.Linear
    assert not parametrize.is_parametrized(copy)


def test_state_is_what_the_class_says() -> None:
    copy = round_trip(weight_norm(Forgetful()))
    assert copy.cache is None
    assert copy.itself() is copy


def test_saved_copy_can_be_saved_again_and_state_dicts_fit() -> None:
    model = nn.Sequential(several(), spectral_norm(nn.Linear(3, 3)))
    copy = round_trip(round_trip(model))
    copy.load_state_dict(model.state_dict())
    model.load_state_dict(copy.state_dict())


def test_compatible_state_dicts_of_the_legacy_weight_norm_load_into_the_copy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        legacy = nn.utils.weight_norm(nn.Linear(3, 3))
    copy = round_trip(weight_norm(nn.Linear(3, 3)))
    copy.load_state_dict(legacy.state_dict())
    torch.testing.assert_close(copy.weight, legacy.weight)


def test_weak_references_to_and_in_it_are_relinked() -> None:
    model = several()
    model.parametrizations.bias[0].owner = weakref.ref(model)
    model.parent = weakref.proxy(model)
    reference, copy = round_trip([weakref.ref(model), model])
    assert reference() is copy
    assert copy.parametrizations.bias[0].owner() is copy
    assert copy.parent.weight.shape == (3, 3)


def test_torch_and_pickle_still_refuse_where_safepickle_is_not_asked() -> None:
    with pytest.raises(RuntimeError, match="Serialization of parametrized modules"):
        pickle.dumps(several())


def test_loads_in_a_new_process(tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    model = nn.Sequential(weight_norm(nn.Linear(3, 3)), spectral_norm(nn.Linear(3, 3)), orthogonal(nn.Linear(3, 3)))
    model.eval()
    torch.save([model, model(torch.ones(1, 3))], target, pickle_module=safepickle)
    program = """
        import sys, torch
        model, expected = torch.load(sys.argv[1], weights_only=False)
        torch.testing.assert_close(model(torch.ones(1, 3)), expected)
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(target)], check=True)


def test_explain_says_that_it_can_be_pickled_and_names_its_parts() -> None:
    explanation = safepickle.explain({"model": several()})
    assert explanation.picklable
    model = nn.Sequential(several())
    model[0].bad = (item for item in "ab")
    assert safepickle.explain(model).unpicklable[0].path == "$[0].bad"
