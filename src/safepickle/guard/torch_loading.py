"""torch files under the guard: the container is checked before torch reads it, then the pickle while it is read."""

from __future__ import annotations

from typing import Any

from safepickle.errors import DamagedPickleError, LoadLimitError, NotAllowedError
from safepickle.guard.allow_list import AllowList
from safepickle.guard.containers import read_torch_archive
from safepickle.guard.limits import Damage, Excess, Refusal
from safepickle.guard.names import Renaming
from safepickle.guard.sniff import HEAD, recognise, torch_format
from safepickle.guard.sparse import checked_at_the_end
from safepickle.guard.storage_claims import StorageClaims

__all__ = ["load_guarded"]


def load_guarded(
    file: Any,
    allowed: AllowList,
    *,
    map_location: Any = None,
    mmap: bool | None = None,
    path: Any = None,
    renaming: Renaming | None = None,
) -> Any:
    """Load a torch file from an open file, guarded.

    Args:
        file: Open for reading, and seekable.
        allowed: What may be used beside the built-in list.
        map_location: As for ``torch.load``.
        mmap: As for ``torch.load``; needs `path`.
        path: The path of the file, or None.
        renaming: What has moved, or None.

    Raises:
        NotAllowedError: The file asks for what is not allowed, or its container could be read in two ways.
        DamagedPickleError: It is no whole torch file.
        LoadLimitError: It costs more than it may.
    """
    import torch

    name = str(getattr(file, "name", "") or "")
    start = file.tell()
    head = file.read(HEAD)
    try:
        form = torch_format(head)
        storages = StorageClaims(read_torch_archive(file, start).storages if form == "zip" else None)
        if form is None:
            known = recognise(head)
            raise Damage(
                f"this is {known}" if known else "this is no torch file, neither a zip nor of the older format"
            )
        file.seek(start)
        with checked_at_the_end():
            return torch.load(
                file if path is None or not mmap else path,
                map_location=map_location,
                pickle_module=GuardedModule(allowed, name, renaming, storages),
                weights_only=False,
                mmap=mmap,
            )
    except Refusal as error:
        raise NotAllowedError(name, None, "", "", str(error)) from None
    except Damage as error:
        raise DamagedPickleError(name, None, "", "", str(error)) from error.__cause__
    except Excess as error:
        raise LoadLimitError(name, None, "", "", str(error)) from None
    except MemoryError:
        raise LoadLimitError(name, None, "", "", "it asks for more memory than there is") from None
    except (NotAllowedError, DamagedPickleError, LoadLimitError):
        raise
    except Exception as error:
        # torch's own readers raise RuntimeError, KeyError, AssertionError, struct.error and more on damaged files.
        raise DamagedPickleError(name, None, "", "", f"{type(error).__name__}: {error}") from error


class GuardedModule:
    """What ``torch.load`` takes for ``pickle_module``: loads under one list, and dumps nothing."""

    __name__ = "safepickle"

    def __init__(self, allowed: AllowList, name: str, renaming: Renaming | None, storages: StorageClaims) -> None:
        from safepickle.loading.unpickler import Unpickler

        self._storages = storages
        bound = {
            "_bound_list": allowed,
            "_bound_names": renaming,
            "_bound_storages": storages,
            "_file_name": name,
        }
        self.Unpickler = type("Unpickler", (Unpickler,), bound)

    def load(self, file: Any, **options: Any) -> Any:
        """Load the next pickle of a file: of the older format, what lies before the object, and the list behind it."""
        value = self.Unpickler(file, **options).load()
        if self._storages.is_claimed:
            self._storages.hold_keys(value)
        return value
