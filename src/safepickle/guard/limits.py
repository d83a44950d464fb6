"""What a stream may cost, as figures; and the internal exceptions by which a rule or a reader says no.

Knows nothing of opcodes or names. The machine turns these exceptions into the public ones, with file, member and byte.
"""

from __future__ import annotations

NESTED_TUPLES = 1_000
"""Deepest nesting of tuples. CPython hashes them by recursion in C, unchecked: a million levels end the process."""

NESTED_IN_HASHED = 30
"""Deepest nesting of tuples where a class with a ``__hash__`` of its own is allowed, which can start over at each of
Python's own thousand levels."""

NESTED_FREED = 200
"""Deepest nesting of what C frees by recursion: arrays of objects, deques, defaultdicts, queues."""

NESTED_FREED_OBJECTS = 5_000
"""Most of these that nest more than two levels of their kind."""

OPEN_MARKS = 1_000_000
"""Most containers that may be open at once. CPython 3.14 nests them as deep as its stack is large: 20,000 objects in
8 MB. What is hashed or compared, and so followed by recursion in C, has narrower limits."""

MEMO_GAP = 1 << 20
"""How far a memo index may lie beyond the number of objects in the memo. Stock pickle makes an array as long as the
largest index: one opcode would claim 32 GB."""

WORK_PER_BYTE = 64
WORK_FLOOR = 1 << 26
"""What is done with values is charged by size; a stream may spend `WORK_FLOOR`, and `WORK_PER_BYTE` for each byte."""

ALLOCATED = 2
"""What allocating and filling a byte costs, in units of work: it takes time, and it stays."""

EQUAL_HASHES = 256
"""Most keys of one container that may share a hash: more make its lookups quadratic."""

DIGITS = 4_300
"""Longest decimal number, as in `sys.int_info.default_max_str_digits`: reading one is quadratic in its digits."""

PATH = 32_767
"""Longest path: the longest that any system takes."""

EXPONENT = 10_000
"""Largest exponent of a decimal number: arithmetic on larger ones writes the zeros out."""

LONGEST_NAME = 1_000
"""Longest module and name together, in characters."""

NESTED_LOADS = 4
"""How deep a pickle may hold bytes that are themselves a file to load, as torch's storages do."""

NESTED_LOAD_WORK = 1 << 14
NESTED_LOAD_AGAIN = 1 << 20
"""What loading a file inside a pickle is charged beside its length; and one that was loaded before."""

DTYPE_PARTS = 4_096
DTYPE_LEVELS = 32
"""Most element types that a dtype may be made of, and how deep: what hashes or frees it goes through all of them."""

DIMENSIONS = 64
"""Most dimensions of an array or a tensor."""

EXPANDED = 1 << 31
"""Most elements of a tensor that shows its storage more than once (a stride of 0)."""


UNPACKED_FLOOR = 1 << 28
UNPACKED_PER_BYTE = 128
"""What a compressed file may unpack to: `UNPACKED_FLOOR`, or `UNPACKED_PER_BYTE` for each byte if that is more."""


def most_unpacked(size: int) -> int:
    """Return how many bytes a compressed file of `size` may unpack to."""
    return max(UNPACKED_FLOOR, UNPACKED_PER_BYTE * size)


class Refusal(Exception):
    """What the stream asks for is not allowed.

    Args:
        reason: Why.
        allow: What to add to ``allow=`` after a review, where that would help.
    """

    def __init__(self, reason: str, allow: str | None = None) -> None:
        super().__init__(reason)
        self.allow = allow


class Malformed(Exception):
    """The stream contradicts itself or its length; the text says how."""


class LimitExceeded(Exception):
    """The stream is within the grammar, but costs more than it may; the text says what."""


_PLAIN_TEXTS = frozenset({BaseException.__str__, KeyError.__str__, OSError.__str__, UnicodeDecodeError.__str__})
_LONGEST_MESSAGE = 1_000


def told(error: BaseException) -> str:
    """Describe an exception without running code of its own, or the ``repr`` of what it carries."""
    name = type(error).__name__
    plain = type(error).__str__ in _PLAIN_TEXTS and all(type(part) in (str, int, bytes) for part in error.args)
    return f"{name}: {str(error)[:_LONGEST_MESSAGE]}" if plain else name
