"""What CPython keeps to itself, and where it keeps it: it differs between versions, and is known here alone.

What `copy.deepcopy` asks of a memo stands in `copying.stdlib_copy`.
"""

from __future__ import annotations

import builtins
import gc
import itertools
import os
import sys
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

__all__ = [
    "FROZENDICT",
    "after_fork_in_child",
    "annotate_of_undefined",
    "cached_property",
    "class_of_descriptor",
    "count_notes_of_pickle",
    "drop_notes_of_pickle",
    "initializer_of_thread_pool",
    "is_method_of_c",
    "items_of_simple_queue",
    "without_annotations",
]

FROZENDICT: Final[type | None] = getattr(builtins, "frozendict", None)
"""`frozendict`, which is a builtin from 3.15 on."""

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:
        """`functools.cached_property` without the lock that it takes in 3.11.

        One lock serves all instances of a class there. A process that is forked while another thread holds it would
        wait for it for ever.
        """

        def __init__(self, make):
            self._make = make

        def __set_name__(self, owner, name):
            self._name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = vars(instance)[self._name] = self._make(instance)
            return value


def after_fork_in_child(renew: Callable[[], object]) -> None:
    """Have locks renewed in each forked child, where there are forks: a thread that it lacks may hold the old ones."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def items_of_simple_queue(queue: Any) -> list[Any]:
    """Return what is in a `queue.SimpleQueue`, in order.

    Source:
        ``simplequeue_traverse`` in CPython Modules/_queuemodule.c: up to 3.12 it visits one list, whose first places
        are already taken; from 3.13 on the items, in order, and then the type.
    """
    found: list[Any] = gc.get_referents(queue)
    size = queue.qsize()
    if sys.version_info < (3, 13):
        items = next(item for item in found if type(item) is list)
        found = items[len(items) - size :]
    return found[:size]


def initializer_of_thread_pool(pool: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the initializer of a `ThreadPoolExecutor` or an `InterpreterPoolExecutor`, and its arguments.

    Source:
        CPython Lib/concurrent/futures/thread.py and interpreter.py: from 3.14 on a pool keeps what makes a context for
        each worker, and the context knows them.
    """
    if sys.version_info < (3, 14):
        return pool._initializer, pool._initargs
    context = pool._create_worker_context()
    if hasattr(context, "initializer"):
        return context.initializer, context.initargs
    initializer, arguments, _ = context.initdata or (None, (), {})
    return initializer, arguments


def class_of_descriptor(descriptor: Any) -> type:
    """Return a class whose namespace holds a descriptor that C has made.

    From 3.15 on all classes share one descriptor for ``__dict__`` and one for ``__weakref__``. These say that they are
    those of `object`, in whose namespace they are not.

    Source:
        ``type_add_getset`` and its callers in CPython Objects/typeobject.c.
    """
    cls: type = descriptor.__objclass__
    if cls is object and descriptor.__name__ not in vars(object):
        # Every class written in Python has both, and this one has its name in every version.
        return weakref.WeakSet
    return cls


def annotate_of_undefined(function: types.FunctionType) -> Any:
    """Return what would compute the annotations of a function, if it fails to; else None.

    From 3.14 on annotations are computed when they are asked for, and may name what only type checkers import.
    """
    annotate = getattr(function, "__annotate__", None)
    if annotate is not None:
        try:
            function.__annotations__  # noqa: B018 (it computes them)
        except Exception:
            return annotate
    return None


def without_annotations(function: types.FunctionType) -> types.FunctionType:
    """Return the same function, but for its annotations."""
    bare = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    bare.__kwdefaults__ = function.__kwdefaults__
    bare.__dict__.update(function.__dict__)
    for name in ("__qualname__", "__module__", "__doc__"):
        setattr(bare, name, getattr(function, name))
    return bare


def is_method_of_c(function: Any, owner: object) -> bool:
    """Tell whether a function is a method of an object that its class has from C.

    From 3.13 on every `pickle.Unpickler` has a ``persistent_load``, which only raises.
    """
    return isinstance(function, types.BuiltinFunctionType) and function.__self__ is owner


def count_notes_of_pickle(error: BaseException) -> int:
    """Count the notes by which the C pickler says where it has failed, from 3.14 on: one for each step to the root."""
    return sum(map(_is_note_of_pickle, getattr(error, "__notes__", ())))


def drop_notes_of_pickle(error: BaseException, kept: int = 0) -> None:
    """Remove the notes by which the C pickler says where it has failed.

    Args:
        error: What a dump has raised.
        kept: How many to keep: the first ones come from the depth of the graph.
    """
    if count_notes_of_pickle(error) <= kept:
        return
    number = itertools.count()
    error.__notes__ = [note for note in error.__notes__ if not _is_note_of_pickle(note) or next(number) < kept]
    if not error.__notes__:
        del error.__notes__


def _is_note_of_pickle(note: object) -> bool:
    return isinstance(note, str) and note.startswith("when serializing ")
