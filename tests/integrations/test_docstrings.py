"""The examples in the docstrings of the integrations run; tests/heavy has those of ray, Spark and Hugging Face."""

import importlib
from pathlib import Path

import pytest

from docstrings import HEAVY, INTEGRATIONS, module_name, of_integration, run_examples

EXAMPLES = [
    (module_name(path), documented.name.rpartition(".")[2])
    for path in INTEGRATIONS
    if path.stem not in HEAVY
    for documented in of_integration(path)
    if "Examples" in documented.sections
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_examples_of_the_docstring_run(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_examples(getattr(importlib.import_module(module), name), name) > 0
