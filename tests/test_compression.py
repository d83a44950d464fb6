"""Compressed files: by suffix or on request, found by their content, bounded under the guard, atomic as ever."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import safepickle
from nodes import Node

VALUE = {"weights": [float(number) for number in range(2000)], "name": "text"}
UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    "x.pkl.gz": gzip.decompress,
    "x.pkl.bz2": bz2.decompress,
    "x.pkl.xz": lzma.decompress,
    "x.pkl.lzma": lzma.decompress,
    "x.pkl.z": zlib.decompress,
}
# Any of the modules will do; the last one is what an error says to install.
OPTIONAL = {"x.zst": ("compression.zstd", "backports.zstd", "zstandard"), "x.lz4": ("lz4",)}


def is_installed(module: str) -> bool:
    """Whether the module can be imported; asking for a submodule of a package that is not there raises."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Fails:
    def __reduce__(self):
        raise RuntimeError("this object cannot be pickled")


@pytest.mark.parametrize("name", UNPACKERS)
@pytest.mark.parametrize("allow", [None, ()])
def test_the_suffix_chooses_the_compressor(name: str, allow, tmp_path: Path):
    path = tmp_path / name
    safepickle.dump(VALUE, path)
    assert pickle.loads(UNPACKERS[name](path.read_bytes())) == VALUE
    assert safepickle.load(path, allow=allow) == VALUE
    assert safepickle.inspect(path).verdict == "safe"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(pickle.UnpicklingError, match="damaged or cut off"):
        safepickle.load(path, allow=allow)
    assert safepickle.inspect(path).verdict == "damaged"


def test_what_is_allowed_may_be_an_iterator(tmp_path: Path):
    path = tmp_path / "x.gz"
    safepickle.dump(Node(), path)
    assert type(safepickle.load(path, allow=iter([Node]))) is Node


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_library_that_is_not_installed_is_named(name: str, tmp_path: Path):
    path = tmp_path / name
    if any(is_installed(module) for module in OPTIONAL[name]):
        safepickle.dump(VALUE, path)
        assert safepickle.load(path) == safepickle.load(path, allow=()) == VALUE
        assert path.read_bytes()[:1] in b"\x28\x04"
        assert safepickle.inspect(path).verdict == "safe"
        return
    with pytest.raises(ModuleNotFoundError, match=f"pip install {OPTIONAL[name][-1]}"):
        safepickle.dump(VALUE, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("compress", "magic"),
    [
        ("gzip", b"\x1f\x8b"),
        (("gzip", 1), b"\x1f\x8b"),
        ("bz2", b"BZh"),
        (("xz", 0), b"\xfd7z"),
        (True, b"x"),
        (9, b"x"),
    ],
)
def test_joblibs_words_choose_it_as_well(compress, magic: bytes, tmp_path: Path):
    path = tmp_path / "x.pkl"
    safepickle.dump(VALUE, path, compress=compress, checksum=True)
    assert path.read_bytes().startswith(magic)
    assert safepickle.load(path, checksum="require") == VALUE


def test_compression_is_declined(tmp_path: Path):
    path = tmp_path / "x.pkl.gz"
    safepickle.dump(VALUE, path, compress=False)
    assert pickle.loads(path.read_bytes()) == VALUE
    assert safepickle.load(path) == VALUE


@pytest.mark.parametrize("compress", ["rar", ("gzip", 12), 10, ("lzw", 1)])
def test_what_is_no_compression_is_refused(compress, tmp_path: Path):
    with pytest.raises(ValueError, match=r"compress=.*(is not known|no level)"):
        safepickle.dump(VALUE, tmp_path / "x.pkl", compress=compress)


def test_a_failed_dump_leaves_the_compressed_file(tmp_path: Path):
    path = tmp_path / "x.gz"
    safepickle.dump(VALUE, path)
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        safepickle.dump([VALUE, Fails()], path)
    assert safepickle.load(path) == VALUE
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.gz"]


def test_a_guarded_load_unpacks_within_a_limit(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("safepickle.guard.limits.UNPACKED_FLOOR", 1 << 16)
    path = tmp_path / "x.gz"
    safepickle.dump(bytes(1 << 22), path)
    with pytest.raises(safepickle.LoadLimitError, match="unpacks to more than"):
        safepickle.load(path, allow=())
    assert safepickle.inspect(path).verdict == "refused"
    assert len(safepickle.load(path)) == 1 << 22


def test_equal_objects_give_equal_files(tmp_path: Path):
    for name in ("a.gz", "b.gz"):
        safepickle.dump(VALUE, tmp_path / name)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
