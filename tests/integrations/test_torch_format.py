"""The file format of tensors: golden pickles of every version, and what torch itself writes."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import golden_torch_cases
import pytest
import torch

import safepickle
from safepickle import rebuild

DATA = Path(__file__).resolve().parent.parent / "data"
GOLDEN = sorted((DATA / "golden").glob("*/py*/torch_*.pickle"))
FOREIGN = sorted((DATA / "foreign").glob("py*/torch-*.pt"))
LEGACY_STORAGE = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


def name_of(path: Path) -> str:
    return "/".join(path.relative_to(DATA).parts[1:])


@LEGACY_STORAGE
@pytest.mark.parametrize("path", GOLDEN, ids=name_of)
@pytest.mark.parametrize("reader", ["safepickle", "pickle"])
def test_golden_pickles_of_tensors_load(path: Path, reader: str) -> None:
    case = golden_torch_cases.CASES[path.stem.replace("_", " ")]
    case.check(safepickle.load(path) if reader == "safepickle" else pickle.loads(path.read_bytes()))


@LEGACY_STORAGE
def test_every_name_of_the_format_is_in_a_golden_pickle() -> None:
    named = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add(name)
            return super().find_class(module, name)

    for path in GOLDEN:
        if path.parts[-3] == safepickle.__version__:
            Noting(io.BytesIO(path.read_bytes())).load()
    assert {name for name in rebuild.__all__ if "torch" in name} - named == set()


@LEGACY_STORAGE
@pytest.mark.parametrize("name", golden_torch_cases.CASES)
@pytest.mark.parametrize("protocol", [2, 5])
def test_cases_hold_today(name: str, protocol: int) -> None:
    case = golden_torch_cases.CASES[name]
    case.check(safepickle.loads(safepickle.dumps(case.build(), protocol, **case.options)))


@pytest.mark.parametrize("path", FOREIGN, ids=name_of)
def test_files_of_torch_save_load_from_a_path(path: Path) -> None:
    golden_torch_cases.check_module(safepickle.load(path))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("writer", [pickle, safepickle])
def test_what_torch_writes_today_loads_from_a_path(zipped: bool, writer: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    torch.save(golden_torch_cases.module(), path, pickle_module=writer, _use_new_zipfile_serialization=zipped)
    golden_torch_cases.check_module(safepickle.load(path))
    golden_torch_cases.check_module(torch.load(path, pickle_module=safepickle, weights_only=False))
