"""Values beside parameters and buffers that travel in the state dict, lazily initialised tensors above all."""

from __future__ import annotations

import copy
import io
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import safepickle
from safepickle.integrations.torch import ExtraState, StateDictError, load_state_dict, track_extra_state


class Tracked(ExtraState, nn.Module):
    extra_state: ClassVar[tuple[str, ...]] = ("p", "vocabulary")

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.p: torch.Tensor | None = None
        self.vocabulary: dict[str, int] = {}


class Plain(nn.Module):
    """Somebody else's module: `tracked` follows the same attributes from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.p: torch.Tensor | None = None
        self.vocabulary: dict[str, int] = {}


def tracked() -> Plain:
    module = Plain()
    track_extra_state(module, "p", "vocabulary")
    return module


BOTH = pytest.mark.parametrize("make", [Tracked, tracked], ids=["mixin", "function"])
LOADERS = pytest.mark.parametrize(
    "load", [lambda module, state: module.load_state_dict(state), load_state_dict], ids=["torch", "safepickle"]
)


def through_a_file(state: Any) -> Any:
    """Save and load as the careful do: no pickle module, weights only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@BOTH
@LOADERS
def test_a_lazily_initialised_tensor_loads_into_a_fresh_module(make: Any, load: Any) -> None:
    source, model = nn.Sequential(make()), nn.Sequential(make())
    source[0].p = torch.ones(4, 5, requires_grad=True) * 2
    source[0].vocabulary = {"a": 1}
    load(model, through_a_file(source.state_dict()))
    assert torch.equal(model[0].p, torch.full((4, 5), 2.0))
    assert not model[0].p.requires_grad
    assert model[0].vocabulary == {"a": 1}


@BOTH
@LOADERS
def test_and_the_other_way_round(make: Any, load: Any) -> None:
    source, model = nn.Sequential(make()), nn.Sequential(make())
    model[0].p = torch.ones(3)
    load(model, through_a_file(source.state_dict()))
    assert model[0].p is None


@BOTH
@LOADERS
@pytest.mark.parametrize("kind", ["parameter", "frozen parameter", "buffer"])
def test_lazily_registered_tensors_keep_their_key_and_their_kind(make: Any, load: Any, kind: str) -> None:
    source, fresh, other = make(), make(), make()
    for module, size in ((source, 3), (other, 5)):
        if kind == "buffer":
            del module.p
            module.register_buffer("p", torch.full((size,), 3.0))
        else:
            module.p = nn.Parameter(torch.full((size,), 3.0), requires_grad=kind == "parameter")
    state = through_a_file(source.state_dict())
    assert "p" in state
    for model in (fresh, other):
        load(model, state)
        assert model.p.tolist() == [3.0] * 3
        assert "p" in (model._buffers if kind == "buffer" else model._parameters)
        assert "p" not in vars(model)
        assert model.p.requires_grad is (kind == "parameter")
    load(fresh, through_a_file(make().state_dict()))
    assert fresh.p is None


@BOTH
@LOADERS
def test_a_buffer_declared_as_none_is_made_when_the_checkpoint_has_it(make: Any, load: Any) -> None:
    source, model = make(), make()
    for module in (source, model):
        del module.p
        module.register_buffer("p", None)
    source.p = torch.ones(2)
    state = source.state_dict()
    load(model, state)
    assert model._buffers["p"].eq(1).all()
    del model.p
    model.register_buffer("p", None)
    del state["_extra_state"]
    load(model, state)
    assert model._buffers["p"].eq(1).all()


@BOTH
@LOADERS
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_checkpoints_from_before_load_at_every_depth(make: Any, load: Any, depth: int) -> None:
    old: nn.Module = Plain()
    new: nn.Module = make()
    inner = new
    inner.vocabulary = {"kept": 1}
    for _ in range(depth):
        old, new = nn.ModuleDict({"child": old}), nn.ModuleDict({"child": new})
    load(new, old.state_dict())
    assert inner.vocabulary == {"kept": 1}
    assert inner.p is None
    report = load_state_dict(new, old.state_dict())
    assert report.complete
    assert report.initial == ("child." * depth + "_extra_state",)


@BOTH
def test_other_faults_still_raise(make: Any) -> None:
    state = make().state_dict()
    del state["linear.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        make().load_state_dict(state)
    with pytest.raises(StateDictError, match="1 missing"):
        load_state_dict(make(), state)


@BOTH
def test_a_load_that_fails_leaves_the_extra_state_alone(make: Any) -> None:
    source, model = make(), make()
    source.p, source.vocabulary = torch.ones(2), {"a": 1}
    kept = model.p = torch.zeros(3)
    state = source.state_dict()
    state["linear.weight"] = torch.ones(7)
    with pytest.raises(StateDictError, match="1 mismatched"):
        load_state_dict(model, state)
    assert model.p is kept
    assert model.vocabulary == {}


@BOTH
def test_loaded_tensors_are_the_modules_own_and_on_its_device(make: Any) -> None:
    source = make()
    source.p = torch.ones(2)
    source.vocabulary = {"nested": [torch.ones(1)]}
    state = source.state_dict()
    model = make()
    load_state_dict(model, state)
    model.p.zero_()
    model.vocabulary["nested"][0].zero_()
    assert source.p.eq(1).all()
    assert source.vocabulary["nested"][0].eq(1).all()


@BOTH
def test_containers_keep_their_cycles_and_what_they_share(make: Any) -> None:
    source, model = make(), make()
    tensor = torch.ones(1)
    source.vocabulary = {"first": [tensor], "again": tensor, "pair": (tensor, None)}
    source.vocabulary["itself"] = source.vocabulary
    load_state_dict(model, source.state_dict())
    loaded = model.vocabulary
    assert loaded["itself"] is loaded is not source.vocabulary
    assert loaded["first"][0] is loaded["again"] is loaded["pair"][0] is not tensor


@BOTH
def test_wrapped_checkpoints_bring_their_extra_state(make: Any) -> None:
    source = make()
    source.p = nn.Parameter(torch.ones(2))
    source.vocabulary = {"a": 1}
    model = make()
    load_state_dict(model, nn.DataParallel(source).state_dict())
    assert model.p.eq(1).all()
    assert model.vocabulary == {"a": 1}


@BOTH
def test_attributes_that_do_not_exist_are_left_alone(make: Any) -> None:
    source, model = make(), make()
    del source.p
    model.p = torch.ones(1)
    load_state_dict(model, source.state_dict())
    assert model.p.eq(1).all()


@BOTH
def test_whole_modules_still_copy_and_pickle(make: Any) -> None:
    source = make()
    source.p = torch.ones(2)
    for copied in (copy.deepcopy(source), safepickle.loads(safepickle.dumps(source))):
        assert copied.state_dict()["_extra_state"]["attributes"]["p"].eq(1).all()
        model = make()
        load_state_dict(model, copied.state_dict())
        assert model.p.eq(1).all()
        load_state_dict(copied, make().state_dict())
        assert copied.p is None
    assert source.p is not None


class Stateful(nn.Module):
    """A module with an extra state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.p: Any = None

    def get_extra_state(self) -> Any:
        return self.step

    def set_extra_state(self, state: Any) -> None:
        self.step = state


class StatefulTracked(ExtraState, Stateful):
    extra_state = ("p",)


def stateful_tracked() -> Stateful:
    module = Stateful()
    track_extra_state(module, "p")
    return module


@pytest.mark.parametrize("make", [StatefulTracked, stateful_tracked], ids=["mixin", "function"])
def test_an_extra_state_that_was_there_before_keeps_working(make: Any) -> None:
    source, model = make(), make()
    source.step, source.p = 7, torch.ones(1)
    load_state_dict(model, source.state_dict())
    assert (model.step, model.p.item()) == (7, 1.0)
    old = Stateful()
    old.step = 9
    model.load_state_dict(old.state_dict())
    assert (model.step, model.p.item()) == (9, 1.0)


def test_subclasses_add_to_the_names_of_their_bases() -> None:
    class More(Tracked):
        extra_state = ("q",)

        def __init__(self) -> None:
            super().__init__()
            self.q = 1

    assert set(More().state_dict()["_extra_state"]["attributes"]) == {"p", "vocabulary", "q"}


def test_tracking_again_adds_names() -> None:
    module = Plain()
    track_extra_state(module, "p")
    track_extra_state(module, "vocabulary")
    assert set(module.state_dict()["_extra_state"]["attributes"]) == {"p", "vocabulary"}


def test_the_wrong_order_of_bases_is_refused() -> None:
    with pytest.raises(TypeError, match=r"write class Wrong\(ExtraState, nn.Module\)"):
        type("Wrong", (nn.Module, ExtraState), {"extra_state": ("p",)})


def test_a_string_of_names_is_refused() -> None:
    with pytest.raises(TypeError, match="is a string: write a tuple"):
        type("Wrong", (ExtraState, nn.Module), {"extra_state": "p"})


@pytest.mark.parametrize("names", [(), (1,)])
def test_tracking_nothing_is_refused(names: Any) -> None:
    with pytest.raises(TypeError, match="needs the names of the attributes"):
        track_extra_state(Plain(), *names)


def test_submodules_have_keys_of_their_own() -> None:
    with pytest.raises(TypeError, match="'linear' is a submodule of Plain"):
        track_extra_state(Plain(), "linear")
