"""torch files under the guard: what torch writes loads, and containers and tensors that lie do not."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import pickletools
import struct
import warnings
import weakref
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import golden_torch_cases
import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary, WeakIdRef, _WeakHashRef

import safepickle
import safepickle.integrations.torch as torch_integration
from guard.assembler import PROTO4, STOP, Raw, build, call, get, name, new, pickled, value
from guard.costly_calls import put
from safepickle import rebuild


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.memory = nn.LSTM(3, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(3, 4)


def saved(obj: Any, *, zipped: bool = True, module: Any = pickle) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file, _use_new_zipfile_serialization=zipped, pickle_module=module)
    return file.getvalue()


def csr() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(3).to_sparse_csr()


def tagged() -> nn.Parameter:
    parameter = nn.Parameter(torch.ones(3))
    parameter.tag = "t"
    return parameter


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)


VALUES: dict[str, Callable[[], Any]] = {
    "state dict": lambda: Net().state_dict(),
    "optimizer": lambda: torch.optim.Adam(Net().parameters()).state_dict(),
    "views": lambda: (lambda base: [base, base.t(), base[1:], base[0]])(torch.randn(3, 4)),
    "expanded": lambda: torch.ones(3).expand(4, 3),
    "empty": lambda: [torch.empty(0), torch.empty(0, 3), torch.tensor(5)],
    "dtypes": lambda: [
        torch.zeros(2, dtype=getattr(torch, name)) for name in ("bfloat16", "bool", "int8", "complex64")
    ],
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "parameters": lambda: [nn.Parameter(torch.ones(2)), tagged()],
    "sparse": lambda: torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.ones(2), (2, 2)),
    "sparse rows": csr,
    "quantized": quantized,
    "meta": lambda: torch.empty(3, device="meta"),
    "sizes, dtypes and devices": lambda: [torch.Size([1, 2]), torch.float32, torch.device("cpu"), torch.strided],
    "layers": lambda: Net().body,
}
pytestmark = [
    # Of torch's own making, when it reads what it wrote.
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
]
ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@ZIPPED
@pytest.mark.parametrize("title", VALUES)
def test_what_torch_writes_loads(title: str, zipped: bool, tmp_path: Path):
    path = tmp_path / "file.pt"
    path.write_bytes(saved(VALUES[title](), zipped=zipped))
    expected = torch.load(path, weights_only=False)
    found = safepickle.inspect(path)
    assert (found.verdict, found.format) == ("safe", "torch zip" if zipped else "torch legacy")
    for loaded in (torch_integration.load(path), safepickle.load(path, allow=())):
        assert str(loaded) == str(expected)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("title", VALUES)
@pytest.mark.parametrize("module", [pickle, safepickle], ids=["pickle", "safepickle"])
def test_what_pickles_of_tensors_hold_loads(title: str, module: Any, protocol: int):
    data = module.dumps(VALUES[title](), protocol)
    assert str(safepickle.loads(data, allow=())) == str(module.loads(data))
    assert safepickle.inspect(data).verdict == "safe"


def sparse_layouts() -> dict[str, torch.Tensor]:
    eye = torch.eye(4)
    return {
        "rows": eye.to_sparse_csr(),
        "columns": eye.to_sparse_csc(),
        "blocks by rows": eye.to_sparse_bsr((2, 2)),
        "blocks by columns": eye.to_sparse_bsc((2, 2)),
        "coordinates": eye.to_sparse(),
        "not coalesced": torch.sparse_coo_tensor(torch.tensor([[0, 0], [1, 1]]), torch.ones(2), (4, 4)),
        "hybrid": torch.sparse_coo_tensor(torch.tensor([[0, 3]]), torch.ones(2, 3), (4, 3)),
    }


@pytest.mark.parametrize("module", [pickle, safepickle], ids=["pickle", "safepickle"])
def test_sparse_tensors_of_every_layout_load_from_pickles(module: Any):
    for title, tensor in sparse_layouts().items():
        loaded = safepickle.loads(module.dumps(tensor), allow=())
        assert loaded.layout == tensor.layout, title
        assert torch.equal(loaded.to_dense(), tensor.to_dense()), title
        assert loaded.layout != torch.sparse_coo or loaded.is_coalesced() == tensor.is_coalesced(), title


GOLDEN = sorted((Path(__file__).parent.parent / "data" / "golden").glob("*/py*/torch_*.pickle"))


CODE = [path for path in GOLDEN if path.stem == "torch_parametrized_modules"]
"""Golden pickles that no list lets through."""


@pytest.mark.parametrize("path", CODE, ids=lambda path: f"{path.parts[-2]}/{path.stem}")
def test_golden_pickles_of_torch_that_carry_code_are_refused(path: Path):
    with pytest.raises(safepickle.NotAllowedError, match="it gives an object another class"):
        safepickle.load(path, allow=[golden_torch_cases.Doubled, golden_torch_cases.Shifted])


@pytest.mark.parametrize(
    "path", [path for path in GOLDEN if path not in CODE], ids=lambda path: f"{path.parts[-2]}/{path.stem}"
)
def test_golden_pickles_of_torch_load(path: Path):
    golden_torch_cases.CASES[path.stem.replace("_", " ")].check(safepickle.load(path, allow=()))
    assert safepickle.inspect(path).verdict == "safe"


class OwnReference(WeakIdRef):
    """A reference with a constructor of its own."""

    def __init__(self, key: Any, callback: Any = None) -> None:
        super().__init__(key, callback)


class OtherReference(weakref.ref):
    pass


class OwnDictionary(WeakIdKeyDictionary):
    pass


def weak_graph() -> dict[str, Any]:
    tensor = torch.ones(1)
    hooks: OrderedDict[int, str] = OrderedDict()
    handle = RemovableHandle(hooks, extra_dict=[hooks])
    hooks[handle.id] = "hook"
    own = OwnDictionary({tensor: 2}, OwnReference)
    return {
        "tensor": tensor,
        "hooks": hooks,
        "handle": handle,
        "table": WeakIdKeyDictionary({tensor: 1}),
        "by hash": WeakIdKeyDictionary({tensor: 1}, _WeakHashRef),
        "references": [WeakIdRef(tensor), _WeakHashRef(tensor), TensorWeakRef(tensor), OwnReference(tensor)],
        "dead": [WeakIdRef(torch.ones(1)), TensorWeakRef(torch.ones(1))],
        "own": own,
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_weak_types_of_torch_load(protocol: int):
    data = safepickle.dumps(weak_graph(), protocol)
    loaded = safepickle.loads(data, allow=[OwnReference, OwnDictionary])
    tensor = loaded["tensor"]
    assert [reference() is tensor for reference in loaded["references"]] == [True] * 4
    assert [reference() for reference in loaded["dead"]] == [None, None]
    assert (loaded["table"][tensor], loaded["by hash"][tensor], loaded["own"][tensor]) == (1, 1, 2)
    assert type(loaded["own"]) is OwnDictionary
    loaded["handle"].remove()
    assert not loaded["hooks"]
    assert set(safepickle.inspect(data).allow) == {f"{__name__}:OwnReference", f"{__name__}:OwnDictionary"}
    with pytest.raises(safepickle.NotAllowedError, match=r"Own(Reference|Dictionary): it is on no list"):
        safepickle.loads(data, allow=())


def test_strong_copies_of_torchs_weak_types_load():
    graph = weak_graph()
    tensor, hooks = graph.pop("tensor"), graph.pop("hooks")
    loaded = safepickle.loads(safepickle.dumps(graph, weakrefs="strong"), allow=[OwnReference, OwnDictionary])
    assert [reference().tolist() for reference in loaded["references"]] == [tensor.tolist()] * 4
    assert list(loaded["handle"].hooks_dict_ref().values()) == list(hooks.values())


@ZIPPED
def test_model_loads_when_its_class_is_allowed(zipped: bool):
    data = saved(Net(), zipped=zipped, module=safepickle)
    for load in (
        lambda **options: torch_integration.load(io.BytesIO(data), **options),
        lambda allow: torch.load(io.BytesIO(data), pickle_module=safepickle, allow=allow),
        lambda allow: torch.load(io.BytesIO(data), pickle_module=safepickle.backend(allow=allow)),
    ):
        assert type(load(allow=[Net]).head) is nn.Linear
        with pytest.raises(safepickle.NotAllowedError, match=r"Net.*on no list"):
            load(allow=())
    with safepickle.allowing(Net):
        assert type(torch.load(io.BytesIO(data), pickle_module=safepickle)) is Net
    found = safepickle.inspect(data)
    assert (found.verdict, found.allow) == ("needs_allow", (f"{Net.__module__}:Net",))


def test_map_location_and_mmap_are_handed_on(tmp_path: Path):
    path = tmp_path / "file.pt"
    path.write_bytes(saved({"a": torch.arange(5)}))
    assert torch_integration.load(path, mmap=True)["a"].tolist() == [0, 1, 2, 3, 4]
    assert torch_integration.load(path, map_location="meta")["a"].is_meta


@ZIPPED
def test_attack_in_a_torch_file_is_refused(zipped: bool, tmp_path: Path):
    marker = str(tmp_path / "marker")

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (marker,)

    data = saved({"a": torch.ones(2), "b": Evil()}, zipped=zipped)
    for load in (
        lambda: torch_integration.load(io.BytesIO(data)),
        lambda: torch.load(io.BytesIO(data), pickle_module=safepickle, allow=()),
    ):
        with pytest.raises(safepickle.NotAllowedError, match=r"posix:mkdir.*operating system"):
            load()
    assert safepickle.inspect(data).verdict == "refused"
    assert not os.path.exists(marker)
    torch.load(io.BytesIO(data), weights_only=False)
    assert os.path.exists(marker)


def test_attack_in_a_storage_inside_a_pickle_is_refused(tmp_path: Path):
    marker = str(tmp_path / "marker")

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (marker,)

    class Storage:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (saved(Evil(), zipped=False),)

    data = pickle.dumps(Storage())
    with pytest.raises(safepickle.NotAllowedError, match="inside it"):
        safepickle.loads(data, allow=())
    assert safepickle.inspect(data).verdict == "refused"
    assert not os.path.exists(marker)
    pickle.loads(data)
    assert os.path.exists(marker)


def rezipped(data: bytes, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Write an archive anew, with changed members; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for info in old.infolist():
            content = change(info.filename, old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return out.getvalue()


def added(data: bytes, *members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(out, "a") as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def same(_: str, content: bytes) -> bytes:
    return content


GOOD = saved({"a": torch.arange(4.0)})
CONTAINERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a member twice": (lambda: added(GOOD, ("archive/data.pkl", b"N.")), "there twice"),
    "a member twice, in another case": (lambda: added(GOOD, ("archive/DATA.pkl", b"N.")), "there twice"),
    "compressed": (lambda: rezipped(GOOD, same, zipfile.ZIP_DEFLATED), "compressed"),
    "something appended": (lambda: GOOD + b"rest", "appended"),
    "a second archive appended": (lambda: GOOD + saved([1]), "where it says|should be"),
    "something in front": (lambda: GOOD[:0] + b"PK\x03\x04junk" + GOOD, "where it says|should be"),
    "TorchScript": (lambda: added(GOOD, ("archive/constants.pkl", b"N.")), "TorchScript"),
    "code": (lambda: added(GOOD, ("archive/code/x.py", b"")), "TorchScript"),
    "two folders": (lambda: added(GOOD, ("other/data.pkl", b"N.")), "one folder"),
    "a path upwards": (lambda: added(GOOD, ("archive/../x", b"")), "relative path"),
    "a backslash": (lambda: added(GOOD, ("archive/a\\b", b"")), "relative path"),
    "no pickle": (lambda: rezipped(GOOD, lambda name, content: None if name.endswith(".pkl") else content), "no data.pkl"),
    "a header with another name": (lambda: GOOD.replace(b"archive/data.pkl", b"archive/datb.pkl", 1), "differs"),
    "a header with another size": (lambda: _other_size(GOOD), "differs|cut off"),
    "a name for itself that is no text": (lambda: renamed(b"\xff"), "name for itself"),
    "a name for itself that is long": (lambda: renamed(b"1" * 300), "too long"),
    "cut off": (lambda: GOOD[:-30], "cut off|appended"),
}  # fmt: skip


def renamed(content: bytes) -> bytes:
    return rezipped(GOOD, lambda name, old: content if name.endswith("serialization_id") else old)


def _other_size(data: bytes) -> bytes:
    plain = rezipped(data, same)
    return plain[:22] + struct.pack("<I", 5) + plain[26:]


@pytest.mark.parametrize("title", CONTAINERS)
def test_container_that_can_be_read_in_two_ways_is_refused(title: str, tmp_path: Path):
    make, reason = CONTAINERS[title]
    path = tmp_path / "file.pt"
    path.write_bytes(make())
    with pytest.raises(safepickle.GuardedLoadError, match=rf"file\.pt: .*({reason})"):
        torch_integration.load(path)
    verdict = safepickle.inspect(path).verdict
    assert verdict == "not_a_pickle" if title == "no pickle" else verdict in ("refused", "damaged")


def test_rewritten_archive_without_tricks_loads():
    assert torch_integration.load(io.BytesIO(rezipped(GOOD, same)))["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"version https://git-lfs.github.com", b"\x1f\x8b" + bytes(9), b"\x80\x02N."]
)
def test_what_is_no_torch_file_is_named(data: bytes):
    with pytest.raises(safepickle.DamagedPickleError, match="this is"):
        torch_integration.load(io.BytesIO(data))


@ZIPPED
def test_every_short_prefix_is_an_error(zipped: bool):
    data = saved({"a": torch.arange(4.0)}, zipped=zipped)
    for length in range(0, len(data), 37):
        with pytest.raises(safepickle.GuardedLoadError, match=r"damaged|not allowed"):
            torch_integration.load(io.BytesIO(data[:length]))
        assert safepickle.inspect(data[:length]).verdict != "safe"


def tensor(size: Any = (4,), stride: Any = (1,), offset: Any = 0, **more: Any) -> Any:
    """An object that is pickled as a call of torch's rebuild function with such arguments."""

    class Lying:
        def __reduce__(self) -> Any:
            import collections

            storage = torch.arange(4.0).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            arguments = (typed, offset, size, stride, more.get("requires_grad", False))
            return torch._utils._rebuild_tensor_v2, (*arguments, more.get("hooks", collections.OrderedDict()))

    return Lying()


class Rebuild:
    """An object that is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call: tuple[Any, ...] = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def called(value: Any) -> None:
    """A function that is allowed, and is no callback for all that."""


def set_by(setter: Any, obj: Any, state: Any) -> Any:
    """An object that is pickled as a call of `setter` with an object and a state."""

    class Set:
        def __reduce__(self) -> Any:
            return (*obj.call, state, None, None, setter)

    return Set()


SPARSE = torch._utils._rebuild_sparse_tensor
DICTIONARY = (rebuild.rebuild_torch_weak_dictionary, WeakIdKeyDictionary, WeakIdRef)
NEW: Any = copyreg.__newobj__  # type: ignore[attr-defined]
HANDLE = (NEW, RemovableHandle)
LYING_WEAK: dict[str, Callable[[], Any]] = {
    "a reference with a callback": lambda: Rebuild(WeakIdRef, torch.ones(1), called),
    "a reference by hash with a callback": lambda: Rebuild(_WeakHashRef, torch.ones(1), called),
    "a reference of ours with a callback": lambda: Rebuild(
        rebuild.rebuild_torch_weak_reference, OwnReference, torch.ones(1), called
    ),
    "a reference that is a class of another kind": lambda: Rebuild(
        rebuild.rebuild_torch_weak_reference, Net, torch.ones(1)
    ),
    "a reference to what cannot be referred to": lambda: Rebuild(WeakIdRef, 3),
    "a live reference with another's hash": lambda: Stated(Rebuild(WeakIdRef, torch.ones(1)), (None, {"_id": 1})),
    "a dead reference with a hash of another type": lambda: Stated(
        Rebuild(rebuild.rebuild_dead_reference, WeakIdRef), (None, {"_id": "x"})
    ),
    "a dictionary of what are no references": lambda: Rebuild(WeakIdKeyDictionary, None, called),
    "a dictionary of references that torch knows nothing of": lambda: Rebuild(
        WeakIdKeyDictionary, None, OtherReference
    ),
    "a dictionary of plain content": lambda: Rebuild(WeakIdKeyDictionary, {1: 2}),
    "a dictionary of another class": lambda: Rebuild(rebuild.rebuild_torch_weak_dictionary, Net, WeakIdRef),
    "a dictionary with a callback of its own": lambda: set_by(
        rebuild.rebuild_torch_weak_entries, Rebuild(*DICTIONARY), ({"_remove": called}, [], ())
    ),
    "a dictionary with another kind of reference": lambda: set_by(
        rebuild.rebuild_torch_weak_entries, Rebuild(*DICTIONARY), ({"ref_type": called}, [], ())
    ),
    "entries for what is no dictionary": lambda: set_by(
        rebuild.rebuild_torch_weak_entries, Rebuild(Net), ({"body": 1}, [], ())
    ),
    "entries that are no pairs": lambda: set_by(
        rebuild.rebuild_torch_weak_entries, Rebuild(*DICTIONARY), (None, [1], ())
    ),
    "a reference to a tensor that wraps something else": lambda: Stated(
        Rebuild(NEW, TensorWeakRef), {"ref": called}
    ),
    "a handle of a list": lambda: Stated(Rebuild(*HANDLE), ([], 1, ())),
    "a handle of a module": lambda: Stated(Rebuild(*HANDLE), (nn.Linear(1, 1), 1, ())),
    "a handle beyond all numbers": lambda: Stated(Rebuild(*HANDLE), (None, 1 << 60, ())),
    "a handle with a number of another type": lambda: Stated(Rebuild(*HANDLE), (None, 1.5, ())),
    "a handle of a short state": lambda: Stated(Rebuild(*HANDLE), (None,)),
    "a handle that owns a list": lambda: set_by(rebuild.rebuild_torch_owning_handle, Rebuild(*HANDLE), ([], 1, ())),
    "what owns, and is no handle": lambda: set_by(rebuild.rebuild_torch_owning_handle, Rebuild(Net), (None, 1, ())),
}  # fmt: skip


class Stated(Rebuild):
    """An object that is pickled as a call, and a state."""

    def __init__(self, made: Rebuild, state: Any) -> None:
        self.call = (*made.call, state)


@pytest.mark.parametrize("title", LYING_WEAK)
def test_weak_type_of_torch_that_lies_is_refused(title: str):
    before = RemovableHandle.next_id
    # Below protocol 2 the call of copyreg.__newobj__ is written out, and pickle does not look at it.
    data = pickle.dumps(LYING_WEAK[title](), 1)
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged"):
        safepickle.loads(data, allow=[called, Net, OwnReference, OtherReference])
    assert RemovableHandle.next_id == before


LYING_SPARSE: dict[str, tuple[torch.layout, tuple[Any, ...]]] = {
    "a coordinate outside": (torch.sparse_coo, (torch.tensor([[0, 7], [1, 0]]), torch.ones(2), (2, 2))),
    "a coordinate far outside": (torch.sparse_coo, (torch.tensor([[0, 1 << 62], [1, 0]]), torch.ones(2), (2, 2))),
    "a negative coordinate": (torch.sparse_coo, (torch.tensor([[0, -1], [1, 0]]), torch.ones(2), (2, 2))),
    "coordinates said to be coalesced": (
        torch.sparse_coo,
        (torch.tensor([[0, 0], [1, 1]]), torch.ones(2), (2, 2), True),
    ),
    "more coordinates than values": (torch.sparse_coo, (torch.tensor([[0, 1], [1, 0]]), torch.ones(1), (2, 2))),
    "a column outside": (
        torch.sparse_csr,
        (torch.tensor([0, 1, 2]), torch.tensor([0, 9]), torch.ones(2), (2, 2)),
    ),
    "a row that ends outside": (
        torch.sparse_csr,
        (torch.tensor([0, 1, 9]), torch.tensor([0, 1]), torch.ones(2), (2, 2)),
    ),
    "a row that begins below 0": (
        torch.sparse_csr,
        (torch.tensor([-5, 1, 2]), torch.tensor([0, 1]), torch.ones(2), (2, 2)),
    ),
    "a row outside, by columns": (
        torch.sparse_csc,
        (torch.tensor([0, 1, 2]), torch.tensor([0, 9]), torch.ones(2), (2, 2)),
    ),
    "a block outside": (
        torch.sparse_bsr,
        (torch.tensor([0, 1, 2]), torch.tensor([0, 9]), torch.ones(2, 2, 2), (4, 4)),
    ),
}


@pytest.mark.parametrize("title", LYING_SPARSE)
@pytest.mark.parametrize("module", [pickle, safepickle], ids=["pickle", "safepickle"])
def test_sparse_tensor_of_a_pickle_that_lies_is_refused(title: str, module: Any):
    data = module.dumps(Rebuild(SPARSE, *LYING_SPARSE[title]))
    with pytest.raises(pickle.UnpicklingError, match="sparse tensor"):
        safepickle.loads(data, allow=())


INDICES = torch.tensor([[0, 7], [1, 0]])
LYING: dict[str, Any] = {
    "more elements": tensor(size=(5,)),
    "an offset behind the end": tensor(offset=1),
    "an offset far behind": tensor(offset=2**40),
    "a negative offset": tensor(offset=-1),
    "a long stride": tensor(stride=(2,)),
    "a negative stride": tensor(stride=(-1,), offset=3),
    "a negative size": tensor(size=(-4,)),
    "sizes that overflow": tensor(size=(2**32, 2**32), stride=(0, 0)),
    "a huge expansion": tensor(size=(2**40,), stride=(0,)),
    "size and stride of two lengths": tensor(size=(2, 2)),
    "a size that is no tuple": tensor(size=[4]),
    "a size of floats": tensor(size=(4.0,)),
    "requires_grad that is no bool": tensor(requires_grad=1),
    "hooks": tensor(hooks={1: len}),
    "sparse indices outside": Rebuild(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (INDICES, torch.ones(2), (2, 2))),
    "sparse indices of floats": Rebuild(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (torch.ones(2, 2), torch.ones(2), (2, 2))),
    "sparse rows outside": Rebuild(
        torch._utils._rebuild_sparse_tensor, torch.sparse_csr,
        (torch.tensor([0, 1, 9]), torch.tensor([0, 1]), torch.ones(2), (2, 2)),
    ),
    "a parameter of no tensor": Rebuild(torch._utils._rebuild_parameter, [1], True, {}),
    "a parameter of integers": Rebuild(torch._utils._rebuild_parameter, torch.tensor([1]), True, {}),
    "a parameter that sets its data": Rebuild(torch._utils._rebuild_parameter_with_state, torch.ones(1), True, {}, {"data": torch.ones(9)}),
    "a parameter that sets its class": Rebuild(torch._utils._rebuild_parameter_with_state, torch.ones(1), True, {}, {"__class__": dict}),
    "a function that is no rebuild function": Rebuild(torch._tensor._rebuild_from_type_v2, os.getcwd, torch.Tensor, (), {}),
    "a device of another name": Rebuild(torch.device, "vulkan"),
    "a layout of another name": Rebuild(torch.serialization._get_layout, "x"),
    "a meta tensor beyond all bounds": Rebuild(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (2**62,), (2**62,), False),
}  # fmt: skip


@ZIPPED
@pytest.mark.parametrize("title", LYING)
def test_tensor_that_lies_about_its_storage_is_refused(title: str, zipped: bool):
    data = saved(LYING[title], zipped=zipped)
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged|over a limit"):
        torch_integration.load(io.BytesIO(data))
    if "outside" not in title:
        # What the indices of a sparse tensor are only its storage tells, which inspect does not read.
        assert safepickle.inspect(data).verdict in ("refused", "damaged")


def test_record_that_is_shorter_than_claimed_is_an_error():
    data = rezipped(GOOD, lambda name, content: content[:8] if name.endswith("data/0") else content)
    with pytest.raises(safepickle.DamagedPickleError, match="claims 16 bytes, and the archive holds 8"):
        torch_integration.load(io.BytesIO(data))
    assert safepickle.inspect(data).verdict == "damaged"


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("elements", [3, 5])
def test_storage_of_another_length_than_its_record_is_an_error_mapped_or_read(
    elements: int, mmap: bool, tmp_path: Path
):
    path = tmp_path / "file.pt"
    path.write_bytes(
        rezipped(
            saved(torch.arange(4)),
            lambda name, content: (
                content.replace(b"K\x04t", b"K" + bytes([elements]) + b"t") if name.endswith("data.pkl") else content
            ),
        )
    )
    with pytest.raises(safepickle.DamagedPickleError, match="and the archive holds 32"):
        torch_integration.load(path, mmap=mmap)
    assert safepickle.inspect(path).verdict == "damaged"


@pytest.mark.parametrize("mmap", [False, True])
def test_id_of_the_older_format_in_an_archive_is_damage(mmap: bool, tmp_path: Path):
    path = tmp_path / "file.pt"
    path.write_bytes(
        rezipped(
            saved(torch.arange(4)),
            lambda name, content: content.replace(b"K\x04t", b"K\x04Nt") if name.endswith("data.pkl") else content,
        )
    )
    with pytest.raises(safepickle.DamagedPickleError, match="has a view, as those of the older format alone have"):
        torch_integration.load(path, mmap=mmap)
    assert safepickle.inspect(path).verdict == "damaged"


class Storage:
    """A storage as a pickle of the older format mentions it: by any claim."""

    def __init__(self, *claim: Any) -> None:
        self.claim = claim


class Claiming(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", *obj.claim) if type(obj) is Storage else None


def legacy_file(obj: Any, keys: list[Any], storages: bytes) -> bytes:
    """A file of the older format, written by hand."""
    file = io.BytesIO()
    for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(head, file, 2)
    Claiming(file, 2).dump(obj)
    pickle.dump(keys, file, 2)
    return file.getvalue() + storages


FOUR = struct.pack("<q4f", 4, *range(4))
CLAIM = (torch.FloatStorage, "a", "cpu", 4, None)


def of_view(*view: Any) -> Storage:
    return Storage(*CLAIM[:4], view)


LYING_CLAIMS: dict[str, tuple[Any, Any, bytes]] = {
    "a storage without a type": ([Storage(torch.UntypedStorage, "a", "cpu", 16, None)], ["a"], FOUR),
    "no storages, and a list that is a dict": (1, {}, b""),
    "no storages, and a list of one": (1, ["a"], FOUR),
    "a list of storages that is empty": ([Storage(*CLAIM)], [], b""),
    "a list of storages that lacks one": ([Storage(*CLAIM), Storage(torch.FloatStorage, "b", "cpu", 4, None)], ["a"], FOUR),
    "a list of storages with one more": ([Storage(*CLAIM)], ["a", "b"], FOUR + FOUR),
    "a list of storages with one twice": ([Storage(*CLAIM)], ["a", "a"], FOUR + FOUR),
    "a list of storages that is a tuple": ([Storage(*CLAIM)], ("a",), FOUR),
    "a list of numbers": ([Storage(*CLAIM)], [1], FOUR),
    "two lengths": ([Storage(*CLAIM), Storage(torch.FloatStorage, "a", "cpu", 3, None)], ["a"], FOUR),
    "two types": ([Storage(*CLAIM), Storage(torch.DoubleStorage, "a", "cpu", 2, None)], ["a"], FOUR),
    "two types of one size": ([Storage(*CLAIM), Storage(torch.IntStorage, "a", "cpu", 4, None)], ["a"], FOUR),
    "two lengths of a view": ([of_view("v", 0, 2), of_view("v", 0, 4)], ["a"], FOUR),
    "two places of a view": ([of_view("v", 0, 2), of_view("v", 1, 2)], ["a"], FOUR),
    "a view by the name of its storage": ([of_view("a", 0, 2)], ["a"], FOUR),
    "a view by the name of another storage": ([Storage(torch.FloatStorage, "b", "cpu", 4, None), of_view("b", 0, 2)], ["a", "b"], FOUR + FOUR),
    "a storage by the name of a view": ([of_view("b", 0, 2), Storage(torch.FloatStorage, "b", "cpu", 4, None)], ["a", "b"], FOUR + FOUR),
    "a view outside": ([of_view("v", 2, 3)], ["a"], FOUR),
    "an id without a view": ([Storage(*CLAIM[:4])], ["a"], FOUR),
}  # fmt: skip


@pytest.mark.parametrize("title", LYING_CLAIMS)
def test_claims_of_an_older_file_are_held_against_it(title: str, tmp_path: Path):
    good = legacy_file([Storage(*CLAIM), of_view("v", 1, 2)], ["a"], FOUR)
    whole, view = torch_integration.load(io.BytesIO(good))
    assert (whole.tolist(), view.tolist(), safepickle.inspect(good).verdict) == ([0, 1, 2, 3], [1, 2], "safe")
    path = tmp_path / "file.pt"
    path.write_bytes(legacy_file(*LYING_CLAIMS[title]))
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(safepickle.DamagedPickleError, match=r"storage|view|unpack"):
            torch_integration.load(file)
    assert safepickle.inspect(path).verdict == "damaged"


@pytest.mark.parametrize("number", range(1, 5))
def test_buffer_that_torch_would_not_give_is_missed_in_each_pickle_behind_the_first(number: int):
    """``NEXT_BUFFER`` in front of what the pickle holds, whose place it leaves again."""
    pickles = list(split_pickles(legacy_file(1, [], b"")))
    pickles[number] = pickles[number][:2] + b"\x970" + pickles[number][2:]
    data = b"".join(pickles)
    with pytest.raises(safepickle.DamagedPickleError, match="out-of-band buffers"):
        torch_integration.load(io.BytesIO(data))
    assert safepickle.inspect(data).verdict == "damaged"


def split_pickles(data: bytes) -> Iterator[bytes]:
    file = io.BytesIO(data)
    while file.tell() < len(data):
        start = file.tell()
        for _ in pickletools.genops(file):
            pass
        yield data[start : file.tell()]


def test_torch_file_that_is_a_tar_archive_too_is_refused(tmp_path: Path):
    data = bytearray(saved(torch.arange(400.0), zipped=False))
    data[100:148] = b"0000000\0" * 3 + b"00000000000\0" * 2
    data[329:345] = b"0000000\0" * 2
    total = sum(data[:148]) + 8 * ord(" ") + sum(data[156:512])
    data[148:156] = f"{total:06o}\0 ".encode()
    path = tmp_path / "file.pt"
    path.write_bytes(data)
    with pytest.raises(safepickle.NotAllowedError, match="a torch file and a tar archive at once"):
        torch_integration.load(path)
    assert safepickle.inspect(path).verdict == "refused"


def test_keras_archive_is_named_and_not_taken_for_a_torch_file(tmp_path: Path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5", "x/data.pkl"):
            archive.writestr(name, "{}")
    for load in (torch_integration.load, lambda path: safepickle.load(path, allow=())):
        with pytest.raises(safepickle.DamagedPickleError, match=r"a \.keras archive: load it with keras"):
            load(path)
    found = safepickle.inspect(path)
    assert (found.verdict, ".keras archive" in found.problems[0].reason) == ("damaged", True)


def test_legacy_storages_claim_no_more_than_is_left():
    data = saved(torch.arange(4.0), zipped=False).replace(b"K\x04N", b"\x8a\x05\x00\x00\x00\x00\x01N", 1)
    with pytest.raises(safepickle.DamagedPickleError, match="claim more bytes than the file has"):
        torch_integration.load(io.BytesIO(data))
    assert safepickle.inspect(data).verdict == "damaged"


def test_flipped_bytes_raise_nothing_but_unpickling_errors():
    for zipped in (True, False):
        good = saved({"a": torch.arange(4.0), "b": nn.Linear(2, 2).state_dict()}, zipped=zipped)
        for position in range(0, len(good), 11):
            data = bytearray(good)
            data[position] ^= 1 << (position % 8)
            found = safepickle.inspect(bytes(data))
            try:
                torch_integration.load(io.BytesIO(bytes(data)))
            except pickle.UnpicklingError:
                # Damage to the magic number leaves a plain pickle of a number.
                assert found.verdict != "safe" or found.format == "pickle"
            else:
                assert found.verdict == "safe"


STORAGE = call(name("safepickle.rebuild", "rebuild_torch_storage"), bytes(8))
TYPED = call(name("safepickle.rebuild", "rebuild_torch_typed_storage"), STORAGE, "float32")
QUANTIZED = call(name("safepickle.rebuild", "rebuild_torch_typed_storage"), STORAGE, "qint8")
HOOKS = call(name("collections", "OrderedDict"))
PLAIN = call(name("torch._utils", "_rebuild_tensor_v2"), TYPED, 0, (2,), (1,), False, HOOKS)
HOOKED = {
    "a tensor": lambda hooks: call(
        name("torch._utils", "_rebuild_tensor_v2"), TYPED, 0, (2,), (1,), True, hooks
    ),
    "a tensor of its own dtype": lambda hooks: call(
        name("torch._utils", "_rebuild_tensor_v3"), TYPED, 0, (2,), (1,), False, hooks, name("torch", "float32")
    ),
    "a parameter": lambda hooks: call(name("torch._utils", "_rebuild_parameter"), PLAIN, True, hooks),
    "a parameter with attributes": lambda hooks: call(
        name("torch._utils", "_rebuild_parameter_with_state"), PLAIN, True, hooks, {"tag": 1}
    ),
    "a tensor of a class": lambda hooks: call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch._utils", "_rebuild_tensor_v2"),
        name("torch", "Tensor"),
        (TYPED, 0, (2,), (1,), True, hooks),
        {"tag": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["OrderedDict", "dict"])
@pytest.mark.parametrize("title", HOOKED)
def test_hooks_that_are_filled_later_are_not_those_of_the_tensor(title: str, kind: str):
    hooks = Raw((HOOKS if kind == "OrderedDict" else b"}") + put(0))
    program = PROTO4 + HOOKED[title](hooks) + get(0) + b"K\x00" + name("builtins", "ValueError") + b"s0" + STOP
    assert safepickle.inspect(program).verdict == "safe"
    assert not safepickle.loads(program, allow=())._backward_hooks


LSTM = Raw(name("torch.nn.modules.rnn", "LSTM") + b")\x81")
GRU = Raw(name("torch.nn.modules.rnn", "GRU") + b")\x81")
SOFTPLUS = Raw(name("torch.nn.modules.activation", "Softplus") + b")\x81")
WEIGHTS = {"_all_weights": [["w"]], "_flat_weights_names": ["w"], "_flat_weights": [None]}
LYING_LAYERS: dict[str, Raw] = {
    "layers without end": build(LSTM, {"_all_weights": [[None]], "num_layers": 10**9, "bidirectional": True}),
    "layers without end, of an older version": build(
        GRU, {"all_weights": [[None]], "num_layers": 10**9, "bidirectional": False}
    ),
    "no weights": build(GRU, {}),
    "no names of weights": build(GRU, {**WEIGHTS, "_all_weights": []}),
    "weights of numbers": build(LSTM, {**WEIGHTS, "_all_weights": [[1]]}),
    "weights that are none": build(LSTM, {**WEIGHTS, "_flat_weights": [1]}),
    "more names than weights": build(LSTM, {**WEIGHTS, "_flat_weights_names": ["w", "proj_size"]}),
    "a table that is a number": build(SOFTPLUS, {"_parameters": 5}),
    "a table that is a list": build(SOFTPLUS, {"_modules": ["a"]}),
    "a table of numbers": build(SOFTPLUS, {"_buffers": {1: None}}),
    "a parameter by the name of hooks": build(SOFTPLUS, {"_parameters": {"_forward_hooks": None}}),
    "names of buffers in a list": build(SOFTPLUS, {"_non_persistent_buffers_set": ["a"]}),
    "hooks that are none": build(SOFTPLUS, {"_forward_hooks": 1}),
    "an attribute that is a number": build(SOFTPLUS, {1: 2}),
    "a method that is hidden": build(SOFTPLUS, {"forward": name("builtins", "ValueError")}),
    "a call that is hidden": build(SOFTPLUS, {"_compiled_call_impl": name("builtins", "ValueError")}),
    "a state that is a list": build(SOFTPLUS, []),
}  # fmt: skip


@pytest.mark.parametrize("title", LYING_LAYERS)
def test_layer_whose_state_torch_could_not_read_is_refused(title: str):
    program = pickled(LYING_LAYERS[title])
    assert safepickle.inspect(program).verdict in ("refused", "damaged")
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged"):
        safepickle.loads(program, allow=())


class Memory(nn.LSTM):
    """Takes its state by torch's own method."""


class Marked(torch.Tensor):
    """Takes its state by torch's own method."""


def test_layer_of_a_users_class_is_held_to_the_same():
    memory = Memory(2, 3)
    loaded = safepickle.loads(safepickle.dumps(memory), allow=[Memory])
    assert torch.equal(loaded(torch.ones(1, 2))[0], memory(torch.ones(1, 2))[0])
    without_end = {"all_weights": [[None]], "num_layers": 10**9, "bidirectional": False}
    program = pickled(build(new(name(__name__, "Memory")), without_end))
    with pytest.raises(safepickle.NotAllowedError, match="no list of its weights"):
        safepickle.loads(program, allow=[Memory])


def test_tensor_of_a_users_class_takes_no_state_but_from_torch():
    marked = torch.ones(2).as_subclass(Marked)
    marked.note = "kept"
    loaded = safepickle.loads(safepickle.dumps(marked), allow=[Marked])
    assert (type(loaded), loaded.note) == (Marked, "kept")
    made = new(name(__name__, "Marked"))
    assert type(safepickle.loads(pickled(made), allow=[Marked])) is Marked
    for state in ((PLAIN, 0, (1 << 40,), (1,)), (False, 0, {1: name(__name__, "Memory")})):
        with pytest.raises(safepickle.NotAllowedError, match="torch gives a tensor its state"):
            safepickle.loads(pickled(build(made, state)), allow=[Marked, Memory])


def test_layer_keeps_an_attribute_by_the_name_of_a_method():
    layer = nn.Sequential(nn.Linear(1, 1))
    layer.type = "models.Sequential"
    assert safepickle.loads(pickle.dumps(layer), allow=()).type == "models.Sequential"


CHANNEL = (name("torch", "per_channel_affine"), PLAIN, PLAIN, 0)
LYING_CALLS: dict[str, Raw] = {
    "a quantized tensor by the function of others": call(
        name("torch._utils", "_rebuild_tensor_v2"), QUANTIZED, 0, (2,), (1,), False, HOOKS
    ),
    "a quantized tensor that is expanded": call(
        name("torch._utils", "_rebuild_qtensor"), QUANTIZED, 0, (1 << 30,), (0,),
        (name("torch", "per_tensor_affine"), 1.0, 0), False, HOOKS,
    ),
    "a zero point that no tensor has": call(
        name("torch._utils", "_rebuild_qtensor"), QUANTIZED, 0, (2,), (1,),
        (name("torch", "per_tensor_affine"), 1.0, 1 << 70), False, HOOKS,
    ),
    "zero points of floats": call(
        name("torch._utils", "_rebuild_qtensor"), QUANTIZED, 0, (2,), (1,), CHANNEL, False, HOOKS
    ),
    "a storage that knows no type": call(
        name("torch._utils", "_rebuild_tensor_v2"), STORAGE, 0, (2,), (1,), False, HOOKS
    ),
    "a storage that knows its type": call(
        name("safepickle.rebuild", "rebuild_torch_tensor"), TYPED, "float32", 0, (2,), (1,)
    ),
    "a typed storage of a typed storage": call(
        name("safepickle.rebuild", "rebuild_torch_typed_storage"), TYPED, "float32"
    ),
    "a device beyond all": call(name("torch", "device"), "cuda:300"),
    "a long version": call(name("torch.torch_version", "TorchVersion"), "1." * 1000),
    "a copy of what is expanded": call(
        name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
        call(name("torch._utils", "_rebuild_tensor_v2"), TYPED, 0, (1 << 30,), (0,), False, HOOKS),
        name("torch", "complex128"), "cpu", False,
    ),
    "a storage of one payload, again and again": Raw(
        value(bytes(1 << 20)) + b"\x85" + put(1) + b"0" + name("safepickle.rebuild", "rebuild_torch_storage") + put(2)
        + b"0(" + (get(2) + get(1) + b"R") * 6_000 + b"l"
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", LYING_CALLS)
def test_call_that_torch_would_take_badly_is_refused(title: str):
    program = pickled(LYING_CALLS[title])
    assert safepickle.inspect(program).verdict in ("refused", "damaged")
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged|over a limit"):
        safepickle.loads(program, allow=())


@pytest.mark.parametrize("listed", [[], ["other"], ["0", "0"], [1], None])
@pytest.mark.parametrize("module", [safepickle, safepickle.backend(allow=())], ids=["module", "backend"])
def test_storages_that_an_older_file_does_not_list_are_missed(listed: Any, module: Any):
    good = saved({"a": torch.arange(4.0)}, zipped=False)
    file = io.BytesIO(good)
    for _ in range(3):
        pickle.load(file)
    end = good.index(b"ctorch._utils", file.tell())
    data = good[: good.index(b".\x80", end) + 1] + pickle.dumps(listed, 2)
    for load in (
        lambda: torch_integration.load(io.BytesIO(data)),
        lambda: torch.load(
            io.BytesIO(data), pickle_module=module, **({} if module is not safepickle else {"allow": ()})
        ),
    ):
        with pytest.raises(safepickle.DamagedPickleError, match=r"storage"):
            load()
    assert safepickle.inspect(data).verdict == "damaged"
