"""The built-in list, what belongs to one process (locks, queues, views), written so that the copy has its own.

Files, threads and descriptors are not among them: they reach the file system, run code, or read attributes.
"""

from __future__ import annotations

from array import array
from struct import calcsize
from typing import Any, Final

from safepickle.guard.limits import Malformed, Refusal
from safepickle.guard.rules.base import (
    Rule,
    RuleContext,
    ValueInfo,
    allocate,
    count_elements,
    expect,
    hold_count,
    no_arguments,
    sizes,
)

_FORMATS: Final = {
    **dict.fromkeys("cbB?", 1), **dict.fromkeys("hH", 2), **dict.fromkeys("iIf", 4), **dict.fromkeys("qQd", 8),
    **dict.fromkeys("lLnNP", calcsize("l")),
}  # fmt: skip
"""The formats that a memory view can be cast to, with the bytes of an item."""


def _queue(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    expect(arguments)
    return ValueInfo("queue", nests=True)


def _queue_items(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    from _queue import SimpleQueue

    expect(arguments, SimpleQueue, list)
    allocate(context, 16 * len(arguments[1]))
    context.nest(*arguments)


def _view(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    hold_count(arguments, 4)
    buffer, form, shape, readonly = arguments
    length = context.length(buffer)
    if length is not None and length < 0 and type(buffer) is not array:
        raise Refusal("its first argument is no buffer")
    if type(form) is not str or type(readonly) is not bool:
        raise Refusal("it is not called as safepickle writes it")
    if form not in _FORMATS:
        raise Malformed("the format of the memory view is unknown")
    nbytes = count_elements(sizes(shape, "shape of the memory view")) * _FORMATS[form]
    if length is not None and nbytes != (memoryview(buffer).nbytes if type(buffer) is array else length):
        raise Malformed("the shape of the memory view does not fit its buffer")
    # Each view hashes all that it shows.
    context.spend(nbytes)


def _cache(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    """Allow a cache around a function that the user allows: calling one calls the other."""
    if len(arguments) != 3 or type(arguments[1]) not in (int, type(None)) or type(arguments[2]) is not bool:
        raise Refusal("it is not called as safepickle writes it")
    grant = context.grant(arguments[0])
    if grant is None or grant.listed == "built-in":
        raise Refusal("the function of the cache is not allowed: allow= has to name it")


RULES: Final[dict[tuple[str, str], Rule]] = {
    ("_thread", "allocate_lock"): Rule(no_arguments, plain=True),
    ("threading", "RLock"): Rule(no_arguments, plain=True),
    ("_queue", "SimpleQueue"): Rule(_queue, data=True, plain=True),
    ("safepickle.rebuild", "rebuild_queue_items"): Rule(_queue_items, reads=(0, 1), plain=True),
    ("safepickle.rebuild", "rebuild_memoryview"): Rule(_view, plain=True),
    ("safepickle.rebuild", "rebuild_lru_cache"): Rule(_cache),
}
