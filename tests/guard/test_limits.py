"""The page on guarded loading states the limits that the code has."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_states_the_limits_of_the_code():
    program = runpy.run_path(str(ROOT / "benchmarks" / "guard_limits.py"))
    page = (ROOT / "docs" / "guarded-loading.md").read_text(encoding="utf-8")
    missing = [row for row in program["limit_rows"]() if row not in page]
    assert missing == [], "run: python benchmarks/guard_limits.py docs/guarded-loading.md"
