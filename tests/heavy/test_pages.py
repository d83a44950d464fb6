"""The examples of the pages that need ray, Spark or Hugging Face run as printed, pasted into a file."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from pages import Example, examples_for


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
