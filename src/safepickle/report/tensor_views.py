"""Tensors and arrays as a run with symbols has found them: which bytes hold their elements, and in which order.

Nothing is read here but storages that lie in a file of their own inside the pickle, as plain pickle writes tensors.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from safepickle.guard.blob import Blob
from safepickle.guard.inspect_backend import Symbol
from safepickle.guard.rules import Grant
from safepickle.guard.torch_inspect import Run, run_nested
from safepickle.storage.contents import StoredArray, numpy_dtype
from safepickle.storage.reading import Reader, read_memory

__all__ = ["TensorView", "array_dtype", "contiguous", "view_of", "view_of_numbers", "view_of_scalar"]

_UNREADABLE: Final = Blob(bytes, None)


@dataclass(frozen=True, slots=True)
class TensorView:
    """Where the elements of a tensor or an array lie.

    Attributes:
        dtype: As torch and numpy call it, such as ``"float32"``; numpy's code for what has no such name.
        shape: Length of each dimension.
        strides: From one element to the next in each dimension, counted in elements.
        offset: Of the first element in `data`, counted in elements.
        itemsize: Bytes of one element; 0 where the file does not tell.
        data: The bytes; None where there are none, as on torch's meta device.
        storage: What tells whether two views of one file look at the same bytes.
        conjugate, negative: Whether the elements are the conjugates, or the negatives, of what `data` holds.
        requires_grad: Whether autograd follows it, or None where it has none.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    itemsize: int
    data: Blob | None
    storage: Any
    conjugate: bool = False
    negative: bool = False
    requires_grad: bool | None = None

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.count * self.itemsize

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two views of one file have in common if and only if they show the same elements."""
        return self.storage, self.dtype, self.shape, self.strides, self.offset, self.conjugate, self.negative

    def read(self, start: int, length: int) -> bytes:
        """Read what holds `length` elements, from the element `start` of `data` on.

        Raises:
            OSError: The file is shorter, or the bytes are not there.
        """
        if self.data is None or self.data.read is None:
            raise OSError("the bytes of its elements are not there")
        data = self.data.read(start * self.itemsize, length * self.itemsize)
        if len(data) != length * self.itemsize:
            raise OSError("the file is cut off in a tensor")
        return data

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def contiguous(shape: tuple[int, ...], order: str = "C") -> tuple[int, ...]:
    """Return the strides of an array without gaps, the last index fastest (``"C"``) or the first one (``"F"``)."""
    strides, step = [], 1
    for length in reversed(shape) if order == "C" else shape:
        strides.append(step)
        step *= length
    return tuple(reversed(strides) if order == "C" else strides)


def view_of(value: Any, run: Run | None) -> TensorView | None:
    """Return the view of a value, or None where it is no dense tensor or array of plain elements.

    Args:
        value: Anything of a run with symbols, or an array of a file that is no pickle.
        run: What the value comes from.
    """
    if type(value) is StoredArray:
        return _stored(value)
    if type(value) is not Symbol or value.info is None or run is None:
        return None
    if value.info.kind == "array":
        return _array(value)
    if value.info.kind == "storage":
        return _storage(value, run)
    make = _TENSORS.get(value.grant.name) if value.info.kind == "tensor" and value.grant is not None else None
    return None if make is None else make(value, run)


def view_of_scalar(symbol: Symbol) -> TensorView | None:
    """Return the view of a scalar of numpy's, ``scalar(dtype, bytes)``, or None for anything else."""
    info = symbol.info
    if info is None or info.kind != "scalar" or len(symbol.arguments) != 2:
        return None
    data = _blob(symbol.arguments[1])
    return None if data is None else TensorView(array_dtype(symbol), (), (), 0, info.itemsize, data, id(symbol))


def view_of_numbers(numbers: Sequence[float]) -> TensorView:
    """Return the view of a copy of numbers.

    Raises:
        OverflowError: One is too large for a float.
    """
    content = array("d", numbers).tobytes()
    return TensorView("float64", (len(numbers),), (1,), 0, 8, _blob(content), id(numbers))


def _stored(stored: StoredArray) -> TensorView | None:
    if stored.read is None:
        return None
    count = math.prod(stored.shape)
    data = Blob(bytes, stored.nbytes, stored.read, stored.crc)
    strides = contiguous(stored.shape, stored.order)
    return TensorView(stored.dtype, stored.shape, strides, 0, stored.nbytes // count if count else 0, data, id(stored))


def _array(symbol: Symbol) -> TensorView | None:
    """Return the view of a numpy array: of the state of ``_reconstruct``, or of the arguments of ``_frombuffer``."""
    info, state = symbol.info, symbol.state
    assert info is not None  # view_of() has looked
    if symbol.grant is not None and symbol.grant.name == "_frombuffer":
        content, _, _, order = symbol.arguments[:4]
    elif type(state) is tuple and len(state) == 5:
        _, _, _, is_fortran, content = state
        order = "F" if is_fortran else "C"
    else:
        return None
    data = _blob(content)
    if data is None:
        return None
    strides = contiguous(info.shape, order)
    return TensorView(array_dtype(symbol), info.shape, strides, 0, info.itemsize, data, id(symbol))


def array_dtype(symbol: Symbol) -> str:
    """Name the element type of a numpy array or scalar, as `TensorView` has it; ``""`` where the file does not tell."""
    info, dtype = symbol.info, None
    if info is None or not info.dtype:
        return ""
    # Only the dtype itself says the order of its bytes.
    if info.kind == "scalar":
        dtype = symbol.arguments[0]
    elif symbol.grant is not None and symbol.grant.name == "_frombuffer":
        dtype = symbol.arguments[1]
    elif type(symbol.state) is tuple and len(symbol.state) == 5:
        dtype = symbol.state[2]
    swapped = type(dtype) is Symbol and dtype.info is not None and dtype.info.swapped
    order = "<" if (sys.byteorder == "little") != swapped else ">"
    size = info.itemsize // 4 if info.dtype == "U" else info.itemsize
    return numpy_dtype(f"{order}{info.dtype}{size}")


def _storage(symbol: Symbol, run: Run) -> TensorView | None:
    """Return the view of a storage that belongs to no tensor."""
    info = symbol.info
    if info is None or not info.nbytes:
        return None
    data, key, begins = _find_storage(symbol, run)
    return TensorView(info.dtype, (info.nbytes // info.itemsize,), (1,), begins, info.itemsize, data, key)


def _blob(content: Any) -> Blob | None:
    if type(content) is Blob:
        return content
    if type(content) is str:
        # Of a pickle of Python 2, which is read as Latin-1.
        content = content.encode("latin-1")
    return Blob(bytes, len(content), read_memory(content)) if type(content) in (bytes, bytearray) else None


def _torchs(symbol: Symbol, run: Run) -> TensorView | None:
    """Return the view of ``_rebuild_tensor(storage, offset, size, stride, requires_grad, hooks, ...)``."""
    storage, offset, size, stride, *more = symbol.arguments
    bits = more[-1] if more and type(more[-1]) is dict else {}
    # In the arguments of a quantized tensor, its scale stands before this one.
    requires_grad = next((part for part in more if type(part) is bool), False)
    flags = requires_grad, bool(bits.get("conj")), bool(bits.get("neg"))
    return _tensor(symbol, run, storage, offset, size, stride, *flags)


def _ours(symbol: Symbol, run: Run) -> TensorView | None:
    """Return the view of ``rebuild_torch_tensor(storage, dtype, offset, size, stride, requires_grad, ...)``."""
    storage, _, *rest = symbol.arguments
    return _tensor(symbol, run, storage, *rest)


def _tensor(
    symbol: Symbol,
    run: Run,
    storage: Symbol,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    conjugate: bool = False,
    negative: bool = False,
) -> TensorView:
    info = symbol.info
    assert info is not None  # view_of() has looked
    data, key, begins = _find_storage(storage, run)
    return TensorView(
        info.dtype, size, stride, begins + offset, info.itemsize, data, key, conjugate, negative, requires_grad
    )


def _find_storage(storage: Symbol, run: Run) -> tuple[Blob, Any, int]:
    """Return the bytes of a storage, what names them, and where in them it begins, counted in elements."""
    if storage.grant is None:
        _, _, key, _, _, *view = storage.arguments
        data = run.storages.get(key, _UNREADABLE)
        if run.swapped and data.read is not None and storage.info is not None:
            parts = 2 if storage.info.dtype.startswith("complex") else 1
            # A checksum of bytes in another order says nothing of these.
            data = Blob(bytes, data.length, partial(_read_swapped, data.read, storage.info.itemsize // parts))
        return data, (id(run), key), view[0][1] if view and view[0] else 0
    if storage.grant.name == "rebuild_torch_typed_storage":
        return _find_storage(storage.arguments[0], run)
    if storage.grant.name == "_load_from_bytes":
        assert storage.info is not None  # the rule has looked into the file
        return Blob(bytes, storage.info.nbytes, partial(_read_nested, storage, run)), id(storage), 0
    found = _blob(storage.arguments[0])
    return _UNREADABLE if found is None else found, id(storage), 0


def _read_swapped(read: Reader, size: int, start: int = 0, length: int | None = None, /) -> bytes:
    """Read whole numbers of `size` bytes, and turn the bytes of each around."""
    data = read(start, length)
    data = data[: len(data) // size * size]
    swapped = bytearray(len(data))
    for position in range(size):
        swapped[position::size] = data[size - 1 - position :: size]
    return bytes(swapped)


def _read_nested(storage: Symbol, run: Run, start: int = 0, length: int | None = None, /) -> bytes:
    """Read from a storage that is a torch file inside the pickle."""
    if run.last_nested is None or run.last_nested[0] is not storage:
        payload = _blob(storage.arguments[0])
        if payload is None or payload.read is None:
            raise OSError("the bytes of its elements are not there")
        run.last_nested = storage, run_nested(payload.read(), 1)
    inner = run.last_nested[1]
    data, _, begins = _find_storage(inner.root, inner)
    return b"" if data.read is None else data.read(begins * inner.root.info.itemsize + start, length)


def _wrapped(symbol: Symbol, run: Run) -> TensorView | None:
    """Return the view of a parameter, or of what else shows the elements of the tensor that is its first argument."""
    inner = view_of(symbol.arguments[0], run)
    requires_grad = symbol.arguments[3 if len(symbol.arguments) == 4 and type(symbol.arguments[3]) is bool else 1]
    return inner if inner is None else replace(inner, requires_grad=requires_grad)


def _of_type(symbol: Symbol, run: Run) -> TensorView | None:
    """Return the view of ``_rebuild_from_type_v2(function, class, arguments, state)``."""
    function, _, inner, _ = symbol.arguments
    return view_of(Symbol(function, inner, symbol.info), run) if type(function) is Grant else None


def _without_data(symbol: Symbol, run: Run) -> TensorView | None:
    info = symbol.info
    assert info is not None  # view_of() has looked
    strides = contiguous(info.shape)
    return TensorView(info.dtype, info.shape, strides, 0, info.itemsize, None, id(symbol))


_TENSORS: Final[dict[str, Callable[[Symbol, Run], TensorView | None]]] = {
    "_rebuild_tensor": _torchs,
    "_rebuild_tensor_v2": _torchs,
    "_rebuild_tensor_v3": _torchs,
    "_rebuild_qtensor": _torchs,
    "_rebuild_parameter": _wrapped,
    "_rebuild_parameter_with_state": _wrapped,
    "Parameter": _wrapped,
    "_rebuild_device_tensor_from_cpu_tensor": _wrapped,
    "_rebuild_from_type_v2": _of_type,
    "_rebuild_meta_tensor_no_storage": _without_data,
    "rebuild_torch_tensor": _ours,
    "rebuild_torch_parameter": _ours,
}
"""How each rebuild function of a tensor is read, by its name: those of `safepickle.guard.rules.tensors`."""
