"""Nothing is lost: killed processes, full disks, truncated and damaged files."""

from __future__ import annotations

import gc
import io
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from programs import run
from safepickle.storage.checksum import HEADER_SIZE

SAVE_FOR_EVER = """
import itertools, sys
import safepickle

path = sys.argv[1]
payload = bytes(range(256)) * 2000
for number in itertools.count():
    safepickle.dump([number, [payload, payload[1:]], number], path, checksum=True, fsync=number % 2 == 0)
    if number == 0:
        print("saving", flush=True)
"""

FILL_THE_DISK = """
import resource, signal, sys
import safepickle

path, how = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
small, large = b"small", [bytes(range(256)) * 500 for _ in range(10)]
try:
    if how == "path":
        safepickle.dump(large, path)
    elif how == "buffered":
        with open(path, "ab") as file:
            file.write(b"more")
            try:
                safepickle.dump(large, file)
            finally:
                file.write(b"and more")
    elif how == "first block":
        with open(path, "r+b") as file:
            file.seek(0, 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file.tell(), resource.RLIM_INFINITY))
            safepickle.dump(large, file)
    elif how == "middle":
        with open(path, "r+b") as file:
            file.seek(3)
            try:
                safepickle.dump(large, file)
            finally:
                assert file.tell() == 3
except OSError as error:
    print(type(error).__name__, error.errno, *getattr(error, "__notes__", ()))
else:
    print("the disk was not full")
"""


def test_a_process_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    last = -1
    for delay in [random.Random(number).uniform(0, 0.03) for number in range(25)]:
        with subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"saving\n"
            with pytest.raises(subprocess.TimeoutExpired, match="timed out"):
                process.wait(timeout=delay)
            process.kill()
        number, payload, again = safepickle.load(path, checksum="require")
        assert number == again
        assert [len(part) for part in payload] == [512_000, 511_999]
        last = max(last, number)
        # Between its naming and the replacement, a file that is whole may have two names.
        for name in set(os.listdir(tmp_path)) - {"file"}:
            safepickle.load(tmp_path / name, checksum="require")
            os.unlink(tmp_path / name)
    assert last > 0, "no process was killed after its first file"


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="file sizes cannot be limited here")
@pytest.mark.parametrize("how", ["path", "buffered", "first block", "middle"])
def test_a_full_disk_leaves_the_old_file_and_no_litter(how: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump("old", path)
    before = path.read_bytes()
    report = run(FILL_THE_DISK, str(path), how)
    assert report.startswith("OSError 27")
    assert os.listdir(tmp_path) == ["file"]
    expected = before + b"moreand more" if how == "buffered" else before
    assert path.read_bytes() == expected
    if how == "path":
        assert f"{path} was left as it was" in report


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root mounts file systems")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_without_room_keeps_the_old_file(tiny_disk: Path) -> None:
    path = tiny_disk / "file"
    safepickle.dump(bytes(400_000), path)
    with pytest.raises(OSError, match="No space left on device") as caught:
        safepickle.dump(bytes(900_000), path)
    assert caught.value.__notes__ == [f"{path} was left as it was."]
    assert os.listdir(tiny_disk) == ["file"]
    assert safepickle.load(path) == bytes(400_000)
    with open(path, "ab") as file:
        with pytest.raises(OSError, match="No space left on device"):
            safepickle.dump([bytes(50_000) for _ in range(20)], file)
        file.write(b"there is room for this")
    assert path.read_bytes() == safepickle.dumps(bytes(400_000)) + b"there is room for this"


def test_a_full_spool_says_where_it_is(tiny_disk: Path) -> None:
    program = """
        import gzip, io
        import safepickle
        from safepickle.storage import files

        files.SPOOL_BYTES = 1000
        data = io.BytesIO()
        try:
            with gzip.GzipFile(fileobj=data, mode="wb") as file:
                safepickle.dump([bytes(50_000) for _ in range(40)], file)
        except OSError as error:
            print(error, *error.__notes__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tiny_disk)},
        encoding="utf-8",
    )
    assert f"temporary file in {tiny_disk}" in done.stdout
    assert "TMPDIR" in done.stdout


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.children: list[Any] = []
        self.parent: Any = None


def tree() -> Node:
    root = Node("root")
    for number in range(3):
        child = Node(f"child {number}")
        child.parent = weakref.ref(root)
        root.children.append(child)
    return root


def with_checksum(obj: object) -> bytes:
    file = io.BytesIO()
    safepickle.dump(obj, file, checksum=True)
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_prefix_of_a_pickle_is_an_error_also_without_a_checksum(protocol: int) -> None:
    data = safepickle.dumps(["text", 1.5, {"key": (1, 2)}, b"bytes"], protocol)
    for length in range(len(data)):
        with pytest.raises((pickle.UnpicklingError, EOFError), match=r"truncated|Ran out of input|an empty file"):
            safepickle.loads(data[:length])


def test_every_prefix_of_a_pickle_with_a_checksum_is_an_error() -> None:
    data = with_checksum(tree())
    for length in range(HEADER_SIZE, len(data)):
        with pytest.raises(safepickle.ChecksumError, match=rf"truncated: {length - HEADER_SIZE} of"):
            safepickle.loads(data[:length])
    for length in range(HEADER_SIZE):
        with pytest.raises(
            (pickle.UnpicklingError, EOFError), match=r"truncated|ran out|Ran out|damaged|exhausted|an empty file"
        ):
            safepickle.loads(data[:length])
        with pytest.raises((safepickle.ChecksumError, EOFError), match=r"no checksum|damaged"):
            safepickle.loads(data[:length], checksum="require")


def test_every_flipped_bit_is_an_error_under_a_checksum() -> None:
    data = with_checksum(tree())
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(safepickle.ChecksumError, match=r"is damaged|does not match|is truncated"):
            safepickle.loads(bytes(flipped))


def test_thousands_of_random_flips_of_a_larger_file_give_an_error(tmp_path: Path) -> None:
    obj = {"numbers": list(range(2000)), "tree": tree(), "bytes": bytes(3000)}
    data = with_checksum(obj)
    source = random.Random(0)
    for _ in range(4000):
        damaged = bytearray(data)
        for _ in range(source.choice([1, 1, 2, 8])):
            damaged[source.randrange(HEADER_SIZE, len(data))] ^= source.randrange(1, 256)
        if damaged == data:
            continue
        with pytest.raises(safepickle.ChecksumError, match="does not match"):
            safepickle.load(io.BytesIO(damaged))


def test_a_damaged_file_runs_nothing() -> None:
    class Marks:
        ran = False

        def __reduce__(self) -> Any:
            return mark, ()

    data = bytearray(with_checksum([Marks(), bytes(1000)]))
    data[-100] ^= 1
    marked.clear()
    with pytest.raises(safepickle.ChecksumError, match="Nothing was loaded"):
        safepickle.loads(bytes(data))
    assert not marked
    safepickle.loads(bytes(data), checksum="ignore")
    assert marked


marked: list[bool] = []


def mark() -> None:
    marked.append(True)


def test_a_checksum_may_be_required() -> None:
    plain, checked = safepickle.dumps([1]), with_checksum([1])
    assert safepickle.loads(plain) == safepickle.loads(checked, checksum="require") == [1]
    with pytest.raises(safepickle.ChecksumError, match="carries no checksum"):
        safepickle.loads(plain, checksum="require")
    with pytest.raises(safepickle.ChecksumError, match="carries no checksum"):
        safepickle.load(io.BytesIO(plain), checksum="require")
    with pytest.raises(ValueError, match="pass 'check', 'require' or 'ignore'"):
        safepickle.loads(plain, checksum="yes")  # type: ignore[arg-type]


def test_a_pipe_is_held_against_its_checksum_when_one_is_required() -> None:
    good = with_checksum([1, 2]) + with_checksum("next")
    bad = bytearray(good)
    bad[HEADER_SIZE + 5] ^= 1
    for data, outcome in ((good, [1, 2]), (bytes(bad), None), (good[: HEADER_SIZE + 5], None)):
        read_end, write_end = os.pipe()
        os.write(write_end, data)
        os.close(write_end)
        with open(read_end, "rb") as file:
            if outcome is None:
                with pytest.raises(safepickle.ChecksumError, match=r"does not match|truncated"):
                    safepickle.load(file, checksum="require")
            else:
                assert safepickle.load(file, checksum="require") == outcome
                assert safepickle.load(file) == "next"


def test_any_pickle_reader_passes_over_the_checksum() -> None:
    import cloudpickle
    import dill

    data = with_checksum({"a": [1, 2]})
    for module in (pickle, cloudpickle, dill):
        assert module.loads(data) == {"a": [1, 2]}
    assert pickle._loads(data) == {"a": [1, 2]}  # type: ignore[attr-defined]
    for encoding in ("ASCII", "bytes", "latin1"):
        assert pickle.loads(data, encoding=encoding) == {"a": [1, 2]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_carries_a_checksum(protocol: int) -> None:
    file = io.BytesIO()
    safepickle.dump(["text", 1.5], file, protocol, checksum=True)
    assert safepickle.loads(file.getvalue(), checksum="require") == pickle.loads(file.getvalue()) == ["text", 1.5]


@pytest.mark.parametrize(
    "error",
    [
        safepickle.ChecksumError("mismatch"),
        safepickle.ChecksumError("truncated", 5, 1000),
        safepickle.ChecksumError("missing"),
        safepickle.ChecksumError("header"),
    ],
    ids=lambda error: error.reason,
)
def test_a_checksum_error_survives_pickling(error: safepickle.ChecksumError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.reason, again.found, again.expected) == (error.reason, error.found, error.expected)


def test_a_failed_dump_does_not_change_the_object() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("this object cannot be pickled")

    root = tree()
    node = Node("outside")
    cache = weakref.WeakValueDictionary({"root": root, "outside": node})
    root.children[0].children.append(Refuses())
    references = [weakref.getweakrefcount(obj) for obj in (root, node)]
    counts = [sys.getrefcount(obj) for obj in (root, node)]
    facts = dict(vars(root))
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        safepickle.dumps([cache, weakref.ref(node), root])
    gc.collect()  # The traceback of the error held the graph.
    assert [sys.getrefcount(obj) for obj in (root, node)] == counts
    assert [weakref.getweakrefcount(obj) for obj in (root, node)] == references
    assert vars(root) == facts
    assert dict(cache) == {"root": root, "outside": node}


LOAD_TWICE = """
import sys
import safepickle

with open(sys.argv[1], "rb") as file:
    data = file.read()
sys.modules["__main__"].allowed = False
try:
    safepickle.loads(data)
except ValueError as error:
    print(error)
sys.modules["__main__"].allowed = True
obj, twin = safepickle.loads(data)
assert type(obj) is type(twin)
assert obj.method() == "method of kept", obj.method()
assert type(obj).after == "after"
print("whole")
"""


def test_a_load_that_fails_leaves_no_half_built_class_behind(tmp_path: Path) -> None:
    """A class by value is made known before its attributes are; here one of them fails at first."""

    class Sometimes:
        def __reduce__(self) -> Any:
            return eval, ("__import__('sys').modules['__main__'].allowed or int('not allowed yet')",)

    class ByValue:
        before = "before"
        sometimes = Sometimes()
        after = "after"

        def __init__(self, name: str) -> None:
            self.name = name

        def method(self) -> str:
            return f"method of {self.name}"

    safepickle.dump([ByValue("kept"), ByValue("twin")], tmp_path / "file")
    lines = run(LOAD_TWICE, str(tmp_path / "file")).splitlines()
    assert lines == ["invalid literal for int() with base 10: 'not allowed yet'", "whole"]


# An interrupt right after a file was opened leaves it to the collector to close it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
@pytest.mark.parametrize("kind", ["path", "file", "buffer"])
def test_an_interrupt_at_any_moment_leaves_the_old_content_or_the_new(kind: str, tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    path = tmp_path / "file"
    node = Node("kept")
    obj = [
        weakref.ref(node),
        [bytes(100_000), list(range(5000))] * 3,
        [Node(str(number)) for number in range(2000)],
        node,
    ]
    new = safepickle.dumps(obj)
    outcomes = set()
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in [random.Random(number).uniform(0.0002, 0.015) for number in range(40)]:
            path.write_bytes(b"old")
            file: Any = io.BytesIO(b"old") if kind == "buffer" else open(path, "r+b")  # noqa: SIM115 (closed below)
            file.seek(0, os.SEEK_END)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                safepickle.dump(obj, path if kind == "path" else file, fsync=False)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                outcomes.add("interrupted")
            content = path.read_bytes() if kind == "path" else file.getvalue() if kind == "buffer" else None
            file.close()
            content = path.read_bytes() if content is None else content
            assert content in ((b"old", new) if kind == "path" else (b"old", b"old" + new))
            assert os.listdir(tmp_path) == ["file"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert "interrupted" in outcomes
