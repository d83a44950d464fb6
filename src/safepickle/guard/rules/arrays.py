"""The built-in list, numpy: dtypes, arrays and scalars, whose states say how memory is read.

A dtype or shape that does not fit its bytes makes numpy read beyond them, and a dtype that takes plain bytes for
object pointers ends the process; so both are held against each other before numpy sees them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from safepickle.guard.limits import Damage, Refusal
from safepickle.guard.rules.base import DATA, Facts, Judge, Rule, count_elements, expect, sizes

_CODE: Final = re.compile(r"[<>=|]?(?:([biufcMmO])(1|2|4|8|16|32)?|([SUVa])(\d{1,9}))")
_SIZES: Final = {
    "b": "1",
    "i": "1 2 4 8",
    "u": "1 2 4 8",
    "f": "2 4 8 12 16",
    "c": "8 16 24 32",
    "M": "8",
    "m": "8",
    "O": "8",
}
_UNITS: Final = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
_OBJECT: Final = "O"


def _dtype(judge: Judge, arguments: tuple[Any, ...]) -> Facts:
    """Judge ``dtype('f4', False, True)``; the copy is essential, since a state follows and the original is shared."""
    expect(arguments, str, (bool, int), (bool, int))
    if not arguments[2]:
        raise Refusal("it would hand out numpy's own dtype, which is shared by the whole process")
    found = _CODE.fullmatch(arguments[0])
    if found is None:
        raise Refusal("the code of the dtype is not one that numpy writes")
    letter, size, text, length = found.groups()
    if letter:
        if (size or "8") not in _SIZES[letter].split() or (size is None and letter not in "OMm"):
            raise Refusal("the code of the dtype is not one that numpy writes")
        return Facts("dtype", letter, int(size or 8), open=True)
    return Facts("dtype", text, int(length) * (4 if text == "U" else 1), open=True)


def _dtype_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    if facts is None or facts.kind != "dtype" or not facts.open:
        raise Refusal("only a dtype that was just made takes a state")
    if type(state) is not tuple or not 8 <= len(state) <= 9 or state[0] not in (3, 4):
        raise Refusal("the state of the dtype is not of version 3 or 4")
    version, order, subarray, names, fields, size, alignment, flags = state[:8]
    if type(version) is not int or order not in ("<", ">", "|", "=") or (version == 3 and len(state) == 9):
        raise Refusal("the state of the dtype is malformed")
    if not all(type(number) is int for number in (size, alignment, flags)):
        raise Refusal("the state of the dtype is malformed")
    if size not in (-1, facts.itemsize) or alignment not in (-1, 1, 2, 4, 8, 16):
        raise Damage("the state of the dtype contradicts its code")
    if len(state) == 9:
        _check_unit(facts, state[8])
    elif facts.dtype in "Mm" and version == 4:
        raise Damage("the dtype has no unit")
    if subarray is not None:
        _check_subarray(judge, facts, subarray)
    if names is not None or fields is not None:
        _check_fields(judge, facts, names, fields)
    allowed = {_OBJECT: (63,), "U": (8,), "V": (0, 16, 144)}.get(facts.dtype, (0,))
    if flags not in allowed or ((flags in (16, 144)) != (names is not None)):
        raise Refusal("the flags of the dtype are not those that numpy writes for it")
    facts.open = False
    return _set_state


def _check_unit(facts: Facts, metadata: Any) -> None:
    if type(metadata) is not tuple or len(metadata) != 2 or facts.dtype not in "Mm":
        raise Refusal("the dtype carries metadata")
    extra, unit = metadata
    if extra is not None and not (type(extra) is dict and not extra):
        raise Refusal("the dtype carries metadata")
    if type(unit) is not tuple or len(unit) != 4 or type(unit[0]) not in (bytes, str):
        raise Refusal("the unit of the dtype is malformed")
    name = unit[0] if type(unit[0]) is str else unit[0].decode("ascii", "replace")
    if name not in _UNITS or not all(type(part) is int and 0 < part < 1 << 31 for part in unit[1:]):
        raise Refusal("the unit of the dtype is malformed")


def _check_subarray(judge: Judge, facts: Facts, subarray: Any) -> None:
    if type(subarray) is not tuple or len(subarray) != 2 or facts.dtype != "V":
        raise Refusal("the subarray of the dtype is malformed")
    element = _known_dtype(judge, subarray[0])
    shape = (subarray[1],) if type(subarray[1]) is int else subarray[1]
    if count_elements(sizes(shape, "shape of the subarray")) * element.itemsize != facts.itemsize:
        raise Damage("the subarray does not fill the dtype")


def _check_fields(judge: Judge, facts: Facts, names: Any, fields: Any) -> None:
    if facts.dtype != "V" or type(names) is not tuple or type(fields) is not dict or set(map(type, names)) - {str}:
        raise Refusal("the fields of the dtype are malformed")
    if len(set(names)) != len(names) or fields.keys() != set(names):
        raise Damage("the names of the dtype's fields contradict its fields")
    for field in fields.values():
        if type(field) is not tuple or len(field) != 2 or type(field[1]) is not int:
            raise Refusal("the fields of the dtype are malformed")
        element = _known_dtype(judge, field[0])
        if not 0 <= field[1] <= facts.itemsize - element.itemsize:
            raise Damage("a field lies outside its dtype")


def _known_dtype(judge: Judge, value: Any, objects: bool = False) -> Facts:
    facts = judge.facts(value)
    if facts is None or facts.kind != "dtype":
        raise Refusal("a dtype was expected")
    if facts.dtype == _OBJECT and not objects:
        raise Refusal("bytes may not be taken for object pointers")
    facts.open = False
    return facts


def _set_state(obj: Any, state: Any) -> None:
    obj.__setstate__(state)


def _reconstruct(judge: Judge, arguments: tuple[Any, ...]) -> Facts:
    """Judge ``_reconstruct(ndarray, (0,), b'b')``, which makes an empty array that waits for its state."""
    if len(arguments) != 3 or arguments[1] != (0,) or arguments[2] not in (b"b", "b"):
        raise Refusal("it is not called as numpy writes it")
    grant = judge.grant(arguments[0])
    if grant is None or (grant.listed == "built-in" and grant.name != "ndarray"):
        raise Refusal("its class is not an array that is allowed")
    return Facts("array", open=True)


def _array_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    if facts is None or facts.kind != "array" or not facts.open:
        raise Refusal("only an array that was just made takes a state")
    if type(state) is not tuple or len(state) != 5 or state[0] != 1 or type(state[0]) is not int:
        raise Refusal("the state of the array is not of version 1")
    _, shape, dtype, fortran, data = state
    element = _known_dtype(judge, dtype, objects=True)
    count = count_elements(sizes(shape, "shape of the array"))
    if type(fortran) not in (bool, int):
        raise Refusal("the state of the array is malformed")
    if element.dtype == _OBJECT:
        if type(data) is not list or len(data) != count:
            raise Damage("an array of objects does not hold as many as its shape says")
    elif type(data) is str:
        # Pickles of Python 2, read with encoding="latin1".
        if len(data) != count * element.itemsize or (not data.isascii() and max(data) > "\xff"):
            raise Damage("the bytes of the array do not fill its shape")
    elif judge.length(data) != count * element.itemsize:
        raise Damage("the bytes of the array do not fill its shape")
    facts.open = False
    facts.dtype, facts.itemsize, facts.shape, facts.nbytes = (
        element.dtype,
        element.itemsize,
        shape,
        count * element.itemsize,
    )
    return _set_state


def _from_buffer(judge: Judge, arguments: tuple[Any, ...]) -> Facts:
    if len(arguments) not in (4, 5) or arguments[3] not in ("C", "F", "K") or arguments[4:] not in ((), (None,)):
        raise Refusal("it is not called as numpy writes it")
    buffer, dtype, shape = arguments[:3]
    if arguments[3] == "K":
        raise Refusal("arrays with permuted axes are not read")
    element = _known_dtype(judge, dtype)
    count = count_elements(sizes(shape, "shape of the array"))
    length = judge.length(buffer)
    if length is not None and length != count * element.itemsize:
        raise Damage("the bytes of the array do not fill its shape")
    if not element.itemsize:
        raise Refusal("the elements of the array have no size")
    return Facts("array", element.dtype, element.itemsize, count * element.itemsize, shape)


def _scalar(judge: Judge, arguments: tuple[Any, ...]) -> Facts:
    if len(arguments) != 2:
        raise Refusal(f"it is called with {len(arguments)} arguments")
    element = _known_dtype(judge, arguments[0])
    data = arguments[1]
    if type(data) is str and data.isascii():
        data = data.encode()
    if type(data) is not bytes or len(data) != element.itemsize:
        raise Damage("the bytes of the scalar do not fill its dtype")
    return Facts("scalar", element.dtype, element.itemsize, element.itemsize)


_SCALARS: Final = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble complex64 "
    "complex128 clongdouble str_ bytes_ datetime64 timedelta64 intc uintc longlong ulonglong bool"
)

RULES: Final[dict[tuple[str, str], Rule]] = {
    ("numpy", "dtype"): Rule(_dtype, state=_dtype_state, data=True),
    ("numpy", "ndarray"): Rule(state=_array_state, data=True),
    **{("numpy", name): DATA for name in _SCALARS.split()},
    **{
        (f"{package}.multiarray", "_reconstruct"): Rule(_reconstruct, of_first=True)
        for package in ("numpy.core", "numpy._core")
    },
    **{(f"{package}.multiarray", "scalar"): Rule(_scalar) for package in ("numpy.core", "numpy._core")},
    **{(f"{package}.numeric", "_frombuffer"): Rule(_from_buffer) for package in ("numpy.core", "numpy._core")},
}
