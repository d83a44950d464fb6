"""The examples of the pages run as printed."""

import pytest

from pages import run_page


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("README.md", 2),
        ("docs/weak-references.md", 4),
        ("docs/explain.md", 4),
        ("docs/saving.md", 2),
        ("docs/leaves.md", 1),
        ("docs/rescue.md", 2),
        ("docs/moved-classes.md", 4),
        ("docs/guarded-loading.md", 2),
    ],
)
def test_examples_of_the_page_run_as_printed(page, count, tmp_path):
    assert run_page(page, tmp_path, leave_out=["torch"]) == count
