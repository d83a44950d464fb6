"""Many dumps and loads at once, and forks in the middle of them, give right results."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import safepickle
from safepickle.cpython import cached_property

THREADS = 8


class Node:
    def __init__(self, number: int) -> None:
        self.number = number
        self.children: list[Node] = []
        self.parent: Any = None


def tree(size: int = 60) -> Node:
    nodes = [Node(number) for number in range(size)]
    for number in range(1, size):
        parent = nodes[(number - 1) // 3]
        parent.children.append(nodes[number])
        nodes[number].parent = weakref.ref(parent)
    for node in nodes:
        # CPython 3.11 may collect garbage while it makes an object's __dict__. If that runs Python code, as the
        # callbacks of hypothesis do, another thread may make the same __dict__ meanwhile: two then own one set of
        # values, and the interpreter crashes later, be it vars() or pickle.dumps that asked. So have them made.
        vars(node)
    return nodes[0]


def assert_whole(node: Node, size: int = 60) -> None:
    stack, numbers = [node], set()
    while stack:
        current = stack.pop()
        numbers.add(current.number)
        for child in current.children:
            assert child.parent() is current
            stack.append(child)
    assert numbers == set(range(size))


@pytest.fixture(autouse=True)
def often_switched() -> Any:
    """Let threads take turns far more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def at_once(work: Callable[[int], None]) -> None:
    """Run `work` on several threads that begin together, and raise what any of them raised."""
    barrier = threading.Barrier(THREADS)

    def begin(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(begin, number) for number in range(THREADS)]:
            done.result()


def test_shared_objects_are_dumped_and_loaded_by_many_threads() -> None:
    root = tree()
    references = [weakref.ref(root), weakref.proxy(root), root]
    expected = safepickle.dumps(references)

    def work(number: int) -> None:
        for _ in range(20):
            data = safepickle.dumps(references)
            assert data == expected
            reference, proxy, copy = safepickle.loads(data)
            assert reference() is copy
            assert proxy.number == 0
            assert_whole(copy)

    at_once(work)


def test_new_types_are_met_by_many_threads_at_once() -> None:
    def work(number: int) -> None:
        for _ in range(20):
            cls = type("Local", (Node,), {"__module__": "__main__"})
            node = cls(number)
            reference, copy = safepickle.loads(safepickle.dumps([weakref.ref(node), node]))
            assert reference() is copy
            assert copy.number == number

    at_once(work)


def test_weak_containers_may_change_while_they_are_dumped() -> None:
    """Entries come and go on another thread; each dump holds the entries of one moment, all of them linked."""
    table: weakref.WeakValueDictionary[int, Node] = weakref.WeakValueDictionary()
    kept = {number: Node(number) for number in range(50)}
    table.update(kept)
    members: weakref.WeakSet[Node] = weakref.WeakSet(kept.values())
    stop = threading.Event()

    def churn() -> None:
        number = 1000
        while not stop.is_set():
            passing = Node(number)
            table[number] = passing
            members.add(passing)
            number += 1
            del passing

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            data = safepickle.dumps([table, members, kept], weakrefs="tombstone")
            safepickle.loads(data)
            copied_table, copied_members, copied_kept = safepickle.loads(
                safepickle.dumps([table, members, kept], weakrefs=lambda referent: "tombstone")
            )
            assert dict(copied_table) == copied_kept
            assert set(copied_members) == set(copied_kept.values())
    finally:
        stop.set()
        thread.join()


def test_a_path_that_many_threads_replace_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    safepickle.dump([0, tree()], path)

    def work(number: int) -> None:
        for _ in range(10):
            if number % 2:
                safepickle.dump([number, tree()], path, fsync=False, checksum=True)
            else:
                _, root = safepickle.load(path)
                assert_whole(root)

    at_once(work)
    assert os.listdir(tmp_path) == ["file"]


def test_a_failing_dump_on_one_thread_does_not_disturb_another() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("this object cannot be pickled")

    root = tree()

    def work(number: int) -> None:
        for _ in range(20):
            if number % 2:
                file = io.BytesIO(b"before")
                file.seek(0, os.SEEK_END)
                with pytest.raises(RuntimeError, match="cannot be pickled"):
                    safepickle.dump([weakref.ref(root), root, Refuses()], file)
                assert file.getvalue() == b"before"
            else:
                assert_whole(safepickle.loads(safepickle.dumps([weakref.ref(root), root]))[1])

    at_once(work)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


class Forks:
    """Forks while it is pickled; the child fails or is done, and neither may touch the parent's file."""

    def __init__(self, child_fails: bool) -> None:
        self.child_fails = child_fails

    def __getstate__(self) -> Any:
        child = os.fork()
        if child == 0:
            if self.child_fails:
                raise RuntimeError("this child cannot pickle")
            os._exit(0)
        os.waitpid(child, 0)
        return {"child_fails": self.child_fails}


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("child_fails", [False, True])
@pytest.mark.parametrize("kind", ["path", "file"])
def test_a_child_forked_in_the_middle_of_a_dump_leaves_its_parents_file_alone(
    child_fails: bool, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    obj = [bytes(300_000), Forks(child_fails), bytes(300_000)]
    parent = os.getpid()
    try:
        if kind == "path":
            safepickle.dump(obj, path)
        else:
            with open(path, "wb") as file:
                safepickle.dump(obj, file)
    except RuntimeError:
        assert os.getpid() != parent
        os._exit(0)
    assert os.listdir(tmp_path) == ["file"]
    first, forks, last = safepickle.load(path)
    assert len(first) == len(last) == 300_000
    assert forks.child_fails is child_fails


def ends_well(child: int) -> bool:
    """Wait for a forked child, which hangs if it waits for a thread that it does not have."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "copy",
    [lambda obj: safepickle.loads(safepickle.dumps(obj)), safepickle.deepcopy],
    ids=["dumps and loads", "deepcopy"],
)
def test_a_child_forked_while_other_threads_copy_can_copy(copy: Callable[[Any], Any]) -> None:
    root = tree()
    stop = threading.Event()

    def copy_for_ever() -> None:
        while not stop.is_set():
            copy([weakref.ref(root), root])

    threads = [threading.Thread(target=copy_for_ever) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                try:
                    assert_whole(copy([weakref.ref(root), root])[1])
                except BaseException:
                    os._exit(1)
                os._exit(0)
            assert ends_well(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_one_thread_waits_for_no_property_of_another() -> None:
    """CPython 3.11 holds one lock while it computes a `functools.cached_property` of any instance of a class."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        @cached_property
        def value(self) -> int:
            if threading.current_thread() is other:
                begun.set()
                go_on.wait(60)
            return 1

    other = threading.Thread(target=lambda: Slow().value)
    other.start()
    assert begun.wait(60)
    mine = Slow()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: mine.value)
        try:
            assert asked.result(30) == 1
        finally:
            go_on.set()
    assert vars(mine) == {"value": 1}
    other.join()


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a GIL")
def test_the_gil_stays_off() -> None:
    program = "import safepickle, sys; safepickle.loads(safepickle.dumps([print])); print(sys._is_gil_enabled())"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8")
    assert run.stdout == "False\n"
