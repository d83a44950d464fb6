"""What to say where the thing that failed to load is no pickle at all: asked after a failure, and never before."""

from __future__ import annotations

import io
from typing import Any

from safepickle.load_errors import (
    DamagedPickleError,
    EmptyFileError,
    GuardedLoadError,
    MissingGlobalError,
    MissingModuleError,
    NotAPickleError,
)
from safepickle.storage.formats import EMPTY, look_at

__all__ = ["explain_bytes", "explain_format"]


def explain_format(error: Exception, file: Any, start: int | None, name: str) -> Exception | None:
    """Explain an error of a load, if what was loaded is no pickle.

    Args:
        error: What the load raised.
        file: What was loaded.
        start: Where the load began, or None when the file cannot go back there.
        name: What messages call the file.

    Returns:
        The error to raise instead, or None when this one says more.
    """
    if start is None or isinstance(error, (NotAPickleError, MissingGlobalError, MissingModuleError)):
        return None
    try:
        found = look_at(file, start)
    except (OSError, ValueError):
        return None
    # At the end of a file of several pickles there is nothing either, and readers stop at pickle's own EOFError.
    if found is None or (found is EMPTY and start > 0):
        return None
    if isinstance(error, GuardedLoadError):
        return DamagedPickleError(name or error.file, 0, "", "", f"this is {found}")
    kind = EmptyFileError if found is EMPTY else NotAPickleError
    return kind(name, found.name, str(found))


def explain_bytes(error: Exception, data: Any) -> Exception | None:
    """Explain an error of a load from bytes, if they are no pickle."""
    return explain_format(error, io.BytesIO(data), 0, "")
