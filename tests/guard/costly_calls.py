"""Calls and states that cost far more than their length: what the memo hands on again and again, and what C unfolds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from guard.assembler import PROTO4, STOP, Raw, build, call, get, name, pickled, text, value

MEGABYTE = 1 << 20
RECONSTRUCTED = call(name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), b"b")
NAMESPACE = call(name("types", "SimpleNamespace"))


def put(index: int) -> Raw:
    """Remember the top of the stack."""
    return Raw(b"r" + struct.pack("<I", index))


def number(size: int, byte: int = 1) -> Raw:
    """Push an integer of `size` bytes."""
    return Raw(b"\x8b" + struct.pack("<I", size) + bytes([byte]) * size)


def value_of_one_hash() -> Raw:
    """Push an integer of a megabyte that is hashed as 1 is: comparing the two as decimal numbers takes minutes."""
    size = 61 * 140_000 // 8 + 2
    return Raw(b"\x8b" + struct.pack("<I", size) + (1 << 61 * 140_000).to_bytes(size, "little"))


def dtype(code: str, *state: Any) -> Raw:
    """Make a dtype, and give it its state."""
    made = call(name("numpy", "dtype"), code, False, True)
    return build(made, state) if state else made


def again(function: Raw, arguments: Raw, times: int) -> bytes:
    """Call a function again and again, with arguments from the memo."""
    return (
        PROTO4 + arguments + put(1) + b"0" + function + put(2) + b"0(" + (get(2) + get(1) + b"R") * times + b"l" + STOP
    )


def set_again(state: Raw, obj: Raw, times: int) -> bytes:
    """Give a state from the memo to one object after another."""
    return PROTO4 + state + put(1) + b"0(" + (obj + get(1) + b"b") * times + b"l" + STOP


def one(argument: Any) -> Raw:
    return Raw(value(argument) + b"\x85")


def chain(levels: int, link: Callable[[Raw], bytes], start: bytes = b"N") -> bytes:
    """Nest an object in an object: `link` makes one that holds what the memo has."""
    return PROTO4 + start + put(0) + b"0" + (link(get(0)) + put(0) + b"0") * levels + get(0) + STOP


def dtypes_of_two(levels: int) -> Raw:
    """A dtype with two fields, each of the dtype before: 2**levels parts."""
    made = [dtype("V8", 3, "|", None, None, None, 8, 1, 0), put(0), Raw(b"0")]
    for level in range(levels):
        fields = Raw(value({"a": (get(level), 0), "b": (get(level), 0)}))
        made += [dtype("V8", 3, "|", None, ("a", "b"), fields, 8, 1, 16), put(level + 1), Raw(b"0")]
    return Raw(b"".join(made) + get(levels))


def subarrays(levels: int) -> Raw:
    """A dtype of one item of a dtype of one item..."""
    made = [dtype("f8"), put(0), Raw(b"0")]
    for level in range(levels):
        made += [dtype("V8", 3, "|", (get(level), (1,)), None, None, 8, 8, 0), put(level + 1), Raw(b"0")]
    return Raw(b"".join(made) + get(levels))


def arrays_in_deques(levels: int) -> bytes:
    """Deques that each hold an array, which is empty as yet, and then has the deque before put into it."""
    deque, state = call(name("collections", "deque")), value(1) + value((1,)) + dtype("O8") + value(False)
    empty = [
        RECONSTRUCTED + put(level) + b"0" + deque + get(level) + b"a" + put(levels + level) + b"0"
        for level in range(levels)
    ]
    filled = [get(level) + b"(" + state + b"]" + get(levels + level - 1) + b"atb0" for level in range(1, levels)]
    return PROTO4 + b"".join(empty + filled) + get(2 * levels - 1) + STOP


def deque_that_deepens(holders: int, levels: int) -> bytes:
    """A deque that lies in another many times, and into which ever deeper ones are put."""
    deque = call(name("collections", "deque"))
    ever_deeper = [deque + get(level) + b"a" + put(level + 1) + b"0" for level in range(1, levels)]
    deeper = [get(0) + get(level) + b"a0" for level in range(1, levels)]
    start = deque + put(0) + b"0" + deque + put(1) + b"0"
    return PROTO4 + start + deque + b"(" + b"h\0" * holders + b"e" + b"".join(ever_deeper + deeper) + STOP


def arrays_of_one_payload(payload: Raw, order: str) -> bytes:
    """Arrays of a megabyte, each with bytes of its own, out of one payload."""
    state = b"(" + value(1) + value((MEGABYTE // 8,)) + get(2) + value(False) + get(1) + b"t"
    head = PROTO4 + payload + put(1) + b"0" + dtype("f8", 3, order, None, None, None, -1, -1, 0) + put(2) + b"0("
    return head + (RECONSTRUCTED + state + b"b") * 2_000 + b"l" + STOP


PAYLOAD = value(bytes(MEGABYTE))
LONG = Raw(b"(" + b"N" * 100_000 + b"l")
PAIRS = Raw(b"(" + b"(K\x01Nl" * 20_000 + b"l")

CALLS: dict[str, Callable[[], bytes]] = {
    "a dtype of two and two and two, as a key": lambda: PROTO4 + b"}" + dtypes_of_two(40) + b"Ns" + STOP,
    "a dtype of two and two and two": lambda: pickled(dtypes_of_two(40)),
    "an array of a dtype of two and two and two": lambda: pickled(
        call(name("numpy._core.numeric", "_frombuffer"), bytes(8), dtypes_of_two(40), (1,), "C")
    ),
    "a scalar of a dtype of two and two and two": lambda: pickled(
        call(name("numpy._core.multiarray", "scalar"), dtypes_of_two(40), bytes(8))
    ),
    "a dtype of a dtype of a dtype": lambda: pickled(subarrays(5_000)),
    "a dtype that claims no size": lambda: pickled(dtype("V8", 3, "|", None, None, None, -1, -1, 0)),
    "text of a dtype that claims no size": lambda: pickled(dtype("S8", 3, "|", None, None, None, -1, -1, 0)),
    "a dtype of dates without a unit": lambda: pickled(dtype("m8", 3, "<", None, None, None, -1, -1, 0)),
    "a dtype of dates with another version": lambda: pickled(dtype("M8", 4, "<", None, None, None, -1, -1, 0)),
    "a dtype of dates with a divisor": lambda: pickled(
        dtype("M8", 4, "<", None, None, None, -1, -1, 0, (None, (b"s", 1, 42, 1)))
    ),
    "an array whose dtype is a subarray": lambda: pickled(
        build(RECONSTRUCTED, (1, (1,), subarrays(1), False, bytes(8)))
    ),
    "a character that is none": lambda: pickled(
        call(name("numpy._core.multiarray", "scalar"), dtype("U1", 3, "<", None, None, None, 4, 4, 8), b"\xff" * 4)
    ),
    "arrays of the bytes of another machine": lambda: arrays_of_one_payload(PAYLOAD, ">"),
    "arrays of text": lambda: arrays_of_one_payload(value("a" * MEGABYTE), "<"),
    "arrays of text of another machine": lambda: arrays_of_one_payload(value("a" * MEGABYTE), ">"),
    "arrays of objects of one list": lambda: set_again(
        Raw(b"(" + value(1) + value((100_000,)) + dtype("O8") + value(False) + LONG + b"t"), RECONSTRUCTED, 2_000
    ),
    "a copy of bytes": lambda: again(name("builtins", "bytearray"), one(PAYLOAD), 20_000),
    "an encoded text": lambda: again(name("_codecs", "encode"), value(("a" * MEGABYTE, "latin-1")), 20_000),
    "a view that is hashed": lambda: again(
        name("safepickle.rebuild", "rebuild_memoryview"), value((PAYLOAD, "B", (MEGABYTE,), True)), 20_000
    ),
    "a deque of a list": lambda: again(name("collections", "deque"), one(LONG), 20_000),
    "a set of a list": lambda: again(
        name("builtins", "set"), one(Raw(b"(" + b"".join(map(value, range(50_000))) + b"l")), 20_000
    ),
    "a subclass of set, of a list": lambda: again(
        name("guard.targets", "Members"), one(Raw(b"(" + b"".join(map(value, range(50_000))) + b"l")), 50
    ),
    "a subclass of dict, of pairs": lambda: again(name("guard.targets", "PlainDict"), one(PAIRS), 100),
    "an OrderedDict of pairs": lambda: again(name("collections", "OrderedDict"), one(PAIRS), 20_000),
    "an exception of many arguments": lambda: again(name("builtins", "ValueError"), Raw(LONG[:-1] + b"t"), 20_000),
    "a path of a megabyte": lambda: again(name("pathlib", "PurePosixPath"), one("a/" * (MEGABYTE // 2)), 10),
    "a path, again and again": lambda: again(name("pathlib", "PurePosixPath"), one("a/" * 16_000), 20_000),
    "a path of many parts": lambda: again(name("pathlib", "PurePosixPath"), value(("a",) * 60_000), 10_000),
    "a fraction, again and again": lambda: again(name("fractions", "Fraction"), value((3**8_000, 7**4_000)), 50_000),
    "a fraction of text, again and again": lambda: again(
        name("fractions", "Fraction"), one("1" * 2_100 + "/7" + "3" * 2_100), 50_000
    ),
    "a decimal number, again and again": lambda: again(name("decimal", "Decimal"), one("7" * 4_300), 50_000),
    "Decimal of megabytes": lambda: pickled(call(name("decimal", "Decimal"), "9" * (20 * MEGABYTE))),
    "Fraction of megabytes": lambda: pickled(
        call(name("fractions", "Fraction"), number(MEGABYTE), number(MEGABYTE // 2, 7))
    ),
    "range of megabytes": lambda: pickled(
        call(name("builtins", "range"), 0, number(MEGABYTE), number(MEGABYTE // 2, 7))
    ),
    "slice of megabytes": lambda: pickled(call(name("builtins", "slice"), 0, number(MEGABYTE), None)),
    "timedelta of megabytes": lambda: pickled(call(name("datetime", "timedelta"), number(MEGABYTE))),
    "date of megabytes": lambda: pickled(call(name("datetime", "date"), number(MEGABYTE), 1, 1)),
    "a subclass of int, again and again": lambda: again(
        name("copyreg", "_reconstructor"),
        value((name("guard.targets", "Number"), name("builtins", "int"), number(MEGABYTE))),
        20_000,
    ),
    "a huge number beside a decimal one": lambda: PROTO4
    + b"}" + call(name("decimal", "Decimal"), "1") + b"Ns" + bytes(value_of_one_hash()) + b"Ns" + STOP,
    "a decimal number beside a huge one": lambda: PROTO4
    + b"}" + bytes(value_of_one_hash()) + b"Ns" + call(name("decimal", "Decimal"), "1") + b"Ns" + STOP,
    "attributes, again and again": lambda: set_again(
        Raw(b"}(" + b"".join(text(f"k{index}") + b"N" for index in range(10_000)) + b"u"), NAMESPACE, 10_000
    ),
    "a name of many parts": lambda: PROTO4 + b"c" + b".".join([b"a"] * 400_000) + b"\nx\n" + STOP,
    "a name of many attributes": lambda: PROTO4 + b"ca\n" + b".".join([b"a"] * 400_000) + b"\n" + STOP,
    "a name called with itself": lambda: PROTO4
    + b"(" + name("copyreg", "__newobj__") + put(3) + get(3) * 100_000 + b"t" + put(1) + b"0" + get(3) + get(1)
    + b"R" + STOP,
    "arrays in arrays": lambda: chain(
        5_000, lambda inner: build(RECONSTRUCTED, (1, (1,), dtype("O8"), False, Raw(b"]" + inner + b"a")))
    ),
    "a defaultdict in a defaultdict": lambda: chain(
        20_000, lambda inner: call(name("collections", "defaultdict")) + b"N" + inner + b"s"
    ),
    "a defaultdict made of a defaultdict": lambda: chain(
        20_000, lambda inner: call(name("collections", "defaultdict"), None, Raw(b"}N" + inner + b"s"))
    ),
    "a deque in a deque": lambda: chain(50_000, lambda inner: call(name("collections", "deque")) + inner + b"a"),
    "a deque made of a deque": lambda: chain(
        50_000, lambda inner: call(name("collections", "deque"), Raw(b"]" + inner + b"a"))
    ),
    "a deque of an array of a deque": lambda: arrays_in_deques(300),
    "a deque that deepens again and again": lambda: deque_that_deepens(50_000, 150),
    "a queue in a queue": lambda: chain(
        300,
        lambda inner: call(name("_queue", "SimpleQueue")) + put(1)
        + call(name("safepickle.rebuild", "rebuild_queue_items"), get(1), Raw(b"]" + inner + b"a")) + b"0" + get(1),
    ),
    "a strong reference to a strong reference": lambda: chain(
        5_000, lambda inner: name("safepickle.rebuild", "StrongRef") + inner + b"\x85R", NAMESPACE
    ),
}  # fmt: skip
