"""The built-in list, standard library: plain values, containers, dates, numbers, paths, exceptions."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from safepickle import rebuild
from safepickle.cpython import FROZENDICT
from safepickle.guard.limits import DIGITS, EXPONENT, PATH, LimitExceeded, Malformed, Refusal
from safepickle.guard.rules.base import Grant, Rule, RuleContext, ValueInfo, allocate, expect, no_arguments, set_state

_NUMBER: Final = (int, float)
_DECIMAL: Final = re.compile(
    r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:E([-+]?\d+))?|(?:s?NaN)(\d*)|Inf(?:inity)?)", re.IGNORECASE
)
_FRACTION: Final = re.compile(r"[-+]?\d+(?:/0*[1-9]\d*)?")
_FACTORIES: Final = frozenset(
    {list, dict, set, frozenset, tuple, int, float, complex, str, bytes, bytearray, bool, type(None)}
)
_ARRAY_FORMATS: Final = {
    "b": (1,), "B": (0,), "h": (4, 5), "H": (2, 3), "i": (8, 9), "I": (6, 7), "l": (8, 9, 12, 13), "L": (6, 7, 10, 11),
    "q": (12, 13), "Q": (10, 11), "f": (14, 15), "d": (16, 17),
}  # fmt: skip
"""The type codes of arrays, each with the machine formats that `array` writes for it."""
_FORMAT_SIZES: Final = (1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 4, 4, 8, 8)
DICT_ENTRY: Final = 96
_SET_ENTRY: Final = 64
_ORDERED_ENTRY: Final = 160
"""Bytes that a container takes for an entry, at most."""
_SIZES_OF_ITEMS: Final[dict[type, int]] = {
    str: 4, list: 8, tuple: 8, dict: DICT_ENTRY, set: _SET_ENTRY, frozenset: _SET_ENTRY,
}  # fmt: skip
_LARGEST_NUMBER: Final = 1 << 63


def _singleton_type(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    # Pickle writes type(None) as a call; any other argument would hand out a class that no list names.
    if len(arguments) != 1 or not any(arguments[0] is value for value in (None, Ellipsis, NotImplemented)):
        raise Refusal("type() is for None, Ellipsis and NotImplemented alone")


def _enum_member(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) != 2 or type(arguments[1]) is not str:
        raise Refusal("it reads attributes by name, and from any object that reaches everything")
    grant = context.grant(arguments[0])
    if grant is None or grant.listed == "built-in":
        raise Refusal("it reads attributes by name, and from any object that reaches everything")
    if grant.target is not None and not _is_enum(grant.target):
        raise Refusal("it reads attributes by name, which is for the members of an allowed Enum alone")
    if grant.target is not None and arguments[1] not in grant.target.__members__:
        raise Malformed(f"{grant.key} has no such member")


def _make_enum_member(cls: Any, member: str) -> Any:
    return cls.__members__[member]


def _is_enum(cls: object) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def _complex(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, _NUMBER, _NUMBER, least=0)


def _hold_digits(*numbers: object) -> None:
    """Hold integers to the length of a decimal number: dividing them is quadratic in it."""
    if any(type(number) is int and number.bit_length() > 4 * DIGITS for number in numbers):
        raise LimitExceeded(f"a number has more than {DIGITS:,} digits")


def _bytearray(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 2:
        expect(arguments, str, str)
        if arguments[1] not in ("latin-1", "latin1"):
            raise Refusal("the codec is not latin-1")
    else:
        expect(arguments, (bytes, bytearray), least=0)
    if arguments:
        allocate(context, len(arguments[0]))


def _bytes(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 2:
        _encode(context, arguments)
    else:
        expect(arguments)


def _encode(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Allow what pickle writes for bytes below protocol 3; other codecs decompress, or double what they get."""
    expect(arguments, str, str)
    if arguments[1] not in ("latin-1", "latin1"):
        raise Refusal("the codec is not latin-1")
    allocate(context, len(arguments[0]))


def _make_encoded(text: str = "", codec: str = "latin-1") -> bytes:
    return text.encode(codec)


def members(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Judge what a set, a frozenset, or an instance of a subclass, is made of."""
    expect(arguments, (list, tuple, set, frozenset), least=0)
    if arguments and arguments[0]:
        allocate(context, _SET_ENTRY * len(arguments[0]))
        context.check_keys(list(arguments[0]), arguments[0])


def _frozendict(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, dict, least=0)
    if arguments:
        allocate(context, DICT_ENTRY * len(arguments[0]))


def _range(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, int, int, int)
    _hold_digits(*arguments)
    if not arguments[2]:
        raise Malformed("the step of a range is 0")


def _slice(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    # Nothing nested: the hash of a slice is that of its parts, by recursion in C.
    expect(arguments, *[(int, type(None), str, float)] * 3)
    _hold_digits(*arguments)
    if any(type(argument) is str and len(argument) > DIGITS for argument in arguments):
        raise LimitExceeded(f"a bound of the slice has more than {DIGITS:,} characters")


def _ordered_dict(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (list, tuple), least=0)
    if arguments:
        allocate(context, _ORDERED_ENTRY * len(arguments[0]))
        if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in arguments[0]):
            raise Refusal("its argument is not a list of pairs")
        context.check_keys([pair[0] for pair in arguments[0]], arguments[0])


def _attributes(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Allow new attributes, as the `_metadata` of a state dict, but none that hides a method."""
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise Refusal("the state is not a dict of attributes")
    cls = _class_of(context, obj)
    for name in state:
        if name[:2] == "__" or hasattr(cls, name):
            raise Refusal(f"the state would hide {cls.__qualname__}.{name}")
    return _set_attributes


def _class_of(context: RuleContext, obj: object) -> type:
    """Return the class of an object, also of one that stands for it in `safepickle.inspect`."""
    grant = context.kind(obj)
    cls = None if grant is None else grant.target
    return cls if isinstance(cls, type) else type(obj)


def _set_attributes(obj: object, state: dict[str, Any]) -> None:
    obj.__dict__.update(state)


def _counter(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, dict, least=0)
    if arguments:
        allocate(context, DICT_ENTRY * len(arguments[0]))
        context.check_keys(list(arguments[0]), arguments[0])


def _default_dict(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Allow a factory that is None, a plain type, or a class of the user's: it is called at later look-ups."""
    if len(arguments) > 2:
        raise Refusal(f"it is called with {len(arguments)} arguments")
    factory = arguments[0] if arguments else None
    grant = context.grant(factory)
    mine = grant is not None and (grant.listed != "built-in" or grant.module == "collections")
    if factory is not None and not mine and not (type(factory) is type and factory in _FACTORIES):
        raise Refusal("its factory is neither None, nor a plain type, nor allowed")
    if len(arguments) == 2:
        _counter(context, arguments[1:])


def _make_default_dict(factory: Any = None, *rest: Any) -> Any:
    from collections import defaultdict

    return defaultdict(None if isinstance(factory, Grant) else factory, *rest)


def _deque(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (list, tuple), (int, type(None)), least=0)
    if arguments:
        allocate(context, 8 * len(arguments[0]))
    if len(arguments) == 2 and arguments[1] is not None and not 0 <= arguments[1] < sys.maxsize:
        raise Malformed("the maximal length of a deque is out of range")


def _small_ints(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if not all(type(argument) is int for argument in arguments):
        raise Refusal("its arguments are not all integers")
    if not all(-_LARGEST_NUMBER < argument < _LARGEST_NUMBER for argument in arguments):
        raise Malformed("an argument is no small integer")


def _date(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 1:
        expect(arguments, (bytes, str))
    else:
        _small_ints(context, arguments)


def _time(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    from datetime import timezone

    if arguments and type(arguments[0]) in (bytes, str):
        expect(arguments[:1], (bytes, str))
        arguments = arguments[1:]
        if len(arguments) > 1:
            raise Refusal(f"it is called with {len(arguments) + 1} arguments")
        zone = arguments[0] if arguments else None
        if type(zone) not in (type(None), timezone) and not _is_users_zone(context, zone):
            raise Refusal(f"the time zone is of type {type(zone).__qualname__}")
        return
    _small_ints(context, arguments)


def _is_users_zone(context: RuleContext, value: object) -> bool:
    """Tell whether a value is a time zone of a class that the user allows, as those of other libraries are."""
    from datetime import tzinfo

    grant = context.kind(value)
    return (
        grant is not None and grant.listed != "built-in" and (grant.target is None or issubclass(type(value), tzinfo))
    )


def _timezone(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    from datetime import timedelta

    expect(arguments, timedelta, str, least=1)


def _decimal(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, str)
    text = arguments[0]
    if len(text) > DIGITS:
        raise LimitExceeded(f"the number has more than {DIGITS:,} digits")
    context.spend(4 * len(text))
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise Malformed("the text is no decimal number")
    if len(found[1] or "") > len(str(EXPONENT)) + 1 or abs(int(found[1] or 0)) > EXPONENT:
        raise LimitExceeded(f"the number has an exponent beyond {EXPONENT:,}")


def _fraction(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 1:
        expect(arguments, str)
        if len(arguments[0]) > DIGITS:
            raise LimitExceeded(f"the number has more than {DIGITS:,} digits")
        context.spend(len(arguments[0]) ** 2 >> 6)
        if _FRACTION.fullmatch(arguments[0]) is None:
            raise Malformed("the text is no fraction")
        return
    expect(arguments, int, int)
    if not arguments[1]:
        raise Malformed("the denominator is 0")
    _hold_digits(*arguments)
    # It looks for the greatest common divisor, which takes steps for each pair of digits.
    context.spend(max(map(int.bit_length, arguments)) ** 2 >> 12)


def _uuid_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    if type(state) is not dict or not state.keys() <= {"int", "is_safe"}:
        raise Refusal("the state is not that of a UUID")
    if type(state.get("int")) is not int or not 0 <= state["int"] < 1 << 128:
        raise Malformed("the number is no 128-bit integer")
    if "is_safe" in state and (type(state["is_safe"]) is not int or state["is_safe"] not in (-1, 0)):
        raise Refusal("the state is not that of a UUID")
    if hasattr(obj, "int"):
        raise Refusal("it has its state already")
    return set_state


def _make_uuid() -> Any:
    from uuid import UUID

    return UUID.__new__(UUID)


def _path(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, *[str] * len(arguments))
    length = sum(map(len, arguments)) + len(arguments)
    if length > PATH:
        raise LimitExceeded(f"the path has more than {PATH:,} characters")
    allocate(context, 16 * length)


def _array(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, str, list)
    if arguments[0] not in _ARRAY_FORMATS:
        raise Refusal("the type code of the array is unknown")
    if not all(type(item) in _NUMBER for item in arguments[1]):
        raise Refusal("the array holds more than numbers")
    allocate(context, 8 * len(arguments[1]))


def _rebuild_array(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    from array import array

    expect(arguments, type, str, int, bytes)
    if arguments[0] is not array or arguments[2] not in _ARRAY_FORMATS.get(arguments[1], ()):
        raise Refusal("the type, type code or format of the array is unknown")
    if len(arguments[3]) % _FORMAT_SIZES[arguments[2]]:
        raise Malformed("the bytes of the array are no whole items")
    # Where they are of another order, each item becomes an object first.
    allocate(context, len(arguments[3]) * (1 if arguments[2] < 2 else 8))


def _exception(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Allow any arguments: an exception only keeps them. OSError makes an instance of a subclass, so it is noted."""
    allocate(context, 8 * len(arguments))
    return ValueInfo("exception")


def _system_error(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Judge the errors whose third argument may be a number of bytes: they would ask any object to be one."""
    from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath

    names = (str, bytes, int, type(None), PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)
    if len(arguments) > 2 and type(arguments[2]) not in names:
        raise Refusal(f"argument 3 is of type {type(arguments[2]).__qualname__}")
    _small_ints(context, tuple(argument for argument in arguments[:3] if type(argument) is int))
    return _exception(context, arguments)


def _syntax_error(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Judge the errors whose second argument is a place in a source: they would iterate over any object."""
    if len(arguments) == 2:
        place = arguments[1]
        if type(place) is not tuple or len(place) not in (4, 6, 7):
            raise Refusal("the place of the error is no tuple of 4 to 7 items")
        if any(type(part) not in (int, str, bytes, bool, type(None)) for part in place):
            raise Refusal("the place of the error holds more than numbers and text")
    return _exception(context, arguments)


def _exception_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise Refusal("the state is not a dict of attributes")
    cls = _class_of(context, obj)
    for name, value in state.items():
        if name in ("name", "path") and type(value) in (str, type(None)):
            continue
        if name == "args" and type(value) is tuple:
            continue
        if name == "__notes__" and type(value) is list:
            state[name] = _own_notes(context, value)
            continue
        if name[:2] == "__" or hasattr(cls, name):
            raise Refusal(f"the state would set {cls.__qualname__}.{name}")
    return set_state


def _own_notes(context: RuleContext, notes: list[Any]) -> list[str]:
    context.spend(16 * len(notes))
    notes = notes.copy()
    if not all(type(note) is str for note in notes):
        raise Refusal("the notes of the exception are not all text")
    return notes


def _reconstructor(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Allow what protocols 0 and 1 write for an instance: an allowed class, its builtin base, and the base's value."""
    if len(arguments) != 3 or not _is_users(context, arguments[0]):
        raise Refusal("its class is not allowed")
    base, value = arguments[1:]
    if base is object and value is None:
        return
    known = any(base is kind for kind in (int, float, str, bytes, list, tuple, dict, set, frozenset))
    if not known or type(value) is not base:
        raise Refusal("the base is no builtin type, or the value is not of that type")
    if base is int:
        allocate(context, value.bit_length() >> 3)
    elif base is not float:
        allocate(context, _SIZES_OF_ITEMS.get(base, 1) * len(value))
    if base in (set, frozenset, dict):
        context.check_keys(list(value), value)


def _is_users(context: RuleContext, cls: object) -> bool:
    grant = context.grant(cls)
    return grant is not None and grant.listed != "built-in" and (grant.target is None or isinstance(grant.target, type))


def _unfolds(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    raise Refusal("it is not called as a pickler writes it")


def _value(check: Any, **more: Any) -> Rule:
    return Rule(check, data=True, plain=True, **more)


def _call(check: Any, make: Any = None) -> Rule:
    return Rule(check, make, plain=True)


_TYPE: Final = Rule(data=True, plain=True)
_ERROR: Final = _value(_exception, reads=(0,), state=_exception_state, state_reads=1)
_NUMBERED: Final = _value(_system_error, reads=(0,), state=_exception_state, state_reads=1)
_PARSED: Final = _value(_syntax_error, reads=(0, 1), state=_exception_state, state_reads=1)
_EXCEPTIONS: Final = (
    "ArithmeticError AssertionError AttributeError BaseException BrokenPipeError BufferError "
    "BytesWarning ChildProcessError ConnectionAbortedError ConnectionError ConnectionRefusedError "
    "ConnectionResetError DeprecationWarning EOFError Exception FileExistsError FileNotFoundError "
    "FloatingPointError FutureWarning GeneratorExit ImportError ImportWarning IndexError "
    "InterruptedError IsADirectoryError KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError "
    "NameError NotADirectoryError NotImplementedError OverflowError PendingDeprecationWarning "
    "PermissionError ProcessLookupError RecursionError ReferenceError ResourceWarning RuntimeError RuntimeWarning "
    "StopAsyncIteration StopIteration SyntaxWarning SystemError SystemExit TimeoutError "
    "TypeError UnboundLocalError UnicodeError UnicodeWarning UserWarning ValueError Warning ZeroDivisionError"
)

_PATHS: Final = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")

RULES: Final[dict[tuple[str, str], Rule]] = {
    **{("builtins", name): _TYPE for name in ("bool", "dict", "float", "int", "list", "str", "tuple")},
    **{("builtins", name): Rule(data=True, plain=True) for name in ("Ellipsis", "NotImplemented")},
    **{("builtins", name): _ERROR for name in _EXCEPTIONS.split()},
    **{("builtins", name): _PARSED for name in ("SyntaxError", "IndentationError", "TabError")},
    **{("builtins", name): _NUMBERED for name in ("OSError", "BlockingIOError")},
    ("builtins", "object"): _value(no_arguments),
    ("builtins", "complex"): _value(_complex),
    ("builtins", "bytearray"): _value(_bytearray),
    ("builtins", "bytes"): _value(_bytes, make=_make_encoded),
    ("builtins", "set"): _value(members, reads=(1,)),
    ("builtins", "frozenset"): _value(members, reads=(1,)),
    **({} if FROZENDICT is None else {("builtins", "frozendict"): _value(_frozendict, reads=(1,))}),
    ("builtins", "range"): _value(_range),
    ("builtins", "slice"): _value(_slice),
    ("builtins", "type"): _call(_singleton_type),
    ("builtins", "getattr"): Rule(_enum_member, _make_enum_member, unfolds="getattr"),
    ("copyreg", "_reconstructor"): Rule(
        _reconstructor, rebuild.rebuild_stub_of_builtin, reads=(0, 0, 1), of_first=True, unfolds="reconstructor"
    ),
    ("safepickle.rebuild", "rebuild_stub_of_builtin"): Rule(_reconstructor, reads=(0, 0, 1), of_first=True),
    ("safepickle.rebuild", "rebuild_global"): Rule(_unfolds, unfolds="global"),
    ("safepickle.rebuild", "rebuild_salvaged"): Rule(_unfolds, unfolds="partial"),
    ("safepickle.rebuild", "rebuild_salvaged_contents"): Rule(_unfolds, unfolds="contents"),
    ("copyreg", "__newobj__"): Rule(_unfolds, unfolds="newobj"),
    ("copyreg", "__newobj_ex__"): Rule(_unfolds, unfolds="newobj_ex"),
    ("_codecs", "encode"): _call(_encode, _make_encoded),
    ("codecs", "encode"): _call(_encode, _make_encoded),
    ("collections", "OrderedDict"): _value(_ordered_dict, reads=(2,), state=_attributes, state_reads=1),
    ("collections", "Counter"): _value(_counter, reads=(1,)),
    ("collections", "defaultdict"): _value(_default_dict, reads=(0, 1), make=_make_default_dict),
    ("collections", "deque"): _value(_deque, reads=(1,)),
    ("datetime", "date"): _value(_date),
    ("datetime", "time"): _value(_time),
    ("datetime", "datetime"): _value(_time),
    ("datetime", "timedelta"): _value(_small_ints),
    ("datetime", "timezone"): _value(_timezone),
    ("decimal", "Decimal"): _value(_decimal),
    ("fractions", "Fraction"): _value(_fraction),
    ("uuid", "UUID"): _value(no_arguments, make=_make_uuid, state=_uuid_state, new_only=True),
    **{("pathlib", name): _value(_path) for name in _PATHS},
    **{("pathlib._local", name): _value(_path) for name in _PATHS},
    ("array", "array"): _value(_array),
    ("array", "_array_reconstructor"): _call(_rebuild_array),
    ("types", "SimpleNamespace"): _value(no_arguments, state=_attributes, state_reads=1),
}
