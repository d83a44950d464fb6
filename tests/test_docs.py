"""The examples of the pages that need nothing but safepickle."""

import pytest

from pages import run_page


@pytest.mark.parametrize(("page", "count"), [("docs/weak-references.md", 4)])
def test_examples_of_the_page_run_as_printed(page, count, tmp_path):
    assert run_page(page, tmp_path) == count
