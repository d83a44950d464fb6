"""The file format of Keras objects: golden pickles, which name Keras's own classes and hold no code."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("the golden pickles of Keras objects are of the torch backend", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import golden_keras_cases  # noqa: E402

import safepickle  # noqa: E402
from safepickle import rebuild  # noqa: E402

DATA = Path(__file__).resolve().parent.parent / "data"
GOLDEN = sorted((DATA / "golden").glob("*/py*/keras_*.pickle"))
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.skipif(
        keras.__version__.split(".")[:2] != ["3", "15"], reason="other versions of Keras keep other attributes"
    ),
]


def case_of(path: Path) -> golden_keras_cases.Case:
    return golden_keras_cases.CASES[path.stem.replace("_", " ")]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: "/".join(path.parts[-3:]))
@pytest.mark.parametrize("reader", ["safepickle", "pickle"])
def test_golden_pickles_of_keras_objects_load(path: Path, reader: str) -> None:
    case_of(path).check(safepickle.load(path) if reader == "safepickle" else pickle.loads(path.read_bytes()))


@pytest.mark.parametrize("name", golden_keras_cases.CASES)
def test_cases_hold_today(name: str) -> None:
    case = golden_keras_cases.CASES[name]
    case.check(safepickle.loads(safepickle.dumps(case.build(), **case.options)))


def test_every_name_of_the_format_is_in_a_golden_pickle() -> None:
    stored = b"".join(path.read_bytes() for path in GOLDEN if path.parts[-3] == safepickle.__version__)
    # The tensors of torch keep their masks themselves.
    expected = [name for name in rebuild.__all__ if "keras" in name.lower() and name != "rebuild_keras_masked"]
    assert [name for name in expected if name.encode() not in stored] == []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: "/".join(path.parts[-3:]))
def test_objects_of_keras_itself_hold_no_code(path: Path) -> None:
    # Code belongs to one version of Python; what Keras defines is named, its local functions by their owner.
    stored = path.read_bytes()
    assert b"cloudpickle" not in stored
    assert b"CodeType" not in stored
