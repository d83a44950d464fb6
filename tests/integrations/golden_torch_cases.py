"""What the golden pickles of tensors hold. The rule of `golden_cases` holds here, too: a case is never changed."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

import torch
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef

from golden_cases import Case

CASES: dict[str, Case] = {}
HELD: list[Any] = []
"""Owners of what stays outside the pickle."""


def module() -> torch.nn.Module:
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.bias.copy_(torch.tensor([5.0, 6.0]))
    return layer


def check_module(layer: Any) -> None:
    assert type(layer) is torch.nn.Linear
    assert layer.weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert layer.bias.tolist() == [5.0, 6.0]
    assert layer.weight.requires_grad


def tensors() -> Any:
    base = torch.arange(12, dtype=torch.int16)
    labelled = torch.tensor([1.5, 2.5], dtype=torch.float64, requires_grad=True)
    labelled.label = "label"
    return {
        "base": base,
        "view": base.view(3, 4)[:, 1:3],
        "labelled": labelled,
        "bfloat16": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "empty": torch.empty(0, 3),
        "reference": weakref.ref(base),
        "storage": torch.tensor([7, 8], dtype=torch.uint8).untyped_storage(),
        "typed": torch.tensor([1.0, 2.0]).storage(),
    }


def check_tensors(obj: Any) -> None:
    base = obj["base"]
    assert base.tolist() == list(range(12))
    assert obj["view"].tolist() == [[1, 2], [5, 6], [9, 10]]
    obj["view"][0, 0] = 100
    assert base[1] == 100
    labelled = obj["labelled"]
    assert labelled.tolist() == [1.5, 2.5]
    assert labelled.requires_grad
    assert labelled.label == "label"
    assert obj["bfloat16"].dtype is torch.bfloat16
    assert obj["bfloat16"].tolist() == [1.0, 2.0]
    assert obj["conjugate"].tolist() == [1 - 2j]
    assert obj["empty"].shape == (0, 3)
    assert obj["reference"]() is base
    assert obj["storage"].tolist() == [7, 8]
    assert obj["typed"].tolist() == [1.0, 2.0]


def weak_types() -> Any:
    tensor = torch.tensor([1.0])
    hooks: Any = OrderedDict()
    handle = RemovableHandle(hooks)
    hooks[handle.id] = "hook"
    table: Any = WeakIdKeyDictionary({tensor: "value"})
    table.name = "attribute"
    parts = {"table": table, "reference": WeakIdRef(tensor), "handle": handle}
    return {"tensor": tensor, "hooks": hooks, **parts}


def check_weak_types(obj: Any) -> None:
    tensor = obj["tensor"]
    assert obj["table"].name == "attribute"
    assert obj["table"][tensor] == "value"
    assert obj["reference"]() is tensor
    assert hash(obj["reference"]) == id(tensor)
    assert list(obj["hooks"].values()) == ["hook"]
    obj["handle"].remove()
    assert not obj["hooks"]


def weak_types_outside() -> Any:
    parts = weak_types()
    HELD.extend([parts.pop("tensor"), parts.pop("hooks")])
    return parts


def check_weak_types_outside(obj: Any) -> None:
    [(tensor, value)] = obj["table"].items()
    assert (tensor.tolist(), value) == ([1.0], "value")
    assert obj["reference"]() is tensor
    hooks = obj["handle"].hooks_dict_ref()
    assert list(hooks.values()) == ["hook"]
    obj["handle"].remove()
    assert not hooks


class Doubled(torch.nn.Module):
    """A parametrization."""

    def forward(self, original: Any) -> Any:
        return 2 * original

    def right_inverse(self, value: Any) -> Any:
        return value / 2


class Shifted(torch.nn.Module):
    """A parametrization with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([1.0, 1.0]))

    def forward(self, original: Any) -> Any:
        return original + self.shift


def parametrized() -> Any:
    layer = module()
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "weight", Shifted())
    parametrize.register_parametrization(layer, "bias", Shifted())
    return {"layer": layer, "reference": weakref.ref(layer)}


def check_parametrized(obj: Any) -> None:
    layer = obj["layer"]
    assert obj["reference"]() is layer
    assert isinstance(layer, torch.nn.Linear)
    assert type(layer).__name__ == "ParametrizedLinear"
    assert layer.weight.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert layer.bias.tolist() == [6.0, 7.0]
    layer.parametrizations["weight"].original.data += 1
    assert layer.weight.tolist() == [[4.0, 5.0], [6.0, 7.0]]
    parametrize.remove_parametrizations(layer, "bias")
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is torch.nn.Linear


CASES["torch module"] = Case(module, check_module)
CASES["torch tensors"] = Case(tensors, check_tensors)
CASES["torch weak types"] = Case(weak_types, check_weak_types)
CASES["torch weak types of outside referents"] = Case(
    weak_types_outside, check_weak_types_outside, {"weakrefs": "strong"}
)
CASES["torch parametrized modules"] = Case(parametrized, check_parametrized)
