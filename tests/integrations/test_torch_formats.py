"""Files of torch, joblib, safetensors and Keras that safepickle does not load are named, with what loads them."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

import safepickle


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    return path


def test_a_torch_file_that_is_cut_off_is_named(saved: Path):
    saved.write_bytes(saved.read_bytes()[:3000])
    with pytest.raises(safepickle.NotAPickleError, match=r"model\.pt: this is a zip file, as torch\.save.*cut off"):
        safepickle.load(saved)
    with pytest.raises(safepickle.DamagedPickleError, match=r"model\.pt.*as torch\.save writes, that is cut off"):
        safepickle.load(saved, allow=())
    assert (safepickle.inspect(saved).format, safepickle.inspect(saved).verdict) == ("torch zip", "damaged")


def test_the_bytes_of_a_torch_file_are_named(saved: Path):
    with pytest.raises(safepickle.NotAPickleError, match=r"torch\.save writes: load it from its path"):
        safepickle.loads(saved.read_bytes())


def test_torchscript_is_named():
    data = io.BytesIO()
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), data)
    with pytest.raises(safepickle.NotAPickleError, match=r"TorchScript archive.*torch\.jit\.load"):
        safepickle.loads(data.getvalue())
    found = safepickle.inspect(data.getvalue())
    assert (found.format, found.verdict) == ("TorchScript", "refused")


def test_a_file_of_joblib_with_arrays_is_named(tmp_path: Path):
    path = tmp_path / "arrays.joblib"
    joblib.dump({"weight": np.ones(1000)}, path)
    with pytest.raises(safepickle.NotAPickleError, match=r"arrays\.joblib: this is a file of joblib\.dump"):
        safepickle.load(path)
    with pytest.raises(safepickle.DamagedPickleError, match=r"joblib\.load"):
        safepickle.load(path, allow=())
    assert safepickle.inspect(path).format == "joblib"


@pytest.mark.parametrize("allow", [None, ()])
def test_a_torch_file_that_was_compressed_is_loaded(allow, saved: Path):
    packed = saved.with_suffix(".pt.gz")
    packed.write_bytes(gzip.compress(saved.read_bytes()))
    assert safepickle.load(packed, allow=allow)["weight"].equal(torch.ones(1000))
    found = safepickle.inspect(packed)
    assert (found.format, found.compression, found.verdict) == ("torch zip", "gzip", "safe")


@pytest.mark.parametrize("compress", [3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_what_joblib_has_compressed_is_loaded_and_the_other_way_round(compress, tmp_path: Path):
    joblib.dump({"epoch": 3}, tmp_path / "theirs", compress=compress)
    assert safepickle.load(tmp_path / "theirs") == safepickle.load(tmp_path / "theirs", allow=()) == {"epoch": 3}
    safepickle.dump({"epoch": 3}, tmp_path / "ours", compress=compress)
    assert joblib.load(tmp_path / "ours") == {"epoch": 3}
