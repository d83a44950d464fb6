"""The examples of docstrings and pages that need ray, Spark or Hugging Face run."""

import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from docstrings import examples_of_integrations, run_examples
from pages import Example, examples_for


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "name"), examples_of_integrations(heavy=True))
def test_examples_of_the_docstring_run(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_examples(getattr(importlib.import_module(module), name), name) > 0


@pytest.mark.parametrize("example", examples_for("heavy"), ids=lambda example: example.name)
def test_examples_of_the_page_run_as_printed_from_a_file(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "pyspark" in example.needs() and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark runs on Java, and there is none")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    example.run(tmp_path)
