"""The seeds: good and bad programs of the tests' tables, and those that the fuzzer found to reach something new.

The latter are kept in ``corpus/``, one file for each kind of input, one seed in base64 on each line, sorted. So they
grow by readable diffs, and a seed cannot be there twice.
"""

from __future__ import annotations

import base64
import io
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {"pickles": ("load", "load_allowed", "inspect", "agreement"), "torch_files": ("torch",)}
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
    """Return the seeds that the fuzzer found."""
    path = HERE / "corpus" / f"{kind}.txt"
    return [read(text) for text in path.read_text().split()] if path.exists() else []


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
    (HERE / "corpus" / f"{kind}.txt").write_text("".join(f"{text}\n" for text in lines))
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
    with attacks.registered_extension(), tempfile.TemporaryDirectory() as folder:
        for attack in attacks.ATTACKS:
            yield attack.build(f"{folder}/m")
    for build in costly.COSTLY.values():
        yield build()


def _torch_files() -> Iterator[bytes]:
    import torch

    import safepickle

    layer = torch.nn.Linear(2, 1)
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    base = torch.arange(6.0)
    for obj in (
        {"w": torch.ones(2), "n": 1},
        [base, base[::2], base.reshape(2, 3).T],
        torch.nn.Parameter(torch.ones(1)),
        layer.state_dict(),
        layer,
        torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.LayerNorm(1)),
        [
            quantised,
            torch.eye(2).to_sparse(),
            torch.tensor(1j),
            torch.tensor(True),
            torch.zeros(0, dtype=torch.bfloat16),
        ],
        [torch.float32, torch.device("cpu"), torch.Size([1]), torch.strided, torch.nn.GRU(1, 1)],
        torch.optim.SGD(layer.parameters(), momentum=0.9).state_dict(),
    ):
        for module in (pickle, safepickle):
            for as_zip in (True, False):
                file = io.BytesIO()
                torch.save(obj, file, pickle_module=module, _use_new_zipfile_serialization=as_zip)
                yield file.getvalue()
