"""The opcodes are those of the standard library, and are read as its readers read them, or refused."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import safepickle
from guard.streams import Stream
from safepickle.guard.machine.table import BY_BYTE, on_unknown
from safepickle.guard.opcodes import OPCODES


def test_table_holds_every_opcode():
    assert {code: opcode.name for code, opcode in OPCODES.items()} == {
        ord(op.code): op.name for op in pickletools.opcodes
    }


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_argument_is_laid_out_as_the_standard_library_says(opcode: pickletools.OpcodeInfo):
    entry = OPCODES[ord(opcode.code)]
    if opcode.arg is None:
        assert (entry.width, entry.lines, entry.prefixed) == (0, 0, False)
    elif opcode.arg.n >= 0:
        assert (entry.width, entry.prefixed) == (opcode.arg.n, False)
    elif opcode.arg.n == pickletools.UP_TO_NEWLINE:
        assert entry.lines == (2 if "pair" in opcode.arg.name else 1)
    else:
        widths = {
            "TAKEN_FROM_ARGUMENT1": 1,
            "TAKEN_FROM_ARGUMENT4": 4,
            "TAKEN_FROM_ARGUMENT4U": 4,
            "TAKEN_FROM_ARGUMENT8U": 8,
        }
        named = {getattr(pickletools, constant): width for constant, width in widths.items()}
        assert (entry.width, entry.prefixed) == (named[opcode.arg.n], True)


def test_every_opcode_has_a_handler():
    assert all(BY_BYTE[code] is not on_unknown for code in OPCODES)
    assert sum(handler is on_unknown for handler in BY_BYTE) == 256 - len(OPCODES)


ALPHABET = [*"01789Lxo_-+ eE.'\"()a", "l", "inf", "nan", "infinity", "\t", "\r", "\x00", "\\n", "\\x41", "\\u0041", "é", "00", "01"]  # fmt: skip
READERS: tuple[Callable[[bytes], Any], ...] = (
    pickle.loads,
    pickle._loads,  # type: ignore[attr-defined]
    lambda data: pickle.load(io.BytesIO(data)),
)


def outcome(read: Callable[[Any], Any], data: Any) -> str | None:
    """What a reader makes of bytes, or None where it refuses them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return repr(read(data))
    except Exception:
        return None


def guarded(data: bytes) -> Any:
    return safepickle.loads(data, allow=())


def hold_against_other_readers(data: bytes, tmp_path: Path) -> bool:
    """Hold that what the guard reads is what every reader of pickles reads, and that inspect agrees."""
    read = outcome(guarded, data)
    assert (read is not None) == (safepickle.inspect(data).verdict == "safe"), data
    if read is None:
        return False
    path = tmp_path / "file"
    path.write_bytes(data)
    assert [outcome(reader, data) for reader in READERS] == [read] * len(READERS), data
    with path.open("rb") as file:
        assert outcome(pickle.load, file) == read, data
    return True


def test_texts_are_read_as_by_every_reader_or_refused(tmp_path: Path):
    choose = random.Random(1)
    read = 0
    for _ in range(6_000):
        code = choose.choice("ILFSVgp")
        argument = "".join(choose.choices(ALPHABET, k=choose.randint(0, 5)))
        if code == "S":
            argument = choose.choice("'\"") + argument + choose.choice(["'", '"', "' "])
        before, behind = {"g": (b"Nq\x00K\x05q\x01", b"."), "p": (b"K\x07", b"h\x01.")}.get(code, (b"", b"."))
        read += hold_against_other_readers(before + f"{code}{argument}\n".encode() + behind, tmp_path)
    assert read > 500


@pytest.mark.parametrize(
    "line",
    ["I010", "L010L", "F1_0", "F infinity", "F1e999", "I-0167", "L01", "I0x10", "I-0", "I+1", "I1_0", "L0b1L", "I 5", "I5\r", "S'a' "],
)  # fmt: skip
def test_texts_that_readers_take_differently_are_damage(line: str):
    with pytest.raises(safepickle.DamagedPickleError, match="damaged"):
        safepickle.loads(line.encode() + b"\n.", allow=())
    assert safepickle.inspect(line.encode() + b"\n.").verdict == "damaged"


@pytest.mark.parametrize("line", ["I0", "I-7", "I00", "I01", "L5L", "L5", "L-12345678901234567890L", "F1.5", "F-1e-05", "Finf", "F-inf", "Fnan", "F1e+300"])  # fmt: skip
def test_texts_that_picklers_write_are_read(line: str):
    data = line.encode() + b"\n."
    assert repr(safepickle.loads(data, allow=())) == repr(pickle.loads(data))


PARTS = [b"K\x05", b"\x8c\x03abc", b"(" + b"K\x01" * 20 + b"t", b"I5\n", *(b"\x95" + length.to_bytes(8, "little") for length in range(13))]  # fmt: skip


def test_frames_are_read_as_by_every_reader_or_refused(tmp_path: Path):
    choose = random.Random(2)
    read = 0
    for _ in range(4_000):
        read += hold_against_other_readers(
            b"\x80\x04" + b"".join(choose.choices(PARTS, k=choose.randint(1, 6))) + b".", tmp_path
        )
    assert read > 200


FRAME = {length: b"\x95" + length.to_bytes(8, "little") for length in range(16)}
CROOKED = {
    "an argument over the end": FRAME[1] + b"K\x05" + b".",
    "a text over the end": FRAME[3] + b"\x8c\x03abc" + b".",
    "a line over the end": FRAME[2] + b"I5\n" + b".",
    "a run of numbers over the end": FRAME[4] + b"(" + b"K\x01" * 20 + b"t.",
    "a payload over the end": FRAME[7] + b"C\x08" + b"x" * 8 + b".",
    "a frame in a frame": FRAME[11] + FRAME[1] + b"N" + b".",
    "STOP before the end": FRAME[4] + b"N.NN",
    "more than there is": FRAME[9] + b"N.",
}


@pytest.mark.parametrize("title", CROOKED)
def test_crooked_frames_are_damage_everywhere(title: str, tmp_path: Path):
    data = b"\x80\x04" + CROOKED[title]
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(safepickle.DamagedPickleError, match="frame"):
        safepickle.loads(data, allow=())
    with pytest.raises(safepickle.DamagedPickleError, match=r"frame|cut off|payload"):
        safepickle.load(path, allow=())
    with pytest.raises(safepickle.DamagedPickleError, match=r"frame|cut off|payload"):
        safepickle.load(Stream(data), allow=())
    assert {safepickle.inspect(data).verdict, safepickle.inspect(path).verdict} == {"damaged"}


@pytest.mark.parametrize("code", [b"c", b"i"])
@pytest.mark.parametrize("lines", [b"\nmkdir\n", b"os\n\n"])
def test_an_empty_name_is_damage(code: bytes, lines: bytes):
    with pytest.raises(safepickle.DamagedPickleError, match="a name is empty"):
        safepickle.loads(b"(" + code + lines + b".", allow=())


def test_a_dotted_name_is_one_from_protocol_4_on():
    data = b"c_weakrefset\nWeakSet.update\n0N."
    assert safepickle.loads(b"\x80\x04" + data, allow=()) is None
    with pytest.raises(safepickle.DamagedPickleError, match="protocol 4"):
        safepickle.loads(b"\x80\x02" + data, allow=())


def test_a_name_of_a_million_parts_is_refused():
    data = b"\x80\x04c" + b"a." * 400_000 + b"a\nb\n."
    with pytest.raises(safepickle.NotAllowedError, match="a name of more than"):
        safepickle.loads(data, allow=())
    assert safepickle.inspect(data).verdict == "refused"


@pytest.mark.parametrize("name", ["_codecs\nencode", "builtins\ngetattr", "weakref\nproxy", "copyreg\n__newobj__"])
def test_newobj_of_a_function_is_refused(name: str):
    data = b"\x80\x04c" + name.encode() + b"\n)\x81."
    with pytest.raises(safepickle.NotAllowedError, match="NEWOBJ is for classes"):
        safepickle.loads(data, allow=())
    assert safepickle.inspect(data).verdict == "refused"
