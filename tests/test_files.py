"""Where the bytes go: a failed dump leaves the file as it stood, and a path is replaced as a whole."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node
from safepickle.storage import atomic, files

PAYLOAD = bytes(range(256)) * 1000

not_on_windows = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions, links, pipes and messages")
only_on_windows = pytest.mark.skipif(
    os.name != "nt", reason="only Windows keeps a file that is open from being replaced"
)


class Refuses:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("this object cannot be pickled")


class Interrupts:
    """Interrupts whoever pickles it."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt("the user pressed a key")


FAILING = pytest.param([PAYLOAD, Refuses()], RuntimeError, "cannot be pickled", id="error")
INTERRUPTED = pytest.param([PAYLOAD, Interrupts()], KeyboardInterrupt, "pressed", id="interrupt")


def forward_reference() -> list[Any]:
    """Return a graph that takes two walks, with enough bytes before the reference to reach the file in the first."""
    node = Node()
    return [PAYLOAD, weakref.ref(node), PAYLOAD, node]


def opened(folder: Path, kind: str) -> Any:
    path = folder / "file"
    match kind:
        case "bytes":
            return io.BytesIO()
        case "write":
            return open(path, "wb")
        case "update":
            return open(path, "w+b")
        case "append":
            return open(path, "ab")
        case "unbuffered":
            return open(path, "wb", buffering=0)
        case "temporary":
            return tempfile.TemporaryFile()
        case "named temporary":
            return tempfile.NamedTemporaryFile()
        case "spooled":
            return tempfile.SpooledTemporaryFile(max_size=100)
    raise ValueError(kind)


KINDS = ["bytes", "write", "update", "append", "unbuffered", "temporary", "named temporary", "spooled"]


def content(file: Any, folder: Path) -> bytes:
    if (folder / "file").exists():
        file.flush()
        return (folder / "file").read_bytes()
    position = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(position)
    return data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checksum", [False, True])
def test_pickles_follow_each_other_and_what_was_there(kind: str, checksum: bool, tmp_path: Path) -> None:
    with opened(tmp_path, kind) as file:
        file.write(b"before")
        safepickle.dump(forward_reference(), file, checksum=checksum)
        safepickle.dump("second", file, checksum=checksum)
        file.write(b"after")
        data = io.BytesIO(content(file, tmp_path))
    assert data.read(6) == b"before"
    first, reference, second, node = safepickle.load(data)
    assert (first, second) == (PAYLOAD, PAYLOAD)
    assert reference() is node
    assert safepickle.load(data) == "second"
    assert data.read() == b"after"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize(("obj", "error", "message"), [FAILING, INTERRUPTED])
def test_a_failed_dump_leaves_the_file_as_it_stood(
    kind: str, checksum: bool, obj: object, error: type[BaseException], message: str, tmp_path: Path
) -> None:
    with opened(tmp_path, kind) as file:
        file.write(b"before")
        with pytest.raises(error, match=message):
            safepickle.dump(obj, file, checksum=checksum)
        assert file.tell() == 6
        assert content(file, tmp_path) == b"before"
        file.write(b"after")
        assert content(file, tmp_path) == b"beforeafter"


@pytest.mark.parametrize("kind", ["bytes", "update", "temporary", "named temporary", "spooled"])
def test_the_middle_of_a_file_is_overwritten_only_by_a_dump_that_succeeds(kind: str, tmp_path: Path) -> None:
    old = b"x" * 3 * len(PAYLOAD)
    with opened(tmp_path, kind) as file:
        file.write(old)
        file.seek(7)
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            safepickle.dump([PAYLOAD, Refuses()], file)
        assert file.tell() == 7
        assert content(file, tmp_path) == old
        safepickle.dump(PAYLOAD, file)
        length = len(safepickle.dumps(PAYLOAD))
        assert file.tell() == 7 + length
        assert content(file, tmp_path) == old[:7] + safepickle.dumps(PAYLOAD) + old[7 + length :]


def test_a_dump_that_begins_in_the_middle_may_end_beyond_the_end(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        file.write(b"0123456789")
        file.seek(4)
        safepickle.dump(PAYLOAD, file)
        file.write(b"after")
    assert (tmp_path / "file").read_bytes() == b"0123" + safepickle.dumps(PAYLOAD) + b"after"


def test_a_failed_dump_beyond_the_end_does_not_lengthen_the_file(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        file.write(b"0123456789")
        file.seek(50)
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            safepickle.dump([PAYLOAD, Refuses()], file)
        assert file.tell() == 50
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_an_appending_file_is_written_at_its_end_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "ab") as file:
        file.seek(3)
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            safepickle.dump([PAYLOAD, Refuses()], file)
        assert (tmp_path / "file").read_bytes() == b"0123456789"
        safepickle.dump(PAYLOAD, file)
    assert (tmp_path / "file").read_bytes() == b"0123456789" + safepickle.dumps(PAYLOAD)


def test_an_unseekable_file_receives_nothing_from_a_failed_dump_and_all_from_a_good_one() -> None:
    read_end, write_end = os.pipe()
    received: list[bytes] = []
    with open(read_end, "rb") as reader:
        thread = threading.Thread(target=lambda: received.append(reader.read()))
        thread.start()
        with open(write_end, "wb") as writer:
            with pytest.raises(RuntimeError, match="cannot be pickled"):
                safepickle.dump([PAYLOAD, Refuses()], writer)
            safepickle.dump(forward_reference(), writer)
        thread.join()
    first, reference, _, node = safepickle.loads(received[0])
    assert first == PAYLOAD
    assert reference() is node


def test_a_file_of_the_users_own_receives_whole_pickles_alone() -> None:
    class Counting:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

    file = Counting()
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        safepickle.dump([PAYLOAD, Refuses()], file)
    assert file.data == b""
    safepickle.dump(PAYLOAD, file)
    assert file.data == safepickle.dumps(PAYLOAD)


def test_a_subclass_of_a_file_sees_every_byte(tmp_path: Path) -> None:
    class Noting(io.FileIO):
        noted = b""

        def write(self, data: Any) -> int:
            self.noted += bytes(data)
            return super().write(data)

    with Noting(tmp_path / "file", "wb") as file:
        safepickle.dump(PAYLOAD, file)
        assert file.noted == safepickle.dumps(PAYLOAD)


def test_an_unbuffered_pipe_that_takes_a_part_at_a_time_gets_all() -> None:
    class Narrow(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data[:1000])
            return min(len(data), 1000)

    file = Narrow()
    safepickle.dump(PAYLOAD, file)
    assert safepickle.loads(file.data) == PAYLOAD


def test_a_large_dump_to_a_spool_goes_to_disk_and_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SPOOL_BYTES", 1000)
    data = io.BytesIO()
    with gzip.GzipFile(fileobj=data, mode="wb") as file:
        safepickle.dump([PAYLOAD, list(range(100_000))], file, checksum=True)
    data.seek(0)
    with gzip.GzipFile(fileobj=data) as file:
        assert safepickle.load(file, checksum="require") == [PAYLOAD, list(range(100_000))]


def test_a_text_file_is_refused_before_anything_is_walked(tmp_path: Path) -> None:
    with (
        open(tmp_path / "file", "w", encoding="utf-8") as file,
        pytest.raises(TypeError, match="binary mode, such as 'wb'"),
    ):
        safepickle.dump(Refuses(), file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'write' attribute"):
        safepickle.dump(1, 5)  # type: ignore[arg-type]


def test_a_closed_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        pass
    with pytest.raises(ValueError, match="closed file"):
        safepickle.dump(1, file)


def test_a_file_that_cannot_be_set_back_says_so(tmp_path: Path) -> None:
    file = open(tmp_path / "file", "wb")  # noqa: SIM115 (the object closes it)

    class Closes:
        def __reduce__(self) -> Any:
            file.close()
            raise RuntimeError("this object closes the file")

    with pytest.raises(RuntimeError, match="closes the file") as caught:
        safepickle.dump([PAYLOAD, Closes()], file)
    assert any("holds a partial pickle" in note for note in caught.value.__notes__)


def test_a_path_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for target in (path, str(path)):
        for obj in ("old", "new"):
            safepickle.dump(obj, target)
            assert safepickle.load(target) == obj
            assert os.listdir(tmp_path) == ["file"]


def test_a_relative_path_means_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    safepickle.dump(1, "file", fsync=False)
    assert safepickle.load("file") == 1


@pytest.mark.parametrize(("obj", "error", "message"), [FAILING, INTERRUPTED])
def test_a_failed_dump_to_a_path_leaves_the_old_file_and_no_litter(
    obj: object, error: type[BaseException], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    for before in ([], ["file"]):
        with pytest.raises(error, match=message):
            safepickle.dump(obj, path)
        assert os.listdir(tmp_path) == before
        if before:
            assert safepickle.load(path) == "old"
        safepickle.dump("old", path)


@not_on_windows
def test_permissions_of_an_existing_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump("old", path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    safepickle.dump("new", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@only_on_windows
def test_a_file_that_somebody_reads_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump("old", path)
    with open(path, "rb"), pytest.raises(PermissionError, match="Access is denied") as caught:
        safepickle.dump("new", path)
    assert caught.value.__notes__ == [f"{path} was left as it was."]
    assert safepickle.load(path) == "old"
    assert os.listdir(tmp_path) == ["file"]


@only_on_windows
def test_a_file_that_somebody_lets_go_of_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump("old", path)
    reader = open(path, "rb")  # noqa: SIM115 (the timer closes it)
    timer = threading.Timer(0.05, reader.close)
    timer.start()
    safepickle.dump("new", path)
    timer.join()
    assert safepickle.load(path) == "new"


def test_a_file_that_takes_the_place_of_another_is_closed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows renames no file that is open."""
    open_files: list[list[str]] = []
    replace = os.replace

    def noted_replace(source: str, target: str) -> None:
        descriptors = Path("/proc/self/fd")
        if descriptors.is_dir():  # elsewhere the replacement itself would tell
            open_files.append([link for link in map(_target, descriptors.iterdir()) if str(tmp_path) in link])
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted_replace)
    for missing in ("", "O_TMPFILE"):
        monkeypatch.delattr(os, missing, raising=False)
        safepickle.dump(PAYLOAD, tmp_path / "file")
    assert all(found == [] for found in open_files)
    assert safepickle.load(tmp_path / "file") == PAYLOAD


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # what listed the folder is closed
        return ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump("old", path)
    os.chown(path, 1234, 4321)
    safepickle.dump("new", path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@not_on_windows
def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    for obj in ("into nothing", "onto a file"):
        safepickle.dump(obj, link)
        assert link.is_symlink()
        assert safepickle.load(folder / "file") == obj
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]


def test_a_device_is_written_to_not_replaced() -> None:
    safepickle.dump(PAYLOAD, os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@not_on_windows
def test_a_named_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received: list[object] = []
    thread = threading.Thread(target=lambda: received.append(safepickle.load(path)))
    thread.start()
    safepickle.dump(PAYLOAD, path)
    thread.join()
    assert received == [PAYLOAD]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("missing", ["O_TMPFILE", "link"])
@not_on_windows
def test_a_system_without_nameless_files_replaces_all_the_same(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object, **keywords: object) -> None:
        raise PermissionError("links are forbidden here")

    if missing == "link":
        monkeypatch.setattr(os, "link", forbidden)
    else:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "file"
    for obj in ("old", "new"):
        safepickle.dump([PAYLOAD, obj], path)
        assert os.listdir(tmp_path) == ["file"]
        assert safepickle.load(path) == [PAYLOAD, obj]
        path.chmod(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        safepickle.dump([PAYLOAD, Refuses()], path)
    assert os.listdir(tmp_path) == ["file"]


class LooksAround:
    """Notes the permissions of all files of a folder while it is pickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return list, ([stat.S_IMODE(path.stat().st_mode) for path in self.folder.iterdir()],)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400 | 0o200, 0o666])
@not_on_windows
def test_what_replaces_a_file_is_nobody_elses_while_it_is_written(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    safepickle.dump(LooksAround(tmp_path), path)
    assert sorted(safepickle.load(path)) == sorted([0o600, mode])
    assert stat.S_IMODE(path.stat().st_mode) == mode


@not_on_windows
def test_a_copy_that_takes_the_place_of_a_file_is_nobody_elses_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where links are forbidden, what is whole is copied into a file that has a name."""
    modes: list[int] = []

    def forbidden(*arguments: object, **keywords: object) -> None:
        raise PermissionError("links are forbidden here")

    def noted_fsync(descriptor: int) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(".safepickle-*"))

    umask = os.umask(0)
    try:
        path = tmp_path / "file"
        path.touch(0o600)
        monkeypatch.setattr(os, "link", forbidden)
        monkeypatch.setattr(os, "fsync", noted_fsync)
        safepickle.dump(PAYLOAD, path)
    finally:
        os.umask(umask)
    assert set(modes) == {0o600}


@not_on_windows
def test_no_other_group_may_what_the_group_of_a_replaced_file_might(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object) -> None:
        raise PermissionError("owners are kept here")

    path = tmp_path / "file"
    path.touch()
    os.chown(path, -1, 4321)
    monkeypatch.setattr(os, "fchown", forbidden)
    for before, after in ((0o660, 0o600), (0o664, 0o644), (0o606, 0o606)):
        path.chmod(before)
        os.chown(path, -1, 4321)
        safepickle.dump(PAYLOAD, path)
        assert stat.S_IMODE(path.stat().st_mode) == after


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", FileNotFoundError, "the path is empty"),
        ("new/", IsADirectoryError, "the path is that of a folder"),
        ("new//", IsADirectoryError, "the path is that of a folder"),
        ("folder/new/", IsADirectoryError, "the path is that of a folder"),
        ("new/.", IsADirectoryError, "the path is that of a folder"),
        ("folder/", IsADirectoryError, "Is a directory"),
        (".", IsADirectoryError, "Is a directory"),
        ("new/..", IsADirectoryError, "the path is that of a folder"),
        ("new/../file", FileNotFoundError, "cannot make a file in this folder"),
        ("old/", NotADirectoryError, "Not a directory"),
        ("old/file", NotADirectoryError, "Not a directory"),
        ("link to a new folder", IsADirectoryError, "the path is that of a folder"),
        ("link into nowhere", FileNotFoundError, "cannot make a file in this folder"),
        ("link to itself", OSError, "Too many levels of symbolic links"),
        ("link to the folder", IsADirectoryError, "Is a directory"),
    ],
)
@not_on_windows
def test_what_can_name_no_file_is_refused_and_nothing_is_made(
    path: str, error: type[OSError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "old").write_bytes(b"old")
    for name, target in (("a new folder", "new/"), ("itself", "link to itself"), ("the folder", "folder")):
        (tmp_path / f"link to {name}").symlink_to(target)
    (tmp_path / "link into nowhere").symlink_to("nowhere/file")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        safepickle.dump(PAYLOAD, path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old").read_bytes() == b"old"


@not_on_windows
def test_links_that_lead_to_a_new_file_make_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "first").symlink_to("folder/second")
    (tmp_path / "folder" / "second").symlink_to("../third")
    safepickle.dump(PAYLOAD, tmp_path / "first")
    assert safepickle.load(tmp_path / "third") == PAYLOAD
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "folder" / "second").is_symlink()


@not_on_windows
def test_a_path_of_an_open_descriptor_is_written_to(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    safepickle.dump(1, f"/dev/fd/{writing}")
    os.close(writing)
    with open(reading, "rb") as file:
        assert safepickle.load(file) == 1
    with open(tmp_path / "file", "w+b") as nameless:
        os.unlink(tmp_path / "file")
        safepickle.dump(PAYLOAD, f"/dev/fd/{nameless.fileno()}")
        assert safepickle.load(nameless) == PAYLOAD
    assert os.listdir(tmp_path) == []


@not_on_windows
def test_the_file_is_on_disk_before_it_is_put_in_place_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"flush {kind} of {os.fstat(descriptor).st_size if kind == 'file' else 0}")
        fsync(descriptor)

    def noted_replace(source: str, target: str) -> None:
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    safepickle.dump(PAYLOAD, tmp_path / "file")
    assert steps == [f"flush file of {len(safepickle.dumps(PAYLOAD))}", "replace", "flush folder of 0"]
    steps.clear()
    safepickle.dump(PAYLOAD, tmp_path / "file", fsync=False)
    assert steps == ["replace"]


@not_on_windows
def test_a_missing_folder_and_a_folder_as_target_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot make a file in this folder: No such file.*nowhere'"):
        safepickle.dump(1, tmp_path / "nowhere" / "file")
    with pytest.raises(IsADirectoryError, match=r"Is a directory"):
        safepickle.dump(1, tmp_path)


@not_on_windows
def test_a_read_only_file_or_folder_gives_a_clear_error_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump("old", path)
    program = textwrap.dedent(
        """
        import os, sys
        import safepickle
        path, mode = sys.argv[1], int(sys.argv[2], 8)
        os.chmod(path if mode == 0o444 else os.path.dirname(path), mode)
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
            os.chown(os.path.dirname(path), 12345, 12345)
            os.seteuid(12345)
        try:
            safepickle.dump("new", path)
        except PermissionError as error:
            print(error, *error.__notes__)
        """
    )
    # Another user has to get there; a worker of a parallel run has a folder more.
    for folder in tmp_path.parents:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    for mode, message in (("444", "the file is read-only"), ("555", "cannot make a file in this folder")):
        path.chmod(0o644)
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), mode],
            check=True,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert message in done.stdout
        assert f"{path} was left as it was" in done.stdout
        tmp_path.chmod(0o755)
        assert os.listdir(tmp_path) == ["file"]
        assert safepickle.load(path) == "old"


@not_on_windows
def test_the_folder_of_the_replacement_may_move_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder"), atomic.replacing(tmp_path / "folder" / "file"):
        pass


def test_a_pickler_writes_several_objects_that_share(tmp_path: Path) -> None:
    node = Node()
    with open(tmp_path / "file", "w+b") as file:
        pickler = safepickle.Pickler(file)
        pickler.dump(node)
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            pickler.dump([PAYLOAD, Refuses()])
        pickler.dump([weakref.ref(node), node])
        file.seek(0)
        unpickler = safepickle.Unpickler(file)
        first = unpickler.load()
        reference, second = unpickler.load()
    assert first is second
    assert reference() is first


def test_plain_pickle_reads_what_was_written_to_a_path(tmp_path: Path) -> None:
    safepickle.dump(forward_reference(), tmp_path / "file", checksum=True)
    with open(tmp_path / "file", "rb") as file:
        first, reference, _, node = pickle.load(file)
    assert first == PAYLOAD
    assert reference() is node


@pytest.mark.parametrize("swapped", ["text", "path", "file"])
def test_swapped_arguments_of_a_dump_are_named(swapped: str, tmp_path: Path) -> None:
    target: Any = {"text": str(tmp_path / "x.pkl"), "path": tmp_path / "x.pkl", "file": io.BytesIO()}[swapped]
    with pytest.raises(TypeError, match=r"dict is neither: the arguments are swapped, it is dump\(obj, file\)"):
        safepickle.dump(target, {"weight": 1})  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_dump_to_something_else_says_what_it_takes() -> None:
    with pytest.raises(TypeError, match=r"bytearray is neither: for bytes, call dumps\(\)"):
        safepickle.dump([1], bytearray())  # type: ignore[arg-type]


@pytest.mark.parametrize("allow", [None, ()])
def test_loads_and_load_say_what_they_take(allow: Any, tmp_path: Path) -> None:
    for wrong in ("text", tmp_path / "x.pkl", io.BytesIO(b"N.")):
        with pytest.raises(TypeError, match=r"loads\(\) takes bytes, not .*: to load from a path or an open file"):
            safepickle.loads(wrong, allow=allow)
    for data in (b"N.", bytearray(b"N."), None):
        with pytest.raises(TypeError, match=r"load\(\) takes a path or an open file, not .*call loads\(\)"):
            safepickle.load(data, allow=allow)  # type: ignore[arg-type]


@pytest.mark.skipif(importlib.util.find_spec("fsspec") is not None, reason="fsspec is installed")
def test_an_address_says_that_it_takes_fsspec() -> None:
    for use in (lambda: safepickle.dump([1], "s3://bucket/key"), lambda: safepickle.load("s3://bucket/key")):
        with pytest.raises(ModuleNotFoundError, match="s3://bucket/key is an address, which takes fsspec"):
            use()


def test_an_address_that_pathlib_has_changed_is_named() -> None:
    with pytest.raises(ValueError, match="s3:/bucket/key was an address before pathlib took a slash from it"):
        safepickle.dump([1], Path("s3://bucket/key"))
