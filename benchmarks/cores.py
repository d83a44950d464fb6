"""The two columns of every benchmark: safepickle with its compiled core, and in Python alone."""

from __future__ import annotations

import os
import sys

from harness import Suite

import safepickle

__all__ = ["both_cores"]

_PURE = {"SAFEPICKLE_PURE": "1"}


def both_cores(name: str) -> Suite:
    """Return a suite that measures each case with the compiled core and, in a process beside it, without."""
    if safepickle.COMPILED:
        return Suite(name, variant=("Python alone", _PURE))
    if not _PURE.items() <= os.environ.items():
        print("the compiled core is not there: this is the column of Python alone", file=sys.stderr)
    return Suite(name)
