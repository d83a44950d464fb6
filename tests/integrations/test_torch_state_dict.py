"""State dicts of modules that hold tensors weakly, and loads that are whole or report what they are not."""

from __future__ import annotations

import copy
import io
import pickle
import weakref
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

import safepickle
from safepickle.integrations.torch import StateDictError, StateDictWarning, load_state_dict, state_dict


class Recorder(nn.Module):
    """Keeps a running mean that somebody else owns."""

    def __init__(self, mean: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mean", weakref.proxy(mean))
        self.register_buffer("scratch", weakref.proxy(mean), persistent=False)
        self.seen = weakref.ref(mean)
        self.dead = weakref.ref(torch.ones(1))


class Wrapper(nn.Module):
    def __init__(self, mean: torch.Tensor) -> None:
        super().__init__()
        self.inner = Recorder(mean)
        self.norm = nn.BatchNorm1d(3)


def test_a_dead_buffer_is_left_out_and_reported() -> None:
    model = Wrapper(torch.ones(3))
    with pytest.raises(ReferenceError, match="weakly-referenced object no longer exists"):
        model.state_dict()
    with pytest.warns(StateDictWarning, match=r"Wrapper leaves out .*: inner.mean \(its referent is gone\)") as caught:
        state = state_dict(model)
    message: Any = caught[0].message
    assert message.reasons == {"inner.mean": "its referent is gone"}
    assert "inner.mean" not in state
    assert "inner.linear.weight" in state
    assert type(model.inner._buffers["mean"]) is weakref.ProxyType


def test_a_live_buffer_is_resolved_to_its_tensor() -> None:
    mean = torch.arange(3.0)
    model = Wrapper(mean)
    state = state_dict(model)
    assert type(state["inner.mean"]) is torch.Tensor
    assert state["inner.mean"].data_ptr() == mean.data_ptr()
    assert state_dict(model, keep_vars=True)["inner.mean"] is mean
    assert "inner.scratch" not in state


def test_it_is_torchs_state_dict_otherwise() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ours: Any = state_dict(model, prefix="net.")
    theirs = model.state_dict(prefix="net.")
    assert list(ours) == list(theirs)
    assert ours._metadata == theirs._metadata
    kept = state_dict(model, keep_vars=True)
    assert kept["0.weight"] is model[0].weight
    destination: dict[str, Any] = OrderedDict(before=1)
    assert state_dict(model, destination=destination) is destination
    assert list(destination)[:2] == ["before", "0.weight"]


class Child(nn.Module):
    def __init__(self, parent: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        if parent is not None:
            self.parent = weakref.proxy(parent)


def test_parent_pointers_among_the_submodules_are_followed_by_nobody() -> None:
    model = nn.Module()
    model.child = Child(model)
    assert type(model.child._modules["parent"]) is weakref.CallableProxyType
    assert list(state_dict(model)) == ["child.linear.weight", "child.linear.bias"]
    assert model.child.parent.child is model.child


def test_a_submodule_that_belongs_elsewhere_is_reported() -> None:
    owner = nn.Linear(2, 2)
    model = Child(owner)
    with pytest.warns(StateDictWarning, match=r"parent \(it belongs to a module elsewhere\)"):
        assert list(state_dict(model)) == ["linear.weight", "linear.bias"]


def test_a_submodule_that_is_gone_is_reported() -> None:
    owner = nn.Linear(2, 2)
    model = Child(owner)
    del owner
    with pytest.warns(StateDictWarning, match=r"parent \(its referent is gone\)"):
        assert list(state_dict(model)) == ["linear.weight", "linear.bias"]
    load_state_dict(model, {"linear.weight": torch.zeros(2, 2), "linear.bias": torch.zeros(2)})
    assert model.linear.weight.eq(0).all()


def test_tied_weights_held_through_a_proxy_are_resolved() -> None:
    model = nn.Module()
    model.embedding = nn.Embedding(4, 2)
    model.head = nn.Linear(2, 4, bias=False)
    model.head.weight = weakref.proxy(model.embedding.weight)
    state = state_dict(model)
    assert torch.equal(state["head.weight"], model.embedding.weight)
    state = {key: torch.zeros_like(value) for key, value in state.items()}
    load_state_dict(model, state)
    assert model.embedding.weight.eq(0).all()
    assert type(model.head._parameters["weight"]) is weakref.ProxyType


def test_loading_writes_through_a_live_proxy_and_skips_a_dead_one() -> None:
    mean = torch.zeros(3)
    model = Wrapper(mean)
    state = state_dict(Wrapper(mean))
    state["inner.mean"] = torch.full((3,), 4.0)
    load_state_dict(model, state)
    assert mean.eq(4).all()
    del state["inner.mean"]
    report = load_state_dict(Wrapper(torch.zeros(3)), state)
    assert report.complete


def test_the_state_dict_of_a_weakly_held_buffer_travels() -> None:
    mean = torch.ones(3)
    buffer = io.BytesIO()
    torch.save(state_dict(Wrapper(mean)), buffer)
    buffer.seek(0)
    assert torch.load(buffer)["inner.mean"].eq(1).all()


# load_state_dict


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, 2)


def snapshot(module: nn.Module) -> dict[str, Any]:
    return copy.deepcopy(dict(module.state_dict()))


def unchanged(module: nn.Module, before: dict[str, Any]) -> bool:
    after = module.state_dict()
    return list(after) == list(before) and all(same(after[key], value) for key, value in before.items())


def same(left: Any, right: Any) -> bool:
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def test_a_fitting_state_dict_loads_whole() -> None:
    source, model = Net(), Net()
    report = load_state_dict(model, source.state_dict())
    assert unchanged(model, snapshot(source))
    assert report.complete
    assert report.initial == ()
    assert str(report) == "9 of 9 keys loaded"


def test_a_strict_load_is_all_or_nothing_and_lists_everything() -> None:
    model = Net()
    before = snapshot(model)
    state = Net(width=5).state_dict()
    state["hat.weight"] = state.pop("head.weight")[:, :4].clone()
    state["surplus"] = torch.ones(7)
    with pytest.raises(StateDictError, match=r"1 missing, 2 unexpected, 6 mismatched.*Nothing was loaded") as caught:
        load_state_dict(model, state)
    assert unchanged(model, before)
    report = caught.value.report
    assert report.missing == ("head.weight",)
    assert report.unexpected == ("hat.weight", "surplus")
    assert ("encoder.0.weight", "(4, 3)", "(5, 3)") in report.mismatched
    assert report.likely == {"head.weight": "hat.weight"}
    assert "perhaps 'hat.weight', renamed" in str(caught.value)
    assert "module (4, 3), state (5, 3)" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_torch_itself_copies_before_it_raises() -> None:
    model = Net()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(Net().state_dict() | {"head.bias": torch.ones(3)})
    assert not unchanged(model, before)


def test_a_loose_load_takes_what_fits_and_leaves_the_rest_alone() -> None:
    model = Net()
    before = snapshot(model)
    state = Net().state_dict()
    expected = state["encoder.0.weight"].clone()
    state["head.weight"] = torch.ones(9, 9)
    state["head.bias"] = "not a tensor"
    state["extra"] = torch.ones(1)
    del state["encoder.0.bias"]
    report = load_state_dict(model, state, strict=False)
    assert torch.equal(model.encoder[0].weight, expected)
    assert torch.equal(model.head.weight, before["head.weight"])
    assert report.missing == ("encoder.0.bias",)
    assert report.unexpected == ("extra",)
    assert set(report.mismatched) == {("head.weight", "(2, 4)", "(9, 9)"), ("head.bias", "(2,)", "str")}
    assert report.initial == ("encoder.0.bias", "head.weight", "head.bias")
    assert "encoder.0.weight" in report.loaded
    assert len(report.loaded) == 6


def test_the_report_prints_as_a_table() -> None:
    state = Net().state_dict()
    state["module.head.bias"] = state.pop("head.bias")
    state["head.weight"] = torch.ones(9, 9)
    assert str(load_state_dict(Net(), state, strict=False)).splitlines() == [
        "8 of 9 keys loaded",
        "what        key               detail",
        "mismatched  head.weight       module (2, 4), state (9, 9)",
        "renamed     module.head.bias  loaded as 'head.bias'",
    ]


def renamed(state: Any, rename: Any) -> Any:
    result: Any = OrderedDict((rename(key), value) for key, value in state.items())
    result._metadata = OrderedDict((rename(path + ".")[:-1], value) for path, value in state._metadata.items())
    return result


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "rename",
    [
        lambda key: "module." + key,
        lambda key: "_orig_mod." + key,
        lambda key: "module._orig_mod." + key,
        lambda key: "model." + key,
        lambda key: key.replace("encoder.", "encoder._orig_mod."),
        lambda key: key.replace("head.", "head.module."),
    ],
    ids=["DataParallel", "compile", "both", "Lightning", "compiled part", "parallel part"],
)
def test_wrapper_prefixes_are_stripped_and_added(rename: Any, strict: bool) -> None:
    source = Net()
    state = renamed(source.state_dict(), rename)
    model = Net()
    report = load_state_dict(model, state, strict=strict)
    assert report.complete
    assert report.renamed
    assert unchanged(model, snapshot(source))


def test_prefixes_are_added_for_real_wrappers() -> None:
    source = Net()
    parallel = nn.DataParallel(Net())
    compiled = torch.compile(Net(), backend="eager")
    for wrapper in (parallel, compiled, nn.DataParallel(torch.compile(Net(), backend="eager"))):
        load_state_dict(wrapper, source.state_dict())
        back = Net()
        load_state_dict(back, wrapper.state_dict())
        assert unchanged(back, snapshot(source))


def test_a_module_that_really_has_such_a_name_is_left_in_peace() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    source, model = Holder(), Holder()
    report = load_state_dict(model, source.state_dict())
    assert not report.renamed
    assert unchanged(model, snapshot(source))


def test_ambiguous_names_are_not_guessed() -> None:
    model = nn.Linear(2, 2)
    state = {"module.weight": torch.ones(2, 2), "_orig_mod.weight": torch.zeros(2, 2), "bias": torch.ones(2)}
    report = load_state_dict(model, state, strict=False)
    assert report.missing == ("weight",)
    assert set(report.unexpected) == {"module.weight", "_orig_mod.weight"}


def test_prefixes_of_ones_own() -> None:
    source, model = Net(), Net()
    state = {f"net.{key}": value for key, value in source.state_dict().items()}
    load_state_dict(model, state, prefixes=("net.",))
    assert unchanged(model, snapshot(source))
    with pytest.raises(StateDictError, match="8 missing, 9 unexpected"):
        load_state_dict(model, state, prefixes=())


def test_module_versions_follow_the_renamed_keys() -> None:
    state = renamed(Net().state_dict(), lambda key: "module." + key)
    del state["module.encoder.1.num_batches_tracked"]
    with pytest.raises(StateDictError, match=r"1 missing"):
        load_state_dict(Net(), state)
    for versions in state._metadata.values():
        versions["version"] = 1
    report = load_state_dict(Net(), state)
    assert report.complete, "batch norms of version 1 had no such buffer, and torch fills it in"


def test_the_state_dict_is_not_changed() -> None:
    state = renamed(Net().state_dict(), lambda key: "module." + key)
    state["module.head.bias"] = nn.Parameter(state["module.head.bias"], requires_grad=True)
    keys, metadata = list(state), copy.deepcopy(state._metadata)
    load_state_dict(Net(), state, assign=True)
    assert list(state) == keys
    assert state._metadata == metadata


def test_assign_takes_the_tensors_themselves() -> None:
    state = {key: value.double() if value.is_floating_point() else value for key, value in Net().state_dict().items()}
    with torch.device("meta"):
        model = Net()
    load_state_dict(model, state, assign=True)
    assert model.head.weight.dtype is torch.float64
    assert model.head.weight.data_ptr() == state["head.weight"].data_ptr()


def test_casts_and_scalars_load_as_in_torch() -> None:
    model = nn.Module()
    model.register_buffer("scale", torch.tensor(1.0))
    model.weight = nn.Parameter(torch.zeros(2))
    load_state_dict(model, {"scale": torch.tensor([3]), "weight": torch.tensor([1, 2])})
    assert model.scale.item() == 3
    assert model.weight.tolist() == [1.0, 2.0]


def test_lazy_modules_take_their_shape_from_the_state_dict() -> None:
    source = nn.Linear(3, 2)
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(StateDictError, match="1 missing"):
        load_state_dict(model, {"0.weight": source.weight})
    assert isinstance(model[0].weight, nn.UninitializedParameter)
    load_state_dict(model, {"0.weight": source.weight, "0.bias": source.bias})
    assert torch.equal(model[0].weight, source.weight)


class Renaming(nn.Module):
    """Loads its old checkpoints through a hook, counts its loads, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.loads = 0
        self.register_load_state_dict_pre_hook(self._from_old)

    @staticmethod
    def _from_old(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key in [key for key in state if key.startswith(prefix + "old.")]:
            state[key.replace("old.", "second.")] = state.pop(key)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.loads += 1

    def get_extra_state(self) -> Any:
        return {"fail": False}

    def set_extra_state(self, state: Any) -> None:
        if state["fail"]:
            raise ValueError("told to")


def test_modules_with_their_own_loading_code_are_obeyed_and_rolled_back() -> None:
    source, model = Renaming(), Renaming()
    state = {key.replace("second.", "old."): value for key, value in source.state_dict().items()}
    report = load_state_dict(model, state)
    assert report.complete
    assert model.loads == 1
    before = snapshot(model)
    with pytest.raises(ValueError, match="told to"):
        load_state_dict(model, Renaming().state_dict() | {"_extra_state": {"fail": True}})
    assert unchanged(model, before)
    with pytest.raises(StateDictError, match="1 unexpected"):
        load_state_dict(model, Renaming().state_dict() | {"what": torch.ones(1)})
    assert unchanged(model, before)
    assert model.loads == 1


def test_a_tensor_that_cannot_be_written_leaves_the_others_alone() -> None:
    model = nn.Module()
    model.register_buffer("first", torch.zeros(3))
    model.register_buffer("second", torch.zeros(1).expand(3))
    with pytest.raises(StateDictError, match="more than one element of the written-to tensor"):
        load_state_dict(model, {"first": torch.ones(3), "second": torch.ones(3)})
    assert model.first.eq(0).all()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_scripted_modules_load_all_or_nothing() -> None:
    source, model = nn.Linear(2, 2), torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    load_state_dict(model, {f"0.{key}": value for key, value in source.state_dict().items()})
    assert torch.equal(model.state_dict()["0.weight"], source.weight)
    before = snapshot(model)
    with pytest.raises(StateDictError, match="1 missing"):
        load_state_dict(model, {"0.weight": torch.ones(2, 2)})
    assert unchanged(model, before)
    assert list(state_dict(model)) == ["0.weight", "0.bias"]


def test_the_error_survives_pickling_and_carries_its_report() -> None:
    with pytest.raises(StateDictError, match="missing") as caught:
        load_state_dict(nn.Linear(2, 2), {"bias": torch.ones(2)})
    for dumps, loads in ((pickle.dumps, pickle.loads), (safepickle.dumps, safepickle.loads)):
        copied = loads(dumps(caught.value))
        assert str(copied) == str(caught.value)
        assert copied.report == caught.value.report


def test_the_warning_survives_pickling() -> None:
    warning = StateDictWarning("app.Model", {"p": "its referent is gone"})
    assert str(pickle.loads(pickle.dumps(warning))) == str(warning)
