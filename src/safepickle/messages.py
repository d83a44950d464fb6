"""What every message needs: the name of a type, and a path that can be read."""

from __future__ import annotations

from typing import Any

__all__ = ["dotted_name", "shorten"]


def dotted_name(named: Any) -> str:
    """Return the dotted name of a class or a function, as messages and tombstones give it."""
    return f"{named.__module__}.{named.__qualname__}"


def shorten(path: str, longest: int = 300) -> str:
    """Leave out the middle of a path that is too long to read."""
    if len(path) <= longest:
        return path
    half = (longest - 40) // 2
    return f"{path[:half]} ... ({len(path) - 2 * half:,} more characters) ... {path[-half:]}"
