"""The examples of the README, those with torch included, run as printed."""

from pages import run_page


def test_every_example_of_the_readme_runs_as_printed(tmp_path):
    assert run_page("README.md", tmp_path) == 3
