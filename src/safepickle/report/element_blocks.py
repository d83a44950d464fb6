"""The elements of tensors as numpy's, a block at a time: by how much those of two tensors differ.

numpy knows no bfloat16 and no float8: those are made wider here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import numpy as np

from safepickle.report.tensor_views import TensorView

__all__ = ["compare", "only_element"]

_SPARSE: Final = 4
"""A block that is spread over more than so many times its own bytes is taken from the whole tensor, read once."""

_FLOAT8: Final = {
    "float8_e4m3fn": (4, 3, 7),
    "float8_e4m3fnuz": (4, 3, 8),
    "float8_e5m2": (5, 2, 15),
    "float8_e5m2fnuz": (5, 2, 16),
}
"""Bits of the exponent, bits of the mantissa, and bias."""

_READ_AS: Final = {
    "bfloat16": "uint16",
    "complex32": "uint32",
    "qint8": "int8",
    "quint8": "uint8",
    "qint32": "int32",
    "float8_e8m0fnu": "uint8",
    **dict.fromkeys(_FLOAT8, "uint8"),
}


def compare(before: TensorView, after: TensorView, most: int) -> dict[str, Any] | None:
    """Compare two tensors of one shape.

    Args:
        before: Its dtype may be another.
        after: Its strides may be others.
        most: Elements of each that are in memory at once.

    Returns:
        Fields of `ElementChanges`, or None where nothing differs.
    """
    return _Comparison(before, after).figures(most)


def only_element(view: TensorView) -> str | None:
    """Write the only element of a tensor of one, or return None where it is no number."""
    element = _Elements(view, (), ()).block((), ())
    return str(element[()]) if _is_number(element) else None


class _Elements:
    """The elements of a tensor, a block at a time.

    Args:
        view: Of the tensor.
        shape: In an order of its dimensions that suits.
        strides: In the same order.
    """

    def __init__(self, view: TensorView, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self._view = view
        self._shape = shape
        self._strides = strides
        self._whole: bytes | None = None

    def bits(self, start: tuple[int, ...], lengths: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Return the elements of a block as they are stored, shared with what was read."""
        view, strides = self._view, self._strides
        begin = sum(position * step for position, step in zip(start, strides, strict=True))
        span = _span(lengths, strides)
        if span <= _SPARSE * math.prod(lengths):
            data, begin = view.read(view.offset + begin, span), 0
        else:
            if self._whole is None:
                self._whole = view.read(view.offset, _span(self._shape, strides))
            data = self._whole
        flat = np.frombuffer(data, _stored_as(view.dtype, view.itemsize))
        return np.lib.stride_tricks.as_strided(
            flat[begin:], lengths, [step * view.itemsize for step in strides], writeable=False
        )

    def block(self, start: tuple[int, ...], lengths: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Return the elements of a block as numbers, or as bytes where they are none."""
        return self.decode(self.bits(start, lengths))

    def decode(self, bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return stored elements as numbers, or as they are where they are none."""
        view = self._view
        values = _decoder(view.dtype)(bits)
        if view.conjugate:
            values = values.conj()
        return -values if view.negative else values


class _Comparison:
    """Two tensors of one shape, compared block by block."""

    def __init__(self, before: TensorView, after: TensorView) -> None:
        shape, strides, others = _common_order(before, after)
        self._shape = shape
        self._before = _Elements(before, shape, strides)
        self._after = _Elements(after, shape, others)
        self._same_type = before.dtype == after.dtype and before.identity[5:] == after.identity[5:]
        self._changed = self._largest = 0
        self._not_finite: Counter[str] = Counter()
        self._norm = self._difference = 0.0
        self._are_numbers = True

    def figures(self, most: int) -> dict[str, Any] | None:
        equal = []
        # Of what overflows, no norm is told.
        with np.errstate(all="ignore"):
            for start, lengths in _blocks(self._shape, most):
                one, other = self._before.bits(start, lengths), self._after.bits(start, lengths)
                if self._same_type and np.array_equal(_as_integers(one), _as_integers(other)):
                    equal.append((start, lengths))
                else:
                    self._compare(self._before.decode(one), self._after.decode(other))
            if not self._changed:
                return None
            if self._are_numbers:
                for start, lengths in equal:
                    self._add_norm(self._before.block(start, lengths))
        relative = math.sqrt(self._difference / self._norm) if self._norm and self._are_numbers else math.nan
        largest = float(self._largest)
        return {
            "changed": self._changed,
            "largest": largest if self._are_numbers and math.isfinite(largest) else None,
            "relative": relative if math.isfinite(relative) else None,
            **self._not_finite,
        }

    def _compare(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
        if not (_is_number(one) and _is_number(other)):
            self._are_numbers = False
            same_kind = one.dtype == other.dtype
            self._changed += int(np.count_nonzero(one != other)) if same_kind else one.size
            return
        if np.isfinite(one).all() and np.isfinite(other).all():
            self._changed += int(np.count_nonzero(one != other))
            self._add(_wide(one), _wide(other))
            return
        nan_before, nan_after = np.isnan(one), np.isnan(other)
        inf_before, inf_after = np.isinf(one), np.isinf(other)
        self._changed += int(np.count_nonzero((one != other) & ~(nan_before & nan_after)))
        for kind, was, is_now in (("nan", nan_before, nan_after), ("inf", inf_before, inf_after)):
            self._not_finite[f"{kind}_appeared"] += int(np.count_nonzero(is_now & ~was))
            self._not_finite[f"{kind}_vanished"] += int(np.count_nonzero(was & ~is_now))
        finite = ~(nan_before | nan_after | inf_before | inf_after)
        self._add(_wide(one[finite]), _wide(other[finite]))
        self._add_norm(one[(nan_after | inf_after) & np.isfinite(one)])

    def _add(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
        """Take account of finite elements."""
        self._norm += _square_sum(one)
        difference = np.abs(other - one)
        if difference.size:
            self._largest = max(self._largest, difference.max())
            self._difference += _square_sum(difference)

    def _add_norm(self, values: np.ndarray[Any, Any]) -> None:
        """Take account of elements that are in both."""
        finite = np.isfinite(values)
        self._norm += _square_sum(_wide(values if finite.all() else values[finite]))


def _common_order(before: TensorView, after: TensorView) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return shape and strides with the dimensions in the order of memory, and as few of them as there can be."""
    merged: list[list[int]] = []
    dimensions = zip(before.shape, before.strides, after.strides, strict=True)
    for length, step, other in sorted((entry for entry in dimensions if entry[0] != 1), key=lambda entry: -entry[1]):
        if merged and merged[-1][1:] == [step * length, other * length]:
            merged[-1] = [merged[-1][0] * length, step, other]
        else:
            merged.append([length, step, other])
    shape, strides, others = zip(*merged, strict=True) if merged else ((), (), ())
    return shape, strides, others


def _blocks(shape: tuple[int, ...], most: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut a shape into blocks of at most `most` elements: where each begins, and its lengths."""
    if not shape:
        yield (), ()
        return
    inner = math.prod(shape[1:])
    if inner <= most:
        rows = most // inner
        for first in range(0, shape[0], rows):
            yield (first, *(0 for _ in shape[1:])), (min(rows, shape[0] - first), *shape[1:])
        return
    for first in range(shape[0]):
        for start, lengths in _blocks(shape[1:], most):
            yield (first, *start), (1, *lengths)


def _span(lengths: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last one of a block, both included."""
    return 1 + sum((length - 1) * step for length, step in zip(lengths, strides, strict=True))


def _stored_as(dtype: str, itemsize: int) -> np.dtype[Any]:
    """Return numpy's dtype for reading elements: of bytes alone where numpy has none of that name and size."""
    try:
        found = np.dtype(_READ_AS.get(dtype, dtype))
    except TypeError:
        return np.dtype((np.void, itemsize))
    return found if found.itemsize == itemsize and found.kind in "biufc" else np.dtype((np.void, itemsize))


def _as_integers(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return elements by their bits, so that NaN equals itself."""
    size = values.dtype.itemsize
    return values.view(f"u{size}") if size in (1, 2, 4, 8) else values


def _is_number(values: np.ndarray[Any, Any]) -> bool:
    return bool(values.dtype.kind != "V")


def _wide(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = np.complex128 if values.dtype.kind == "c" else np.float64
    return values if values.dtype.itemsize > np.dtype(wide).itemsize else values.astype(wide)


def _square_sum(values: np.ndarray[Any, Any]) -> float:
    """Return the square of the 2-norm, by no BLAS, whose threads cost more than blocks of this size are worth."""
    return float(np.square(np.abs(values)).sum())


@cache
def _decoder(dtype: str) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return what makes numbers of stored elements."""
    if dtype == "bfloat16":
        return lambda bits: (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype == "complex32":
        return lambda bits: (
            (bits & 0xFFFF).astype(np.uint16).view(np.float16)
            + 1j * (bits >> 16).astype(np.uint16).view(np.float16).astype(np.float32)
        )
    if dtype == "float8_e8m0fnu":
        table = np.exp2(np.arange(256, dtype=np.float64) - 127)
        table[255] = np.nan
        return lambda bits: table[bits]
    if dtype in _FLOAT8:
        table = _float8(*_FLOAT8[dtype], finite="fn" in dtype, unsigned_zero="fnuz" in dtype)
        return lambda bits: table[bits]
    return lambda bits: bits


def _float8(
    exponent_bits: int, mantissa_bits: int, bias: int, *, finite: bool, unsigned_zero: bool
) -> np.ndarray[Any, Any]:
    """Return the number that each byte stands for.

    Source:
        "FP8 Formats for Deep Learning" (2022) for e4m3fn and e5m2; "8-bit Numerical Formats for Deep Neural Networks"
        (2022) for those with one zero, where the byte of -0 is NaN.
    """
    codes = np.arange(256)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - bias))
    if unsigned_zero:
        values[128] = np.nan
    elif finite:
        values[(codes & 127) == 127] = np.nan
    else:
        values = np.where(exponent < (1 << exponent_bits) - 1, values, np.where(mantissa == 0, np.inf, np.nan))
    return np.where(codes < 128, values, -values).astype(np.float32)
