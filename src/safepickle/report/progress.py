"""A progress bar for walks that take long, where somebody is there to see it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

__all__ = ["following"]

T = TypeVar("T")

_PATIENCE: Final = 1.0
"""Seconds before a bar appears."""


def following(steps: Iterable[T]) -> Iterator[T]:
    """Pass the steps of a walk on, and show how many objects it has met once it takes longer than a moment.

    Nothing is drawn unless stderr is a terminal and tqdm is installed.
    """
    stream = sys.stderr
    if stream is None or not stream.isatty():
        yield from steps
        return
    began = time.monotonic()
    bar = None
    for count, step in enumerate(steps, 1):
        if bar is not None:
            bar.update()
        elif count % 1000 == 0 and time.monotonic() - began > _PATIENCE:
            try:
                from tqdm import tqdm
            except ModuleNotFoundError:
                began = float("inf")
            else:
                bar = tqdm(initial=count, unit=" objects", desc="explain", file=stream, leave=False)
        yield step
    if bar is not None:
        bar.close()
