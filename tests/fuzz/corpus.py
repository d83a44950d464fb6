"""The seeds: good and bad programs of the tests' tables, and those that the fuzzer found to reach something new.

The latter are kept in ``corpus/``, one file for each kind of input, one seed in base64 on each line, sorted. So they
grow by readable diffs, and a seed cannot be there twice. Beside each lies a file of inputs that were findings.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = {"pickles": ("load", "load_allowed", "verified", "inspect", "agreement"), "torch_files": ("torch",)}
"""The kinds of input, and the targets that take them."""

ALL = tuple(target for targets in KINDS.values() for target in targets)

LONGEST = 4096
"""Bytes of the longest input. Costs that need more are held by the tables of the tests."""

LARGEST = 64_000
"""Bytes of all found seeds of one kind."""


def kind_of(target: str) -> str:
    """Return which kind of input a target takes."""
    return next(kind for kind, targets in KINDS.items() if target in targets)


def found(kind: str) -> list[bytes]:
    """Return the seeds that the fuzzer found to reach something new."""
    return _read_all(f"{kind}.txt")


def mended(kind: str) -> list[bytes]:
    """Return the inputs that were findings. They are added by hand, once they are none any more, and stay."""
    return _read_all(f"{kind}.mended.txt")


def _read_all(name: str) -> list[bytes]:
    return [read(text) for text in (HERE / "corpus" / name).read_text(encoding="utf-8").split()]


def read(text: str) -> bytes:
    """Return the seed of one line."""
    return base64.b64decode(text)


def line(seed: bytes) -> str:
    """Return the line of one seed."""
    return base64.b64encode(seed).decode()


def keep(kind: str, seeds: set[bytes]) -> int:
    """Write the found seeds anew, the shortest first as far as `LARGEST` goes; return how many there are."""
    kept, total = [], 0
    for seed in sorted(seeds, key=lambda seed: (len(seed), seed)):
        total += len(seed)
        if total > LARGEST:
            break
        kept.append(seed)
    lines = sorted(line(seed) for seed in kept)
    (HERE / "corpus" / f"{kind}.txt").write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return len(kept)


def written(kind: str) -> Iterator[bytes]:
    """Yield the seeds that the tables of the tests give."""
    for seed in _torch_files() if kind == "torch_files" else _pickles():
        if 0 < len(seed) <= LONGEST:
            yield seed


def _pickles() -> Iterator[bytes]:
    import safepickle
    from guard import attacks, benign, costly

    for obj in benign.BUILT_IN.values():
        for protocol in (0, 2, 4, 5):
            yield pickle.dumps(obj, protocol)
    for make, _ in benign.ALLOWED.values():
        yield safepickle.dumps(make(), 2)
        yield safepickle.dumps(make())
    for path in sorted((HERE.parent / "data" / "golden").rglob("*.pickle")):
        yield path.read_bytes()
    for obj in _tensors():
        for protocol in (2, 5):
            yield safepickle.dumps(obj, protocol)
            with contextlib.suppress(TypeError):  # a weak reference
                yield pickle.dumps(obj, protocol)
    with attacks.registered_extension(), tempfile.TemporaryDirectory() as folder:
        for attack in attacks.ATTACKS:
            yield attack.build(f"{folder}/m")
    for build in costly.COSTLY.values():
        yield build()


def _torch_files() -> Iterator[bytes]:
    import torch

    import safepickle

    for obj in _tensors():
        for as_zip in (True, False):
            file = io.BytesIO()
            torch.save(obj, file, pickle_module=safepickle, _use_new_zipfile_serialization=as_zip)
            yield file.getvalue()


def _tensors() -> Iterator[Any]:
    """Yield objects of torch, all small, where torch is installed."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch
    from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef

    ones, base, layer = torch.ones(2), torch.arange(6.0), torch.nn.Linear(2, 1)
    tagged = torch.nn.Parameter(torch.ones(1))
    tagged.tag = "t"
    yield from ({"w": ones, "n": 1}, [base, base[::2], base.reshape(2, 3).T, base[:1].expand(3, 1)])
    yield from (tagged, torch.ones(1, requires_grad=True), torch.nn.Buffer(ones), torch.tensor([1j]).conj())
    yield [torch.zeros(1, dtype=dtype) for dtype in (torch.bfloat16, torch.bool, torch.int8, torch.complex64)]
    yield from (torch.empty(2, device="meta"), [torch.float32, torch.device("cpu"), torch.Size([1]), torch.strided])
    eye = torch.eye(2)
    yield from (eye.to_sparse(), eye.to_sparse_csr(), eye.to_sparse_csc(), eye.to_sparse_bsr((1, 1)))
    yield torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8)
    yield torch.quantize_per_channel(eye, torch.ones(2), torch.zeros(2), 0, torch.qint8)
    yield from (ones.untyped_storage(), ones.numpy(), torch.Generator().get_state()[:8].clone())
    yield from (layer, layer.state_dict(), torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.LayerNorm(1)))
    yield from (torch.nn.GRU(1, 1), torch.optim.SGD(layer.parameters(), momentum=0.9).state_dict())
    yield from ([ones, WeakIdRef(ones)], [ones, WeakIdKeyDictionary({ones: 1})])
