"""The examples of the pages that need a framework run as printed, from a file; tests/heavy has the others."""

from pathlib import Path

import pytest

from pages import Example, examples_for


@pytest.mark.parametrize("example", examples_for("integrations"), ids=lambda example: example.name)
def test_examples_of_the_page_run_as_printed_from_a_file(example: Example, tmp_path: Path) -> None:
    example.run(tmp_path)
