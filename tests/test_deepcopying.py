"""`safepickle.deepcopying`: inside the block, and there alone, `copy.deepcopy` gets weak references right."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from copy import deepcopy as bound_before
from typing import Any

import pytest

import safepickle
from nodes import Node
from safepickle.copying.stdlib_copy import FOLLOWED


def make_tree() -> Node:
    root = Node(child=Node())
    root.child.parent = weakref.ref(root)
    return root


def is_whole(copied: Node) -> bool:
    return copied.child.parent() is copied


@pytest.fixture(autouse=True)
def _leaves_the_module_as_it_was() -> Iterator[None]:
    before, table = dict(vars(copy)), dict(copy._deepcopy_dispatch)  # type: ignore[attr-defined]
    yield
    assert dict(vars(copy)) == before
    # From 3.14 on entries that share, as `copy.deepcopy` does without them, stay there.
    left = {cls: copier for cls, copier in copy._deepcopy_dispatch.items() if cls not in FOLLOWED}  # type: ignore[attr-defined]
    assert left == {cls: copier for cls, copier in table.items() if cls not in FOLLOWED}
    assert type(copy._deepcopy_dispatch) is dict  # type: ignore[attr-defined]


def test_names_bound_before_and_after_are_all_the_same() -> None:
    tree = make_tree()
    with safepickle.deepcopying():
        from copy import deepcopy as bound_within

        for function in (copy.deepcopy, bound_before, bound_within):
            assert is_whole(function(tree))
    assert not is_whole(copy.deepcopy(tree))
    assert not is_whole(bound_within(tree))
    assert bound_before is copy.deepcopy


def test_what_others_rely_on_holds_in_the_block() -> None:
    memo: dict[Any, Any] = {}
    shared = Node()
    with safepickle.deepcopying():
        first, second = copy.deepcopy([shared], memo), copy.deepcopy((shared,), memo)
        assert first[0] is second[0] is memo[id(shared)]
        assert copy.deepcopy(5) == 5
        assert copy.deepcopy(Node) is Node
        assert copy.deepcopy({"a": (1, [2])}) == {"a": (1, [2])}
        assert copy.copy(shared) is not shared
        with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
            copy.deepcopy([(one for one in "ab")])


def test_a_memo_that_keeps_something_out_does_so() -> None:
    tree, outside = make_tree(), Node()
    tree.outside = outside
    with safepickle.deepcopying():
        copied = copy.deepcopy(tree, {id(outside): outside})
    assert copied.outside is outside
    assert is_whole(copied)


def test_blocks_nest_and_end_with_an_error() -> None:
    tree = make_tree()
    with safepickle.deepcopying():
        with safepickle.deepcopying():
            assert is_whole(copy.deepcopy(tree))
        with pytest.raises(ZeroDivisionError, match="by zero"), safepickle.deepcopying():
            raise ZeroDivisionError("by zero")
        assert is_whole(copy.deepcopy(tree))
    assert not is_whole(copy.deepcopy(tree))


def test_it_decorates_a_function() -> None:
    @safepickle.deepcopying()
    def duplicate(tree: Node) -> Node:
        return copy.deepcopy(tree)

    assert is_whole(duplicate(make_tree()))
    assert is_whole(duplicate(make_tree()))


def test_other_threads_get_what_they_always_get() -> None:
    tree, found, begin, end = make_tree(), [], threading.Event(), threading.Event()

    def work() -> None:
        begin.wait(10)
        found.append(is_whole(copy.deepcopy(tree)))
        end.set()

    thread = threading.Thread(target=work)
    # From 3.14 on a thread may inherit the context of the one that starts it.
    contextvars.Context().run(thread.start)
    with safepickle.deepcopying():
        begin.set()
        assert end.wait(10)
        assert is_whole(copy.deepcopy(tree))
    thread.join()
    assert found == [False]


def test_many_threads_enter_and_leave_in_any_order() -> None:
    tree = make_tree()
    wrong: list[bool] = []

    def work(is_inside: bool) -> None:
        for _ in range(50):
            if is_inside:
                with safepickle.deepcopying():
                    copied = copy.deepcopy(tree)
            else:
                copied = copy.deepcopy(tree)
            if is_whole(copied) != is_inside:
                wrong.append(is_inside)

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        contextvars.Context().run(thread.start)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_tasks_get_what_they_always_get() -> None:
    tree = make_tree()
    found: list[tuple[str, bool]] = []

    async def inside(ready: asyncio.Event, done: asyncio.Event) -> None:
        with safepickle.deepcopying():
            started = asyncio.create_task(late(done))
            ready.set()
            await asyncio.sleep(0)
            found.append(("inside", is_whole(copy.deepcopy(tree))))
            found.append(("started inside", await asyncio.create_task(duplicate())))
        done.set()
        await started

    async def duplicate() -> bool:
        return is_whole(copy.deepcopy(tree))

    async def late(done: asyncio.Event) -> None:
        await done.wait()
        with contextvars.Context().run(safepickle.deepcopying):  # another block that is open elsewhere
            pass
        found.append(("started inside, after its end", await duplicate()))

    async def outside(ready: asyncio.Event) -> None:
        await ready.wait()
        found.append(("outside", await duplicate()))

    async def main() -> None:
        ready, done = asyncio.Event(), asyncio.Event()
        await asyncio.gather(outside(ready), inside(ready, done))

    asyncio.run(main())
    assert dict(found) == {
        "inside": True,
        "started inside": True,
        "started inside, after its end": False,
        "outside": False,
    }


def test_a_block_that_is_left_in_another_context() -> None:
    tree = make_tree()
    block = safepickle.deepcopying()
    contextvars.copy_context().run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)
    assert not is_whole(copy.deepcopy(tree))


def test_what_is_registered_with_copy_meanwhile_stays_registered() -> None:
    class Own:
        pass

    table: Any = copy._deepcopy_dispatch  # type: ignore[attr-defined]
    with safepickle.deepcopying():
        copy._deepcopy_dispatch[Own] = lambda obj, memo: "own"  # type: ignore[attr-defined]
        assert Own in copy._deepcopy_dispatch  # type: ignore[attr-defined]
        assert len(copy._deepcopy_dispatch) == len(list(copy._deepcopy_dispatch)) == len(table)  # type: ignore[attr-defined]
    assert copy.deepcopy([Own()]) == ["own"]
    with safepickle.deepcopying():
        assert copy.deepcopy([Own()]) == ["own"]
        del copy._deepcopy_dispatch[Own]  # type: ignore[attr-defined]
    assert Own not in table


@pytest.mark.parametrize("finalizers", ["dead", "rearm"])
def test_finalizers_follow_the_keyword(finalizers: Any) -> None:
    log: list[str] = []
    node = Node(log=log)
    node.finalizer = weakref.finalize(node, log.append, "gone")
    with safepickle.deepcopying(finalizers=finalizers):
        copied = copy.deepcopy(node)
    assert copied.finalizer.alive == (finalizers == "rearm")
    copied.finalizer.detach()
    node.finalizer.detach()


def test_unknown_word_for_finalizers_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"finalizers='armed' is not known"),
        safepickle.deepcopying(finalizers="armed"),  # type: ignore[arg-type]
    ):
        pass


# A `__deepcopy__` that copies its parts without the memo


class Forgetful(Node):
    """Copies its parts without handing the memo on, as pandas does."""

    def __deepcopy__(self, memo: Any = None) -> Forgetful:
        copied = type(self)()
        for name, value in vars(self).items():
            setattr(copied, name, copy.deepcopy(value))
        return copied


class Assigning(Node):
    """The same with the parts put into a new container."""

    def __deepcopy__(self, memo: Any) -> Assigning:
        return Assigning(held=dict(copy.deepcopy(self.held)))


def _in_a_block(obj: Any) -> Any:
    with safepickle.deepcopying():
        return copy.deepcopy(obj)


def _by_method_alone(obj: Any) -> Any:
    with safepickle.deepcopying():
        return [each.__deepcopy__() if type(each) is Forgetful else each for each in obj]


@pytest.mark.parametrize("duplicate", [safepickle.deepcopy, _in_a_block])
def test_references_below_a_method_that_forgets_the_memo(duplicate: Callable[[Any], Any]) -> None:
    owner, later = Node(), Node()
    forgetful = Forgetful(owner=weakref.ref(owner), later=(weakref.ref(later),), held={"later": weakref.ref(later)})
    forgetful.me, forgetful.call = [weakref.ref(forgetful)], lambda: later
    assigning = Assigning(held={"later": weakref.ref(later), "lock": threading.Lock()})
    assigning.held["me"] = weakref.ref(assigning)
    owner.parts, owner.later = [forgetful, assigning], later
    copied = duplicate(owner)
    first, second = copied.parts
    assert first.owner() is copied
    assert first.later[0]() is first.held["later"]() is second.held["later"]() is copied.later
    assert first.me[0]() is first
    assert first.call() is copied.later
    assert second.held["me"]() is second
    assert forgetful.owner() is owner


def test_a_method_that_is_called_by_itself_has_one_memo_for_all_its_parts() -> None:
    forgetful = Forgetful(shared=Node())
    forgetful.child = Node(parent=weakref.ref(forgetful), shared=weakref.ref(forgetful.shared))
    with safepickle.deepcopying():
        copied = forgetful.__deepcopy__()
    assert copied.child.parent() is copied
    assert copied.child.shared() is copied.shared
    assert forgetful.__deepcopy__().child.parent() is forgetful


def test_a_method_that_wants_two_copies_gets_two() -> None:
    class Twins(Node):
        def __deepcopy__(self, memo: Any = None) -> Twins:
            return Twins(pair=[copy.deepcopy(self.pattern), copy.deepcopy(self.pattern)])

    twins = Twins(pattern=make_tree())
    with safepickle.deepcopying():
        for copied in (safepickle.deepcopy(twins), copy.deepcopy(twins), twins.__deepcopy__()):
            first, second = copied.pair
            assert first is not second
            assert is_whole(first)
            assert is_whole(second)


def test_a_method_that_hides_itself_while_it_copies() -> None:
    class Hiding(Node):
        def __deepcopy__(self, memo: Any) -> Any:
            self.__deepcopy__ = None  # type: ignore[method-assign, assignment]
            try:
                copied = copy.deepcopy(self, memo)
            finally:
                del self.__deepcopy__
            copied.by = "method"
            return copied

    hiding = Hiding()
    hiding.child = Node(parent=weakref.ref(hiding))
    copied = safepickle.deepcopy([hiding])[0]
    assert copied.child.parent() is copied
    assert copied.by == "method"


def test_nothing_is_kept_alive_when_the_block_has_ended() -> None:
    forgetful = Forgetful(child=Node())
    watched = weakref.ref(forgetful), weakref.ref(forgetful.child)
    with safepickle.deepcopying():
        forgetful.__deepcopy__()
    del forgetful
    gc.collect()
    assert [each() for each in watched] == [None, None]
