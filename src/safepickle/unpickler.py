"""Unpickler, load and loads: pickle's contract, with a guard on request."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from safepickle.files import FileOrPath, is_path

__all__ = ["Unpickler", "load", "loads"]


class Unpickler(pickle.Unpickler):
    """`pickle.Unpickler`, with its constructor's signature."""

    def __init__(
        self,
        file: Any,
        *,
        fix_imports: bool = True,
        encoding: str = "ASCII",
        errors: str = "strict",
        buffers: Iterable[Any] | None = (),
    ) -> None:
        super().__init__(file, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers)


def load(
    file: FileOrPath,
    *,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    errors: str = "strict",
    buffers: Iterable[Any] | None = (),
) -> Any:
    """Load an object from an open binary file or from a path."""
    options: dict[str, Any] = {"fix_imports": fix_imports, "encoding": encoding, "errors": errors, "buffers": buffers}
    if is_path(file):
        with open(file, "rb") as opened:  # type: ignore[arg-type]
            return Unpickler(opened, **options).load()
    return Unpickler(file, **options).load()


def loads(
    data: Any,
    /,
    *,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    errors: str = "strict",
    buffers: Iterable[Any] | None = (),
) -> Any:
    """Load an object from bytes, or from any other buffer."""
    return pickle.loads(data, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers)
