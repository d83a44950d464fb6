"""torch's own weak types: `torch.utils.weak`, and the handles by which hooks are removed."""

from __future__ import annotations

import gc
import io
import pickle
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary, WeakIdRef, WeakTensorKeyDictionary, _WeakHashRef

import safepickle

RoundTrip = Callable[..., Any]


def through_dumps(obj: Any, **options: Any) -> Any:
    return safepickle.loads(safepickle.dumps(obj, **options))


def through_torch_save(obj: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(obj, file, pickle_module=safepickle.backend(**options) if options else safepickle)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.fixture(params=[through_dumps, through_torch_save], ids=["dumps", "torch.save"])
def round_trip(request: pytest.FixtureRequest) -> RoundTrip:
    return request.param


class TaggedRef(WeakIdRef):
    """A subclass with a constructor and state of its own."""

    __slots__ = ("tag",)

    def __new__(cls, key, tag):
        return super().__new__(cls, key)

    def __init__(self, key, tag):
        super().__init__(key)
        self.tag = tag


class Cache(WeakIdKeyDictionary):
    def __init__(self, name):
        super().__init__()
        self.name = name


def ignore(reference):
    pass


def noop(*args):
    pass


def warned_of(kind: str) -> Any:
    return pytest.warns(safepickle.WeakReferenceWarning, match=kind)


@pytest.mark.parametrize("cls", [WeakIdRef, _WeakHashRef])
@pytest.mark.parametrize("order", ["referent first", "reference first"])
def test_reference_is_relinked_and_hashed_by_the_copy(round_trip, cls, order):
    tensor = torch.ones(2)
    pair = [tensor, cls(tensor, ignore)]
    loaded = round_trip(pair if order == "referent first" else pair[::-1])
    tensor, reference = loaded if order == "referent first" else loaded[::-1]
    assert type(reference) is cls
    assert reference() is tensor
    assert hash(reference) == id(tensor)
    assert reference == cls(tensor)
    assert reference.__callback__ is ignore


def test_reference_as_a_dict_key_is_found_by_the_copy(round_trip):
    tensor = torch.ones(2)
    tensor, table = round_trip((tensor, {WeakIdRef(tensor): "value"}))
    assert table[WeakIdRef(tensor)] == "value"


@pytest.mark.parametrize("cls", [WeakIdRef, _WeakHashRef])
def test_dead_reference_is_dead_hashable_and_equal_to_itself_alone(round_trip, cls):
    first, second = cls(torch.ones(1)), cls(torch.ones(2))
    first, second = round_trip([first, second])
    assert type(first) is cls
    assert first() is None
    assert {first: 1, second: 2}[first] == 1
    assert first != second


def test_outside_reference_is_a_dead_one_of_the_same_class(round_trip):
    tensor = torch.ones(2)
    with warned_of("1 to torch.Tensor"):
        reference = round_trip([WeakIdRef(tensor)])[0]
    assert type(reference) is WeakIdRef
    assert reference() is None
    assert isinstance(hash(reference), int)


@pytest.mark.parametrize("cls", [WeakIdRef, _WeakHashRef])
def test_strong_copy_owns_its_referent_for_as_long_as_it_lives(round_trip, cls):
    tensor = torch.ones(2)
    holder = round_trip([cls(tensor)], weakrefs="strong")
    gc.collect()
    reference = holder[0]
    assert type(reference) is cls
    assert reference().tolist() == [1, 1]
    assert hash(reference) == id(reference())
    again = round_trip([reference], weakrefs="strong")[0]
    assert again().tolist() == [1, 1]
    watcher = weakref.ref(reference())
    holder.clear()
    del reference
    gc.collect()
    assert watcher() is None


def test_subclass_keeps_its_class_and_state_and_skips_its_constructor(round_trip):
    tensor = torch.ones(2)
    tensor, reference = round_trip((tensor, TaggedRef(tensor, "tag")))
    assert type(reference) is TaggedRef
    assert reference.tag == "tag"
    assert reference() is tensor
    assert hash(reference) == id(tensor)


def test_weak_tensor_key_dictionary_keeps_the_entries_of_kept_tensors(round_trip):
    kept, outside = torch.zeros(1), torch.ones(1)
    table = WeakTensorKeyDictionary({kept: {"step": 1}, outside: {"step": 2}})
    table[torch.ones(3)] = "dead at once"
    with warned_of("1 to torch.Tensor"):
        loaded, tensor = round_trip((table, kept))
    assert type(loaded) is WeakIdKeyDictionary
    assert len(loaded) == 1
    assert loaded[tensor] == {"step": 1}
    del tensor, kept
    gc.collect()
    assert len(loaded) == 0


def test_value_whose_key_is_not_kept_is_not_in_the_pickle():
    outside = torch.ones(1)
    table = WeakIdKeyDictionary({outside: b"needle" * 1000})
    with warned_of("1 to torch.Tensor"):
        data = safepickle.dumps(table)
    assert len(data) < 200


def test_value_may_hold_its_own_key_and_the_next_one(round_trip):
    first, second = torch.zeros(1), torch.ones(1)
    table = WeakIdKeyDictionary()
    table[first] = {"own": first, "next": second}
    table[second] = {"own": second}
    loaded, tensor = round_trip((table, first))
    assert loaded[tensor]["own"] is tensor
    assert loaded[loaded[tensor]["next"]]["own"] is loaded[tensor]["next"]


def test_dictionary_keeps_its_kind_of_reference(round_trip):
    tensor = torch.ones(1)
    loaded, tensor = round_trip((WeakIdKeyDictionary({tensor: 1}, ref_type=_WeakHashRef), tensor))
    assert loaded.ref_type is _WeakHashRef
    assert loaded[tensor] == 1


def test_subclass_of_the_dictionary_keeps_its_class_and_attributes(round_trip):
    tensor = torch.ones(1)
    cache = Cache("of tensors")
    cache[tensor] = 1
    loaded, tensor = round_trip((cache, tensor))
    assert type(loaded) is Cache
    assert loaded.name == "of tensors"
    assert loaded[tensor] == 1


class SlottedCache(WeakIdKeyDictionary):
    __slots__ = ("label",)


def test_subclass_of_the_dictionary_keeps_what_its_slots_hold(round_trip):
    tensor = torch.ones(1)
    cache = SlottedCache({tensor: 1})
    cache.label, cache.other = "in a slot", "in the dict"
    loaded, tensor = round_trip((cache, tensor))
    assert (loaded.label, loaded.other, loaded[tensor]) == ("in a slot", "in the dict", 1)


def test_dictionary_under_strong_owns_its_keys(round_trip):
    tensor = torch.ones(1)
    holder = round_trip([WeakIdKeyDictionary({tensor: "value"})], weakrefs="strong")
    gc.collect()
    [(key, value)] = holder[0].items()
    assert (key.tolist(), value) == ([1], "value")
    watcher = weakref.ref(key)
    holder.clear()
    del key
    gc.collect()
    assert watcher() is None


def test_strict_refuses_an_outside_key():
    tensor = torch.ones(1)
    table = WeakIdKeyDictionary({tensor: 1})
    with pytest.raises(safepickle.WeakReferenceError, match=r"torch\.Tensor"):
        safepickle.dumps(table, weakrefs="strict")


def test_tensor_weak_ref(round_trip):
    tensor = torch.ones(1)
    dead = TensorWeakRef(torch.zeros(1))
    tensor, reference, dead = round_trip((tensor, TensorWeakRef(tensor), dead))
    assert type(reference) is TensorWeakRef
    assert reference() is tensor
    assert dead() is None
    del tensor
    gc.collect()
    assert reference() is None


def test_handle_removes_its_hook_from_the_copy(round_trip):
    model = torch.nn.Linear(1, 1)
    handle = model.register_forward_hook(noop, with_kwargs=True)
    other = model.register_forward_hook(noop)
    loaded, loaded_handle, loaded_other = round_trip((model, handle, other))
    assert list(loaded._forward_hooks) == [handle.id, other.id]
    loaded_handle.remove()
    assert list(loaded._forward_hooks) == [other.id]
    assert list(loaded._forward_hooks_with_kwargs) == []
    loaded_other.remove()
    assert not loaded._forward_hooks
    assert list(model._forward_hooks) == [handle.id, other.id]
    fresh = loaded.register_forward_hook(noop)
    assert fresh.id not in (handle.id, other.id)


def test_handle_met_before_its_module_is_relinked(round_trip):
    model = torch.nn.Linear(1, 1)
    handle = model.register_full_backward_hook(noop)
    loaded_handle, loaded = round_trip((handle, model))
    loaded_handle.remove()
    assert not loaded._backward_hooks


def test_handle_of_a_dead_module_loads_and_removes_nothing(round_trip):
    model = torch.nn.Linear(1, 1)
    handle = model.register_forward_hook(noop, with_kwargs=True)
    del model
    gc.collect()
    loaded = round_trip(handle)
    assert type(loaded) is RemovableHandle
    assert loaded.id == handle.id
    loaded.remove()


def test_handle_alone_does_not_take_the_module_with_it(round_trip):
    model = torch.nn.Linear(1, 1)
    model.payload = b"needle" * 1000
    handle = model.register_forward_hook(model.forward)
    with warned_of("3 to collections.OrderedDict"):
        data = safepickle.dumps(handle)
    assert len(data) < 300
    with warned_of("3 to collections.OrderedDict"):
        round_trip(handle).remove()


@torch.utils.hooks.unserializable_hook
def quiet(*args):
    """torch says nothing of this hook when it leaves it out."""


def hooked_tensor() -> tuple[Any, Any]:
    tensor = torch.ones(2, requires_grad=True)
    return tensor, tensor.register_hook(quiet)


def hooked_parameter() -> tuple[Any, Any]:
    layer = torch.nn.Linear(1, 1)
    return layer, layer.weight.register_post_accumulate_grad_hook(quiet)


def hooked_optimizer() -> tuple[Any, Any]:
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    return optimizer, optimizer.register_step_post_hook(quiet)


def optimizer_with_attributes() -> tuple[Any, Any]:
    optimizer, handle = hooked_optimizer()
    assert vars(optimizer)["defaults"]["lr"] == 0.1
    return optimizer, handle


DROPPING = [hooked_tensor, hooked_parameter, hooked_optimizer, optimizer_with_attributes]


@pytest.mark.parametrize("make", DROPPING)
@pytest.mark.parametrize("policy", ["relink", "strong", "strict", lambda referent: "strict"])
@pytest.mark.parametrize("order", ["owner first", "handle first"])
def test_handle_of_hooks_that_their_owner_leaves_out_is_lost_without_a_word(round_trip, make, policy, order):
    owner, handle = make()
    later = torch.nn.Linear(1, 1)
    # Two of the same hooks, and a forward reference, for which the graph is walked twice.
    pair = [owner, [handle, handle], weakref.ref(later), later]
    explanation = safepickle.explain(pair, weakrefs=policy)
    assert explanation.picklable
    loaded = round_trip(pair if order == "owner first" else pair[::-1], weakrefs=policy)
    loaded = loaded if order == "owner first" else loaded[::-1]
    assert loaded[2]() is loaded[3]
    assert loaded[1][0] is loaded[1][1]
    assert loaded[1][0].hooks_dict_ref() is None
    loaded[1][0].remove()
    assert handle.hooks_dict_ref()


def test_handle_of_hooks_whose_owner_is_outside_is_warned_of_beside_one_whose_owner_leaves_them_out():
    optimizer, handle = hooked_optimizer()
    _tensor, other = hooked_tensor()
    with warned_of("1 weak reference will load dead: 1 to collections.OrderedDict"):
        safepickle.dumps([optimizer, handle, other])
    with pytest.raises(safepickle.WeakReferenceError, match="is not in the pickle"):
        safepickle.dumps([optimizer, handle, other], weakrefs="strict")


def test_handle_under_strong_owns_the_dictionaries():
    hooks: OrderedDict[int, str] = OrderedDict()
    others: OrderedDict[int, str] = OrderedDict()
    handle = RemovableHandle(hooks, extra_dict=others)
    hooks[handle.id], others[handle.id] = "hook", "other"
    loaded = through_dumps(handle, weakrefs="strong")
    gc.collect()
    assert loaded.hooks_dict_ref() == hooks
    assert loaded.extra_dict_ref[0]() == others
    loaded.remove()
    assert not loaded.hooks_dict_ref()
    assert not loaded.extra_dict_ref[0]()


def test_relinked_torch_types_load_where_there_is_no_safepickle():
    tensor = torch.ones(1)
    model = torch.nn.Linear(1, 1)
    handle = model.register_forward_hook(noop)
    parts = (WeakIdRef(tensor), WeakIdKeyDictionary({tensor: 1}), TensorWeakRef(tensor), handle)
    file = io.BytesIO()
    model._forward_hooks.clear()  # the hook is defined here
    torch.save((tensor, model, *parts), file, pickle_module=safepickle)
    program = (
        "import io, sys, torch; sys.modules['safepickle'] = None; "
        "tensor, model, *parts = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False); "
        "assert parts[0]() is tensor and parts[1][tensor] == 1 and parts[2]() is tensor"
    )
    subprocess.run([sys.executable, "-c", program], input=file.getvalue(), check=True, capture_output=True)


def test_protocols_before_5_hold_the_same():
    tensor = torch.ones(1)
    parts = (WeakIdRef(tensor), WeakIdKeyDictionary({tensor: 1}))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy, reference, table = pickle.loads(safepickle.dumps((tensor, *parts), protocol))
        assert reference() is copy
        assert table[copy] == 1


class Link:
    """A link of a chain."""

    extra: Any
    next: Any


def chain(length: int, extra: Any) -> Link:
    head = Link()
    head.extra = extra
    for _ in range(length):
        link = Link()
        link.next = head
        head = link
    return head


@pytest.mark.parametrize("kind", ["dictionary", "handle"])
def test_a_deep_graph_is_warned_of_and_walked_as_a_flat_one_is(kind):
    key, outside, module = torch.zeros(1), torch.ones(1), torch.nn.Linear(1, 1)
    dictionary = WeakIdKeyDictionary({key: Link(), outside: Link()})
    extra = [key, dictionary] if kind == "dictionary" else module.register_forward_hook(noop)
    counts = []
    for length in (10, 50_000):
        with warned_of("Tensor" if kind == "dictionary" else "OrderedDict") as caught:
            safepickle.dumps(chain(length, extra))
        counts.append([warning.message.counts for warning in caught])
    assert counts[0] == counts[1]
