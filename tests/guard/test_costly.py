"""What costs more than it may, or is no pickle, gives an error at once."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import safepickle
from guard.costly import COSTLY, DAMAGED
from guard.streams import Stream
from guard.targets import Alike, Chained, Members, Pair, PlainDict, Victim

CHILD = """
import resource, pickle, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
sys.setrecursionlimit(1000)
pickle.loads(sys.stdin.buffer.read())
"""
FATAL = (
    # From CPython 3.14 on a tuple keeps its hash, and one that nests too deeply to be hashed is an error.
    *(("a million nested tuples as a key", "tuples that double, as a key") if sys.version_info < (3, 14) else ()),
    "bytearray(n)",
    "list(range(n))",
    "a copy of a megabyte, again and again",
)


@pytest.mark.parametrize("title", COSTLY)
def test_costly_pickle_is_refused(title: str):
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|over a limit|damaged"):
        safepickle.loads(COSTLY[title](), allow=(Victim, Pair, Members, PlainDict))


@pytest.mark.parametrize("title", COSTLY)
def test_costly_pickle_is_no_safe_one(title: str):
    assert safepickle.inspect(COSTLY[title]()).verdict in ("refused", "damaged", "needs_allow")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits neither memory nor time of a process")
@pytest.mark.parametrize("title", FATAL)
def test_costly_pickle_ends_a_process_that_loads_it_plainly(title: str):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", CHILD], input=COSTLY[title](), capture_output=True, env=environment)
    assert child.returncode != 0
    assert child.returncode < 0 or b"MemoryError" in child.stderr


@pytest.mark.parametrize("title", DAMAGED)
def test_damaged_input_is_an_error(title: str):
    with pytest.raises(safepickle.GuardedLoadError, match=r"damaged|not allowed"):
        safepickle.loads(DAMAGED[title], allow=("guard.targets:Gone",))


@pytest.mark.parametrize("title", DAMAGED)
def test_damaged_input_from_a_stream_is_an_error(title: str):
    with pytest.raises(safepickle.GuardedLoadError, match=r"damaged|not allowed"):
        safepickle.load(Stream(DAMAGED[title]), allow=("guard.targets:Gone",))


@pytest.mark.parametrize("title", DAMAGED)
def test_damaged_input_has_a_verdict(title: str):
    verdict = safepickle.inspect(DAMAGED[title]).verdict
    if title == "a name that is gone":
        assert verdict == "needs_allow"
    elif title == "buffers that nobody gave":
        assert verdict == "safe"
    else:
        assert verdict in ("damaged", "refused", "not_a_pickle")


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("html", "HTML or XML page"), ("git lfs", "Git LFS pointer"), ("gzip", "this gzip file is damaged"), ("nothing", "an empty file"),
        ("truncated in the frame", "left"), ("without STOP", "left|cut off"), ("zip", "a zip file"), ("zeros", "nothing but zeros"),
        ("safetensors", "safetensors"),
    ],
)  # fmt: skip
def test_what_is_no_pickle_is_named(title: str, said: str, tmp_path: Path):
    path = tmp_path / "model.pkl"
    path.write_bytes(DAMAGED[title])
    with pytest.raises(safepickle.DamagedPickleError, match=rf"model\.pkl.*({said})"):
        safepickle.load(path, allow=())
    assert any(problem.verdict in ("damaged", "not_a_pickle") for problem in safepickle.inspect(path).problems)


def test_corpora_are_large():
    assert len(COSTLY) >= 40
    assert len(DAMAGED) >= 50


def held_by_one_another(levels: int) -> bytes:
    """A pickle of a dict whose key is an object that holds an object that holds an object..."""
    first = b"\x80\x04cguard.targets\nChained\n\x94Nr\x01\x00\x00\x000"
    last = (levels + 1).to_bytes(4, "little")
    links = (
        b"h\x00)\x81}\x8c\x04heldj" + level.to_bytes(4, "little") + b"sbr" + (level + 1).to_bytes(4, "little") + b"0"
        for level in range(1, levels + 1)
    )
    return first + b"".join(links) + b"}j" + last + b"K\x01s."


def test_hash_of_an_allowed_class_that_recurses_is_an_error_and_no_crash():
    assert len(safepickle.loads(held_by_one_another(50), allow=[Chained])) == 1
    with pytest.raises(safepickle.DamagedPickleError, match="RecursionError"):
        safepickle.loads(held_by_one_another(20_000), allow=[Chained])


def test_instances_of_an_allowed_class_with_one_hash_are_bounded():
    for make in (set, frozenset, dict.fromkeys):
        assert len(safepickle.loads(pickle.dumps(make([Alike() for _ in range(200)])), allow=[Alike])) == 200
        with pytest.raises(safepickle.LoadLimitError, match="have the same hash"):
            safepickle.loads(pickle.dumps(make([Alike() for _ in range(300)])), allow=[Alike])
