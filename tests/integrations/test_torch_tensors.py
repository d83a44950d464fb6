"""Tensors in `safepickle.dumps`: their bytes once, their storages shared, and nothing read that is not theirs."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import re
import warnings
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import safepickle
from nodes import round_trip


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bytes(left.untyped_storage()) == bytes(right.untyped_storage())


def every_dtype() -> list[torch.dtype]:
    found = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    quantised = {torch.qint8, torch.qint32, torch.quint8, torch.quint4x2, torch.quint2x4}
    return sorted(found - quantised, key=str)


@pytest.mark.parametrize("dtype", every_dtype(), ids=str)
@pytest.mark.filterwarnings("ignore:B?Complex(Half|32) support is experimental")
def test_every_dtype_keeps_its_bits(dtype: torch.dtype) -> None:
    storage = torch.UntypedStorage(64)
    for position in range(64):
        storage[position] = position * 3 % 256
    tensor = torch.empty(0, dtype=dtype).set_(storage, 1, (2,), (1,))
    loaded = round_trip(tensor)
    assert loaded.dtype is dtype
    assert (loaded.shape, loaded.storage_offset()) == ((2,), 1)
    assert same_bits(loaded, tensor)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_carries_tensors(protocol: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    loaded = round_trip(model, protocol)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    loaded[0].weight.data.fill_(7)
    assert loaded[0].weight.eq(7).all()


VIEWS = {
    "transposed": lambda base: base.t(),
    "strided": lambda base: base[::2, 1::2],
    "expanded": lambda base: base[:, :1].expand(4, 9),
    "offset": lambda base: base[2:],
    "scalar": lambda base: base[1, 2],
    "empty in the middle": lambda base: base[2:2],
    "channels last": lambda base: base.reshape(1, 2, 2, 6).contiguous(memory_format=torch.channels_last),
    "overlapping": lambda base: base.as_strided((5, 3), (1, 1)),
    "conjugate": lambda base: torch.complex(base, -base).conj(),
    "negative": lambda base: torch.complex(base, base).conj().imag,
    "real part": lambda base: torch.complex(base, base).real,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_keep_strides_and_flags(view: Any) -> None:
    tensor = view(torch.arange(24.0).reshape(4, 6))
    loaded = round_trip(tensor)
    assert torch.equal(loaded, tensor)
    assert (loaded.stride(), loaded.storage_offset()) == (tensor.stride(), tensor.storage_offset())
    assert (loaded.is_conj(), loaded.is_neg()) == (tensor.is_conj(), tensor.is_neg())


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2), ()])
def test_zero_size_tensors_and_scalars_survive(shape: tuple[int, ...]) -> None:
    loaded = round_trip(torch.ones(shape))
    assert loaded.shape == shape
    assert torch.equal(loaded, torch.ones(shape))


def test_views_of_one_storage_share_one_storage_after_the_load() -> None:
    base = torch.zeros(1000)
    data = safepickle.dumps({"head": base[:10], "tail": base[990:], "all": base})
    assert len(data) < 2 * 4000
    loaded = safepickle.loads(data)
    loaded["all"][995] = 5
    assert loaded["tail"][5] == 5
    assert loaded["head"].untyped_storage() is loaded["tail"].untyped_storage()


def test_views_of_other_dtypes_share_the_storage_too() -> None:
    base = torch.zeros(8)
    floats, bits = round_trip((base, base.view(torch.int32)))
    floats[0] = 1.0
    assert bits[0] == 0x3F800000


def test_typed_and_untyped_storages_share_with_their_tensors() -> None:
    tensor = torch.arange(4.0)
    typed = tensor._typed_storage()
    loaded, typed, untyped = round_trip((tensor, typed, tensor.untyped_storage()))
    assert typed._untyped_storage is untyped is loaded.untyped_storage()
    assert typed.dtype is torch.float32


def test_tied_parameters_stay_tied() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["embedding"].weight
    loaded = round_trip(model)
    assert loaded["head"].weight is loaded["embedding"].weight


def test_parameters_that_share_a_storage_still_do() -> None:
    flat = torch.zeros(10)
    first, second = round_trip([nn.Parameter(flat[:5]), nn.Parameter(flat[3:])])
    with torch.no_grad():
        first[4] = 2
    assert second[1] == 2


def test_requires_grad_and_parameters_survive() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    result = (torch.ones(2, requires_grad=True) * 2).sum()
    loaded_frozen, free, plain, computed = round_trip([frozen, nn.Parameter(torch.ones(2)), torch.ones(2), result])
    assert type(loaded_frozen) is type(free) is nn.Parameter
    assert [tensor.requires_grad for tensor in (loaded_frozen, free, plain, computed)] == [False, True, False, True]
    assert computed.is_leaf
    free.sum().backward()
    assert free.grad.eq(1).all()


@pytest.mark.parametrize("make", [torch.ones, lambda n: nn.Parameter(torch.ones(n))], ids=["tensor", "parameter"])
def test_python_attributes_survive_also_when_they_lead_back(make: Any) -> None:
    tensor = make(3)
    tensor.note = {"scale": 2}
    tensor.itself = [tensor]
    tensor.again = weakref.ref(tensor)
    loaded = round_trip(tensor)
    assert loaded.note == {"scale": 2}
    assert loaded.itself[0] is loaded
    assert loaded.again() is loaded
    assert type(loaded) is type(tensor)


def test_buffers_registered_as_such_stay_buffers() -> None:
    loaded = round_trip(nn.Buffer(torch.ones(2), persistent=False))
    assert isinstance(loaded, nn.Buffer)
    assert loaded.persistent is False


@pytest.mark.parametrize("out_of_band", [False, True], ids=["in band", "out of band"])
def test_loaded_tensors_are_writable(out_of_band: bool) -> None:
    buffers: list[pickle.PickleBuffer] = []
    tensor = torch.zeros(1000)
    data = safepickle.dumps(tensor, buffer_callback=buffers.append if out_of_band else None)
    copies = [bytes(buffer) for buffer in buffers]
    loaded = safepickle.loads(data, buffers=copies)
    loaded.fill_(1)
    assert loaded.sum() == 1000
    assert tensor.sum() == 0
    assert copies == [bytes(4000)] * out_of_band
    assert safepickle.loads(data, buffers=copies).sum() == 0


def test_out_of_band_nothing_is_copied() -> None:
    buffers: list[pickle.PickleBuffer] = []
    tensor = torch.zeros(100_000)
    data = safepickle.dumps([tensor, tensor[5:]], buffer_callback=buffers.append)
    assert len(data) < 500
    assert [buffer.raw().nbytes for buffer in buffers] == [400_000]
    loaded, view = safepickle.loads(data, buffers=buffers)
    assert loaded.data_ptr() == tensor.data_ptr()
    assert view.data_ptr() == tensor.data_ptr() + 20


def test_buffers_keep_their_storage_alive() -> None:
    buffers: list[pickle.PickleBuffer] = []
    tensor = torch.full((1000,), 3.0)
    data = safepickle.dumps(tensor, buffer_callback=buffers.append)
    gone = weakref.ref(tensor)
    del tensor
    assert gone() is None
    assert safepickle.loads(data, buffers=buffers).eq(3).all()


def test_a_buffer_cannot_be_resized_under_its_tensor() -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = safepickle.dumps(torch.ones(100), buffer_callback=buffers.append)
    buffer = bytearray(buffers[0])
    loaded = safepickle.loads(data, buffers=[buffer])
    with pytest.raises(BufferError, match="object cannot be re-sized"):
        buffer.clear()
    loaded[0] = 9
    assert torch.frombuffer(buffer, dtype=torch.float32)[0] == 9


def test_misaligned_buffers_are_copied() -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = safepickle.dumps(torch.ones(4, dtype=torch.complex128), buffer_callback=buffers.append)
    shifted = memoryview(bytearray(b"x" + bytes(buffers[0])))[1:]
    loaded = safepickle.loads(data, buffers=[shifted])
    assert loaded.data_ptr() % 16 == 0
    assert torch.equal(loaded, torch.ones(4, dtype=torch.complex128))


def test_plain_pickle_reads_them() -> None:
    assert torch.equal(pickle.loads(safepickle.dumps(torch.arange(5))), torch.arange(5))


def test_weak_references_to_tensors_point_into_the_copy() -> None:
    model = nn.Linear(2, 2)
    loaded = round_trip({"early": weakref.ref(model.weight), "model": model, "late": weakref.ref(model.bias)})
    assert loaded["early"]() is loaded["model"].weight
    assert loaded["late"]() is loaded["model"].bias


def test_a_second_walk_hands_over_each_buffer_once() -> None:
    buffers: list[pickle.PickleBuffer] = []
    tensors = [torch.full((10,), float(number)) for number in range(3)]
    graph = {"refs": [weakref.ref(tensor) for tensor in tensors], "tensors": tensors}
    data = safepickle.dumps(graph, buffer_callback=buffers.append)
    assert len(buffers) == 3
    loaded = safepickle.loads(data, buffers=buffers)
    assert all(reference() is tensor for reference, tensor in zip(loaded["refs"], loaded["tensors"], strict=True))
    assert [int(tensor[0]) for tensor in loaded["tensors"]] == [0, 1, 2]


def test_dumping_keeps_nothing_alive_and_changes_nothing() -> None:
    model = nn.Linear(3, 3)
    before = copy.deepcopy(model.state_dict())
    safepickle.dumps(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    storage = weakref.ref(model.weight.untyped_storage())
    del model
    assert storage() is None


def test_backward_hooks_are_dropped_with_torchs_warning() -> None:
    tensor = torch.ones(2, requires_grad=True)
    tensor.register_hook(lambda grad: grad)
    with pytest.warns(UserWarning, match="backward hook .* will not be serialized"):
        loaded = round_trip(tensor)
    assert not loaded._backward_hooks


def test_a_dispatch_table_of_the_callers_own_wins() -> None:
    file = io.BytesIO()
    pickler = safepickle.Pickler(file)
    pickler.dispatch_table = {torch.Tensor: lambda tensor: (list, (tensor.tolist(),))}
    pickler.dump(torch.arange(3))
    assert safepickle.loads(file.getvalue()) == [0, 1, 2]


def test_the_default_device_of_the_loader_is_not_asked() -> None:
    data = safepickle.dumps(nn.Linear(2, 2))
    with torch.device("meta"):
        loaded = safepickle.loads(data)
    assert loaded.weight.device.type == "cpu"


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.arange(4.0), 0.5, 1, torch.quint8)


def nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def compressed() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(3).to_sparse_csr()


class Tagged(torch.Tensor):
    """A subclass with state of its own and no dispatch."""


def tagged() -> torch.Tensor:
    tensor = torch.arange(3.0).as_subclass(Tagged)
    tensor.tag = "t"
    return tensor


def shared() -> torch.Tensor:
    return torch.arange(3.0).share_memory_()


OTHERS = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": compressed,
    "quantised": quantised,
    "nested": nested,
    "subclass": tagged,
    "meta": lambda: torch.ones(3, device="meta"),
    "mkldnn": lambda: torch.ones(3).to_mkldnn(),
    "uninitialised": lambda: nn.LazyLinear(3),
    "shared memory": shared,
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_tensors_do_as_well_as_with_plain_pickle(make: Any) -> None:
    tensor = make()
    try:
        expected = pickle.loads(pickle.dumps(tensor, 5))
    except Exception as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            round_trip(tensor)
        return
    loaded = round_trip(tensor)
    assert repr(loaded) == repr(expected)
    assert type(loaded) is type(expected)
    assert getattr(loaded, "tag", None) == getattr(expected, "tag", None)


def test_sparse_and_subclassed_tensors_share_storages_with_dense_ones() -> None:
    base = torch.arange(3.0)
    loaded, view = round_trip((base.as_subclass(Tagged), base))
    view[0] = 9
    assert loaded[0] == 9


def test_fake_tensors_survive() -> None:
    with torch._subclasses.fake_tensor.FakeTensorMode():
        tensor = torch.ones(3)
    loaded = round_trip(tensor)
    assert type(loaded) is torch._subclasses.fake_tensor.FakeTensor
    assert loaded.shape == (3,)


@pytest.mark.parametrize("kind", [torch.Tensor, nn.Parameter, Tagged])
@pytest.mark.parametrize("through", ["dumps", "torch.save", "guarded"])
def test_attributes_of_a_tensor_may_refer_to_it_weakly(kind: type[torch.Tensor], through: str) -> None:
    tensor: Any = nn.Parameter(torch.ones(3)) if kind is nn.Parameter else torch.ones(3).as_subclass(kind)
    tensor.itself = weakref.ref(tensor)
    tensor.held = [weakref.WeakValueDictionary(key=tensor)]
    if through == "torch.save":
        torch.save(tensor, file := io.BytesIO(), pickle_module=safepickle)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
    elif through == "guarded":
        loaded = safepickle.loads(safepickle.dumps(tensor), allow=[Tagged])
    else:
        loaded = round_trip(tensor)
    assert type(loaded) is kind
    assert loaded.itself() is loaded.held[0]["key"] is loaded


def test_fake_tensor_is_known_to_its_mode_after_the_load() -> None:
    with torch._subclasses.fake_tensor.FakeTensorMode() as mode:
        tensor = torch.ones(3)
    memo = mode.fake_tensor_converter.meta_converter.tensor_memo
    memo[0] = tensor
    loaded = round_trip(tensor)
    assert loaded.fake_mode.fake_tensor_converter.meta_converter.tensor_memo[0] is loaded


def arguments_of(**changes: Any) -> bytes:
    """Pickle a tensor of 8 floats with some arguments of its rebuild function changed."""
    claims = {"offset": 0, "size": (8,), "stride": (1,), "dtype": "float32", "buffer": bytearray(32)} | changes

    class Claim:
        def __reduce__(self) -> Any:
            storage = safepickle.rebuild.rebuild_torch_storage(claims["buffer"])
            values = (claims["dtype"], claims["offset"], claims["size"], claims["stride"])
            return safepickle.rebuild.rebuild_torch_tensor, (storage, *values)

    return safepickle.dumps(Claim())


BAD_CLAIMS = {
    "short buffer": {"buffer": bytearray(31)},
    "empty buffer": {"buffer": bytearray()},
    "too many": {"size": (9,)},
    "offset": {"offset": 1},
    "far offset": {"offset": 2**62},
    "stride": {"stride": (2,)},
    "negative stride": {"stride": (-1,), "offset": 7},
    "negative size": {"size": (-8,)},
    "negative offset": {"offset": -1},
    "overflow": {"size": (2**40, 2**40), "stride": (2**40, 2**40)},
    "wide dtype": {"dtype": "complex128"},
    "more sizes than strides": {"size": (1, 8)},
}


@pytest.mark.parametrize("claim", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_claims_beyond_the_buffer_raise(claim: dict[str, Any]) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"cannot load a tensor: .* The pickle is damaged"):
        safepickle.loads(arguments_of(**claim))


@given(
    data=st.data(),
    dimensions=st.integers(0, 3),
    elements=st.integers(0, 12),
    offset=st.integers(-1, 13),
)
def test_a_claim_loads_if_and_only_if_all_of_it_is_in_the_buffer(
    data: st.DataObject, dimensions: int, elements: int, offset: int
) -> None:
    size = data.draw(st.tuples(*[st.integers(-1, 4)] * dimensions))
    stride = data.draw(st.tuples(*[st.integers(-1, 5)] * dimensions))
    claim = arguments_of(size=size, stride=stride, offset=offset, buffer=bytearray(4 * elements))
    positions = [
        offset + sum(index * step for index, step in zip(indices, stride, strict=True))
        for indices in itertools.product(*(range(length) for length in size))
    ]
    fits = min((offset, *size, *stride)) >= 0 and all(0 <= position < elements for position in positions)
    if fits:
        loaded = safepickle.loads(claim)
        assert (loaded.shape, loaded.stride(), loaded.storage_offset()) == (size, stride, offset)
        assert loaded.eq(0).all()
    else:
        with pytest.raises(pickle.UnpicklingError, match="cannot load a tensor"):
            safepickle.loads(claim)


def test_honest_claims_load() -> None:
    assert safepickle.loads(arguments_of()).shape == (8,)
    assert safepickle.loads(arguments_of(size=(0, 9), stride=(9, 1), buffer=bytearray())).shape == (0, 9)


def test_attributes_go_to_tensors_alone() -> None:
    with pytest.raises(TypeError, match="attributes of a tensor, not of a Linear"):
        safepickle.rebuild.rebuild_torch_attributes(nn.Linear(1, 1), {"weight": 1})


def test_swapped_buffers_raise() -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = safepickle.dumps([torch.ones(10), torch.ones(1000)], buffer_callback=buffers.append)
    with pytest.raises(pickle.UnpicklingError, match="needs 4000 bytes, and its storage has 40"):
        safepickle.loads(data, buffers=reversed(buffers))


@pytest.mark.parametrize("dtype", ["float31", "save", "__name__", 5])
def test_unknown_dtypes_raise(dtype: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="cannot load a tensor of dtype"):
        safepickle.loads(arguments_of(dtype=dtype))


@pytest.mark.parametrize("location", ["meta", torch.device("meta"), {"cpu": "meta"}])
def test_map_location_says_where_tensors_go(location: Any) -> None:
    from safepickle.integrations.torch import map_location

    data = safepickle.dumps(nn.Linear(2, 2))
    with map_location(location):
        loaded = safepickle.loads(data)
    assert loaded.weight.device.type == "meta"
    assert safepickle.loads(data).weight.device.type == "cpu"


def test_map_location_takes_a_function() -> None:
    from safepickle.integrations.torch import map_location

    seen: list[str] = []

    def note(storage: torch.UntypedStorage, location: str) -> None:
        seen.append(location)

    with map_location(note):
        loaded = round_trip(torch.ones(2))
    assert seen == ["cpu"]
    assert loaded.eq(1).all()


def test_tensors_of_a_device_that_is_not_there_come_to_the_cpu() -> None:
    storage = safepickle.rebuild.rebuild_torch_storage(bytearray(b"\x01\x02"), "cuda:63")
    assert storage.device.type == "cpu"
    assert bytes(storage) == b"\x01\x02"
