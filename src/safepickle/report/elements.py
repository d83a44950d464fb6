"""By how much the elements of two tensors differ, however large the tensors are.

Without numpy, equal bytes are told from different ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from safepickle.rebuild.records import record
from safepickle.report.tensor_views import TensorView
from safepickle.report.units import counted

__all__ = ["BLOCK", "ElementChanges", "compare_elements", "value_of"]

BLOCK: Final = 1 << 16
"""Elements of each tensor that are in memory at once."""


@record
@dataclass(frozen=True, slots=True)
class ElementChanges:
    """By how much the elements of two tensors or arrays of one shape differ.

    Attributes:
        count: How many elements there are.
        changed: How many differ. NaN equals NaN. None where that was not found out; `reason` says why.
        largest: The largest absolute difference of two finite elements; None for elements that are no numbers.
        relative: The 2-norm of the differences of the finite elements, divided by that of the elements before; None
            where those are all 0.
        nan_appeared, nan_vanished: How many elements became NaN, and how many ceased to be.
        inf_appeared, inf_vanished: The same for infinities.
        reason: Why there are no figures, or ``""``.
    """

    count: int
    changed: int | None
    largest: float | None = None
    relative: float | None = None
    nan_appeared: int = 0
    nan_vanished: int = 0
    inf_appeared: int = 0
    inf_vanished: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if self.changed is None:
            return self.reason
        parts = [f"{self.changed:,} of {counted(self.count, 'element')}"]
        if self.largest is not None:
            parts.append(f"by at most {self.largest:.3g}")
        if self.relative is not None:
            parts.append(f"{self.relative:.3g} of the norm")
        return ", ".join([*parts, *self.not_finite()])

    def not_finite(self) -> list[str]:
        """Say how many NaN and infinities appeared and vanished.

        Returns:
            One phrase for each kind that came or went.
        """
        told = (
            (self.nan_appeared, "NaN appeared"),
            (self.nan_vanished, "NaN vanished"),
            (self.inf_appeared, "inf appeared"),
            (self.inf_vanished, "inf vanished"),
        )
        return [f"{number:,} {what}" for number, what in told if number]


def compare_elements(before: TensorView, after: TensorView) -> ElementChanges | None:
    """Compare two tensors of one shape, element by element.

    Args:
        before: Its dtype may be another.
        after: Its strides may be others.

    Returns:
        What differs, or None where nothing does.

    Raises:
        CannotListError: An archive is damaged.
        OSError: A file cannot be read.
    """
    if not before.count or before.data is None or after.data is None or _says_the_same(before, after):
        return None
    blocks = _element_blocks()
    if blocks is None:
        return _compare_bytes(before, after)
    figures = blocks.compare(before, after, BLOCK)
    return None if figures is None else ElementChanges(before.count, **figures)


def value_of(view: TensorView) -> str | None:
    """Write the only element of a tensor of one, or return None where it cannot be told."""
    if view.count != 1 or view.data is None or view.data.read is None:
        return None
    blocks = _element_blocks()
    return None if blocks is None else blocks.only_element(view)


def _says_the_same(before: TensorView, after: TensorView) -> bool:
    """Tell whether the two archives give the same length and CRC-32 for what the same view is taken of."""
    one, other = before.data, after.data
    if one is None or other is None or not one.crc or (one.crc, one.length) != (other.crc, other.length):
        return False
    return before.identity[1:] == after.identity[1:]


def _compare_bytes(before: TensorView, after: TensorView) -> ElementChanges | None:
    """Compare two tensors without numpy: all that their views reach must be the same."""
    if before.identity[1:4] != after.identity[1:4]:
        return ElementChanges(before.count, None, reason="not compared: their layouts differ, which takes numpy")
    whole = 1 + sum((length - 1) * step for length, step in zip(before.shape, before.strides, strict=True))
    for start in range(0, whole, BLOCK):
        length = min(BLOCK, whole - start)
        if before.read(before.offset + start, length) != after.read(after.offset + start, length):
            return ElementChanges(before.count, None, reason="bytes differ; with numpy installed: by how much")
    return None


def _element_blocks() -> Any:
    """Return the module that numpy works for, or None where numpy is not installed."""
    try:
        from safepickle.report import element_blocks
    except ModuleNotFoundError:
        return None
    return element_blocks
