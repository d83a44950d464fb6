"""What holds for every test: an error or a warning that a test expects is told from others by what it says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
EXPECTING = {"raises", "warns", "RaisesExc"}


def without_match(source: str) -> Iterator[int]:
    """Yield the lines of the calls of `pytest.raises` and its kind, under any name, that match no message."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "pytest"
        for alias in node.names
        if alias.name in EXPECTING
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(
            keyword.arg == "match" and not matches_all(keyword.value) for keyword in node.keywords
        ):
            continue
        match node.func:
            case ast.Attribute(ast.Name("pytest"), name) if name in EXPECTING:
                yield node.lineno
            case ast.Name(name) if name in imported:
                yield node.lineno


def matches_all(pattern: ast.expr) -> bool:
    return isinstance(pattern, ast.Constant) and pattern.value in (None, "", ".*")


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_expected_error_and_warning_matches_a_message(path: Path):
    assert [f"{path}:{line}" for line in without_match(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "source",
    [
        "pytest.raises(ValueError)",
        "pytest.warns(UserWarning)",
        "pytest.raises(ValueError, match=None)",
        'pytest.raises(ValueError, match="")',
        "from pytest import raises as refuses\nrefuses(ValueError)",
    ],
)
def test_a_call_without_a_message_is_found(source: str):
    assert list(without_match(source)) != []


@pytest.mark.parametrize("source", ['pytest.raises(ValueError, match="no")', "pytest.raises(error, match=message)"])
def test_a_call_with_a_message_is_not(source: str):
    assert list(without_match(source)) == []
