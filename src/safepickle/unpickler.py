"""Unpickler, load and loads: pickle's contract, with a guard on request."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from safepickle.checksum import ChecksumPolicy, check_buffer, check_file
from safepickle.files import FileOrPath, is_path
from safepickle.torch_files import is_torch_file, load_torch_file

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
    checksum: ChecksumPolicy = "check",
) -> Any:
    """Load an object from an open binary file or from a path.

    A path to a file that ``torch.save`` wrote is given to ``torch.load``.

    Args:
        file: An open binary file, or a path.
        fix_imports: As for `pickle.load`.
        encoding: As for `pickle.load`.
        errors: As for `pickle.load`.
        buffers: As for `pickle.load`.
        checksum: ``"check"``: a checksum that the file carries is verified before anything is loaded, unless the file
            cannot seek. ``"require"``: it is an error if there is none. ``"ignore"``: it is passed over.

    Raises:
        ChecksumError: The file is damaged or truncated.
    """
    options: dict[str, Any] = {"fix_imports": fix_imports, "encoding": encoding, "errors": errors, "buffers": buffers}
    if is_path(file):
        with open(file, "rb") as opened:  # type: ignore[arg-type]
            # Of paths alone: torch.load hands open files of its own to this function, one pickle after the other.
            if is_torch_file(opened):
                return load_torch_file(opened)
            return Unpickler(check_file(opened, checksum), **options).load()
    return Unpickler(check_file(file, checksum), **options).load()  # type: ignore[arg-type]


def loads(
    data: Any,
    /,
    *,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    errors: str = "strict",
    buffers: Iterable[Any] | None = (),
    checksum: ChecksumPolicy = "check",
) -> Any:
    """Load an object from bytes, or from any other buffer. See `load` for the arguments and the errors."""
    data = check_buffer(data, checksum)
    return pickle.loads(data, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers)
