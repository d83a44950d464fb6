"""A progress bar for work that takes long, where somebody is there to see it.

It knows numbers, and how far a file is read, and nothing of objects. Nothing is drawn unless stderr is a terminal and
tqdm is installed, nor in a worker of `multiprocessing`, nor where ``SAFEPICKLE_PROGRESS=0`` is in the environment.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["Bar", "reading", "watching", "writing"]

_PATIENCE: Final = 1.0
"""Seconds before a bar appears."""

_INTERVAL: Final = 0.1
"""Seconds between two looks at how far the work is."""

_LARGE: Final = 2**22
"""Bytes that a file has at least for its reading to be watched."""

_UNWATCHED: Final = contextlib.nullcontext()


class Bar:
    """A bar that appears once the work has taken longer than a moment.

    Args:
        work: What is done, as the bar says it.
        unit: What is counted: ``"B"`` for bytes, which are scaled.
        total: How many there will be, or None.
    """

    def __init__(self, work: str, unit: str, total: int | None = None) -> None:
        self._look = {"desc": work, "unit": unit, "total": total, "unit_scale": unit == "B"}
        self._began = time.time()
        self._drawn: Any = None

    def show(self, position: int) -> None:
        """Draw how far the work is, unless it was drawn just now."""
        if self._drawn is not None:
            self._drawn.update(position - self._drawn.n)
        elif time.time() - self._began >= _PATIENCE:
            self._drawn = _draw(self._look)
            if self._drawn is None:
                self._began = float("inf")
            else:
                self._drawn.start_t, self._drawn.n = self._began, position
                self._drawn.refresh()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the bar away."""
        if self._drawn is not None:
            self._drawn.close()
            self._drawn = None


def writing(work: str) -> contextlib.AbstractContextManager[Bar | None]:
    """Open a bar of bytes, which is to be shown as they are written; None where nobody sees it."""
    return Bar(work, "B") if _is_watched() else _UNWATCHED


def reading(work: str, file: Any) -> contextlib.AbstractContextManager[None]:
    """Draw a bar for how far a large file is read in the block. See `watching`."""
    if _is_watched():
        position, size = _position_of(file)
        if size >= _LARGE:
            return watching(work, "B", position, size)
    return _UNWATCHED


@contextlib.contextmanager
def watching(work: str, unit: str, position: Callable[[], int], total: int | None = None) -> Iterator[None]:
    """Draw a bar for what the block does, from a thread that looks how far it is.

    Args:
        work: What is done, as the bar says it.
        unit: What is counted, as for `Bar`.
        position: Tells how far the work is.
        total: How far it will go, or None.
    """
    if not _is_watched():
        yield
        return
    done = threading.Event()

    def look() -> None:
        # A file may be closed before the block ends.
        with Bar(work, unit, total) as bar, contextlib.suppress(OSError, ValueError):
            while not done.wait(_INTERVAL):
                bar.show(position())

    thread = threading.Thread(target=look, name=f"safepickle {work}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _position_of(file: Any) -> tuple[Callable[[], int], int]:
    """Return what tells how far a file is read, without a look at its buffer, and its size: 0 where nothing tells."""
    if type(file) is io.BytesIO:
        with file.getbuffer() as view:
            return file.tell, view.nbytes
    try:
        descriptor = file.fileno()
        return lambda: os.lseek(descriptor, 0, os.SEEK_CUR), os.fstat(descriptor).st_size
    except (AttributeError, OSError, ValueError):
        return int, 0


def _is_watched() -> bool:
    """Tell whether somebody may see a bar."""
    stream = sys.stderr
    if stream is None or getattr(stream, "closed", False) or not stream.isatty():
        return False
    # Not from each of many workers. Whoever is one has imported this.
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return False
    return os.environ.get("SAFEPICKLE_PROGRESS", "1") not in ("", "0")


def _draw(look: dict[str, Any]) -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    import shutil

    # With a monitor tqdm starts a thread, which would stay.
    drawn = type("Drawn", (tqdm,), {"monitor_interval": 0})
    # A terminal that does not tell its size has none for tqdm, which then draws nothing.
    columns, rows = shutil.get_terminal_size()
    return drawn(file=sys.stderr, ncols=columns - 1, nrows=rows, miniters=0, leave=False, **look)
