"""The load and `inspect` agree on everything: on good pickles, on broken ones, and on random programs."""

from __future__ import annotations

import datetime
import io
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import safepickle
from guard.assembler import PROTO4, STOP, name, value
from guard.benign import BUILT_IN

SETTINGS = settings(deadline=None, max_examples=250, suppress_health_check=list(HealthCheck), derandomize=True)

SEEDS = [pickle.dumps(obj, protocol) for obj in BUILT_IN.values() for protocol in (0, 2, 4, 5)]
SEEDS = [seed for seed in SEEDS if len(seed) < 3000]

NAMES = [
    ("builtins", "set"), ("builtins", "complex"), ("builtins", "bytearray"), ("builtins", "getattr"), ("builtins", "type"),
    ("collections", "OrderedDict"), ("collections", "Counter"), ("collections", "defaultdict"), ("collections", "deque"),
    ("datetime", "date"), ("datetime", "datetime"), ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"),
    ("copyreg", "__newobj__"), ("copyreg", "_reconstructor"), ("weakref", "ref"), ("weakref", "proxy"), ("numpy", "dtype"),
    ("numpy", "ndarray"), ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"), ("safepickle.rebuild", "Tombstone"), ("safepickle.rebuild", "StrongRef"),
    ("safepickle.rebuild", "rebuild_weak_container"), ("safepickle.rebuild", "rebuild_recomputed"), ("_codecs", "encode"),
    ("_weakrefset", "WeakSet"), ("types", "SimpleNamespace"), ("builtins", "ValueError"), ("array", "array"), ("os", "mkdir"),
    ("pathlib", "PurePosixPath"), ("builtins", "range"), ("builtins", "slice"), ("builtins", "object"), ("builtins", "dict"),
]  # fmt: skip
SCALARS = [
    None,
    True,
    0,
    1,
    5,
    -1,
    1.5,
    "a",
    "f8",
    "1.5",
    "latin1",
    b"",
    b"b",
    b"12345678",
    (),
    (0,),
    (1,),
    [],
    [1],
    {},
    {"a": 1},
]
PIECES = [bytes(value(scalar)) for scalar in SCALARS] + [bytes(name(*pair)) for pair in NAMES] * 2
PIECES += [b"(", b"t", b"R", b"R", b"\x81", b"b", b"\x85", b"\x86", b"\x87", b")", b"}", b"]", b"l", b"d", b"a", b"e", b"s", b"u",
           b"\x8f", b"\x90", b"\x91", b"\x94", b"h\x00", b"h\x01", b"0", b"2", b"o", b"Q", b"\x92"]  # fmt: skip


def outcomes(data: bytes) -> tuple[bool, str]:
    """Load guarded; return whether that worked, and the verdict of inspect."""
    try:
        safepickle.loads(data, allow=())
    except pickle.UnpicklingError:
        loaded = False
    else:
        loaded = True
    return loaded, safepickle.inspect(data).verdict


@SETTINGS
@given(st.data())
def test_mutated_pickles_raise_nothing_but_unpickling_errors_and_agree(data):
    seed = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(seed) - 1))
        what = data.draw(st.sampled_from(["flip", "set", "delete", "insert", "repeat"]))
        if what == "flip":
            seed[position] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "set":
            seed[position] = data.draw(st.integers(0, 255))
        elif what == "delete":
            del seed[position]
        elif what == "insert":
            seed[position:position] = data.draw(st.binary(max_size=4))
        else:
            seed[position:position] = seed[position : position + 8]
        if not seed:
            return
    loaded, verdict = outcomes(bytes(seed))
    assert loaded == (verdict == "safe"), bytes(seed)


@SETTINGS
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12))
def test_random_programs_raise_nothing_but_unpickling_errors_and_agree(pieces):
    program = PROTO4 + b"".join(pieces) + STOP
    loaded, verdict = outcomes(program)
    assert loaded == (verdict == "safe"), program


def test_many_short_calls_agree():
    """Every name with every choice of up to two arguments, as a call and as NEWOBJ, with a state and without."""
    choose = random.Random(7)
    disagreements = []
    loads = 0
    for module, attribute in NAMES:
        for _ in range(60):
            arguments = (
                b"(" + b"".join(choose.choices(PIECES[: len(SCALARS) + len(NAMES)], k=choose.randint(0, 3))) + b"t"
            )
            program = PROTO4 + name(module, attribute) + arguments + choose.choice([b"R", b"\x81"])
            if choose.random() < 0.3:
                program += choose.choice(PIECES[: len(SCALARS)]) + b"b"
            loaded, verdict = outcomes(program + STOP)
            loads += loaded
            if loaded != (verdict == "safe"):
                disagreements.append((program, loaded, verdict))
    assert disagreements == []
    assert loads > 100


@pytest.mark.parametrize("title", ["containers", "keys of every kind", "datetime", "exceptions", "numpy records"])
def test_every_prefix_is_damaged(title: str):
    data = pickle.dumps(BUILT_IN[title], 4)
    for length in range(len(data)):
        with pytest.raises(safepickle.GuardedLoadError, match=r"damaged|not allowed"):
            safepickle.loads(data[:length], allow=())


@settings(SETTINGS, max_examples=40)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.dates()
        | st.decimals(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    )
)
def test_plain_data_comes_back_as_from_pickle(obj):
    for protocol in (0, 2, 5):
        data = pickle.dumps(obj, protocol)
        assert repr(safepickle.loads(data, allow=())) == repr(pickle.loads(data))


def test_same_bytes_give_the_same_object_as_the_c_unpickler():
    table = {
        "rows": [{"i": i, "f": i / 7, "d": datetime.date(2000, 1, 1 + i % 28), "a": np.arange(i)} for i in range(50)]
    }
    for protocol in range(6):
        data = pickle.dumps(table, protocol)
        assert repr(safepickle.loads(data, allow=())) == repr(pickle.loads(data))


@pytest.mark.parametrize("put", [b"p333\n", b"r\x00\x00\x01\x00", b"p1048576\n", b"p1048577\n", b"r\x00\x00\x00\x80"])
@pytest.mark.parametrize("behind", [0, 400, 100_000])
def test_a_memo_index_is_held_alike_wherever_the_bytes_come_from(put: bytes, behind: int, tmp_path: Path):
    """Neither the length of the file nor how much of it was read so far has a say."""
    data = b"\x80\x04N" + put + b"0" + b"N0" * behind + b"N."
    path = tmp_path / "file"
    path.write_bytes(data)
    answers = set()
    with open(path, "rb") as file, os.fdopen(os.open(path, os.O_RDONLY), "rb", buffering=0) as raw:
        for source in (io.BytesIO(data), path, file, io.BufferedReader(Unseekable(raw))):
            try:
                safepickle.load(source, allow=())
            except safepickle.LoadLimitError:
                answers.add("refused")
            else:
                answers.add("safe")
    assert answers == {safepickle.inspect(data).verdict}


class Unseekable(io.RawIOBase):
    """As a pipe is."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int | None:
        return self._file.readinto(buffer)  # type: ignore[arg-type]


def test_what_begins_as_an_older_torch_file_is_named_so_though_it_is_damaged():
    data = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"]."
    assert safepickle.inspect(data).format == "torch legacy"
    assert safepickle.inspect(data).verdict == "damaged"
