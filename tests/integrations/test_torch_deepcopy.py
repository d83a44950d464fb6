"""Deep copies of torch's objects: models with parent pointers, averages, hooks, tensors that share storages."""

from __future__ import annotations

import copy
import functools
import runpy
import weakref
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef, WeakTensorKeyDictionary

import safepickle
from pages import ROOT


class Model(torch.nn.Module):
    __deepcopy__ = safepickle.deepcopy

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 2)
        self.first.parent = weakref.ref(self)
        self.first.following = weakref.ref(second := torch.nn.Linear(2, 2))
        self.second = second
        self.register_buffer("buffer", torch.zeros(3))

    def is_whole(self) -> bool:
        return self.first.parent() is self and self.first.following() is self.second


def test_model_with_parent_pointers() -> None:
    model = Model()
    for copied in (safepickle.deepcopy(model), copy.deepcopy(model), AveragedModel(model).module):
        assert copied is not model
        assert copied.is_whole()
        assert torch.equal(copied.first.weight, model.first.weight)
        assert copied.first.weight.data_ptr() != model.first.weight.data_ptr()
    assert model.is_whole()


def test_average_that_refers_to_parameters_before_the_model_is_met() -> None:
    model = Model()
    average = {weakref.ref(each): each.detach().clone() for each in model.parameters()}
    references = tuple(weakref.ref(each) for each in model.parameters())
    graph: list[Any] = [average, references, model]
    copied_average, copied_references, copied = safepickle.deepcopy(graph)
    owned = [id(each) for each in copied.parameters()]
    assert [id(reference()) for reference in copied_average] == owned
    assert [id(reference()) for reference in copied_references] == owned


def test_tensors_are_copied_once_even_when_the_walk_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []
    plain = torch.nn.Parameter.__deepcopy__

    def count(parameter: Any, memo: Any) -> Any:
        copies.append(parameter)
        return plain(parameter, memo)

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", count)
    model = torch.nn.Linear(2, 2)
    tensors = [torch.zeros(4), torch.zeros(4)]
    reference, copied, (first, second), again = safepickle.deepcopy(((weakref.ref(model),), model, tensors, tensors[0]))
    assert reference[0]() is copied
    assert first is again
    assert second is not first
    assert len(copies) == 2


def test_views_of_one_storage_go_on_sharing_it() -> None:
    base = torch.arange(6.0)
    copied, view = safepickle.deepcopy([base, base[2:4]])
    copied[2] = -1
    assert view[0] == -1
    assert base[2] == 2


def test_attributes_of_tensors_are_relinked() -> None:
    owner, tensor = torch.nn.Linear(1, 1), torch.zeros(2)
    tensor.owner = weakref.ref(owner)
    copied_tensor, copied = safepickle.deepcopy([tensor, owner])
    assert copied_tensor.owner() is copied


@pytest.mark.parametrize("cls", [WeakIdKeyDictionary, WeakTensorKeyDictionary])
def test_torchs_weak_dictionaries_find_the_copies_of_their_keys(cls: Any) -> None:
    inside, outside = torch.zeros(2), torch.ones(2)
    table = cls()
    table[inside], table[outside] = ["in"], ["out"]
    copied_table, copied = safepickle.deepcopy([table, inside])
    assert type(copied_table) is cls
    assert copied_table[copied] == ["in"]
    assert copied_table[outside] == ["out"]
    assert copied_table[copied] is not table[inside]
    assert inside not in copied_table
    del copied
    assert len(copied_table) == 1


def test_identity_references_hash_as_their_new_referents() -> None:
    tensor = torch.zeros(2)
    table, copied = safepickle.deepcopy([{WeakIdRef(tensor): "entry"}, tensor])
    assert table[WeakIdRef(copied)] == "entry"


def test_handle_of_a_hook_removes_the_copys_hook() -> None:
    model = torch.nn.Linear(1, 1)
    handle = model.register_forward_hook(_hook)
    copied_handle, copied = safepickle.deepcopy([handle, model])
    copied_handle.remove()
    assert not copied._forward_hooks
    assert model._forward_hooks
    handle.remove()
    assert not model._forward_hooks


def _hook(*_: Any) -> None: ...


def test_handle_of_an_outside_hook_goes_on_removing_that() -> None:
    hooks: Any = OrderedDict()
    handle = RemovableHandle(hooks)
    hooks[handle.id] = _hook
    safepickle.deepcopy([handle])[0].remove()
    assert not hooks


def test_tensor_that_was_computed_is_copied_as_it_is_pickled() -> None:
    model = torch.nn.Linear(1, 1)
    model.output = model(torch.ones(1)).sum()
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(model)
    copied = safepickle.deepcopy(model)
    loaded = safepickle.loads(safepickle.dumps(model))
    for each in (copied.output, loaded.output):
        assert (each.is_leaf, each.requires_grad, each.item()) == (True, True, model.output.item())
    assert copied.output.data_ptr() != model.output.data_ptr()


@pytest.mark.parametrize("make", [prune.identity, prune.random_unstructured, weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_modules_whose_weights_are_computed(make: Any) -> None:
    options = {"amount": 0.5} if make is prune.random_unstructured else {}
    layer = make(torch.nn.Linear(4, 4), "weight", **options)
    layer.me = weakref.ref(layer)
    copied = safepickle.deepcopy(layer)
    value = torch.rand(2, 4)
    assert torch.equal(copied(value), layer(value))
    assert copied.me() is copied
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert not torch.equal(copied(value), layer(value))


def test_weak_references_to_the_nodes_of_a_graph_lead_to_the_copys() -> None:
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    nodes = list(traced.graph.nodes)
    traced.meta["second"] = weakref.ref(nodes[1])
    graph = [tuple(map(weakref.ref, nodes)), traced, list(map(weakref.ref, nodes)), nodes[0]]
    for first, copied, last, node in (safepickle.deepcopy(graph), reversed(safepickle.deepcopy(graph[::-1]))):
        copied_nodes = list(copied.graph.nodes)
        assert [each() for each in first] == [each() for each in last] == copied_nodes
        assert copied.meta["second"]() is copied_nodes[1]
        assert node is copied_nodes[0]
        assert not set(copied_nodes) & set(nodes)


def test_weak_references_that_a_graph_and_its_nodes_keep_lead_to_the_copy() -> None:
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    first, second, *_ = traced.graph.nodes
    shared = [1]
    first.meta.update(shared=shared, following=weakref.ref(second), nested={"module": (weakref.ref(traced),)})
    traced.by_node = weakref.WeakKeyDictionary({first: 1})
    traced.own = [weakref.ref(traced.graph), weakref.ref(second)]
    copied = safepickle.deepcopy(traced)
    copied_first, copied_second, *_ = copied.graph.nodes
    assert copied_first.meta["following"]() is copied_second
    assert copied_first.meta["nested"]["module"][0]() is copied
    assert copied_first.meta["shared"] is shared
    assert dict(copied.by_node) == {copied_first: 1}
    assert [each() for each in copied.own] == [copied.graph, copied_second]
    assert first.meta["following"]() is second


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrization_removed_from_a_copy_stays_with_the_original(make: Any) -> None:
    layer = make(torch.nn.Linear(3, 3))
    layer.me = weakref.ref(layer)
    copied = safepickle.deepcopy([layer, layer])[1]
    parametrize.remove_parametrizations(copied, "weight")
    value = torch.rand(2, 3)
    assert torch.allclose(copied(value), layer(value))
    assert copied.me() is copied
    assert parametrize.is_parametrized(layer, "weight")


class Hooked(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.log: list[int] = []
        reference = weakref.ref(self)
        self.layer.register_forward_hook(lambda *_: reference().log.append(1))  # type: ignore[union-attr]
        self.layer.register_forward_pre_hook(functools.partial(_note, self))
        self.step = torch.compile(self._step, backend="eager")
        self.shared = torch.compile(_unbound, backend="eager")

    def _step(self, value: torch.Tensor) -> torch.Tensor:
        return self.layer(value)


def _note(model: Hooked, *_: Any) -> None:
    model.log.append(2)


def _unbound(value: torch.Tensor) -> torch.Tensor:
    return value + 1


def test_hooks_and_compiled_methods_act_on_the_copy() -> None:
    model = Hooked()
    for copied in (safepickle.deepcopy(model), safepickle.deepcopy((model.step, model))[1]):
        with torch.no_grad():
            copied.layer.weight.zero_()
            copied.layer.bias.fill_(3)
        assert copied.step(torch.ones(2)).tolist() == [3, 3]
        assert (copied.log, model.log) == ([2, 1], [])
        assert copied.shared is model.shared
    assert model.step(torch.ones(2)).tolist() != [3, 3]
    assert model.log == [2, 1]


@pytest.mark.parametrize("finalizers", ["dead", "rearm"])
def test_average_in_a_block_of_deepcopying(finalizers: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model[0].parent = weakref.ref(model)
    with safepickle.deepcopying(finalizers=finalizers):
        averaged = AveragedModel(model)
    assert averaged.module[0].parent() is averaged.module
    assert AveragedModel(model).module[0].parent() is model


def test_example_of_the_moving_average_runs_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "ema_deepcopy.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "our average: blocks belong to the average: True",
        "AveragedModel: blocks belong to the average: True",
        "both averages agree: True",
        "copy.deepcopy: blocks belong to the copy: False",
    ]


def test_zeros_without_a_storage_are_copied_with_their_attributes() -> None:
    zeros = torch._efficientzerotensor((2, 3), dtype=torch.float64).requires_grad_()
    zeros.itself = weakref.ref(zeros)
    first, second = safepickle.deepcopy([zeros, zeros])
    assert first is second is not zeros
    assert first._is_zerotensor()
    assert (first.shape, first.dtype, first.requires_grad) == (zeros.shape, torch.float64, True)
    assert first.itself() is first
    assert not first.detach().any()
