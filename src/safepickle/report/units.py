"""How reports write numbers."""

from __future__ import annotations

__all__ = ["counted", "human_bytes"]


def human_bytes(number: int) -> str:
    """Write a size with three digits and the unit that fits: ``4.02 GB``; a GB is 1e9 bytes, as on a disk's label."""
    if number < 1000:
        return f"{number} B"
    size, units = number / 1000, iter(("kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while size >= 999.5 and unit != "PB":
        size, unit = size / 1000, next(units)
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{decimals}f} {unit}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 object``, ``1,204 objects``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
