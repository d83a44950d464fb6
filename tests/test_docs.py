"""The examples of the pages run as printed, pasted into a file, and their links lead somewhere."""

import re

import pytest

from pages import PAGES, ROOT, Example, blocks, examples, examples_for
from safepickle import errors, load_errors

NOT_FOR_THE_README = {"api.md", "changelog.md", "index.md", "releasing.md"}
_LINK = re.compile(r"\]\(([\w./-]+\.\w+)(?:#[\w-]+)?\)")


def test_every_python_block_of_the_pages_is_part_of_a_program_or_a_file():
    fences = sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)
    assert sum(len(list(blocks(page))) for page in PAGES) == fences > 50
    places = [examples_for(place) for place in ("core", "integrations", "heavy")]
    assert sum(map(len, places)) == sum(len(examples(page)) for page in PAGES)
    assert all(places)


@pytest.mark.parametrize("example", examples_for("core"), ids=lambda example: example.name)
def test_examples_of_the_page_run_as_printed_from_a_file(example, tmp_path):
    assert example.run(tmp_path, "-W", "error") == ""


def test_first_example_of_the_readme_runs_alone(tmp_path):
    _, source, printed = next(blocks(ROOT / "README.md"))
    assert printed
    assert Example("first", source, printed, {}).run(tmp_path, "-W", "error") == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_page_lead_to_files(page):
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_leads_to_every_page():
    linked = {(ROOT / target).resolve() for target in _LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert [page.name for page in PAGES[1:] if page not in linked and page.name not in NOT_FOR_THE_README] == []


def test_the_questions_name_every_error_and_warning():
    questions = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    assert [name for name in (*errors.__all__, *load_errors.__all__) if f"`{name}`" not in questions] == []


def test_the_site_has_every_page():
    navigation = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert navigation == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_readme_and_the_start_page_have_the_same_table_of_what_to_write():
    readme, start = (_rows(ROOT / page) for page in ("README.md", "docs/index.md"))
    assert readme == start
    assert len(readme) > 10


def _rows(page):
    table = page.read_text(encoding="utf-8").partition("| I use | this line |")[2].partition("\n\n")[0]
    return [line.split(" | ")[:2] for line in table.splitlines()[2:]]
