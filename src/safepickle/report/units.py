"""How reports write numbers."""

from __future__ import annotations

__all__ = ["counted", "human_bytes"]


def human_bytes(number: int) -> str:
    """Write a size with three digits and the unit that fits: ``4.02 GB``; a GB is 1e9 bytes, as on a disk's label."""
    if number < 1000:
        return f"{number} B"
    size = float(number)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        size /= 1000
        if size < 999.5 or unit == "PB":
            return (
                f"{size:.3g} {unit}"
                if size >= 99.95
                else f"{size:.1f} {unit}"
                if size >= 9.995
                else f"{size:.2f} {unit}"
            )
    raise AssertionError("unreachable")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 object``, ``1,204 objects``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
