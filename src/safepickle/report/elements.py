"""By how much the elements of two tensors differ: read block by block, however large the tensors are.

With numpy, which knows no bfloat16 and no float8: those are made wider here. Without it, equal bytes are told from
different ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from safepickle.rebuild.records import record
from safepickle.report.tensor_views import TensorView
from safepickle.report.units import counted

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BLOCK", "ElementChanges", "compare_elements", "value_of"]

BLOCK: Final = 1 << 16
"""Elements of each tensor that are in memory at once."""

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
    if before.data.read is None or after.data.read is None:
        raise OSError("the bytes of its elements are not there")
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError:
        return _compare_bytes(before, after)
    return _Comparison(before, after).result()


def value_of(view: TensorView) -> str | None:
    """Write the only element of a tensor of one, or return None where it cannot be told."""
    if view.count != 1 or view.data is None or view.data.read is None:
        return None
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError:
        return None
    element = _Elements(view, (), ()).block((), ())
    return str(element[()]) if _is_number(element) else None


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
        if _bytes(before, before.offset + start, length) != _bytes(after, after.offset + start, length):
            return ElementChanges(before.count, None, reason="bytes differ; with numpy installed: by how much")
    return None


def _bytes(view: TensorView, start: int, length: int) -> bytes:
    """Read what holds `length` elements."""
    read = view.data.read if view.data is not None else None
    if read is None:
        raise ValueError("the elements of this tensor cannot be read")
    data = read(start * view.itemsize, length * view.itemsize)
    if len(data) != length * view.itemsize:
        raise OSError("the file is cut off in a tensor")
    return data


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
        import numpy as np

        view, strides = self._view, self._strides
        begin = sum(position * step for position, step in zip(start, strides, strict=True))
        span = _span(lengths, strides)
        if span <= _SPARSE * math.prod(lengths):
            data, begin = _bytes(view, view.offset + begin, span), 0
        else:
            if self._whole is None:
                self._whole = _bytes(view, view.offset, _span(self._shape, strides))
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
        self._views = before, after
        shape, strides, others = _common_order(before, after)
        self._shape = shape
        self._before = _Elements(before, shape, strides)
        self._after = _Elements(after, shape, others)
        self._same_type = before.dtype == after.dtype and before.identity[5:] == after.identity[5:]
        self._changed = self._largest = self._nan_appeared = self._nan_vanished = 0
        self._inf_appeared = self._inf_vanished = 0
        self._norm = self._difference = 0.0
        self._are_numbers = True

    def result(self) -> ElementChanges | None:
        import numpy as np

        equal = []
        # Of what overflows, no norm is told.
        with np.errstate(all="ignore"):
            for start, lengths in _blocks(self._shape, BLOCK):
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
        return ElementChanges(
            self._views[0].count,
            self._changed,
            largest if self._are_numbers and math.isfinite(largest) else None,
            relative if math.isfinite(relative) else None,
            self._nan_appeared,
            self._nan_vanished,
            self._inf_appeared,
            self._inf_vanished,
        )

    def _compare(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
        import numpy as np

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
        differs = (one != other) & ~(nan_before & nan_after)
        self._changed += int(np.count_nonzero(differs))
        inf_before, inf_after = np.isinf(one), np.isinf(other)
        self._nan_appeared += int(np.count_nonzero(nan_after & ~nan_before))
        self._nan_vanished += int(np.count_nonzero(nan_before & ~nan_after))
        self._inf_appeared += int(np.count_nonzero(inf_after & ~inf_before))
        self._inf_vanished += int(np.count_nonzero(inf_before & ~inf_after))
        finite = ~(nan_before | nan_after | inf_before | inf_after)
        self._add(_wide(one[finite]), _wide(other[finite]))
        self._add_norm(one[(nan_after | inf_after) & np.isfinite(one)])

    def _add(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
        """Take account of finite elements."""
        import numpy as np

        self._norm += _square_sum(one)
        difference = np.abs(other - one)
        if difference.size:
            self._largest = max(self._largest, difference.max())
            self._difference += _square_sum(difference)

    def _add_norm(self, values: np.ndarray[Any, Any]) -> None:
        """Take account of elements that are in both."""
        import numpy as np

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
    import numpy as np

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
    import numpy as np

    wide = np.complex128 if values.dtype.kind == "c" else np.float64
    return values if values.dtype.itemsize > np.dtype(wide).itemsize else values.astype(wide)


def _square_sum(values: np.ndarray[Any, Any]) -> float:
    """Return the square of the 2-norm, by no BLAS, whose threads cost more than blocks of this size are worth."""
    import numpy as np

    return float(np.square(np.abs(values)).sum())


@cache
def _decoder(dtype: str) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return what makes numbers of stored elements."""
    import numpy as np

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
    import numpy as np

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
