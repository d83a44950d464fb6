"""Pickles that ask for far more memory or time than their length, and pickles that are damaged."""

from __future__ import annotations

import datetime
import pickle
import struct
from collections.abc import Callable

from guard.assembler import PROTO4, STOP, Raw, build, call, name, new, pickled, text
from guard.costly_calls import CALLS

LARGE = 1 << 40


def _nested_tuples(levels: int) -> Raw:
    return Raw(b")" + b"\x85" * levels)


def _shared_tuples(levels: int) -> Raw:
    """A tuple of two times the same tuple of two times the same tuple: 2**levels steps to hash."""
    return Raw(b")" + b"2\x86" * levels)


def _references(levels: int) -> Raw:
    start = Raw(b"\x8f") if not levels else Raw(call(name("guard.targets", "Victim")))
    data = bytes(start)
    for _ in range(levels):
        data = data + b"q\x00" + b"0" + name("safepickle.rebuild", "StrongRef") + b"h\x00\x85R"
    return Raw(data)


def _nested_pairs(levels: int) -> Raw:
    """A named tuple in a named tuple, and so on: its hash is a tuple's, by recursion in C."""
    return Raw(name("guard.targets", "Pair") + b"q\x000N" + b"q\x010h\x00h\x01N\x86\x81" * levels)


def _numbers_of_one_hash(count: int) -> bytes:
    """Multiples of the modulus by which numbers are hashed."""
    wide = ((2**61 - 1) * i for i in range(count))
    return b"".join(b"\x8a\x0b" + number.to_bytes(11, "little", signed=True) for number in wide)


COSTLY: dict[str, Callable[[], bytes]] = {
    **CALLS,
    "a million nested tuples as a key": lambda: PROTO4 + b"}" + _nested_tuples(1_000_000) + b"Ns" + STOP,
    "a million nested tuples": lambda: pickled(_nested_tuples(1_000_000)),
    "a million nested tuples in a set": lambda: PROTO4 + b"\x8f(" + _nested_tuples(1_000_000) + b"\x90" + STOP,
    "a million nested tuples in a frozenset": lambda: PROTO4 + b"(" + _nested_tuples(1_000_000) + b"\x91" + STOP,
    "tuples that double, as a key": lambda: PROTO4 + b"}" + _shared_tuples(60) + b"Ns" + STOP,
    "tuples that double, in a set": lambda: PROTO4 + b"\x8f(" + _shared_tuples(60) + b"\x90" + STOP,
    "tuples that double, in set()": lambda: pickled(call(name("builtins", "set"), Raw(b"(" + _shared_tuples(60) + b"l"))),
    "tuples that double, in a Counter": lambda: pickled(
        call(name("collections", "Counter"), Raw(b"}" + _shared_tuples(60) + b"Ns"))
    ),
    "a named tuple in a named tuple, as a key": lambda: PROTO4 + b"}" + _nested_pairs(100_000) + b"Ns" + STOP,
    "a hundred thousand open marks": lambda: PROTO4 + b"(" * 100_000 + b"N" + b"t" * 100_000 + STOP,
    "references to references, as a key": lambda: PROTO4 + b"}" + _references(5_000) + b"Ns" + STOP,
    "numbers of one hash": lambda: PROTO4 + b"\x8f(" + _numbers_of_one_hash(20_000) + b"\x90" + STOP,
    "numbers of one hash, as keys": lambda: PROTO4 + b"}(" + _numbers_of_one_hash(20_000) + b"u" + STOP,
    "a long key, a million times": lambda: PROTO4
    + b"}" + Raw(b"X" + struct.pack("<I", 10_000_000) + b"k" * 10_000_000) + b"q\x00" + b"0"
    + b"h\x00Ns" * 200_000 + STOP,
    "memo index of 2**31": lambda: PROTO4 + b"N" + b"r" + struct.pack("<I", 2**31) + STOP,
    "memo index of text": lambda: PROTO4 + b"Np99999999999\n" + STOP,
    "bytearray(n)": lambda: pickled(call(name("builtins", "bytearray"), LARGE)),
    "bytes(n)": lambda: pickled(call(name("builtins", "bytes"), LARGE)),
    "list(range(n))": lambda: pickled(call(name("builtins", "list"), call(name("builtins", "range"), 0, LARGE, 1))),
    "set(range(n))": lambda: pickled(call(name("builtins", "set"), call(name("builtins", "range"), 0, LARGE, 1))),
    "tuple(range(n))": lambda: pickled(call(name("builtins", "tuple"), call(name("builtins", "range"), 0, LARGE, 1))),
    "deque(range(n))": lambda: pickled(call(name("collections", "deque"), call(name("builtins", "range"), 0, LARGE, 1))),
    "bytearray(range(n))": lambda: pickled(call(name("builtins", "bytearray"), call(name("builtins", "range"), 0, LARGE, 1))),
    "repeat": lambda: pickled(call(name("builtins", "list"), call(name("itertools", "repeat"), 1))),
    "mul": lambda: pickled(call(name("operator", "mul"), "x", LARGE)),
    "pow": lambda: pickled(call(name("builtins", "pow"), 10, LARGE)),
    "a copy of a megabyte, again and again": lambda: PROTO4
    + b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"\x85q\x000" + name("builtins", "bytearray") + b"q\x010("
    + b"h\x01h\x00R" * 10_000 + b"l" + STOP,
    "Decimal of a huge exponent": lambda: pickled(call(name("decimal", "Decimal"), "1E+999999999")),
    "Decimal of a tiny exponent": lambda: pickled(call(name("decimal", "Decimal"), "1E-999999999")),
    "Decimal of many digits": lambda: pickled(call(name("decimal", "Decimal"), "9" * 100_000)),
    "Fraction of a huge exponent": lambda: pickled(call(name("fractions", "Fraction"), "1E999999999")),
    "Fraction of many digits": lambda: pickled(call(name("fractions", "Fraction"), "9" * 100_000)),
    "LONG of many digits": lambda: PROTO4 + b"L" + b"9" * 100_000 + b"L\n" + STOP,
    "INT of many digits": lambda: PROTO4 + b"I" + b"9" * 100_000 + b"\n" + STOP,
    "zlib by codec": lambda: pickled(call(name("_codecs", "decode"), b"x", "zlib")),
    "bz2 by codec": lambda: pickled(call(name("codecs", "decode"), b"x", "bz2")),
    "a codec that doubles": lambda: pickled(call(name("_codecs", "encode"), "x" * 1000, "utf-32")),
    "unicode_escape": lambda: pickled(call(name("_codecs", "encode"), "\u2028", "unicode_escape")),
    "array of a count": lambda: pickled(call(name("array", "array"), "d", call(name("builtins", "range"), 0, LARGE, 1))),
    "numpy.zeros": lambda: pickled(call(name("numpy", "zeros"), (LARGE,))),
    "numpy dtype of a terabyte": lambda: pickled(
        call(name("numpy._core.multiarray", "scalar"), call(name("numpy", "dtype"), "V999999999", False, True), b"")
    ),
    "numpy array larger than its bytes": lambda: pickled(
        call(name("numpy._core.numeric", "_frombuffer"), b"12345678", call(name("numpy", "dtype"), "f8", False, True), (2,), "C")
    ),
    "numpy array of many dimensions": lambda: pickled(
        call(name("numpy._core.numeric", "_frombuffer"), b"", call(name("numpy", "dtype"), "f8", False, True), (0, LARGE, LARGE), "C")
    ),
    "numpy bytes as object pointers": lambda: pickled(
        call(name("numpy._core.numeric", "_frombuffer"), b"12345678", call(name("numpy", "dtype"), "O8", False, True), (1,), "C")
    ),
    "numpy state of object pointers": lambda: pickled(
        build(
            call(name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), b"b"),
            (1, (1,), call(name("numpy", "dtype"), "O8", False, True), False, b"12345678"),
        )
    ),
    "numpy's shared dtype": lambda: pickled(
        build(call(name("numpy", "dtype"), "f8", False, False), (3, "<", None, None, None, -1, -1, 0))
    ),
    "numpy dtype with a field outside": lambda: pickled(
        build(
            call(name("numpy", "dtype"), "V8", False, True),
            (3, "|", None, ("a",), {"a": (call(name("numpy", "dtype"), "f8", False, True), 4)}, 8, 1, 16),
        )
    ),
    "numpy dtype that grows": lambda: pickled(
        build(call(name("numpy", "dtype"), "V8", False, True), (3, "|", None, None, None, 800, 1, 0))
    ),
    "numpy dtype with object flags": lambda: pickled(
        build(call(name("numpy", "dtype"), "f8", False, True), (3, "<", None, None, None, -1, -1, 63))
    ),
}  # fmt: skip


_GOOD = pickle.dumps({"a": [1, 2.5, "text", b"bytes"], "d": datetime.date(2020, 1, 1), "t": (1, (2, 3))}, protocol=4)

DAMAGED: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(100),
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "html with spaces": b"\n\n  <html lang='en'>",
    "xml": b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
    "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(50),
    "bzip2": b"BZh91AY&SY" + bytes(50),
    "xz": b"\xfd7zXZ\x00" + bytes(50),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(50),
    "zip": b"PK\x03\x04" + bytes(50),
    "npy": b"\x93NUMPY\x01\x00" + bytes(50),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "pdf": b"%PDF-1.7" + bytes(50),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "elf": b"\x7fELF" + bytes(50),
    "json": b'{"a": 1}',
    "safetensors": (100).to_bytes(8, "little") + b'{"__metadata__": {}}',
    "tar": bytes(257) + b"ustar" + bytes(250),
    "byte order mark": b"\xef\xbb\xbfhello",
    "truncated in the protocol": _GOOD[:1],
    "truncated in the frame's length": _GOOD[:7],
    "truncated in the frame": _GOOD[:30],
    "without STOP": _GOOD[:-1],
    "unknown opcode": PROTO4 + b"\xff.",
    "unknown protocol": b"\x80\x09N.",
    "empty stack at STOP": PROTO4 + b".",
    "POP of nothing": PROTO4 + b"0.",
    "REDUCE of nothing": PROTO4 + b"R.",
    "REDUCE without a tuple": PROTO4 + name("builtins", "complex") + b"K\x01R.",
    "BUILD of nothing": PROTO4 + b"b.",
    "TUPLE without a MARK": PROTO4 + b"Nt.",
    "TUPLE2 of one": PROTO4 + b"N\x86.",
    "APPENDS without a MARK": PROTO4 + b"]Ne.",
    "SETITEMS of an odd number": PROTO4 + b"}(NNNu.",
    "MARK below STOP": PROTO4 + b"N(.",
    "POP over a MARK": PROTO4 + b"N(00" + b".",
    "memo that was never written": PROTO4 + b"h\x07.",
    "BINUNICODE beyond the end": PROTO4 + b"X\xff\xff\xff\x7fabc.",
    "BINUNICODE8 of 2**60": PROTO4 + b"\x8d" + (2**60).to_bytes(8, "little") + b"abc.",
    "BINBYTES8 of 2**60": PROTO4 + b"\x8e" + (2**60).to_bytes(8, "little") + b"abc.",
    "BYTEARRAY8 of 2**60": b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b"abc.",
    "FRAME of 2**60": PROTO4 + b"\x95" + (2**60).to_bytes(8, "little") + b"N.",
    "LONG4 of a negative length": PROTO4 + b"\x8b\xff\xff\xff\xff.",
    "BINSTRING of a negative length": PROTO4 + b"T\xff\xff\xff\xff.",
    "STRING without quotes": b"Sabc\n.",
    "INT that is no number": b"Iabc\n.",
    "FLOAT that is no number": b"Fabc\n.",
    "text that is no UTF-8": PROTO4 + b"\x8c\x02\xff\xfe.",
    "a line without an end": b"Iabc",
    "an unhashable key": PROTO4 + b"}]Ns.",
    "a date that does not exist": pickled(call(name("datetime", "date"), b"\x00\x00\x63\x63")),
    "a fraction over 0": pickled(call(name("fractions", "Fraction"), 1, 0)),
    "a range of step 0": pickled(call(name("builtins", "range"), 0, 1, 0)),
    "a name that is gone": pickled(new(name("guard.targets", "Gone"))),
    "STACK_GLOBAL of numbers": PROTO4 + b"K\x01K\x02\x93.",
    "buffers that nobody gave": b"\x80\x05\x97.",
    "a persistent id": PROTO4 + text("id") + b"Q.",
}
"""Inputs that are no whole pickle, or contradict themselves."""
