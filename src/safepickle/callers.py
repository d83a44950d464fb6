"""Where a warning points: at the line of the user's own code that has led here.

Other libraries may stand between that line and this package: ``torch.save``, a trainer, an engine and its threads.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, NamedTuple

__all__ = ["Place", "is_ignored", "place_of_user", "pointing_at", "warn"]


class Place(NamedTuple):
    """A line of code, as `warnings.warn_explicit` takes it."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


_STANDARD_LIBRARY: Final = (os.path.dirname(os.__file__) + os.sep, "<frozen ")
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_SPAWNING: Final = ("multiprocessing.spawn", "multiprocessing.forkserver")

_told: contextvars.ContextVar[Place | None] = contextvars.ContextVar("safepickle_place", default=None)


def warn(warning: Warning) -> None:
    """Issue a warning that points at the user's own line, or where there is none at the caller of this package."""
    place = _told.get() or place_of_user()
    if place is None:
        frame = _caller_of_package(sys._getframe(1))
        place = _place(frame or sys._getframe(1))
    warnings.warn_explicit(warning, type(warning), *place)


def is_ignored(category: type[Warning]) -> bool:
    """Tell whether all warnings of a category are ignored, so that it does not matter what they say."""
    for action, message, of, module, lineno in warnings.filters:
        if issubclass(category, of):
            return action == "ignore" and message is module is None and not lineno
    return False


def place_of_user() -> Place | None:
    """Return the innermost line of this thread that belongs to no installed library and not to Python's own.

    A thread that an engine has made for itself has none. Where the main thread waits in the same engine, it is the
    line of the main thread.
    """
    here = sys._getframe(1)
    frame, _ = _users_frame(here)
    if frame is None:
        frame = _waiting_frame(here)
    return frame and _place(frame)


@contextlib.contextmanager
def pointing_at(place: Place | None) -> Iterator[None]:
    """Let the warnings of this context point at a line that was noted before, in another thread."""
    token = _told.set(place)
    try:
        yield
    finally:
        _told.reset(token)


def _users_frame(frame: FrameType | None) -> tuple[FrameType | None, set[str]]:
    """Return the innermost frame of the user's own code, and the libraries whose frames are within."""
    within: set[str] = set()
    called = ""
    while frame is not None:
        library = _library_of(frame)
        # What starts a process of multiprocessing is a line of nobody's.
        if library is None and called not in _SPAWNING:
            break
        within.add(library or "")
        called = _name(frame)
        frame = frame.f_back
    return frame, within


def _waiting_frame(here: FrameType) -> FrameType | None:
    main = threading.main_thread().ident
    engine = _caller_of_package(here)
    if engine is None or main is None or main == threading.get_ident():
        return None
    frame, within = _users_frame(sys._current_frames().get(main))
    return frame if _library_of(engine) in within else None


def _caller_of_package(frame: FrameType | None) -> FrameType | None:
    while frame is not None and _library_of(frame) == __package__:
        frame = frame.f_back
    return frame


def _library_of(frame: FrameType) -> str | None:
    """Return the name of the library that the code of a frame belongs to; None for the user's own code."""
    library = _name(frame).partition(".")[0]
    filename = frame.f_code.co_filename
    if library == __package__ or any(folder in filename for folder in _INSTALLED):
        return library
    return "" if filename.startswith(_STANDARD_LIBRARY) else None


def _name(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _place(frame: FrameType) -> Place:
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    return Place(frame.f_code.co_filename, frame.f_lineno or 1, _name(frame), registry)
