"""Small pickles that make C code work, allocate or recurse far beyond their length: each for a kind, with neighbours.

Run as a program, with limits on memory and time, it loads and inspects every one and prints what came of it.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable

from guard.assembler import PROTO4, STOP, Raw, get, name, text, value
from guard.targets import ALLOWED_BY_THE_HEAVY

MODULUS = 2**61 - 1
MODULE_MEMBERS = ("_modules", "_parameters", "_buffers")


def put(index: int) -> bytes:
    """Remember what was pushed, and drop it."""
    return b"r" + struct.pack("<I", index) + b"0"


def long_text(length: int, letter: bytes = b"k") -> bytes:
    return b"X" + struct.pack("<I", length) + letter * length


def wide(number: int, width: int) -> bytes:
    return b"\x8b" + struct.pack("<i", width) + number.to_bytes(width, "little", signed=True)


def tower(levels: int, wrap: bytes, first: bytes = b"(K\x01\x91") -> bytes:
    """Frozensets, each of the last one and of something made of it, the last of them pushed."""
    return first + put(0) + (b"(" + get(0) + get(0) + wrap + b"\x91" + put(0)) * levels + get(0)


def keys_of_one_hash(part: bytes, count: int) -> bytes:
    """Push tuples of a long part, which is equal and not the same in every other one, and of numbers of one hash."""
    made = part + put(0) + part + put(1)
    for index in range(count):
        made += (
            get(index % 2)
            + b"\x8a\x0b"
            + (MODULUS * index).to_bytes(11, "little", signed=True)
            + b"\x86"
            + put(index + 2)
        )
    return made  # fmt: skip


def chain(make: bytes, link: bytes, levels: int) -> bytes:
    """Make a value `levels` times, each with the last one in it: `link` goes between the new one and the last."""
    return make + put(0) + (make + link + put(0)) * levels + get(0)


def called(module: str, attribute: str, arguments: bytes) -> bytes:
    return name(module, attribute) + arguments + b"R"


def again(function: bytes, arguments: bytes, times: int) -> bytes:
    """Call a function with the same arguments again and again, and keep what it returns."""
    return function + put(0) + arguments + put(1) + b"](" + (get(0) + get(1) + b"R") * times + b"e"


def states_again(obj: bytes, state: bytes, times: int) -> bytes:
    return obj + put(0) + state + put(1) + get(0) + (get(1) + b"b") * times


def attributes(count: int) -> bytes:
    return b"}(" + b"".join(b"\x8c\x06" + b"a%05d" % index + b"N" for index in range(count)) + b"u"


def shown_again(shared: bytes, one: bytes, times: int = 30_000) -> bytes:
    """Make what shows one and the same long container, again and again, and then what is not allowed."""
    return shared + put(1) + b"](" + one * times + name("app", "Net") + b"e"


def lists(count: int = 30_000) -> bytes:
    return b"}(" + b"".join(text(f"n{number}") + b"]" for number in range(count)) + b"u"


def as_key(key: bytes) -> bytes:
    return b"}" + key + b"Ns"


def twice_as_keys(made: bytes) -> bytes:
    return b"}(" + made + b"N" + made + b"Nu"


DEQUE = name("collections", "deque") + b")R"
DEFAULTDICT = name("collections", "defaultdict") + b")R"
VICTIM = name("guard.targets", "Victim") + b")\x81"
NAMESPACE = name("types", "SimpleNamespace") + b")R"
FROZEN = name("guard.targets", "Frozen") + b")\x81"
CHAINED = name("guard.targets", "Chained") + b")\x81"
REFERENCE = name("guard.targets", "Reference")
LONG = 1 << 17


def held_twice(levels: int) -> bytes:
    """A frozen dataclass that holds the same instance twice, and so on."""
    first = FROZEN + b"}(\x8c\x04leftK\x01\x8c\x05rightK\x02ub"
    return (
        first
        + put(0)
        + (FROZEN + b"}(\x8c\x04left" + get(0) + b"\x8c\x05right" + get(0) + b"ub" + put(0)) * levels
        + get(0)
    )


def references(levels: int) -> bytes:
    return VICTIM + put(1) + get(1) + put(0) + b"".join(
        REFERENCE + get(0) + b"\x85R" + put(index + 2) + get(index + 2) + put(0) for index in range(levels)
    ) + get(0)  # fmt: skip


HEAVY: dict[str, Callable[[], bytes]] = {
    # Comparing what is equal and not the same.
    "towers of frozensets": lambda: twice_as_keys(tower(45, b"\x85")),
    "towers of frozensets of pairs": lambda: twice_as_keys(tower(45, get(0) + b"\x86")),
    "towers of frozensets in tuples": lambda: twice_as_keys(tower(45, b"\x85") + b"\x85"),
    "towers of frozensets of frozensets": lambda: twice_as_keys(tower(45, b"\x85\x85")),
    "towers of frozensets in a set": lambda: b"\x8f(" + tower(45, b"\x85") + tower(45, b"\x85") + b"\x90",
    "towers of frozensets in a frozenset": lambda: b"(" + tower(45, b"\x85") + tower(45, b"\x85") + b"\x91",
    "towers of frozensets, set one by one": lambda: b"}" + (tower(45, b"\x85") + b"Ns") * 2,
    "towers of frozensets in set()": lambda: called("builtins", "set", b"(" + tower(45, b"\x85") * 2 + b"l\x85"),
    "towers of frozensets by frozenset()": lambda: twice_as_keys(
        b"(K\x01\x91" + put(0) + (name("builtins", "frozenset") + b"(" + get(0) + get(0) + b"\x85l\x85R" + put(0)) * 45 + get(0)
    ),
    "towers of frozensets in an OrderedDict": lambda: name("collections", "OrderedDict") + b")R(" + (tower(45, b"\x85") + b"N") * 2 + b"u",
    "towers of frozensets in a Counter": lambda: name("collections", "Counter") + b")R(" + (tower(45, b"\x85") + b"N") * 2 + b"u",
    "equal long texts, in many sets": lambda: keys_of_one_hash(long_text(LONG), 250)
    + (b"\x8f(" + b"".join(get(index + 2) for index in range(250)) + b"\x900") * 300 + b"N",
    "equal long bytes, in many sets": lambda: keys_of_one_hash(b"B" + struct.pack("<I", LONG) + b"k" * (LONG), 250)
    + (b"\x8f(" + b"".join(get(index + 2) for index in range(250)) + b"\x900") * 300 + b"N",
    "equal long tuples, in many dicts": lambda: keys_of_one_hash(b"(" + b"M\xe8\x03" * 20_000 + b"t", 250)
    + (b"}(" + b"".join(get(index + 2) + b"N" for index in range(250)) + b"u0") * 300 + b"N",
    "equal wide numbers, in many dicts": lambda: keys_of_one_hash(wide(1 << 900_000, LONG), 250)
    + (b"}(" + b"".join(get(index + 2) + b"N" for index in range(250)) + b"u0") * 300 + b"N",
    "two equal texts, again and again": lambda: long_text(LONG) + put(0) + long_text(LONG) + put(1) + b"}"
    + (get(0) + b"Ns" + get(1) + b"Ns") * 50_000,
    "two equal texts in tuples, again and again": lambda: long_text(LONG) + b"\x85" + put(0) + long_text(LONG) + b"\x85" + put(1)
    + b"}" + (get(0) + b"Ns" + get(1) + b"Ns") * 50_000,
    # Hashing.
    "a dataclass that holds one twice": lambda: as_key(held_twice(60)),
    "a dataclass that holds one twice, in a set": lambda: b"\x8f(" + held_twice(60) + b"\x90",
    "a dataclass that holds one twice, in a tuple": lambda: as_key(held_twice(60) + b"\x85"),
    "a wide number, again and again": lambda: wide(1 << 900_000, LONG) + put(0) + b"}" + (get(0) + b"Ns") * 100_000,
    "a tuple of a wide number, again and again": lambda: b"(" + wide(1 << 70_000, 10_000) + b"t" + put(0) + b"}" + (get(0) + b"Ns") * 100_000,
    "a long tuple, again and again": lambda: b"(" + b"N" * LONG + b"t" + put(0) + b"}" + (get(0) + b"Ns") * 100_000,
    "a long frozenset, made again and again": lambda: b"(" + b"".join(b"M" + struct.pack("<H", n) for n in range(50_000)) + b"l\x85"
    + put(1) + name("builtins", "frozenset") + put(0) + (get(0) + get(1) + b"R0") * 50_000 + b"N",
    "references to references of an allowed class": lambda: as_key(references(50_000)),
    "tuples in tuples in what hashes itself": lambda: as_key(
        CHAINED + b"}\x8c\x04heldK\x01sb" + put(0) + (CHAINED + b"}\x8c\x04held" + get(0) + b"\x85" * 900 + b"sb" + put(0)) * 60 + get(0)
    ),
    # Freed by recursion.
    "deques in deques": lambda: DEQUE * 9_001 + b"a" * 9_000,
    "deques in deques, from within": lambda: chain(DEQUE, get(0) + b"a", 100_000),
    "deques in deques, as arguments": lambda: DEQUE + put(0) + (name("collections", "deque") + b"(" + get(0) + b"l\x85R" + put(0)) * 100_000 + get(0),
    "deques in deques, linked afterwards": lambda: b"".join(DEQUE + put(index) for index in range(50_000))
    + b"".join(get(index) + get(index + 1) + b"a0" for index in range(49_999)) + get(0),
    "deques in deques, linked from the end": lambda: b"".join(DEQUE + put(index) for index in range(50_000))
    + b"".join(get(index) + get(index + 1) + b"a0" for index in reversed(range(49_999))) + get(0),
    "deques in deques, linked by halves": lambda: b"".join(DEQUE + put(index) for index in range(50_000))
    + b"".join(get(index) + get(index + 1) + b"a0" for index in [*range(0, 49_999, 2), *range(1, 49_999, 2)]) + get(0),
    "defaultdicts in defaultdicts": lambda: chain(DEFAULTDICT, b"N" + get(0) + b"s", 100_000),
    "defaultdicts in deques in defaultdicts": lambda: DEQUE + put(0)
    + (DEFAULTDICT + b"N" + get(0) + b"s" + put(0) + DEQUE + get(0) + b"a" + put(0)) * 50_000 + get(0),
    # Handed on again and again.
    "a state of many attributes": lambda: states_again(VICTIM, attributes(5_000), 20_000),
    "a state of many attributes, of a namespace": lambda: states_again(NAMESPACE, attributes(5_000), 20_000),
    "a state of many attributes, of many": lambda: attributes(5_000) + put(1) + b"](" + (VICTIM + get(1) + b"b") * 20_000 + b"e",
    "a state of slots": lambda: states_again(VICTIM, b"N" + attributes(5_000) + b"\x86", 30_000),
    "__newobj__ of itself": lambda: name("copyreg", "__newobj__") + put(0) + get(0) + b"(" + (b"j\0\0\0\0") * LONG + b"tR",
    "many arguments of an allowed class": lambda: again(name("guard.targets", "Anything"), b"(" + b"N" * LONG + b"t", 50_000),
    "many arguments by __newobj__": lambda: again(
        name("copyreg", "__newobj__"), b"(" + name("guard.targets", "Anything") + b"N" * LONG + b"t", 50_000
    ),
    "many keywords": lambda: name("guard.targets", "Anything") + put(0) + attributes(50_000) + put(1) + b"]("
    + (get(0) + b")" + get(1) + b"\x92") * 20_000 + b"e",
    "many keywords by __newobj_ex__": lambda: again(
        name("copyreg", "__newobj_ex__"), name("guard.targets", "Anything") + b")" + attributes(50_000) + b"\x87", 20_000
    ),
    "a long argument of an allowed class": lambda: again(name("guard.targets", "Anything"), long_text(LONG) + b"\x85", 50_000),
    "a long argument of an allowed class of bytes": lambda: again(
        name("guard.targets", "Octets"), b"B" + struct.pack("<I", LONG) + bytes(LONG) + b"\x85", 10_000
    ),
    "a long latin-1 text": lambda: again(name("_codecs", "encode"), long_text(LONG) + b"\x8c\x06latin1\x86", 10_000),
    "a long list, copied": lambda: again(name("collections", "deque"), b"(" + b"N" * LONG + b"l\x85", 10_000),
    "a long tuple of an allowed class": lambda: again(name("guard.targets", "Row"), b"(" + b"N" * LONG + b"t\x85", 10_000),
    "contents of what was saved in part": lambda: again(
        name("safepickle.rebuild", "rebuild_salvaged_contents"), b"](N(" + b"N" * LONG + b"lNNt\x86", 10_000
    ),
    "saving in part, of itself": lambda: name("safepickle.rebuild", "rebuild_salvaged") + put(0)
    + get(0) + b"(" + get(0) + b")" + text("a") + text("b") + b"tR",
    "a dotted name of many parts": lambda: b"c" + b"a." * 200_000 + b"a\nb\n",
    "an attribute of many parts": lambda: text("guard.targets") + long_text(400_000, b"a.") + b"\x93",
    # What allowed classes inherit from C.
    "bytes of a length": lambda: name("guard.targets", "Octets") + value((1 << 40,)) + b"\x81",
    "bytes of a length, by a call": lambda: name("guard.targets", "Octets") + value((1 << 40,)) + b"R",
    "a tuple of a range": lambda: name("guard.targets", "Row") + called("builtins", "range", value((0, 1 << 40, 1))) + b"\x85\x81",
    "a list of a range": lambda: name("guard.targets", "PlainList") + called("builtins", "range", value((0, 1 << 40, 1))) + b"\x85R",
    "a set of a range": lambda: name("guard.targets", "Members") + called("builtins", "range", value((0, 1 << 40, 1))) + b"\x85R",
    "a set of towers": lambda: name("guard.targets", "Members") + b"(" + tower(45, b"\x85") * 2 + b"l\x85R",
    "a frozenset of towers": lambda: name("guard.targets", "FrozenMembers") + b"(" + tower(45, b"\x85") * 2 + b"l\x85\x81",
    "a dict of towers": lambda: name("guard.targets", "PlainDict") + b"(" + (tower(45, b"\x85") + b"N\x86") * 2 + b"l\x85R",
    "a text of what holds itself twice": lambda: name("guard.targets", "Text") + b"]" + put(0) + (b"](" + get(0) + get(0) + b"e" + put(0)) * 60
    + get(0) + b"\x85\x81",
    "an enumeration of what holds itself twice": lambda: name("guard.targets", "Color") + b"]" + put(0)
    + (b"](" + get(0) + get(0) + b"e" + put(0)) * 60 + get(0) + b"\x85R",
    "an enumeration of tuples that hold themselves twice": lambda: name("guard.targets", "Color") + b")" + b"2\x86" * 60 + b"\x85R",
    # What inspect looks at for people.
    "modules with the same members": lambda: shown_again(
        lists(), name("app", "Net") + b")\x81}(" + b"".join(text(key) + get(1) for key in MODULE_MEMBERS) + b"ub"
    ),
    "state dicts with the same metadata": lambda: shown_again(
        lists(), name("collections", "OrderedDict") + b")R}" + text("_metadata") + get(1) + b"sb"
    ),
    "optimizers with the same states": lambda: shown_again(
        lists(), b"}(" + text("param_groups") + b"]" + text("state") + get(1) + b"u"
    ),
    "optimizers with the same groups": lambda: shown_again(
        b"}" + text("params") + b"]s" + put(0) + b"](" + get(0) * 30_000 + b"e",
        b"}(" + text("param_groups") + get(1) + text("state") + b"}u",
    ),
    "an array of a shape": lambda: name("guard.targets", "Matrix") + value(((1 << 40,),)) + b"\x81",
}  # fmt: skip


def main() -> None:
    with contextlib.suppress(ModuleNotFoundError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
    import safepickle

    for title, make in HEAVY.items():
        print(f"{title}: ", end="", flush=True)
        data = PROTO4 + Raw(make()) + STOP
        start = time.process_time()
        try:
            safepickle.loads(data, allow=ALLOWED_BY_THE_HEAVY)
        except safepickle.GuardedLoadError as error:
            outcome = type(error).__name__
        else:
            outcome = "loaded"
        verdict = safepickle.inspect(data).verdict
        print(outcome, verdict, f"{time.process_time() - start:.2f}", flush=True)


if __name__ == "__main__":
    main()
