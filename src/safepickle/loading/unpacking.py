"""Compressed files on their way to a load: unpacked whole, and under the guard within a limit."""

from __future__ import annotations

import pickle
from typing import IO

from safepickle.guard.limits import most_unpacked
from safepickle.load_errors import DamagedPickleError, LoadLimitError
from safepickle.storage.compression import CannotUnpackError, UnpacksToTooMuchError, unpack

__all__ = ["unpack_to_load"]


def unpack_to_load(file: IO[bytes], packed: str, *, is_guarded: bool) -> IO[bytes]:
    """Unpack a compressed file before anything of it is loaded.

    Raises:
        pickle.UnpicklingError: It is damaged or cut off, as a `DamagedPickleError` under the guard.
        LoadLimitError: The guard is on, and it unpacks to far more than a file of its length may.
    """
    name = str(file.name)
    start = file.tell()
    most = most_unpacked(file.seek(0, 2) - start) if is_guarded else None
    file.seek(start)
    try:
        return unpack(file, packed, most)
    except UnpacksToTooMuchError as error:
        raise LoadLimitError(name, None, "", "", str(error)) from None
    except CannotUnpackError as error:
        if is_guarded:
            raise DamagedPickleError(name, None, "", "", str(error)) from error.__cause__
        raise pickle.UnpicklingError(f"cannot load {name}: {error}") from error.__cause__
