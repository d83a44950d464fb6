"""Recognise the files that ``torch.save`` writes, so that `load` can hand them to ``torch.load``.

A zip archive is no pickle, and the older format is five of them in a row. torch is imported only for a file of its own.
"""

from __future__ import annotations

import pickle
from typing import IO, TYPE_CHECKING, Any

from safepickle.loading.aliases import Names

if TYPE_CHECKING:
    from safepickle.guard.allow_list import AllowList

from safepickle.storage.formats import HEAD, ZIP_MEMBER, is_legacy_torch

__all__ = ["is_torch_file", "load_torch_file"]


def is_torch_file(file: IO[bytes]) -> bool:
    """Tell whether a file was written by ``torch.save``. One that cannot seek is not looked at."""
    if not file.seekable():
        return False
    start = file.tell()
    opening = file.read(HEAD)
    file.seek(start)
    if opening.startswith(ZIP_MEMBER):
        return _holds_torch_data(file, start)
    return is_legacy_torch(opening)


def load_torch_file(
    file: IO[bytes],
    unpickler: type[pickle.Unpickler],
    allowed: AllowList | None,
    renaming: Names | None,
    *,
    mmap: bool = False,
) -> Any:
    """Load what ``torch.save`` wrote; guarded, with its container checked, if there is a list of what is allowed.

    Args:
        file: Open for reading, and seekable.
        unpickler: Reads the pickles in it where nothing guards.
        allowed: What a guarded load may use, or None.
        renaming: What has moved, or None.
        mmap: Map storages into memory, unless the load is guarded. The file has a name then.

    Raises:
        ImportError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("this file was written by torch.save, and torch is needed to load it") from error
    if allowed is not None:
        from safepickle.guard.torch_loading import load_guarded

        return load_guarded(file, allowed, renaming=renaming)
    source = file.name if mmap else file
    return torch.load(source, pickle_module=_PickleModule(unpickler), weights_only=False, mmap=mmap)


class _PickleModule:
    """What ``torch.load`` takes for ``pickle_module``."""

    __name__ = "safepickle"

    def __init__(self, unpickler: type[pickle.Unpickler]) -> None:
        self.Unpickler = unpickler

    def load(self, file: Any, **options: Any) -> Any:
        """Load the next pickle of a file."""
        return self.Unpickler(file, **options).load()


def _holds_torch_data(file: IO[bytes], start: int) -> bool:
    from safepickle.storage.contents import CannotListError, open_zip

    try:
        with open_zip(file, start) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except CannotListError:
        return False
    finally:
        file.seek(start)
