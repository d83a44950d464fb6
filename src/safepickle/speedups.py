"""Which core is on: the compiled one, or the one in Python, which is always there.

`_speedups` is written in C and optional: an install without a compiler, a free-threaded interpreter, and
``SAFEPICKLE_PURE=1`` in the environment go without it. Bytes, verdicts and errors are the same, and each rule is in
Python alone.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING or os.environ.get("SAFEPICKLE_PURE", "0") not in ("", "0"):
    _speedups: Any = None
else:
    try:
        _speedups = importlib.import_module("safepickle._speedups")
    except ImportError:
        _speedups = None

__all__ = ["COMPILED", "PURE", "Core", "State", "current"]

COMPILED: Final[bool] = _speedups is not None
"""Whether the compiled core is on."""


class State:
    """The attributes of a dump that are read and set for every object. See `Dump`."""

    visited: Any
    linkable: Any
    expected: Any
    tracking: bool


if not TYPE_CHECKING and COMPILED:
    State = _speedups.State


class Core(NamedTuple):
    """What a pickler, and a guarded load, take from a core.

    Attributes:
        id_set: A set of ids: ``set``, or one that holds each as an address.
        override: Makes what the C pickler calls for all but exact builtins, from a type table and the root of a walk;
            None for the table's own method.
        verifier: Tells which pickles need no rule of the guard, for `guard.verified`; None to ask the rules each time.
    """

    id_set: Any
    override: Any
    verifier: Any


PURE: Final = Core(set, None, None)
# A binary that an older checkout has left here has no verifier.
_VERIFIER = getattr(_speedups, "Verifier", None)
current: Final = Core(_speedups.AddressSet, _speedups.Override, _VERIFIER) if COMPILED else PURE
