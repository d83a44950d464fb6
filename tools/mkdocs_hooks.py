"""Hooks of the documentation site."""

from __future__ import annotations

import re
from typing import Any

_FENCE = re.compile(r"^```python [^\n]*$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take the words behind ``python`` in a fence away: they tell the tests which examples to run."""
    return _FENCE.sub("```python", markdown)
