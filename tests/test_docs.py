"""The examples of the pages run as printed, and their links lead somewhere."""

import re

import pytest

from pages import ROOT, run_page

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_FOR_THE_README = {"api.md", "changelog.md", "index.md", "releasing.md"}
_LINK = re.compile(r"\]\(([\w./-]+\.\w+)(?:#[\w-]+)?\)")


@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/faq.md", 1), ("docs/weak-references.md", 7)])
def test_examples_of_the_page_run_as_printed(page, count, tmp_path):
    assert run_page(page, tmp_path, leave_out=["torch"]) == count


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_page_lead_to_files(page):
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_leads_to_every_page():
    linked = {(ROOT / target).resolve() for target in _LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert [page.name for page in PAGES[1:] if page not in linked and page.name not in NOT_FOR_THE_README] == []


def test_the_site_has_every_page():
    navigation = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert navigation == {page.name for page in (ROOT / "docs").glob("*.md")}
