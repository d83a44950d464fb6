"""The examples of the page on engines that need ray, Spark and Hugging Face run as printed."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from pages import run_page

LIGHT = ("joblib", "multiprocessing", "dask")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["ray", "spark", "huggingface"])
def test_examples_of_the_page_run_as_printed(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "spark" and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark runs on Java, and there is none")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    others = {"ray", "spark", "huggingface"} - {engine}
    assert run_page("docs/engines.md", tmp_path, leave_out=(*LIGHT, *others)) == 2
