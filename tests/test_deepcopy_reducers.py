"""What has a reducer is carried by `deepcopy` as `loads(dumps(...))` carries it: one table of objects for both."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import copy
import gc
import logging
import mmap
import multiprocessing.util
import os
import queue
import socket
import struct
import tempfile
import threading
import types
import weakref
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node, round_trip
from safepickle.reducers import table


@pytest.fixture(params=[round_trip, safepickle.deepcopy], ids=["dumps", "deepcopy"])
def duplicate(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return request.param


def _future() -> Any:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_result(["result"])
    return future


def _simple_queue() -> Any:
    filled: Any = queue.SimpleQueue()
    filled.put(["first"])
    filled.put("second")
    return filled


def _bounded_semaphore() -> Any:
    semaphore = threading.BoundedSemaphore(2)
    semaphore.acquire()
    return semaphore


def _take(semaphore: Any) -> list[bool]:
    return [semaphore.acquire(blocking=False) for _ in range(3)]


def _use_condition(condition: threading.Condition) -> bool:
    with condition:
        condition.notify_all()
        return condition.wait(timeout=0)


def _local() -> threading.local:
    local = threading.local()
    local.value = ["here"]
    return local


def _held(lock: Any) -> Any:
    lock.acquire()
    return lock


MAPPING = {"a": [1]}

TABLE: list[tuple[Callable[[], Any], Callable[[Any], Any], Any]] = [
    (lambda: _held(threading.Lock()), lambda lock: lock.acquire(blocking=False), True),
    (lambda: _held(threading.RLock()), lambda lock: (lock.acquire(), lock.release()), (True, None)),
    (threading.Condition, _use_condition, False),
    (threading.Event, lambda event: (event.set(), event.wait(0)), (None, True)),
    (_bounded_semaphore, _take, [True, True, False]),
    (lambda: threading.Barrier(3), lambda barrier: (barrier.parties, barrier.n_waiting), (3, 0)),
    (_local, lambda local: local.value, ["here"]),
    (_future, lambda future: future.result(), ["result"]),
    (_simple_queue, lambda filled: [filled.get_nowait() for _ in range(2)], [["first"], "second"]),
    (lambda: memoryview(bytearray(b"bytes")), bytes, b"bytes"),
    (lambda: memoryview(b"bytes")[1:3], bytes, b"yt"),
    (MAPPING.keys, list, ["a"]),
    (MAPPING.values, list, [[1]]),
    (collections.OrderedDict(a=[1]).items, list, [("a", [1])]),
    (lambda: types.MappingProxyType({"a": [1]}), dict, {"a": [1]}),
    (lambda: struct.Struct("<i"), lambda packer: packer.pack(1), b"\1\0\0\0"),
    (lambda: threading.Thread(target=len, args=("abc",), name="idle"), lambda thread: thread.name, "idle"),
    (lambda: os, lambda module: module is os, True),
    (lambda: logging.getLogger("safepickle.test"), lambda log: log is logging.getLogger("safepickle.test"), True),
    (lambda: types.CellType([1]), lambda cell: cell.cell_contents, [1]),
    (lambda: staticmethod(len), lambda method: method("abc"), 3),
    (contextlib.ExitStack, lambda stack: stack.close(), None),
]


@pytest.mark.parametrize(("make", "use", "expected"), TABLE, ids=range(len(TABLE)))
def test_copy_is_of_its_own_and_works(make: Any, use: Any, expected: Any, duplicate: Any) -> None:
    original = make()
    copied = duplicate(Node(first=original, again=(original,)))
    assert copied.first is copied.again[0]
    assert type(copied.first) is type(original)
    assert use(copied.first) == expected


def test_parts_belong_to_the_copy(duplicate: Any) -> None:
    condition, future, semaphore = duplicate([threading.Condition(), _future(), threading.Semaphore()])
    for each in (condition, future._condition, semaphore._cond):
        assert each.acquire.__self__ is each.release.__self__ is each._lock
    mapping: dict[str, Any] = {}
    copied, keys, proxy = duplicate([mapping, mapping.keys(), types.MappingProxyType(mapping)])
    copied["new"] = 1
    assert list(keys) == list(proxy) == ["new"]
    assert mapping == {}


def test_weak_references_in_what_is_reduced_lead_to_the_copy(duplicate: Any) -> None:
    node, waiting = Node(), Node()
    filled: Any = queue.SimpleQueue()
    filled.put(weakref.ref(node))
    node.thread = threading.Thread(target=print, args=(weakref.ref(node), weakref.ref(waiting)))
    node.keys = {"owner": weakref.ref(node)}.values()
    node.filled, node.waiting = filled, waiting
    copied = duplicate(node)
    assert copied.filled.get_nowait()() is copied
    assert [each() for each in copied.thread._args] == [copied, copied.waiting]
    assert next(iter(copied.keys))() is copied


def test_file_is_opened_anew_where_it_stood(duplicate: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\n", encoding="utf-8")
    with path.open() as file:
        file.readline()
        copied = duplicate([file])[0]
        assert copied.readline() == "two\n"
        copied.close()
        assert file.readline() == "two\n"


def test_handler_of_a_log_has_a_lock_of_its_own(duplicate: Any, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    handler.acquire()
    copied = duplicate(handler)
    assert copied.lock is not handler.lock
    copied.handle(logging.LogRecord("name", logging.INFO, "path", 1, "message", (), None))
    copied.close()
    handler.release()
    handler.close()
    assert (tmp_path / "log").read_text(encoding="utf-8") == "message\n"


def test_executor_is_a_new_one(duplicate: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(3, "name") as executor:
        copied = duplicate(Node(executor=executor)).executor
        assert copied._max_workers == 3
        with copied:
            assert copied.submit(len, "abc").result() == 3


@pytest.mark.parametrize("make", [tempfile.NamedTemporaryFile, tempfile.TemporaryFile, socket.socket, mmap.mmap])
def test_resource_is_refused_and_stays_usable(make: Any, duplicate: Any) -> None:
    resource: Any
    with make(-1, 10) if make is mmap.mmap else make() as resource:
        with pytest.raises(TypeError, match="cannot pickle"):
            duplicate([resource])
        gc.collect()
        assert not resource.closed if hasattr(resource, "closed") else resource.fileno() >= 0


def test_shared_memory_outlives_its_copy(duplicate: Any) -> None:
    block = shared_memory.SharedMemory(create=True, size=8)
    try:
        assert block.buf is not None
        block.buf[0] = 7
        copied = duplicate([block])[0]
        assert copied.buf[0] == 7
        copied.close()
        del copied
        gc.collect()
        again: Any = shared_memory.SharedMemory(block.name)
        assert again.buf[0] == 7
        again.close()
    finally:
        block.close()
        block.unlink()


def test_finalizer_of_a_process_is_dead_in_the_copy(duplicate: Any) -> None:
    log: list[str] = []
    node = Node()
    node.finalizer = multiprocessing.util.Finalize(node, log.append, ["gone"], exitpriority=1)
    copied = duplicate(node)
    assert not copied.finalizer.still_active()
    del copied
    gc.collect()
    assert log == []
    assert node.finalizer.still_active()
    node.finalizer.cancel()


class Registered:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.connection = (each for each in "ab")  # which nothing can copy


class Below(Registered):
    pass


class SaysItself(Registered):
    def __deepcopy__(self, memo: dict[Any, Any]) -> str:
        return "itself"


class SaysNothing:
    def __deepcopy__(self, memo: dict[Any, Any]) -> str:
        return "never asked"


@pytest.fixture
def registration(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`safepickle.register`, undone after the test."""
    monkeypatch.setattr(table, "_registered", dict(table._registered))
    yield safepickle.register
    table._decided.clear()


def test_registered_reducer_is_used_for_the_class_and_its_subclasses(registration: Any, duplicate: Any) -> None:
    registration(Registered, lambda obj: (type(obj), ([obj.value],)))
    node = Node()
    node.items = [Registered(weakref.ref(node)), Below(node)]
    copied = duplicate(node)
    assert [type(each) for each in copied.items] == [Registered, Below]
    assert copied.items[0].value[0]() is copied
    assert copied.items[1].value[0] is copied


def test_what_stands_nearer_to_a_class_goes_first(registration: Any) -> None:
    registration(Registered, lambda obj: (type(obj), (obj.value,)))
    registration(SaysNothing, lambda obj: (str, ("registered",)))
    assert safepickle.deepcopy([SaysItself(1), SaysNothing()]) == ["itself", "registered"]


def test_items_of_a_reducer_come_before_its_state_as_in_a_load(registration: Any, duplicate: Any) -> None:
    class Frozen(list[Any]):
        def append(self, item: Any) -> None:
            if getattr(self, "is_frozen", False):
                raise TypeError("it is frozen")
            super().append(item)

    registration(Frozen, lambda obj: (Frozen, (), {"is_frozen": True}, iter(obj)))
    frozen = Frozen()
    frozen.append([1])
    assert duplicate(frozen) == [[1]]


def test_copy_error_where_copy_raises_it() -> None:
    class Nothing:
        __reduce_ex__ = __reduce__ = None  # type: ignore[assignment]

    for function in (copy.deepcopy, safepickle.deepcopy):
        with pytest.raises(copy.Error, match=r"un\(deep\)copyable object of type <class .*Nothing'>"):
            function([Nothing()])
