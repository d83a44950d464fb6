"""Where in a pickle a name is needed: found by loading it with a placeholder for every name.

Nothing that the pickle names is imported or called, so this works whatever is missing, and runs no code of the file.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from safepickle.rebuild import Stub, StubRecord, stub_class

__all__ = ["find_name"]

_LEAVES: Final = frozenset({int, float, bool, complex, type(None), str, bytes, bytearray})
_MAX_OBJECTS: Final = 1_000_000


def find_name(file: Any, module: str, name: str) -> tuple[str | None, str | None]:
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
    waiting: deque[tuple[Any, str, str | None]] = deque([(root, "$", None)])
    seen: dict[int, Any] = {}
    while waiting and len(seen) < _MAX_OBJECTS:
        value, path, owner = waiting.popleft()
        if type(value) in _LEAVES or id(value) in seen:
            continue
        seen[id(value)] = value
        if value is wanted or type(value) is wanted or (isinstance(value, Stub) and wanted in _classes_of(value)):
            return path, owner
        inner = _name_of(value) if isinstance(value, Stub) else owner
        waiting.extend((child, where, inner) for child, where in _children(value, path))
    return None, None


class _SymbolicUnpickler(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, buffers=_EndlessBuffers())

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return stub_class(module_name, global_name)

    def persistent_load(self, pid: Any) -> Any:
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
    cls: Any = next(iter(_classes_of(stub)), type(stub))
    return f"{cls.__module__}.{cls.__qualname__}"


def _children(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    if isinstance(value, dict):
        yield from _pairs(value.items(), path)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield item, f"{path}[{position}]"
    elif isinstance(value, set | frozenset):
        for position, item in enumerate(value):
            yield item, f"list({path})[{position}]"
    elif isinstance(value, Stub):
        record: StubRecord = value.__stub__
        for name, item in vars(value).items():
            yield item, f"{path}.{name}"
        for position, item in enumerate(record.items):
            yield item, f"{path}[{position}]"
        yield from _pairs(record.pairs, path)
        # What has no name of its own stands at the place of the instance.
        for part in (*record.arguments, *record.keywords.values(), record.state):
            yield part, path


def _pairs(pairs: Any, path: str) -> Iterator[tuple[Any, str]]:
    for position, (key, item) in enumerate(pairs):
        plain = type(key) in (str, int, bool, float) and len(repr(key)) <= 60
        yield item, f"{path}[{key!r}]" if plain else f"list({path}.values())[{position}]"
        yield key, f"list({path})[{position}]"
