"""Pickles that need no rule: the compiled core reads them first, and what it grants goes to the C unpickler.

`_speedups.Verifier` takes numbers, text, bytes, exact containers, instances of plain classes and weak references to
these, and nothing else. What it does not grant goes to the machine, which alone refuses and says why. So verdicts are
the same with it and without.
"""

from __future__ import annotations

import pickle
import sys
import weakref
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, NamedTuple

from safepickle import speedups
from safepickle.guard.guarded import ARGUMENT, ATTRIBUTE
from safepickle.guard.limits import EQUAL_HASHES, NESTED_TUPLES, OPEN_MARKS, WORK_FLOOR, WORK_PER_BYTE
from safepickle.guard.source import Source
from safepickle.guard.users_state import is_plain

__all__ = ["FindPlain", "load_verified"]

FindPlain = Callable[[str, str, int], "type | None"]
"""Returns what a name stands for under a protocol, if it needs no rule: a plain class, or `weakref.ref`; else None."""

_LARGEST: Final = 1 << 20
"""Longest payload where a stream is copied to be read ahead: the machine reads longer ones as fast, and once."""


class _Verified(NamedTuple):
    """A pickle that needs no rule: bytes that begin with it, its end in the source, and what its names stand for."""

    data: bytes | memoryview
    end: int
    names: dict[tuple[str, str], type]


def load_verified(source: Source, find: FindPlain) -> tuple[Any] | None:
    """Load the next pickle of `source` by the C unpickler, if it needs no rule.

    Args:
        source: Stands behind the pickle afterwards, or where it stood.
        find: Is asked for each name.

    Returns:
        A tuple of the object, or None where the machine has to decide.
    """
    if speedups.current.verifier is None:
        return None
    try:
        verified = _verify(source, find)
        if verified is None:
            return None
        loaded = _unpickle(verified)
        source.finish(verified.end)
    except Exception:
        # Whatever it is, the machine meets it again, and says what it is and where.
        return None
    return (loaded,)


def _verify(source: Source, find: FindPlain) -> _Verified | None:
    verifier: Any = None
    with closing(source.ahead()) as pieces:
        for data, start in pieces:
            verifier = verifier or speedups.current.verifier(
                find,
                weakref.ref,
                start,
                floor=WORK_FLOOR,
                per_byte=WORK_PER_BYTE,
                argument=ARGUMENT,
                attribute=ATTRIBUTE,
                equal_hashes=EQUAL_HASHES,
                marks=OPEN_MARKS,
                levels=NESTED_TUPLES,
                payload=sys.maxsize if data is source.data else _LARGEST,
            )
            end = verifier.read(data)
            # To import one class may have changed another.
            if end and all(named is weakref.ref or is_plain(named) for named in verifier.names.values()):
                return _Verified(memoryview(data)[start:end] if start else data, end, verifier.names)
            if end is not None:
                break
    return None


def _unpickle(verified: _Verified) -> Any:
    if not verified.names:
        return pickle.loads(verified.data)
    unpickler = _Pinned(_Whole(verified.data))
    unpickler.names = verified.names
    return unpickler.load()


class _Pinned(pickle.Unpickler):
    """Takes for each name what was found when the pickle was verified."""

    names: dict[tuple[str, str], type]

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return self.names[module_name, global_name]


class _Whole:
    """A file that the C unpickler reads at once, and not by the frame or the opcode: it looks ahead where it can."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data

    def peek(self, size: int) -> bytes | memoryview:
        return self._data

    def read(self, size: int) -> bytes:
        return b""

    def readline(self) -> bytes:
        return b""
