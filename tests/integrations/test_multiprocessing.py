"""`multiprocessing` contexts that pickle with safepickle."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import threading
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any

import pytest

import safepickle
from engine_objects import (
    Node,
    Orphan,
    fail_on_a_generator,
    fail_with_a_path,
    is_orphan,
    is_whole,
    lines,
    tells_the_path,
    tells_where,
    there_and_back,
    tree,
    unpicklable,
)
from safepickle.integrations.multiprocessing import context


@pytest.fixture(scope="module", params=["spawn", "forkserver"])
def ctx(request: pytest.FixtureRequest) -> Any:
    return context(request.param)


@pytest.fixture(scope="module")
def pool(ctx: Any) -> Iterator[Any]:
    with ctx.Pool(1) as pool:
        yield pool


def linked() -> list[Any]:
    """The least that a stock pickler refuses."""
    node = Node.__new__(Node)
    return [node, weakref.ref(node)]


def serve(requests: Any, replies: Any) -> None:
    """Answer each tree with what was seen here, and the tree; None ends it."""
    for root in iter(requests.get, None):
        replies.put(there_and_back(root))
        if hasattr(requests, "task_done"):
            requests.task_done()


def serve_pipe(end: Any) -> None:
    end.send(there_and_back(end.recv()))


def test_stock_contexts_cannot_send_a_parent_pointer() -> None:
    first, _ = multiprocessing.get_context("spawn").Pipe()
    with pytest.raises(TypeError, match="cannot pickle 'weakref"):
        first.send(linked())


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queues_and_processes(ctx: Any, kind: str) -> None:
    requests, replies = getattr(ctx, kind)(), ctx.Queue()
    root = tree()
    process = ctx.Process(target=serve, args=(requests, replies))
    process.start()
    requests.put(root)
    was_whole, copied = replies.get(timeout=60)
    assert was_whole
    assert is_whole(copied)
    requests.put(None)
    process.join()
    assert process.exitcode == 0
    assert is_whole(root)


def test_pipes_and_weak_references_among_the_arguments_of_a_process(ctx: Any) -> None:
    here, there = ctx.Pipe()
    process = ctx.Process(target=serve_pipe, args=(there,))
    process.start()
    here.send(tree())
    was_whole, copied = here.recv()
    process.join()
    assert was_whole
    assert is_whole(copied)


def test_a_process_with_a_parent_pointer_to_itself(ctx: Any) -> None:
    replies = ctx.SimpleQueue()
    process = ctx.Process(target=report_on, args=(replies, root := tree()))
    process.helper = Node("helper")
    process.helper.parent = weakref.ref(process)
    process.start()
    assert replies.get() == (True, True)
    process.join()
    assert is_whole(root)


def report_on(replies: Any, root: Node) -> None:
    process: Any = multiprocessing.current_process()
    replies.put((process.helper.parent() is process, is_whole(root)))


def test_pools(pool: Any) -> None:
    for was_whole, copied in pool.map(there_and_back, [tree(), tree()]):
        assert was_whole
        assert is_whole(copied)
    assert pool.apply(lambda node: node.children[0].parent() is node, (tree(),))


def test_an_error_with_a_path_comes_back_whole_from_a_pool(pool: Any) -> None:
    with pytest.raises(safepickle.WeakReferenceError, match="cannot pickle the weak reference") as caught:
        pool.apply(fail_with_a_path)
    assert caught.value.referent_type == "engine_objects.Node"
    with pytest.raises(TypeError, match="cannot pickle 'generator' object") as failed:
        pool.apply(fail_on_a_generator)
    assert tells_where(failed.value)


@pytest.mark.parametrize(("function", "argument"), [(is_whole, unpicklable()), (unpicklable, None)])
def test_what_a_pool_cannot_send_has_its_path_in_the_outer_error(pool: Any, function: Any, argument: Any) -> None:
    for call in (pool.apply, pool.map):
        with pytest.raises((TypeError, MaybeEncodingError), match="cannot pickle 'generator' object") as caught:
            call(function, (argument,))
        assert tells_the_path(caught.value)


@pytest.mark.parametrize(("function", "argument"), [(is_whole, unpicklable()), (unpicklable, None)])
def test_what_an_executor_cannot_send_has_its_path(ctx: Any, function: Any, argument: Any) -> None:
    with (
        ProcessPoolExecutor(1, mp_context=ctx) as executor,
        pytest.raises(TypeError, match="cannot pickle 'generator' object") as caught,
    ):
        executor.submit(function, argument).result(timeout=60)
    assert tells_the_path(caught.value)


def test_warnings_point_at_the_line_that_sends(ctx: Any, pool: Any) -> None:
    child = Orphan(parent := Node("parent"))
    queue, (end, other_end) = ctx.Queue(), ctx.Pipe()
    with warnings.catch_warnings(record=True) as caught, ProcessPoolExecutor(1, mp_context=ctx) as executor:
        warnings.simplefilter("always", safepickle.WeakReferenceWarning)
        assert pool.apply(is_orphan, (child,))
        assert pool.map(is_orphan, [child]) == [True]
        assert executor.submit(is_orphan, child).result(timeout=60)
        queue.put(child)
        received = queue.get(timeout=60)
        end.send(child)
        assert is_orphan(other_end.recv())
    assert is_orphan(received)
    assert lines(caught) == {
        "assert pool.apply(is_orphan, (child,))",
        "assert pool.map(is_orphan, [child]) == [True]",
        "assert executor.submit(is_orphan, child).result(timeout=60)",
        "queue.put(child)",
        "end.send(child)",
    }
    assert child.parent() is parent


def test_pool_reports_what_it_cannot_send(pool: Any) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.apply(print, (_Unpicklable(),))


class _Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle this one")


def test_process_pool_executor(ctx: Any) -> None:
    with ProcessPoolExecutor(1, mp_context=ctx) as executor:
        was_whole, copied = executor.submit(there_and_back, tree()).result(timeout=60)
        assert was_whole
        assert is_whole(copied)
        assert executor.submit(lambda node: node.children[1].parent() is node, tree()).result(timeout=60)
        with pytest.raises(safepickle.WeakReferenceError, match="cannot pickle the weak reference"):
            executor.submit(fail_with_a_path).result(timeout=60)
        with pytest.raises(TypeError, match="cannot pickle this one"):
            executor.submit(print, _Unpicklable()).result(timeout=60)
        assert executor.submit(len, "still works").result(timeout=60) == len("still works")


def test_connections_are_sent_through_connections(ctx: Any) -> None:
    carrier, end = ctx.Pipe()
    here, there = ctx.Pipe()
    carrier.send(there)
    received = end.recv()
    received.send(tree())
    assert is_whole(here.recv())


def test_queue_keeps_its_limit_and_its_timeout(ctx: Any) -> None:
    limited = ctx.Queue(1)
    limited.put(tree())
    with pytest.raises(queue.Full, match=r"^$"):
        limited.put("one too many", block=False)
    assert is_whole(limited.get(timeout=60))
    with pytest.raises(queue.Empty, match=r"^$"):
        limited.get(timeout=0.01)


def test_stock_contexts_are_as_they_were() -> None:
    stock = multiprocessing.get_context("spawn")
    assert type(stock.Queue()) is multiprocessing.queues.Queue
    assert multiprocessing.reduction.ForkingPickler.__mro__[1] is pickle.Pickler
    with ProcessPoolExecutor(1, mp_context=stock) as executor, pytest.raises(TypeError, match="cannot pickle 'weakref"):
        executor.submit(there_and_back, linked()).result(timeout=60)


def test_fork_context_and_default_method() -> None:
    assert context("fork").get_start_method() == "fork"
    assert context().get_start_method() == multiprocessing.get_context().get_start_method()
    with pytest.raises(ValueError, match="cannot find context for 'teleport'"):
        context("teleport")


def test_pipes_between_threads() -> None:
    here, there = context("fork").Pipe(duplex=False)
    root = tree()
    sender = threading.Thread(target=there.send, args=(root,))
    sender.start()
    copied = here.recv()
    sender.join()
    assert is_whole(copied)
