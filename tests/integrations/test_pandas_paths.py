"""Paths to what is in frames and series."""

from __future__ import annotations

from typing import Any

import pandas
import pytest

import safepickle
from nodes import Offender

OFFENDER = Offender()


@pytest.mark.parametrize(
    ("root", "path"),
    [
        (pandas.DataFrame({"number": [1, 2], "mixed": [1, OFFENDER]}), "$['mixed'].iloc[1]"),
        (pandas.DataFrame([[1, OFFENDER]], columns=["twice", "twice"]), "$.iloc[0, 1]"),
        (pandas.Series([1, OFFENDER]), "$.iloc[1]"),
        (pandas.Series([1, 2], index=pandas.Index([1, OFFENDER], dtype=object)), "$.index[1]"),
        ([pandas.DataFrame({"k": [[0, {"deep": OFFENDER}]]})], "$[0]['k'].iloc[0][1]['deep']"),
    ],
    ids=["column", "columns of one name", "series", "index", "inside an element"],
)
def test_path_into_a_frame_is_what_one_would_type(root: Any, path: str) -> None:
    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps(root)
    assert caught.value.pickle_path == path  # type: ignore[attr-defined]
    assert eval(path.replace("$", "root"), {"root": root}) is OFFENDER


def test_attributes_of_a_frame_have_a_path() -> None:
    frame = pandas.DataFrame({"a": [1]})
    frame.attrs["source"] = OFFENDER
    with pytest.raises(ValueError, match="not today") as caught:
        safepickle.dumps(frame)
    path: str = caught.value.pickle_path  # type: ignore[attr-defined]
    assert eval(path.replace("$", "root"), {"root": frame}) is OFFENDER
