"""Which code of an allowed class a load may run, and what its constructors may be called with."""

from __future__ import annotations

import contextlib
import datetime
import io
import pickle
import random
from collections import deque
from pathlib import Path
from typing import Any

import pytest

import safepickle
from guard.assembler import Raw, build, call, name, new, pickled, stack_name
from guard.targets import Color
from safepickle.guard.rules import BUILT_IN

LOUD_CALLS: list[tuple[str, str]] = []
LOUD_METHODS = [
    "__repr__",
    "__str__",
    "__bytes__",
    "__format__",
    "__lt__",
    "__ne__",
    "__gt__",
    "__bool__",
    "__setattr__",
    "__delattr__",
    "__call__",
    "__len__",
    "__length_hint__",
    "__getitem__",
    "__setitem__",
    "__delitem__",
    "__missing__",
    "__iter__",
    "__reversed__",
    "__contains__",
    "__add__",
    "__mul__",
    "__neg__",
    "__abs__",
    "__complex__",
    "__int__",
    "__float__",
    "__index__",
    "__round__",
    "__fspath__",
    "__array__",
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__copy__",
    "__deepcopy__",
    "keys",
    "items",
    "values",
    "get",
    "update",
    "append",
    "extend",
    "add",
    "pop",
    "utcoffset",
    "dst",
    "tzname",
    "fromutc",
]


def loud(base: type) -> type:
    """A subclass that notes each call of a method which the load has no business with."""

    def noting(method: str) -> Any:
        def called(self: Any, *arguments: Any, **keywords: Any) -> Any:
            LOUD_CALLS.append((base.__name__, method))
            return getattr(base, method)(self, *arguments, **keywords)

        return called

    return type(f"Loud{base.__name__}", (base,), {"__module__": __name__, **{m: noting(m) for m in LOUD_METHODS}})


LOUD = {
    f"Loud{base.__name__}": loud(base)
    for base in (object, int, float, str, bytes, tuple, list, dict, set, frozenset, deque, datetime.tzinfo, Exception)
}
globals().update(LOUD)
LOUD_ARGUMENTS = {
    "Loudint": (5,),
    "Loudstr": ("a",),
    "Loudfloat": (1.5,),
    "Loudbytes": (b"ab",),
    "Loudtuple": ((1, 2),),
}


def loud_instance(title: str) -> Raw:
    return new(name(__name__, title), *LOUD_ARGUMENTS.get(title, ()))


@pytest.mark.parametrize("title", LOUD)
def test_load_calls_no_method_of_an_allowed_class_beside_those_that_the_page_names(title: str):
    instance = loud_instance(title)
    loaded = 0
    for module, attribute in BUILT_IN:
        if module.startswith("torch"):
            continue
        called = stack_name(module, attribute)
        arguments: tuple[Any, ...]
        for arguments in (
            (instance,), (instance, instance), (instance, 1), (1, instance), (b"x", instance), ("f8", instance, instance),
            ([instance],), ([(instance, instance)],), ({"a": instance},), (instance, [], {}), (1, instance, 1, b"", instance),
            (bytes(10), instance), (1, 1, instance),
        ):  # fmt: skip
            for program in (
                call(called, *arguments),
                build(call(called), arguments),
                build(call(called), {"a": instance}),
            ):
                LOUD_CALLS.clear()
                with contextlib.suppress(safepickle.GuardedLoadError):
                    safepickle.loads(pickled(program), allow=LOUD.values())
                    loaded += 1
                assert LOUD_CALLS == [], program
    assert loaded > 20


@pytest.mark.parametrize("title", ["Loudint", "Loudstr", "Loudtuple", "Loudfrozenset", "Loudobject", "LoudException"])
def test_opcodes_call_no_method_of_an_allowed_class(title: str):
    instance = loud_instance(title)
    LOUD_CALLS.clear()
    for program in (
        Raw(b"}" + instance + b"Ns"), Raw(b"\x8f(" + instance + b"\x90"), Raw(b"(" + instance + b"\x91"),
        Raw(b"}" + instance + b"\x85Ns"), [instance, (instance, instance)], build(instance, {"a": instance}),
    ):  # fmt: skip
        safepickle.loads(pickled(program), allow=LOUD.values())
    assert LOUD_CALLS == []


class Amount(int):
    pass


class Page(bytes):
    pass


class Row(tuple):
    __slots__ = ()


class Bag(frozenset):
    pass


class Line(deque):
    pass


class Day(datetime.date):
    pass


class Started(list):
    def __init__(self, count: int) -> None:
        super().__init__(range(count))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "obj", [Amount(5), Page(b"ab"), Row((1, [2])), Bag([1, 2]), Line([1], 3), Day(2020, 1, 2)], ids=lambda obj: type(obj).__name__
)  # fmt: skip
def test_instance_of_a_subclass_of_a_builtin_type_loads(obj: Any, protocol: int):
    loaded = safepickle.loads(pickle.dumps(obj, protocol), allow=[type(obj)])
    assert (type(loaded), loaded) == (type(obj), obj)


def test_constructor_of_its_own_is_its_authors_affair():
    data = pickled(call(name(__name__, "Started"), 3))
    assert safepickle.loads(data, allow=[Started]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [(Page, (1 << 40,)), (Page, ([1],)), (Row, ("text",)), (Row, ({},)), (Bag, ("text",)), (Amount, (b"5",)), (Amount, ([],)),
     (Line, ("text",)), (Day, (1.5, 1, 1))],
)  # fmt: skip
def test_inherited_constructor_takes_what_pickle_writes_for_it(cls: type, arguments: tuple[Any, ...]):
    for make in (call, new):
        if make is new and cls is Line:
            continue
        with pytest.raises(safepickle.GuardedLoadError, match=r"argument|not all integers"):
            safepickle.loads(pickled(make(name(__name__, cls.__name__), *arguments)), allow=[cls])


class Log(io.FileIO):
    pass


class Dice(random.Random):
    pass


def test_inherited_constructor_of_a_class_in_c_takes_nothing_whatever_the_version(tmp_path: Path):
    path = tmp_path / "kept"
    path.write_bytes(b"kept")
    for make in (call, new):
        with pytest.raises(safepickle.NotAllowedError, match=r"constructor is that of FileIO, .* without arguments"):
            safepickle.loads(pickled(make(name(__name__, "Log"), str(path), "w")), allow=[Log])
    assert path.read_bytes() == b"kept"
    dice = Dice(3)
    assert safepickle.loads(pickle.dumps(dice), allow=[Dice]).random() == dice.random()


def test_value_of_no_member_of_an_enum_is_not_printed():
    doubled = b")" + b"2\x86" * 60
    with pytest.raises(safepickle.DamagedPickleError, match="no member of the enumeration"):
        safepickle.loads(pickled(call(name("guard.targets", "Color"), Raw(doubled))), allow=[Color])


class Complaint(Exception):
    def __str__(self) -> str:
        raise AssertionError("it was asked")


class Complaining:
    def __setstate__(self, state: Any) -> None:
        raise Complaint(state)


def test_message_of_an_error_is_not_asked_of_what_it_carries():
    data = pickled(build(new(name(__name__, "Complaining")), {"a": 1}))
    with pytest.raises(safepickle.DamagedPickleError, match="failed with Complaint"):
        safepickle.loads(data, allow=[Complaining])


@pytest.mark.parametrize("program", [
    Raw(b"(" + name("_codecs", "encode") + b"l0N"), Raw(b"]" + name("_codecs", "encode") + b"a0N"),
    Raw(b"}" + name("_codecs", "encode") + b"Ns0N"), Raw(b"}N" + name("_codecs", "encode") + b"s0N"),
    Raw(b"\x8f(" + name("_codecs", "encode") + b"\x900N"), Raw(b"(" + name("_codecs", "encode") + b"\x910N"),
    Raw(b"]" + name("_codecs", "encode") + b"\x85\x85a0N"), call(name("builtins", "ValueError"), name("_codecs", "encode")),
    new(name("builtins", "ValueError"), (name("_codecs", "encode"),)), name("_codecs", "encode"),
])  # fmt: skip
def test_function_that_may_only_be_called_is_refused_wherever_it_is_stored(program: Raw, tmp_path: Path):
    data = pickled(program)
    path = tmp_path / "file"
    path.write_bytes(data)
    stream = io.BytesIO(data)
    for load in (lambda: safepickle.loads(data, allow=()), lambda: safepickle.load(path, allow=()), lambda: safepickle.load(stream, allow=())):  # fmt: skip
        with pytest.raises(safepickle.NotAllowedError, match="not be part of what is loaded"):
            load()
    assert safepickle.inspect(data).verdict == "refused"
