"""Locks, files, queues, memory views and whatever else dill knows, pickled inside any graph by the C pickler."""

from __future__ import annotations

import abc
import bz2
import collections
import concurrent.futures
import contextvars
import ctypes
import dataclasses
import datetime
import functools
import hashlib
import io
import logging
import lzma
import os
import pickle
import queue
import re
import select
import sqlite3
import struct
import subprocess
import sys
import threading
import types
import weakref
import zlib
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node
from programs import run


def copy_of(obj: Any) -> Any:
    """Return what comes back from a pickle, which must not name dill."""
    data = safepickle.dumps(obj)
    assert b"dill" not in data
    return safepickle.loads(data)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_held_lock_comes_back_open(make: Any) -> None:
    lock = make()
    with lock:
        restored = copy_of(Node(lock=lock, again=lock))
    assert restored.lock is restored.again
    assert type(restored.lock) is type(lock)
    assert restored.lock.acquire(blocking=False)


def test_dumping_does_not_release_a_held_lock() -> None:
    lock = threading.Lock()
    with lock:
        safepickle.dumps(lock)
        assert lock.locked()


def test_pickles_of_locks_need_no_safepickle_to_load() -> None:
    data = safepickle.dumps([threading.Lock(), threading.RLock(), threading.Event()])
    assert b"safepickle" not in data
    program = "import pickle, sys; pickle.load(sys.stdin.buffer)[2].set(); assert 'safepickle' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], input=data, check=True)


def test_a_condition_shares_its_lock_and_has_no_waiters() -> None:
    condition = threading.Condition()
    waiting = threading.Event()

    def wait() -> None:
        with condition:
            waiting.set()
            condition.wait(timeout=30)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    with condition:
        restored = copy_of(Node(condition=condition, lock=condition._lock))  # type: ignore[attr-defined]
        condition.notify_all()
    thread.join()
    assert restored.condition._lock is restored.lock
    assert not restored.condition._waiters
    with restored.condition:
        restored.condition.notify_all()
        assert not restored.condition.wait(timeout=0)


def test_events_keep_whether_they_are_set() -> None:
    event = threading.Event()
    assert not copy_of(event).is_set()
    event.set()
    assert copy_of(event).wait(timeout=0)


def test_a_bounded_semaphore_comes_back_free_and_a_plain_one_keeps_its_count() -> None:
    bounded, plain = threading.BoundedSemaphore(2), threading.Semaphore(2)
    bounded.acquire()
    plain.acquire()
    restored, counter = copy_of((bounded, plain))
    assert restored.acquire(blocking=False)
    assert restored.acquire(blocking=False)
    assert not restored.acquire(blocking=False)
    assert counter.acquire(blocking=False)
    assert not counter.acquire(blocking=False)


def test_a_barrier_comes_back_empty_and_a_broken_one_broken() -> None:
    barrier = threading.Barrier(3)
    assert copy_of(barrier).parties == 3
    assert copy_of(barrier).n_waiting == 0
    barrier.abort()
    assert copy_of(barrier).broken


@pytest.mark.parametrize("cls", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_queues_keep_what_is_in_them(cls: Any) -> None:
    source = cls(maxsize=5)
    for item in (3, 1, 2):
        source.put(item)
    restored = copy_of(source)
    assert [restored.get_nowait() for _ in range(3)] == [source.get_nowait() for _ in range(3)]
    with pytest.raises(queue.Empty, match=r"^$"):
        restored.get_nowait()


def test_a_simple_queue_keeps_what_is_in_it_also_when_items_were_taken_out() -> None:
    source: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for item in [None, *range(40), None]:
        source.put(item)
    for _ in range(11):
        source.get()
    restored = copy_of(source)
    assert restored.qsize() == source.qsize() == 31
    assert [restored.get() for _ in range(31)] == [source.get() for _ in range(31)] == [*range(10, 40), None]
    assert copy_of(queue.SimpleQueue()).empty()


class Greeter:
    def greet(self, greeting: str, *, mark: str) -> str:
        return f"{greeting} {type(self).__name__}{mark}"

    hello = functools.partialmethod(greet, "hello", mark="!")
    loudly: functools.partialmethod[str] = functools.partialmethod(hello, mark="!!")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_partial_method_keeps_its_arguments(protocol: int) -> None:
    methods = {name: vars(Greeter)[name] for name in ("hello", "loudly")}
    methods["hello"].label = "label"
    copied = pickle.loads(safepickle.dumps(methods, protocol))
    other = type("Other", (), copied)()
    assert (other.hello(), other.loudly()) == ("hello Other!", "hello Other!!")
    assert copied["hello"].label == "label"


def test_a_method_bound_to_a_class_may_be_of_any_callable() -> None:
    assert copy_of(types.MethodType(functools.partial(isinstance, True), int))()


def test_a_cache_keeps_what_was_set_on_it() -> None:
    @functools.lru_cache(3)
    def double(number: int) -> int:
        """Return twice the number."""
        return 2 * number

    double.reference = weakref.ref(double)  # type: ignore[attr-defined]
    double.__name__ = "twice"
    copied: Any = copy_of(double)
    assert copied.reference() is copied
    assert (copied(2), copied.__name__, copied.__doc__) == (4, "twice", "Return twice the number.")
    assert copied.__wrapped__.__name__ == "double"


class CountedThread(threading.Thread):
    started = 0

    def start(self) -> None:
        CountedThread.started += 1
        super().start()


def test_a_thread_that_has_ended_is_not_started_by_its_class() -> None:
    thread = CountedThread()
    thread.start()
    thread.join()
    copied = copy_of(thread)
    assert (copied.is_alive(), copied.ident is None, CountedThread.started) == (False, False, 1)


def test_a_simple_queue_may_hold_itself() -> None:
    source: queue.SimpleQueue[Any] = queue.SimpleQueue()
    source.put(Node(queue=source))
    restored = copy_of(source)
    assert restored.get().queue is restored


def test_a_thread_pool_comes_back_fresh_with_its_settings() -> None:
    with concurrent.futures.ThreadPoolExecutor(2, "worker") as pool:
        assert pool.submit(int, "3").result() == 3
        restored = copy_of(pool)
    with restored:
        assert restored.submit(threading.current_thread).result().name.startswith("worker")
    with pytest.raises(RuntimeError, match="after shutdown"):
        copy_of(pool).submit(int)


class Worker(threading.Thread):
    """A thread with state of its own, whose target leads back to it."""

    def __init__(self) -> None:
        super().__init__(target=self.work, name="worker", daemon=True)
        self.results: list[int] = []

    def work(self) -> None:
        self.results.append(1)


def test_a_thread_that_has_not_started_can_be_started_after_the_load() -> None:
    restored = copy_of(Worker())
    assert (restored.name, restored.daemon, restored.ident) == ("worker", True, None)
    restored.start()
    restored.join()
    assert restored.results == [1]


def test_a_thread_that_has_ended_comes_back_ended() -> None:
    worker = Worker()
    worker.start()
    worker.join()
    restored = copy_of(worker)
    assert not restored.is_alive()
    assert restored.results == [1]
    restored.join()
    with pytest.raises(RuntimeError, match="once"):
        restored.start()


def test_a_running_thread_is_refused() -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        with pytest.raises(TypeError, match="cannot pickle a running thread"):
            safepickle.dumps(thread)
    finally:
        leave.set()
        thread.join()


class Settings(threading.local):
    """Thread-local data of a subclass."""

    depth = 0


def test_thread_local_data_comes_back_as_the_dumping_thread_saw_it() -> None:
    settings = Settings()
    settings.depth = 4
    threading.Thread(target=setattr, args=(settings, "depth", 9)).start()
    restored = copy_of(settings)
    assert type(restored) is Settings
    assert restored.depth == 4
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(restored.depth))
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "r+b"])
def test_a_file_is_reopened_where_it_stood(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data.txt"
    path.write_text("one\ntwo\nthree\n", encoding="utf-8")
    with open(path, mode) as file:
        file.readline()
        restored = copy_of(Node(file=file)).file
        with restored:
            assert (restored.name, restored.mode, restored.tell()) == (file.name, file.mode, file.tell())
            assert type(restored) is type(file)
            assert restored.read() == file.read()


def test_a_text_file_keeps_its_encoding_and_its_error_handling(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes("gr\xfcn\nbla\xdf\n".encode("latin-1"))
    with open(path, encoding="latin-1", errors="replace") as file:
        file.readline()
        with copy_of(file) as restored:
            assert (restored.encoding, restored.errors) == ("latin-1", "replace")
            assert restored.read() == "bla\xdf\n"


@pytest.mark.parametrize("mode", ["w", "wb", "a", "x", "w+", "xb"])
def test_a_file_that_is_being_written_is_not_cut_off(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "log.txt"
    one, two = ("1", "2") if "b" not in mode else (b"1", b"2")
    with open(path, mode) as file:
        file.write(one)
        data = safepickle.dumps(file)
    assert path.read_bytes() == b"1"
    with safepickle.loads(data) as restored:
        restored.write(two)
    assert path.read_bytes() == b"12"


def test_an_unbuffered_file_stays_unbuffered(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    with open(path, "rb", buffering=0) as file:
        file.read(1)
        with copy_of(file) as restored:
            assert type(restored) is io.FileIO
            assert restored.read() == b"bc"


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "gone.log"
    with open(path, "w", encoding="utf-8") as file:
        data = safepickle.dumps({"log": file})
    path.unlink()
    with pytest.raises(FileNotFoundError, match="a file that was open when it was pickled is not here") as caught:
        safepickle.loads(data)
    assert caught.value.filename == str(path)
    assert str(path) in str(caught.value)
    assert not path.exists()


def test_a_closed_file_comes_back_closed_whether_or_not_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "gone.txt"
    with open(path, "w", encoding="utf-8") as file:
        pass
    path.unlink()
    restored = copy_of(file)
    assert restored.closed
    assert (restored.name, restored.mode) == (str(path), "w")


def test_standard_streams_are_those_of_the_new_process(tmp_path: Path) -> None:
    target = tmp_path / "streams.pickle"
    run(
        """
        import safepickle, sys
        streams = [sys.stdin, sys.stdout, sys.stderr, sys.__stdout__, sys.stdout.buffer]
        safepickle.dump(streams, sys.argv[1])
        """,
        str(target),
    )
    program = """
        import safepickle, sys
        streams = safepickle.load(sys.argv[1])
        expected = [sys.stdin, sys.stdout, sys.stderr, sys.__stdout__, sys.stdout.buffer]
        assert all(one is other for one, other in zip(streams, expected, strict=True))
        """
    run(program, str(target))


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe, open(writer, "wb"), pytest.raises(TypeError, match="from a file descriptor"):
        safepickle.dumps(pipe)
    with (
        io.TextIOWrapper(io.BytesIO(b"text"), encoding="utf-8") as text,
        pytest.raises(TypeError, match=r"over a _io\.BytesIO"),
    ):
        safepickle.dumps(text)


def test_a_temporary_file_is_refused() -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file, pytest.raises(TypeError, match="cannot pickle a temporary file"):
        safepickle.dumps(file)


def test_log_handlers_with_their_files_come_back(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit(logging.makeLogRecord({"msg": "before"}))
    data = safepickle.dumps(handler)
    handler.close()
    restored = safepickle.loads(data)
    restored.emit(logging.makeLogRecord({"msg": "after"}))
    restored.close()
    assert path.read_text(encoding="utf-8") == "before\nafter\n"


def test_loggers_are_those_of_the_new_process() -> None:
    logger = logging.getLogger("safepickle.tests.leaves")
    assert copy_of([logger, logging.getLogger()]) == [logger, logging.getLogger()]


def make_counter() -> Any:
    """Return a cached function that cannot be imported, and the list of its calls."""
    calls: list[int] = []

    @functools.lru_cache(maxsize=3, typed=True)
    def count(number: int) -> int:
        calls.append(number)
        return number if number < 2 else count(number - 1) + count(number - 2)

    return count, calls


def test_a_local_cached_function_comes_back_with_an_empty_cache_and_calls_itself() -> None:
    count, calls = make_counter()
    count(6)
    restored, restored_calls = copy_of((count, calls))
    assert type(restored) is functools._lru_cache_wrapper
    assert restored.cache_parameters() == {"maxsize": 3, "typed": True}
    assert restored.cache_info().currsize == 0
    del restored_calls[:]
    assert restored(6) == 8
    assert restored_calls == [6, 5, 4, 3, 2, 1, 0]


@functools.lru_cache(maxsize=2)
def importable(number: int) -> int:
    """Be cached and importable."""
    return number


def test_an_importable_cached_function_goes_by_name() -> None:
    assert copy_of(importable) is importable


class Base:
    """Has a method to call by way of super."""

    def __init__(self) -> None:
        self.parent: Any = None

    def name(self) -> str:
        return "base"


class Derived(Base):
    """Holds a super object."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = super()

    def name(self) -> str:
        return "derived"


def test_super_objects_stay_bound_to_the_copy() -> None:
    restored = copy_of(Derived())
    assert restored.parent.__self__ is restored
    assert restored.parent.name() == "base"
    assert type(restored.parent) is super
    alone = copy_of(Derived().parent)
    assert alone.__self__.parent is alone
    assert copy_of(super(Derived)).__thisclass__ is Derived


@pytest.mark.parametrize("cls", [dict, collections.OrderedDict, collections.defaultdict])
@pytest.mark.parametrize("view", ["keys", "values", "items"])
def test_dict_views_show_the_copy(cls: Any, view: str) -> None:
    source = cls()
    source["a"] = 1
    restored = copy_of(Node(view=getattr(source, view)(), mapping=source))
    restored.mapping["b"] = 2
    assert type(restored.mapping) is cls
    assert type(restored.view) is type(getattr(source, view)())
    assert list(restored.view) == list(getattr(restored.mapping, view)())
    assert len(restored.view) == 2


def test_a_mapping_proxy_shows_the_copy() -> None:
    source: dict[str, Any] = {"a": 1}
    source["self"] = types.MappingProxyType(source)
    restored = copy_of(source)
    restored["b"] = 2
    assert restored["self"]["b"] == 2
    assert copy_of(source["self"])["self"]["a"] == 1


def test_the_attributes_of_a_class_are_those_of_the_same_class() -> None:
    assert copy_of(vars(Base)) == vars(Base)
    assert copy_of(vars(int)) == vars(int)


class Slotted:
    """Has descriptors of every kind."""

    __slots__ = ("__dict__", "slot")

    @property
    def doubled(self) -> int:
        return int(self.slot) * 2  # type: ignore[attr-defined]

    @functools.cached_property
    def cached(self) -> int:
        return 5


@pytest.mark.parametrize(
    "descriptor",
    [
        Slotted.slot,  # type: ignore[attr-defined]
        vars(Slotted)["__dict__"],
        vars(type)["__mro__"],
        vars(dict)["fromkeys"],
        vars(types.FunctionType)["__code__"],
        vars(int)["__add__"],
        vars(str)["join"],
    ],
    ids=lambda descriptor: f"{type(descriptor).__name__}-{descriptor.__name__}",
)
def test_descriptors_are_those_of_the_same_class(descriptor: Any) -> None:
    assert copy_of(descriptor) is descriptor


def test_properties_work() -> None:
    restored = copy_of(vars(Slotted)["doubled"])
    instance = Slotted()
    instance.slot = 4  # type: ignore[attr-defined]
    assert restored.__get__(instance, Slotted) == 8
    assert copy_of(vars(Slotted)["cached"]).func(instance) == 5
    assert type(copy_of(abc.abstractproperty(len))) is abc.abstractproperty


def test_cells_modules_and_sentinels_come_back() -> None:
    full, empty = types.CellType([1]), types.CellType()
    restored_full, restored_empty = copy_of((full, empty))
    assert restored_full.cell_contents == [1]
    with pytest.raises(ValueError, match="Cell is empty"):
        _ = restored_empty.cell_contents
    assert copy_of(os.path) is os.path
    made = types.ModuleType("made_for_this_test")
    made.value = 3  # type: ignore[attr-defined]
    assert copy_of(made).value == 3
    assert copy_of(dataclasses.MISSING) is dataclasses.MISSING
    assert copy_of(dataclasses.KW_ONLY) is dataclasses.KW_ONLY
    assert copy_of(struct.Struct("<id")).format == "<id"


@pytest.mark.parametrize(
    "cls",
    [type({}.keys()), type(collections.OrderedDict().items()), types.GeneratorType, type(threading.Lock()), re.Match],
    ids=lambda cls: cls.__name__,
)
def test_builtin_classes_that_have_no_name_of_their_own_come_back(cls: type) -> None:
    assert copy_of(Node(cls=cls)).cls is cls


def test_a_view_of_a_whole_buffer_shares_it() -> None:
    buffer = bytearray(b"abcd")
    restored = copy_of(Node(view=memoryview(buffer), buffer=buffer))
    restored.view[0] = ord("z")
    assert restored.buffer == b"zbcd"


def test_a_view_of_a_part_is_a_copy_of_that_part_alone() -> None:
    buffer = bytearray(1_000_000)
    buffer[10:13] = b"abc"
    data = safepickle.dumps(memoryview(buffer)[10:13])
    assert len(data) < 300
    restored = safepickle.loads(data)
    assert bytes(restored) == b"abc"
    restored[0] = 0


def test_views_keep_format_shape_and_the_right_to_write() -> None:
    flat = memoryview(bytearray(48))
    shaped = flat.cast("i", (3, 4))
    restored = copy_of(shaped)
    assert (restored.format, restored.shape, restored.readonly) == ("i", (3, 4), False)
    assert copy_of(flat.toreadonly()).readonly
    assert copy_of(memoryview(b"")).nbytes == 0
    assert copy_of(memoryview(bytearray(8))[::2]).tolist() == [0, 0, 0, 0]
    assert copy_of(memoryview(b"").cast("d")).format == "d"


def test_capsules_are_refused_although_dill_would_write_the_pointer() -> None:
    import datetime

    capsule = pytest.importorskip("_datetime").datetime_CAPI
    assert type(capsule).__name__ == "PyCapsule"
    with pytest.raises(TypeError, match="cannot pickle 'PyCapsule' object"):
        safepickle.dumps({"api": capsule, "now": datetime.date(2000, 1, 1)})


@pytest.mark.parametrize("protocol", range(6))
def test_standard_types_pickle_under_every_protocol(protocol: int) -> None:
    source = Node(lock=threading.Lock(), view={"a": 1}.keys(), queue=queue.SimpleQueue(), data=memoryview(b"ab"))
    restored = safepickle.loads(safepickle.dumps(source, protocol))
    assert list(restored.view) == ["a"]
    assert bytes(restored.data) == b"ab"


def test_a_class_that_says_how_it_is_pickled_is_left_to_say_so() -> None:
    restored = copy_of(Counted(threading.Lock()))
    assert restored.count == 1


class Counted(threading.Condition):
    """Is pickled its own way."""

    count = 0

    def __getstate__(self) -> dict[str, int]:
        return {"count": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__()  # type: ignore[misc]
        self.count = state["count"]


def test_dill_is_imported_only_when_a_leaf_needs_it() -> None:
    run(
        """
        import sys, threading, safepickle
        safepickle.dumps([1, {"a": object()}, threading.Lock(), threading.Event(), lambda: 1])
        assert "dill" not in sys.modules
        safepickle.dumps(super(dict, {}))
        assert "dill" in sys.modules
        """
    )


def test_plain_pickle_behaves_the_same_before_and_after_dill_is_met() -> None:
    run(
        """
        import ctypes, copyreg, io, logging, pickle, sys, threading, warnings
        import multiprocessing.reduction as reduction
        import safepickle

        class Local:
            pass

        def outcome(obj):
            file = io.BytesIO()
            try:
                pickle._Pickler(file).dump(obj)
            except Exception as error:
                return type(error), str(error).partition(" at 0x")[0]
            return file.getvalue()

        ctypes.pythonapi.PyCapsule_New.restype = ctypes.c_short

        def look():
            objects = [{}.keys(), threading.Lock(), lambda: 1, memoryview(b""), {"a": [1]}, super(Local), len, Local]
            return [
                [outcome(obj) for obj in objects],
                pickle._Pickler.dispatch.copy(), id(pickle._Pickler.dispatch), copyreg.dispatch_table.copy(),
                reduction.ForkingPickler._extra_reducers.copy(), list(warnings.filters), vars(pickle).copy(),
                {name: value for name, value in vars(ctypes.pythonapi).items() if name.startswith("PyCapsule")},
                [ctypes.pythonapi.PyCapsule_New.restype, ctypes.pythonapi.PyCapsule_New.argtypes],
                list(logging.root.handlers),
            ]

        # Each of these look-ups makes the function, which then stays.
        before = look()
        assert "dill" not in sys.modules
        assert safepickle.loads(safepickle.dumps(super(Local, Local()))).__thisclass__.__name__ == "Local"
        assert "dill" in sys.modules
        import dill
        assert look() == before
        assert list(dill.loads(dill.dumps({"dill": "works"}.keys()))) == ["dill"]
        """
    )


def test_a_caller_who_has_imported_dill_keeps_what_it_does() -> None:
    run(
        """
        import dill, pickle, safepickle
        before = pickle._Pickler.dispatch.copy()
        assert {}.keys().__class__ in before
        safepickle.dumps(super(dict, {}))
        assert pickle._Pickler.dispatch == before
        """
    )


def test_plain_pickles_of_leaves_load_in_a_fresh_process(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("first\nsecond\n", encoding="utf-8")
    target = tmp_path / "leaves.pickle"
    program = """
        import functools, queue, sys, threading
        import safepickle

        @functools.lru_cache
        def fibonacci(number):
            return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

        class Trainer:
            def __init__(self, path):
                self.lock = threading.RLock()
                self.notes = open(path)
                self.notes.readline()
                self.jobs = queue.SimpleQueue()
                self.jobs.put("job")
                self.results = {"loss": 0.5}
                self.names = self.results.keys()
                self.rule = fibonacci

        trainer = Trainer(sys.argv[1])
        with trainer.lock:
            safepickle.dump(trainer, sys.argv[2])
        trainer.notes.close()
        """
    run(program, str(path), str(target))
    program = """
        import sys, threading
        import safepickle

        trainer = safepickle.load(sys.argv[1])
        assert "dill" not in sys.modules
        thread = threading.Thread(target=trainer.lock.acquire)
        assert trainer.lock.acquire(blocking=False)
        trainer.results["accuracy"] = 0.9
        assert list(trainer.names) == ["loss", "accuracy"]
        with trainer.notes:
            print(trainer.notes.read().strip(), trainer.jobs.get(), trainer.rule(30))
        """
    assert run(program, str(target)) == "second job 832040"
    assert pickle.loads(safepickle.dumps(ctypes.c_int(3))).value == 3


OPAQUE = {
    "compressor": zlib.compressobj,
    "decompressor": zlib.decompressobj,
    "bz2": bz2.BZ2Compressor,
    "lzma": lzma.LZMACompressor,
    "hash": hashlib.sha256,
    "database": lambda: sqlite3.connect(":memory:"),
    "poll": select.poll,
    "capsule": lambda: datetime.datetime_CAPI,
    "context": contextvars.Context,
    "generator": lambda: (item for item in "ab"),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("make", OPAQUE.values(), ids=OPAQUE)
def test_what_holds_more_than_python_sees_is_refused_under_every_protocol(make: Any, protocol: int) -> None:
    held = make()
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        safepickle.dumps({"held": [held]}, protocol)
    assert caught.value.pickle_path == "$['held'][0]"  # type: ignore[attr-defined]
    if hasattr(held, "close"):
        held.close()


class Property(property):
    """Its functions are in no attribute of its own."""


@pytest.mark.parametrize("protocol", range(6))
def test_subclass_of_what_is_refused_is_refused(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        safepickle.dumps([Property(len)], protocol)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("make", [zlib.compressobj, zlib.decompressobj, select.poll, lambda: re.finditer("a", "b")])
def test_class_written_in_c_without_a_name_is_refused(make: Any, protocol: int) -> None:
    """By value it would load in the process that has it, and in no other."""
    with pytest.raises(pickle.PicklingError, match=r"Can't pickle <class") as caught:
        safepickle.dumps({"cls": type(make())}, protocol)
    assert caught.value.pickle_path == "$['cls']"  # type: ignore[attr-defined]
