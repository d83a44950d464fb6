"""Hooks of the documentation site."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```python [^\n]*$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Link to the repository that pyproject.toml names, if it names one."""
    project = tomllib.loads((Path(config.config_file_path).parent / "pyproject.toml").read_text(encoding="utf-8"))
    config.repo_url = project["project"].get("urls", {}).get("Repository")
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take the words behind ``python`` in a fence away: they tell the tests which examples to run."""
    return _FENCE.sub("```python", markdown)
