"""What is no pickle is named when it does not load: by the load, by the guard and by inspect, from one table."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import safepickle
from safepickle.storage.formats import look_at, recognise


def archive(*members: str, cut: bool = False) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for member in members:
            file.writestr(member, bytes(200))
    return data.getvalue()[:150] if cut else data.getvalue()


def saved_by_numpy(save, *arrays) -> bytes:
    data = io.BytesIO()
    save(data, *arrays)
    return data.getvalue()


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        file.addfile(tarfile.TarInfo("member"))
    return data.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7\n"
SCRIPT = archive("net/data.pkl", "net/code/net.py", "net/constants.pkl")
HEADER = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FILES: dict[str, tuple[bytes, str, str]] = {
    "torch zip": (archive("net/data.pkl", "net/version"), "torch zip", "safepickle.load"),
    "torch zip, cut off": (archive("net/data.pkl", "net/version", cut=True), "torch zip", "cut off"),
    "TorchScript": (SCRIPT, "TorchScript", r"torch\.jit\.load"),
    "torch.export": (archive("net/archive_format", "net/models/model.json"), "torch.export", r"torch\.export\.load"),
    ".keras": (archive("metadata.json", "config.json", "model.weights.h5"), ".keras", r"keras\.saving\.load_model"),
    ".keras, cut off": (archive("metadata.json", "config.json", cut=True), ".keras", "cut off"),
    "npz": (saved_by_numpy(np.savez, np.ones(3), np.ones(4)), "npz", r"numpy\.load"),
    "npy": (saved_by_numpy(np.save, np.ones(3)), "npy", r"numpy\.load"),
    "zip": (archive("readme.txt"), "zip", "zipfile"),
    "empty zip": (archive(), "zip", "empty zip"),
    "safetensors": (len(HEADER).to_bytes(8, "little") + HEADER + bytes(4), "safetensors", "safetensors"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5", "h5py"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x00", "ONNX", r"onnx\.load"),
    "SavedModel": (b"\x08\x01\x12\x9a\x01\x0a\x05serve", "SavedModel", r"tf\.saved_model\.load"),
    "TFLite": (b"\x1c\x00\x00\x00TFL3" + bytes(50), "TFLite", "LiteRT"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(50), "GGUF", "llama"),
    "Parquet": (b"PAR1" + bytes(50), "Parquet", "pandas"),
    "SQLite": (b"SQLite format 3\0" + bytes(50), "SQLite", "sqlite3"),
    "HTML": (b"\n<!DOCTYPE html><html>404</html>", "HTML or XML", "error page"),
    "XML": (b"<Error><Code>NoSuchKey</Code></Error>", "HTML or XML", "error page"),
    "XML after a byte order mark": (b"\xef\xbb\xbf<?xml version='1.0'?>", "HTML or XML", "error page"),
    "JSON object": (b'{\n  "error": "not found"}', "JSON", r"json\.load"),
    "JSON array": (b'[{"a": 1}]', "JSON", r"json\.load"),
    "text": (b"Not Found\n", "text", "message of an error"),
    "Git LFS pointer": (LFS, "Git LFS pointer", "git lfs pull"),
    "git-annex pointer": (b"/annex/objects/SHA256E-s1--4d7.pt\n", "git-annex pointer", "git annex get"),
    "DVC pointer": (b"outs:\n- md5: 4d7a\n", "DVC pointer", "dvc pull"),
    "tar": (tar(), "tar", "tarfile"),
    "PDF": (b"%PDF-1.7" + bytes(50), "PDF", "PDF"),
    "zeros": (bytes(600), "zeros", "never written"),
    "empty": (b"", "empty", "empty file"),
}  # fmt: skip


@pytest.mark.parametrize("title", FILES)
@pytest.mark.parametrize("source", ["path", "file", "bytes"])
def test_what_is_no_pickle_is_named_by_the_default_load(title: str, source: str, tmp_path: Path):
    data, name, said = FILES[title]
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    if source == "path" and title in ("torch zip", "TorchScript"):
        pytest.skip("torch.load is asked")
    with open(path, "rb") as file, pytest.raises(safepickle.NotAPickleError, match=said) as caught:
        safepickle.loads(data) if source == "bytes" else safepickle.load(path if source == "path" else file)
    assert caught.value.found == name
    assert ("model.pt" in str(caught.value)) == (source != "bytes")
    assert isinstance(caught.value, pickle.UnpicklingError)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("title", FILES)
def test_the_guard_and_inspect_say_the_same(title: str, tmp_path: Path):
    data, name, said = FILES[title]
    found = safepickle.inspect(data)
    assert (found.format, found.complete) == (name, title in ("npz", "npy", "safetensors"))
    # Those that are made up here are empty inside.
    made_up = title in (".keras", "HDF5", "torch zip", "TorchScript", "torch.export", "empty", "zeros")
    if made_up or "cut off" in title:
        assert found.verdict in ("damaged", "refused")
    else:
        assert found.verdict == "not_a_pickle"
        assert re.search(said, str(found).splitlines()[1])
    with pytest.raises(safepickle.DamagedPickleError, match=said):
        safepickle.loads(data, allow=())


@pytest.mark.parametrize(("offset", "byte"), [(6, 200), (46, 0xFF)], ids=["a later version", "a name that is no text"])
def test_an_archive_that_zipfile_cannot_read_is_damaged(offset: int, byte: int, tmp_path: Path):
    data = bytearray(archive("ä/data.pkl"))
    data[data.index(b"PK\1\2") + offset] = byte
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(safepickle.NotAPickleError, match="cut off or damaged"):
        safepickle.load(path)
    with pytest.raises(safepickle.DamagedPickleError, match="cut off or damaged"):
        safepickle.load(path, allow=())


def test_what_acts_as_a_pickle_is_no_other_format_whatever_its_first_bytes():
    # A safetensors file to whoever looks at nine bytes: a short length, and a brace. To pickle, a number and a call.
    data = b"\x80\x04G\0\0\0\0\0{\0\0" + b"cos\nsystem\n(S'true'\ntR"
    assert str(recognise(data)).startswith("a safetensors file")
    found = safepickle.inspect(data)
    assert (found.format, found.verdict) == ("pickle", "refused")
    assert [use.name for use in found.globals] == ["os:system"]


def test_an_empty_file_is_an_end_of_file_as_well(tmp_path: Path):
    path = tmp_path / "model.pkl"
    path.touch()
    with pytest.raises(EOFError, match="an empty file"):
        safepickle.load(path)


def test_the_end_of_a_file_of_several_pickles_is_pickles_own_error():
    file = io.BytesIO()
    safepickle.dump(1, file)
    file.seek(0)
    assert safepickle.load(file) == 1
    with pytest.raises(EOFError, match="Ran out of input") as caught:
        safepickle.load(file)
    assert not isinstance(caught.value, safepickle.NotAPickleError)


@pytest.mark.parametrize("protocol", range(6))
def test_a_damaged_pickle_is_not_taken_for_another_format(protocol: int):
    data = pickle.dumps({"name": [1, 2.5, "text", (True, None)], "set": {1}}, protocol)
    for length in range(1, len(data)):
        assert look_at(io.BytesIO(data[:length])) is None


def test_an_error_of_the_users_code_is_left_alone():
    class Refuses:
        def __reduce__(self):
            return int, ("no number",)

    with pytest.raises(ValueError, match="invalid literal") as caught:
        safepickle.loads(safepickle.dumps(Refuses()))
    assert caught.value.__cause__ is None


def test_a_file_is_left_where_it_stands():
    file = io.BytesIO(b"\x93NUMPY")
    file.seek(3)
    assert look_at(file) is not None
    assert file.tell() == 3


def test_first_bytes_of_any_length_are_looked_at():
    for data, _, _ in FILES.values():
        for length in range(40):
            recognise(data[:length])
    assert str(recognise(zlib.compress(b"x"))).startswith("a zlib stream")
