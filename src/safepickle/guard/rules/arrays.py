"""The built-in list, numpy: dtypes, arrays and scalars, whose states say how memory is read.

A dtype or shape that does not fit its bytes makes numpy read beyond them, and a dtype that takes plain bytes for
object pointers ends the process; so both are held against each other before numpy sees them.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from safepickle.guard.blob import Blob
from safepickle.guard.limits import DTYPE_LEVELS, DTYPE_PARTS, LimitExceeded, Malformed, Refusal
from safepickle.guard.rules.base import (
    DATA,
    Rule,
    RuleContext,
    ValueInfo,
    allocate,
    count_elements,
    expect,
    hold_count,
    is_one_of,
    is_size,
    set_state,
    sizes,
)
from safepickle.guard.rules.copies import own_container

_CODE: Final = re.compile(r"[<>=|]?(?:([biufcMmO])(1|2|4|8|16|32)?|([SUV])(0|[1-9]\d{0,8}))")
_SIZES: Final = {
    "b": "1",
    "i": "1 2 4 8",
    "u": "1 2 4 8",
    "f": "2 4 8 16",
    "c": "8 16 32",
    "M": "8",
    "m": "8",
    "O": "8",
}
_UNITS: Final = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
_OBJECT: Final = "O"
_SIZED: Final = {"S": (1,), "U": (4,), "V": (1, 2, 4, 8, 16)}
"""The dtypes whose state repeats their size, each with the alignments that it may have."""
_NATIVE: Final = "<" if sys.byteorder == "little" else ">"
_NO_SIZE: Final = 1 << 16
"""Most elements of an array whose elements have no size: no byte of the file stands behind them."""


def _dtype(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Judge ``dtype('f4', False, True)``; the copy is essential, since a state follows and the original is shared."""
    expect(arguments, str, (bool, int), (bool, int))
    if not arguments[2]:
        raise Refusal("it would hand out numpy's own dtype, which is shared by the whole process")
    found = _CODE.fullmatch(arguments[0]) if len(arguments[0]) < 16 else None
    if found is None:
        raise Refusal("the code of the dtype is not one that numpy writes")
    letter, size, text, length = found.groups()
    swapped = is_one_of(arguments[0][:1], "<", ">") and arguments[0][0] != _NATIVE
    if letter:
        if (size or "8") not in _SIZES[letter].split() or (size is None and letter not in "OMm"):
            raise Refusal("the code of the dtype is not one that numpy writes")
        return ValueInfo("dtype", letter, int(size or 8), open=True, swapped=swapped)
    itemsize = int(length) * (4 if text == "U" else 1)
    if itemsize >= 1 << 31:
        raise Malformed("an element of the dtype has more than 2**31 bytes")
    return ValueInfo("dtype", text, itemsize, open=True, swapped=swapped)


def _dtype_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    if info is None or info.kind != "dtype" or not info.open:
        raise Refusal("only a dtype that was just made takes a state")
    if type(state) is not tuple or not 8 <= len(state) <= 9 or not is_one_of(state[0], 3, 4):
        raise Refusal("the state of the dtype is not of version 3 or 4")
    version, order, subarray, names, fields, size, alignment, flags = state[:8]
    if not is_one_of(order, "<", ">", "|", "=") or not all(type(number) is int for number in (size, alignment, flags)):
        raise Refusal("the state of the dtype is malformed")
    # Without a unit numpy would go on with a dtype of dates that has none, and end the process.
    dates = info.dtype in "Mm"
    if dates != (version == 4) or dates != (len(state) == 9):
        raise Refusal("a unit is for dtypes of dates alone, and they have one")
    sized = _SIZED.get(info.dtype)
    if (size, alignment) != (-1, -1) if sized is None else (size != info.itemsize or alignment not in sized):
        raise Malformed("the state of the dtype contradicts its code")
    if dates:
        _check_unit(state[8])
    if subarray is not None:
        _check_subarray(context, info, subarray)
    if names is not None or fields is not None:
        _check_fields(context, info, names, fields)
    allowed = {_OBJECT: (63,), "U": (8,), "V": (0, 8) if names is None else (16, 24, 144, 152)}.get(info.dtype, (0,))
    if flags not in allowed:
        raise Refusal("the flags of the dtype are not those that numpy writes for it")
    info.open = False
    info.swapped = info.swapped if order == "|" else order not in ("=", _NATIVE)
    context.weigh(obj, 16 * info.weight)
    return set_state


def _check_unit(metadata: object) -> None:
    if type(metadata) is not tuple or len(metadata) != 2:
        raise Refusal("the dtype carries metadata")
    extra, unit = metadata
    if extra is not None and not (type(extra) is dict and not extra):
        raise Refusal("the dtype carries metadata")
    if type(unit) is not tuple or len(unit) != 4 or type(unit[0]) not in (bytes, str) or len(unit[0]) > 7:
        raise Refusal("the unit of the dtype is malformed")
    name = unit[0] if type(unit[0]) is str else unit[0].decode("ascii", "replace")
    # A divisor would have to divide a smaller unit, so numpy never writes one.
    if name not in _UNITS or not is_size(unit[1]) or not is_one_of(unit[2], 1) or not is_one_of(unit[3], 1):
        raise Refusal("the unit of the dtype is malformed")
    if not 0 < unit[1] < (2 if name == "generic" else 1 << 31):
        raise Refusal("the unit of the dtype is malformed")


def _check_subarray(context: RuleContext, info: ValueInfo, subarray: object) -> None:
    if type(subarray) is not tuple or len(subarray) != 2 or info.dtype != "V":
        raise Refusal("the subarray of the dtype is malformed")
    element = _known_dtype(context, subarray[0])
    shape = (subarray[1],) if type(subarray[1]) is int else subarray[1]
    if count_elements(sizes(shape, "shape of the subarray")) * element.itemsize != info.itemsize:
        raise Malformed("the subarray does not fill the dtype")
    info.layout = "subarray"
    _unfold(context, info, [element])


def _check_fields(context: RuleContext, info: ValueInfo, names: object, fields: object) -> None:
    if info.dtype != "V" or info.layout == "subarray" or type(names) is not tuple or type(fields) is not dict:
        raise Refusal("the fields of the dtype are malformed")
    if set(map(type, names)) - {str} or set(map(type, fields)) - {str}:
        raise Refusal("the fields of the dtype are malformed")
    if len(set(names)) != len(names) or fields.keys() != set(names):
        raise Malformed("the names of the dtype's fields contradict its fields")
    elements = []
    for field in fields.values():
        if type(field) is not tuple or len(field) != 2 or type(field[1]) is not int:
            raise Refusal("the fields of the dtype are malformed")
        element = _known_dtype(context, field[0])
        if not 0 <= field[1] <= info.itemsize - element.itemsize:
            raise Malformed("a field lies outside its dtype")
        elements.append(element)
    _unfold(context, info, elements)


def _unfold(context: RuleContext, info: ValueInfo, elements: list[ValueInfo]) -> None:
    """Hold a dtype to a number of parts, counted at each place where one stands, and charge for going through them."""
    info.weight = 1 + sum(element.weight for element in elements)
    info.levels = 1 + max((element.levels for element in elements), default=0)
    if info.weight > DTYPE_PARTS or info.levels > DTYPE_LEVELS:
        raise LimitExceeded(
            f"the dtype has more than {DTYPE_PARTS:,} parts, or nests more than {DTYPE_LEVELS} levels deep"
        )
    context.spend(16 * info.weight)


def _known_dtype(context: RuleContext, value: object, objects: bool = False) -> ValueInfo:
    info = context.info(value)
    if info is None or info.kind != "dtype":
        raise Refusal("a dtype was expected")
    if info.dtype == _OBJECT and not objects:
        raise Refusal("bytes may not be taken for object pointers")
    info.open = False
    return info


def _element_type(context: RuleContext, value: object, objects: bool = False) -> ValueInfo:
    """Return what is known of the dtype of an array or a scalar: numpy never gives them a subarray for one."""
    info = _known_dtype(context, value, objects)
    if info.layout == "subarray":
        raise Refusal("the elements are arrays themselves")
    context.spend(info.weight)
    return info


def _reconstruct(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Judge ``_reconstruct(ndarray, (0,), b'b')``, which makes an empty array that waits for its state."""
    if len(arguments) != 3 or type(arguments[1]) is not tuple or not is_one_of(arguments[2], b"b", "b"):
        raise Refusal("it is not called as numpy writes it")
    if len(arguments[1]) != 1 or not is_one_of(arguments[1][0], 0):
        raise Refusal("it is not called as numpy writes it")
    grant = context.grant(arguments[0])
    if grant is None or (grant.listed == "built-in" and grant.name != "ndarray"):
        raise Refusal("its class is not an array that is allowed")
    return ValueInfo("array", open=True, nests=True)


def _array_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    if info is None or info.kind != "array" or not info.open:
        raise Refusal("only an array that was just made takes a state")
    if type(state) is not tuple or len(state) != 5 or not is_one_of(state[0], 1):
        raise Refusal("the state of the array is not of version 1")
    _, shape, dtype, fortran, data = state
    element = _element_type(context, dtype, objects=True)
    count = count_elements(sizes(shape, "shape of the array"))
    if not is_one_of(fortran, True, False, 0, 1):
        raise Refusal("the state of the array is malformed")
    if element.dtype == _OBJECT:
        if type(data) is not list or len(data) != count:
            raise Malformed("an array of objects does not hold as many as its shape says")
        allocate(context, 8 * count)
        context.nest(obj, data)
    else:
        _check_filled(context, data, count, element)
        allocate(context, count * element.itemsize)
    info.open = False
    info.dtype, info.itemsize, info.shape, info.nbytes = (
        element.dtype,
        element.itemsize,
        shape,
        count * element.itemsize,
    )
    return set_state


def check_array(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Hold the state of an array of a user's class to the same, where numpy will read it; return it, copied.

    A ``__setstate__`` of the class's own hands numpy's part of a state on, which comes first, with the rest behind it
    or beside it. What is of another shape it reads itself, or numpy refuses it.
    """
    if type(state) is not tuple:
        return state
    if len(state) in (4, 5) or (len(state) > 5 and _is_dtype(context, state[2])):
        return _own_array_state(context, obj, info, state[:5]) + state[5:]
    if state and type(state[0]) is tuple and len(state[0]) in (4, 5):
        return (_own_array_state(context, obj, info, state[0]), *state[1:])
    return state


def _own_array_state(context: RuleContext, obj: object, info: ValueInfo | None, state: tuple[Any, ...]) -> Any:
    state = own_container(context, state, RULES["numpy", "ndarray"].state_reads)
    _array_state(context, obj, info, state)
    return state


def _is_dtype(context: RuleContext, value: object) -> bool:
    info = context.info(value)
    return info is not None and info.kind == "dtype"


def _check_filled(context: RuleContext, data: object, count: int, element: ValueInfo) -> None:
    """Hold the bytes of an array against its shape."""
    if type(data) is str:
        # Pickles of Python 2, read with encoding="latin1": numpy encodes them.
        allocate(context, len(data))
        try:
            length: int | None = len(data.encode("latin-1"))
        except UnicodeEncodeError:
            raise Malformed("the text that stands for the bytes of the array is no latin-1") from None
    else:
        length = context.length(data)
    if length is not None and length != count * element.itemsize:
        raise Malformed("the bytes of the array do not fill its shape")
    if not element.itemsize and count > _NO_SIZE:
        raise LimitExceeded(f"the array has more than {_NO_SIZE:,} elements that have no size")


def _from_buffer(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if (
        len(arguments) not in (4, 5)
        or not is_one_of(arguments[3], "C", "F", "K")
        or any(argument is not None for argument in arguments[4:])
    ):
        raise Refusal("it is not called as numpy writes it")
    buffer, dtype, shape = arguments[:3]
    if arguments[3] == "K":
        raise Refusal("arrays with permuted axes are not read")
    element = _element_type(context, dtype)
    count = count_elements(sizes(shape, "shape of the array"))
    length = context.length(buffer)
    if length is not None and length != count * element.itemsize:
        raise Malformed("the bytes of the array do not fill its shape")
    if not element.itemsize:
        raise Refusal("the elements of the array have no size")
    return ValueInfo("array", element.dtype, element.itemsize, count * element.itemsize, shape)


def _scalar(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 2)
    element = _element_type(context, arguments[0])
    data = arguments[1]
    if type(data) is str and data.isascii():
        data = data.encode()
    if context.length(data) != element.itemsize or type(data) in (bytearray, memoryview):
        raise Malformed("the bytes of the scalar do not fill its dtype")
    allocate(context, element.itemsize)
    if element.dtype == "U":
        _check_characters(data, element.swapped)
    return ValueInfo(
        "scalar", element.dtype, element.itemsize, element.itemsize, weight=element.weight + element.itemsize
    )


def _check_characters(data: Any, swapped: bool) -> None:
    little = (sys.byteorder == "little") != swapped
    content: bytes = data.read() if type(data) is Blob and data.read is not None else data
    try:
        content.decode("utf-32-le" if little else "utf-32-be", "surrogatepass")
    except UnicodeDecodeError:
        raise Malformed("a number in the scalar is not a character") from None


_SCALARS: Final = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble complex64 "
    "complex128 clongdouble str_ bytes_ datetime64 timedelta64 intc uintc longlong ulonglong bool"
)

RULES: Final[dict[tuple[str, str], Rule]] = {
    ("numpy", "dtype"): Rule(_dtype, state=_dtype_state, data=True),
    ("numpy", "ndarray"): Rule(state=_array_state, state_reads=2, data=True),
    **{("numpy", name): DATA for name in _SCALARS.split()},
    **{
        (f"{package}.multiarray", "_reconstruct"): Rule(_reconstruct, of_first=True)
        for package in ("numpy.core", "numpy._core")
    },
    **{(f"{package}.multiarray", "scalar"): Rule(_scalar) for package in ("numpy.core", "numpy._core")},
    **{(f"{package}.numeric", "_frombuffer"): Rule(_from_buffer) for package in ("numpy.core", "numpy._core")},
}
