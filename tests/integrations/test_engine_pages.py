"""The examples of the page on engines run as printed; those that need ray, Spark and Hugging Face: see tests/heavy."""

from pathlib import Path

from pages import run_page


def test_examples_of_the_page_run_as_printed(tmp_path: Path) -> None:
    assert run_page("docs/engines.md", tmp_path, leave_out=("ray", "spark", "huggingface")) == 4
