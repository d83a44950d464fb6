"""Where in a pickle a name is needed: found by loading it with a placeholder for every name.

Nothing that the pickle names is imported or called, so this works whatever is missing, and runs no code of the file.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from safepickle.messages import dotted_name
from safepickle.rebuild import Stub, StubRecord, stub_class
from safepickle.tracing.naming import NEAREST, Edge, attribute_edge, item_edge, key_edge
from safepickle.tracing.path_table import PathTable

__all__ = ["find_name"]

_LEAVES: Final = frozenset({int, float, bool, complex, type(None), str, bytes, bytearray})
_MAX_OBJECTS: Final = 1_000_000


def find_name(file: object, module: str, name: str) -> tuple[str | None, str | None]:
    """Find the nearest place in a pickle's graph at which a name is needed.

    Args:
        file: The pickle, at its beginning.
        module: As the pickle has it.
        name: As the pickle has it.

    Returns:
        The path, and the dotted name of the class whose instance holds what is there; None for what is not known.
    """
    try:
        root = _SymbolicUnpickler(file).load()
    except Exception:
        # A stream of another program's persistent ids, or a damaged one, has no graph that could be looked at.
        return None, None
    wanted = stub_class(module, name)
    paths = PathTable()
    waiting: deque[tuple[Any, int, Edge, str | None]] = deque([(root, -1, NEAREST, None)])
    seen: dict[int, Any] = {}
    while waiting and len(seen) < _MAX_OBJECTS:
        value, parent, edge, owner = waiting.popleft()
        if type(value) in _LEAVES or id(value) in seen:
            continue
        seen[id(value)] = value
        number = paths.add(parent, edge)
        if value is wanted or type(value) is wanted or (isinstance(value, Stub) and wanted in _classes_of(value)):
            return paths.path(number), owner
        inner = _name_of(value) if isinstance(value, Stub) else owner
        waiting.extend((child, number, further, inner) for child, further in _children(value))
    return None, None


class _SymbolicUnpickler(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, buffers=_EndlessBuffers())

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return stub_class(module_name, global_name)

    def persistent_load(self, pid: object) -> Any:
        return pid


class _EndlessBuffers:
    """Gives an empty buffer for each that the pickle has out of band."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return b""


def _classes_of(stub: Stub) -> tuple[Any, ...]:
    """Return the class that a function of `copyreg` has made the instance of."""
    return stub.__stub__.arguments[:1] if type(stub).__module__ in ("copyreg", "copy_reg") else ()


def _name_of(stub: Stub) -> str:
    return dotted_name(next(iter(_classes_of(stub)), type(stub)))


def _children(value: object) -> Iterator[tuple[Any, Edge]]:
    if isinstance(value, dict):
        yield from _pairs(value, value.items())
    elif isinstance(value, list | tuple):
        yield from ((item, position) for position, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((item, item_edge(position)) for position, item in enumerate(value))
    elif isinstance(value, Stub):
        record: StubRecord = value.__stub__
        yield from ((item, attribute_edge(name)) for name, item in vars(value).items())
        yield from ((item, position) for position, item in enumerate(record.items))
        yield from _pairs(value, record.pairs)
        # What nobody could type stands at the place of the instance.
        yield from ((part, NEAREST) for part in (*record.arguments, *record.keywords.values(), record.state))


def _pairs(mapping: object, pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Edge]]:
    for position, (key, item) in enumerate(pairs):
        yield item, key_edge(mapping, key, position)
        yield key, item_edge(position)
