"""A copy leaves the original's resources alone: it deletes, closes, and writes nothing of what the original owns."""

from __future__ import annotations

import gc
import logging
import logging.handlers
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
import weakref
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from multiprocessing import Lock, Semaphore, util
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node, round_trip
from owned_resources import LEFT_ALONE, REFUSED, Holder, Owned

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture(params=LEFT_ALONE)
def owned(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Owned]:
    made = LEFT_ALONE[request.param](tmp_path)
    assert made.is_there()
    yield made
    assert made.is_there()
    made.close()


def load_and_drop(data: bytes) -> None:
    with warnings.catch_warnings():
        # The files of the copy are its own, and are left open.
        warnings.simplefilter("ignore", ResourceWarning)
        copy = safepickle.loads(data)
        del copy
        gc.collect()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_copy_that_goes_leaves_the_resource_alone(owned: Owned, protocol: int) -> None:
    load_and_drop(safepickle.dumps(owned.holder, protocol))


@pytest.mark.parametrize("policy", ["strong", "tombstone", "strict"])
def test_so_it_is_under_every_policy(owned: Owned, policy: Any) -> None:
    load_and_drop(safepickle.dumps(owned.holder, weakrefs=policy))


@pytest.mark.parametrize("unpicklable", ["tombstone", lambda obj: None])
def test_so_it_is_where_the_unpicklable_is_replaced(owned: Owned, unpicklable: Any) -> None:
    load_and_drop(safepickle.dumps(owned.holder, unpicklable=unpicklable))


def test_so_it_is_through_deepcopy(owned: Owned) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        safepickle.deepcopy(owned.holder)
        gc.collect()


LOADING = """
import gc, sys
import safepickle

with open(sys.argv[1], "rb") as file:
    copy = safepickle.load(file)
del copy
gc.collect()
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment, encoding="utf-8"
    )


def test_a_process_that_has_loaded_a_copy_leaves_the_resource_alone_when_it_ends(owned: Owned, tmp_path: Path) -> None:
    safepickle.dump(owned.holder, tmp_path / "dumped.pickle")
    assert run_python("-c", LOADING, str(tmp_path / "dumped.pickle")).stderr == ""


HANDING_OVER = """
from multiprocessing import shared_memory
from safepickle.integrations.multiprocessing import context


def unlink(block):
    block.unlink()


if __name__ == "__main__":
    block = shared_memory.SharedMemory(create=True, size=10)
    process = context("spawn").Process(target=unlink, args=(block,))
    process.start()
    process.join()
    block.close()
    try:
        shared_memory.SharedMemory(block.name)
    except FileNotFoundError:
        print("unlinked")
"""


def test_worker_may_unlink_a_block_that_it_was_handed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HANDING_OVER, encoding="utf-8")
    run = run_python(str(tmp_path / "script.py"))
    # The resource tracker reports on stderr what it finds left over, and what it is told of that it does not know.
    assert (run.stdout, run.stderr) == ("unlinked\n", "")


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_act_when_it_goes_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    owned = make(tmp_path)
    try:
        with pytest.raises(TypeError, match=reason):
            safepickle.deepcopy(owned.holder)
        for weakrefs in ("relink", "strong"):
            with pytest.raises(TypeError, match=reason):
                safepickle.dumps(owned.holder, weakrefs=weakrefs)
        assert not safepickle.explain(owned.holder).picklable
        with pytest.warns(safepickle.UnpicklableWarning, match="is replaced by a tombstone"):
            data = safepickle.dumps([owned.holder], unpicklable="tombstone")
        load_and_drop(data)
        assert owned.is_there()
    finally:
        owned.close()


def test_finalizers_of_a_directory_are_told_of_before_the_dump(tmp_path: Path) -> None:
    directory = tempfile.TemporaryDirectory(dir=tmp_path)
    explanation = safepickle.explain(Holder(directory=directory))
    (entry,) = explanation.weak_references
    assert (entry.path, entry.state, entry.becomes) == ("$.directory._finalizer", "kept", "dead finalizer")
    assert explanation.picklable
    directory.cleanup()


def test_directory_of_a_copy_is_still_known_by_its_name(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as path:
        directory = tempfile.TemporaryDirectory(dir=path)
        copy = round_trip(directory)
        assert copy.name == directory.name
        assert not copy._finalizer.alive
        directory.cleanup()


@pytest.mark.parametrize("finalizers", ["dead", "rearm"])
def test_finalizer_of_multiprocessing_is_dead_wherever_it_is_loaded(finalizers: Any) -> None:
    called: list[str] = []
    node = Node()
    finalizer = util.Finalize(node, called.append, args=("gone",), exitpriority=5)
    explanation = safepickle.explain([finalizer], finalizers=finalizers)
    assert [(entry.state, entry.becomes) for entry in explanation.weak_references] == [("outside", "dead finalizer")]
    copy, loaded = round_trip([node, finalizer], finalizers=finalizers)
    assert type(loaded) is util.Finalize
    assert not loaded.still_active()
    loaded.cancel()
    loaded()
    del copy, loaded
    gc.collect()
    assert not called
    assert finalizer.still_active()
    finalizer()
    assert called == ["gone"]
    assert not round_trip(finalizer).still_active()


@pytest.mark.parametrize("make", [Lock, Semaphore])
def test_locks_of_multiprocessing_go_to_processes_alone(make: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="only be shared between processes through inheritance"):
        safepickle.dumps([make()])


def test_archive_in_memory_is_copied_with_what_is_in_it() -> None:
    archive = zipfile.ZipFile(BytesIO(), "w")
    archive.writestr("first", "content")
    copy = round_trip(archive)
    copy.writestr("second", "content")
    assert (archive.namelist(), copy.namelist()) == (["first"], ["first", "second"])
    copy.close()
    archive.close()


def test_closed_things_are_copied(tmp_path: Path) -> None:
    for make, _ in (REFUSED["archive being written"], REFUSED["end of a pipe"], REFUSED["sound being written"]):
        owned = make(tmp_path)
        owned.close()
        assert type(round_trip(owned.holder)) is Holder
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        pass
    assert round_trip(file._closer).close_called


def test_what_weak_references_lead_to_is_refused_as_well(tmp_path: Path) -> None:
    make, reason = REFUSED["end of a pipe"]
    owned = make(tmp_path)
    reference = weakref.ref(owned.holder)
    with pytest.raises(TypeError, match=reason) as caught:
        safepickle.dumps([reference], weakrefs="strong")
    assert caught.value.pickle_path == "$[0]().end"  # type: ignore[attr-defined]
    owned.close()


def test_dispatch_table_of_the_caller_goes_first(tmp_path: Path) -> None:
    owned = REFUSED["end of a pipe"][0](tmp_path)
    file = BytesIO()
    pickler = safepickle.Pickler(file)
    pickler.dispatch_table = {type(owned.holder.end): lambda end: (str, ("sent",))}
    pickler.dump(owned.holder)
    assert safepickle.loads(file.getvalue()).end == "sent"
    owned.close()


@pytest.mark.parametrize("cls", [logging.FileHandler, logging.handlers.WatchedFileHandler])
def test_log_that_is_opened_late_is_not_cut_off_by_the_copy(cls: Any, tmp_path: Path) -> None:
    handler = cls(tmp_path / "log", mode="w", delay=True)
    copy = round_trip(handler)
    for number, each in enumerate((handler, copy)):
        each.emit(logging.makeLogRecord({"msg": f"record {number}"}))
        each.close()
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines() == ["record 0", "record 1"]
    assert round_trip(handler).mode == "w"
