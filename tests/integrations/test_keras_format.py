"""The file format of Keras objects: golden pickles, which name Keras's own classes and hold no code.

Each backend has golden pickles of its own. Here are those of the one that Keras runs on; the tests of heavy frameworks
run this module on the others.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import golden_keras_cases
import keras
import pytest

import safepickle
from golden_cases import Case
from safepickle import rebuild

DATA = Path(__file__).resolve().parent.parent / "data"
BACKEND = keras.backend.backend()
CASES = golden_keras_cases.cases_of(BACKEND)
GOLDEN = sorted((DATA / "golden").glob(f"*/py*/{'keras' if BACKEND == 'torch' else BACKEND}_*.pickle"))
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.skipif(
        keras.__version__.split(".")[:2] != ["3", "15"], reason="other versions of Keras keep other attributes"
    ),
]


def case_of(path: Path) -> Case:
    return CASES[path.stem.replace("_", " ")]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: "/".join(path.parts[-3:]))
@pytest.mark.parametrize("reader", ["safepickle", "pickle"])
def test_golden_pickles_of_keras_objects_load(path: Path, reader: str) -> None:
    case_of(path).check(safepickle.load(path) if reader == "safepickle" else pickle.loads(path.read_bytes()))


@pytest.mark.parametrize("name", CASES)
def test_cases_hold_today(name: str) -> None:
    case = CASES[name]
    case.check(safepickle.loads(safepickle.dumps(case.build(), **case.options)))


def test_every_name_of_the_format_is_in_a_golden_pickle() -> None:
    stored = b"".join(path.read_bytes() for path in GOLDEN if path.parts[-3] == safepickle.__version__)
    expected = {name for name in rebuild.__all__ if "keras" in name.lower()}
    if BACKEND == "tensorflow":
        expected |= {name for name in rebuild.__all__ if "_tf_" in name}
    if BACKEND == "torch":  # Its tensors keep their masks themselves.
        expected.remove("rebuild_keras_masked")
    assert [name for name in sorted(expected) if name.encode() not in stored] == []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: "/".join(path.parts[-3:]))
def test_objects_of_keras_itself_hold_no_code(path: Path) -> None:
    # Code belongs to one version of Python; what Keras defines is named, its local functions by their owner.
    stored = path.read_bytes()
    assert b"cloudpickle" not in stored
    assert b"CodeType" not in stored
