"""The examples in the docstrings of the integrations run; tests/heavy has those of ray, Spark and Hugging Face."""

import importlib
from pathlib import Path

import pytest

from docstrings import examples_of_integrations, run_examples


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "name"), examples_of_integrations(heavy=False))
def test_examples_of_the_docstring_run(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_examples(getattr(importlib.import_module(module), name), name) > 0
