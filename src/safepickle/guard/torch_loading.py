"""torch files under the guard: the container is checked before torch reads it, then the pickle while it is read.

What plain pickle writes for a storage is a whole torch file, as bytes: a pickle leads back here.
"""

from __future__ import annotations

import functools
import io
from contextvars import ContextVar
from typing import Any, Final

from safepickle.guard.allow_list import AllowList
from safepickle.guard.containers import read_torch_archive
from safepickle.guard.limits import NESTED_LOADS, LimitExceeded, Malformed, Refusal
from safepickle.guard.loading import Loader
from safepickle.guard.names import Renaming
from safepickle.guard.rules.base import ValueInfo
from safepickle.guard.rules.tensors import TYPED
from safepickle.guard.sniff import torch_format
from safepickle.guard.sparse import checked_at_the_end
from safepickle.guard.storage_claims import StorageClaims
from safepickle.guard.unpickler import GuardedUnpickler
from safepickle.load_errors import DamagedPickleError, GuardedLoadError, LoadLimitError, NotAllowedError
from safepickle.options import LoadOptions
from safepickle.storage.formats import HEAD, recognise

__all__ = ["load_guarded", "new_loader"]

_depth: ContextVar[int] = ContextVar("safepickle_nested", default=0)


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
        storages = StorageClaims(read_torch_archive(file, start).sizes if form == "zip" else None)
        if form is None:
            known = recognise(head)
            raise Malformed(
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
    except Malformed as error:
        raise DamagedPickleError(name, None, "", "", str(error)) from error.__cause__
    except LimitExceeded as error:
        raise LoadLimitError(name, None, "", "", str(error)) from None
    except MemoryError:
        raise LoadLimitError(name, None, "", "", "it asks for more memory than there is") from None
    except (NotAllowedError, DamagedPickleError, LoadLimitError):
        raise
    except Exception as error:
        # torch's own readers raise RuntimeError, KeyError, AssertionError, struct.error and more on damaged files.
        raise DamagedPickleError(name, None, "", "", f"{type(error).__name__}: {error}") from error


_LIST: Final = 4
"""Which of the pickles that `GuardedModule.load` loads is the list of storages: torch loads the object otherwise."""


class GuardedModule:
    """What ``torch.load`` takes for ``pickle_module``: loads under one list, and dumps nothing."""

    __name__ = "safepickle"

    def __init__(self, allowed: AllowList, name: str, renaming: Renaming | None, storages: StorageClaims) -> None:
        self._storages = storages
        self._loaded = 0
        loader = functools.partial(new_loader, allowed, names=renaming, name=name, keep_memo=True, storages=storages)
        self.Unpickler = type("Unpickler", (GuardedUnpickler,), {"new_loader": staticmethod(loader)})

    def load(self, file: object, **options: object) -> Any:
        """Load the next pickle of a file: of the older format, what lies before the object, and the list behind it."""
        value = self.Unpickler(file, **options).load()
        self._loaded += 1
        if self._loaded == _LIST or self._storages.is_claimed:
            self._storages.hold_keys(value)
        return value


def new_loader(allowed: AllowList, options: LoadOptions, **around: Any) -> Loader:
    """Return a loader that knows how to load the torch files that lie inside a pickle. See `Loader`."""
    return Loader(allowed, options, load_storage=load_storage, **around)


def load_storage(payload: bytes, allowed: AllowList) -> tuple[Any, ValueInfo]:
    """Load the storage that a torch file in `payload` holds, under the same list.

    Raises:
        Refusal: It holds something else, or asks for what is not allowed.
        Malformed: It is no torch file.
        LimitExceeded: Files lie in files too deeply.
    """
    depth = _depth.get()
    if depth >= NESTED_LOADS:
        raise LimitExceeded(f"files lie in files more than {NESTED_LOADS} deep")
    token = _depth.set(depth + 1)
    try:
        storage = load_guarded(io.BytesIO(payload), allowed)
    except GuardedLoadError as error:
        kind = {"NotAllowedError": Refusal, "LoadLimitError": LimitExceeded}.get(type(error).__name__, Malformed)
        raise kind(f"the torch file inside it: {error}") from error
    finally:
        _depth.reset(token)
    untyped = getattr(storage, "_untyped_storage", storage)
    dtype = getattr(storage, "dtype", None)
    if type(untyped).__name__ != "UntypedStorage":
        raise Refusal("the torch file inside it holds no storage")
    # torch leaves the mark on storages that it has filled since.
    untyped._torch_load_uninitialized = False
    name = "uint8" if dtype is None else str(dtype).removeprefix("torch.")
    itemsize = 1 if dtype is None else dtype.itemsize
    layout = "untyped" if untyped is storage else TYPED
    return storage, ValueInfo("storage", name, itemsize, untyped.nbytes(), layout=layout)
