"""The built-in list, standard library: plain values, containers, dates, numbers, paths, exceptions."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from safepickle import rebuild
from safepickle.guard.limits import DIGITS, EXPONENT, Damage, Excess, Refusal
from safepickle.guard.rules.base import Facts, Grant, Judge, Rule, expect

_NUMBER: Final = (int, float)
_DECIMAL: Final = re.compile(
    r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:E([-+]?\d+))?|(?:s?NaN)(\d*)|Inf(?:inity)?)", re.IGNORECASE
)
_FRACTION: Final = re.compile(r"[-+]?\d+(?:/0*[1-9]\d*)?")
_FACTORIES: Final = frozenset(
    {list, dict, set, frozenset, tuple, int, float, complex, str, bytes, bytearray, bool, type(None)}
)
_ARRAY_CODES: Final = "bBhHiIlLqQfd"


def _singleton_type(judge: Judge, arguments: tuple[Any, ...]) -> None:
    # Pickle writes type(None) as a call; any other argument would hand out a class that no list names.
    if len(arguments) != 1 or not any(arguments[0] is value for value in (None, Ellipsis, NotImplemented)):
        raise Refusal("type() is for None, Ellipsis and NotImplemented alone")


def _enum_member(judge: Judge, arguments: tuple[Any, ...]) -> None:
    if len(arguments) != 2 or type(arguments[1]) is not str:
        raise Refusal("it reads attributes by name, and from any object that reaches everything")
    grant = judge.grant(arguments[0])
    if grant is None or grant.listed == "built-in":
        raise Refusal("it reads attributes by name, and from any object that reaches everything")
    if grant.target is not None and not _is_enum(grant.target):
        raise Refusal("it reads attributes by name, which is for the members of an allowed Enum alone")
    if grant.target is not None and arguments[1] not in grant.target.__members__:
        raise Damage(f"{grant.key} has no such member")


def _make_enum_member(cls: Any, member: str) -> Any:
    return cls.__members__[member]


def _is_enum(cls: Any) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def _complex(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, _NUMBER, _NUMBER, least=0)


def _bytearray(judge: Judge, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 2:
        expect(arguments, str, str)
        if arguments[1] not in ("latin-1", "latin1"):
            raise Refusal("the codec is not latin-1")
    else:
        expect(arguments, (bytes, bytearray), least=0)
    if arguments:
        judge.spend(len(arguments[0]))


def _bytes(judge: Judge, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 2:
        _encode(judge, arguments)
    else:
        expect(arguments)


def _encode(judge: Judge, arguments: tuple[Any, ...]) -> None:
    """Allow what pickle writes for bytes below protocol 3; other codecs decompress, or double what they get."""
    expect(arguments, str, str)
    if arguments[1] not in ("latin-1", "latin1"):
        raise Refusal("the codec is not latin-1")
    judge.spend(len(arguments[0]))


def _make_encoded(text: str = "", codec: str = "latin-1") -> bytes:
    return text.encode(codec)


def _members(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (list, tuple, set, frozenset), least=0)
    if arguments and arguments[0]:
        judge.spend(16 * len(arguments[0]))
        judge.check_keys(list(arguments[0]), arguments[0])


def _range(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, int, int, int)
    if not arguments[2]:
        raise Damage("the step of a range is 0")


def _slice(judge: Judge, arguments: tuple[Any, ...]) -> None:
    # Nothing nested: the hash of a slice is that of its parts, by recursion in C.
    expect(arguments, *[(int, type(None), str, float)] * 3)


def _no_arguments(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments)


def _ordered_dict(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (list, tuple), least=0)
    if arguments:
        judge.spend(16 * len(arguments[0]))
        if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in arguments[0]):
            raise Refusal("its argument is not a list of pairs")
        judge.check_keys([pair[0] for pair in arguments[0]], arguments[0])


def _attributes(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    """Allow new attributes, as the `_metadata` of a state dict, but none that hides a method."""
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise Refusal("the state is not a dict of attributes")
    for name in state:
        if name[:2] == "__" or hasattr(type(obj), name):
            raise Refusal(f"the state would hide {type(obj).__qualname__}.{name}")
    return _set_attributes


def _set_attributes(obj: Any, state: dict[str, Any]) -> None:
    obj.__dict__.update(state)


def _counter(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, dict, least=0)
    if arguments:
        judge.spend(16 * len(arguments[0]))
        judge.check_keys(list(arguments[0]), arguments[0])


def _default_dict(judge: Judge, arguments: tuple[Any, ...]) -> None:
    """Allow a factory that is None, a plain type, or a class of the user's: it is called at later look-ups."""
    if len(arguments) > 2:
        raise Refusal(f"it is called with {len(arguments)} arguments")
    factory = arguments[0] if arguments else None
    grant = judge.grant(factory)
    mine = grant is not None and (grant.listed != "built-in" or grant.module == "collections")
    if factory is not None and not mine and not (isinstance(factory, type) and factory in _FACTORIES):
        raise Refusal("its factory is neither None, nor a plain type, nor allowed")
    if len(arguments) == 2:
        _counter(judge, arguments[1:])


def _make_default_dict(factory: Any = None, *rest: Any) -> Any:
    from collections import defaultdict

    return defaultdict(None if isinstance(factory, Grant) else factory, *rest)


def _deque(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, (list, tuple), (int, type(None)), least=0)
    if arguments:
        judge.spend(16 * len(arguments[0]))
    if len(arguments) == 2 and arguments[1] is not None and not 0 <= arguments[1] < sys.maxsize:
        raise Damage("the maximal length of a deque is out of range")


def _small_ints(judge: Judge, arguments: tuple[Any, ...]) -> None:
    if not all(type(argument) is int for argument in arguments):
        raise Refusal("its arguments are not all integers")


def _date(judge: Judge, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 1:
        expect(arguments, (bytes, str))
    else:
        _small_ints(judge, arguments)


def _time(judge: Judge, arguments: tuple[Any, ...]) -> None:
    from datetime import timezone

    if arguments and type(arguments[0]) in (bytes, str):
        expect(arguments[:1], (bytes, str))
        arguments = arguments[1:]
        if len(arguments) > 1:
            raise Refusal(f"it is called with {len(arguments) + 1} arguments")
    for argument in arguments:
        if type(argument) not in (int, type(None), timezone) and judge.kind(argument) is None:
            raise Refusal(f"an argument is of type {type(argument).__qualname__}")


def _timezone(judge: Judge, arguments: tuple[Any, ...]) -> None:
    from datetime import timedelta

    expect(arguments, timedelta, str, least=1)


def _decimal(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, str)
    text = arguments[0]
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise Damage("the text is no decimal number")
    if len(text) > DIGITS or len(found[1] or "") > len(str(EXPONENT)) + 1 or abs(int(found[1] or 0)) > EXPONENT:
        raise Excess(f"the number has more than {DIGITS:,} digits, or an exponent beyond {EXPONENT:,}")


def _fraction(judge: Judge, arguments: tuple[Any, ...]) -> None:
    if len(arguments) == 1:
        expect(arguments, str)
        if len(arguments[0]) > DIGITS:
            raise Excess(f"the number has more than {DIGITS:,} digits")
        if _FRACTION.fullmatch(arguments[0]) is None:
            raise Damage("the text is no fraction")
        return
    expect(arguments, int, int)
    if not arguments[1]:
        raise Damage("the denominator is 0")
    if max(map(int.bit_length, arguments)) > 4 * DIGITS:
        raise Excess(f"the number has more than {DIGITS:,} digits")


def _uuid_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    if type(state) is not dict or not state.keys() <= {"int", "is_safe"}:
        raise Refusal("the state is not that of a UUID")
    if type(state.get("int")) is not int or not 0 <= state["int"] < 1 << 128:
        raise Damage("the number is no 128-bit integer")
    if "is_safe" in state and (type(state["is_safe"]) is not int or state["is_safe"] not in (-1, 0)):
        raise Refusal("the state is not that of a UUID")
    if hasattr(obj, "int"):
        raise Refusal("it has its state already")
    return _set_state


def _set_state(obj: Any, state: Any) -> None:
    obj.__setstate__(state)


def _make_uuid() -> Any:
    from uuid import UUID

    return UUID.__new__(UUID)


def _path(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, *[str] * len(arguments))
    judge.spend(sum(map(len, arguments)))


def _array(judge: Judge, arguments: tuple[Any, ...]) -> None:
    expect(arguments, str, list)
    if arguments[0] not in tuple(_ARRAY_CODES):
        raise Refusal("the type code of the array is unknown")
    if not all(type(item) in _NUMBER for item in arguments[1]):
        raise Refusal("the array holds more than numbers")
    judge.spend(8 * len(arguments[1]))


def _rebuild_array(judge: Judge, arguments: tuple[Any, ...]) -> None:
    from array import array

    expect(arguments, type, str, int, bytes)
    if arguments[0] is not array or arguments[1] not in tuple(_ARRAY_CODES) or not 0 <= arguments[2] <= 17:
        raise Refusal("the type, type code or format of the array is unknown")
    judge.spend(len(arguments[3]))


def _exception(judge: Judge, arguments: tuple[Any, ...]) -> Facts:
    """Allow any arguments: an exception only keeps them. OSError makes an instance of a subclass, so it is noted."""
    return Facts("exception")


def _exception_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise Refusal("the state is not a dict of attributes")
    for name, value in state.items():
        if name in ("name", "path") and type(value) in (str, type(None)):
            continue
        if name == "args" and type(value) is tuple:
            continue
        if name == "__notes__" and type(value) is list and all(type(note) is str for note in value):
            continue
        if name[:2] == "__" or hasattr(type(obj), name):
            raise Refusal(f"the state would set {type(obj).__qualname__}.{name}")
    return _set_state


def _namespace_state(judge: Judge, obj: Any, facts: Facts | None, state: Any) -> Any:
    return _attributes(judge, obj, facts, state)


def _reconstructor(judge: Judge, arguments: tuple[Any, ...]) -> None:
    """Allow what protocols 0 and 1 write for an instance: an allowed class, its builtin base, and the base's value."""
    if len(arguments) != 3 or not _is_users(judge, arguments[0]):
        raise Refusal("its class is not allowed")
    base, value = arguments[1:]
    if base is object and value is None:
        return
    if base not in (int, float, str, bytes, list, tuple, dict, set, frozenset) or type(value) is not base:
        raise Refusal("the base is no builtin type, or the value is not of that type")
    if base not in (int, float):
        judge.spend(16 * len(value))
    if base in (set, frozenset, dict):
        judge.check_keys(list(value), value)


def _is_users(judge: Judge, cls: Any) -> bool:
    grant = judge.grant(cls)
    return grant is not None and grant.listed != "built-in" and (grant.target is None or isinstance(grant.target, type))


def _unfolds(judge: Judge, arguments: tuple[Any, ...]) -> None:
    raise Refusal("it is not called as a pickler writes it")


def _value(check: Any, **more: Any) -> Rule:
    return Rule(check, data=True, plain=True, **more)


def _call(check: Any, make: Any = None) -> Rule:
    return Rule(check, make, plain=True)


_TYPE: Final = Rule(data=True, plain=True)
_ERROR: Final = _value(_exception, state=_exception_state)
_EXCEPTIONS: Final = (
    "ArithmeticError AssertionError AttributeError BaseException BlockingIOError BrokenPipeError BufferError "
    "BytesWarning ChildProcessError ConnectionAbortedError ConnectionError ConnectionRefusedError "
    "ConnectionResetError DeprecationWarning EOFError Exception FileExistsError FileNotFoundError "
    "FloatingPointError FutureWarning GeneratorExit ImportError ImportWarning IndentationError IndexError "
    "InterruptedError IsADirectoryError KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError "
    "NameError NotADirectoryError NotImplementedError OSError OverflowError PendingDeprecationWarning "
    "PermissionError ProcessLookupError RecursionError ReferenceError ResourceWarning RuntimeError RuntimeWarning "
    "StopAsyncIteration StopIteration SyntaxError SyntaxWarning SystemError SystemExit TabError TimeoutError "
    "TypeError UnboundLocalError UnicodeError UnicodeWarning UserWarning ValueError Warning ZeroDivisionError"
)

_PATHS: Final = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")

RULES: Final[dict[tuple[str, str], Rule]] = {
    **{("builtins", name): _TYPE for name in ("bool", "dict", "float", "int", "list", "str", "tuple")},
    **{("builtins", name): Rule(data=True, plain=True) for name in ("Ellipsis", "NotImplemented")},
    **{("builtins", name): _ERROR for name in _EXCEPTIONS.split()},
    ("builtins", "object"): _value(_no_arguments),
    ("builtins", "complex"): _value(_complex),
    ("builtins", "bytearray"): _value(_bytearray),
    ("builtins", "bytes"): _value(_bytes, make=_make_encoded),
    ("builtins", "set"): _value(_members),
    ("builtins", "frozenset"): _value(_members),
    ("builtins", "range"): _value(_range),
    ("builtins", "slice"): _value(_slice),
    ("builtins", "type"): _call(_singleton_type),
    ("builtins", "getattr"): Rule(_enum_member, _make_enum_member, unfolds="getattr"),
    ("copyreg", "_reconstructor"): Rule(
        _reconstructor, rebuild.rebuild_stub_of_builtin, of_first=True, unfolds="reconstructor"
    ),
    ("safepickle.rebuild", "rebuild_stub_of_builtin"): Rule(_reconstructor, of_first=True),
    ("safepickle.rebuild", "rebuild_global"): Rule(_unfolds, unfolds="global"),
    ("safepickle.rebuild", "rebuild_salvaged"): Rule(_unfolds, unfolds="salvaged"),
    ("safepickle.rebuild", "rebuild_salvaged_contents"): Rule(_unfolds, unfolds="contents"),
    ("copyreg", "__newobj__"): Rule(_unfolds, unfolds="newobj"),
    ("copyreg", "__newobj_ex__"): Rule(_unfolds, unfolds="newobj_ex"),
    ("_codecs", "encode"): _call(_encode, _make_encoded),
    ("codecs", "encode"): _call(_encode, _make_encoded),
    ("collections", "OrderedDict"): _value(_ordered_dict, state=_attributes),
    ("collections", "Counter"): _value(_counter),
    ("collections", "defaultdict"): _value(_default_dict, make=_make_default_dict),
    ("collections", "deque"): _value(_deque),
    ("datetime", "date"): _value(_date),
    ("datetime", "time"): _value(_time),
    ("datetime", "datetime"): _value(_time),
    ("datetime", "timedelta"): _value(_small_ints),
    ("datetime", "timezone"): _value(_timezone),
    ("decimal", "Decimal"): _value(_decimal),
    ("fractions", "Fraction"): _value(_fraction),
    ("uuid", "UUID"): _value(_no_arguments, make=_make_uuid, state=_uuid_state),
    **{("pathlib", name): _value(_path) for name in _PATHS},
    **{("pathlib._local", name): _value(_path) for name in _PATHS},
    ("array", "array"): _value(_array),
    ("array", "_array_reconstructor"): _call(_rebuild_array),
    ("types", "SimpleNamespace"): _value(_no_arguments, state=_namespace_state),
}
