"""torch files inside a pickle: what plain pickle writes for a storage is a whole torch file, as bytes."""

from __future__ import annotations

import io
from contextvars import ContextVar
from typing import Any

from safepickle.errors import GuardedLoadError
from safepickle.guard.allow_list import AllowList
from safepickle.guard.limits import NESTED_LOADS, Damage, Excess, Refusal
from safepickle.guard.rules.base import Facts
from safepickle.guard.rules.tensors import TYPED

_depth: ContextVar[int] = ContextVar("safepickle_nested", default=0)


def load_storage(payload: bytes, allowed: AllowList) -> tuple[Any, Facts]:
    """Load the storage that a torch file in `payload` holds, under the same list.

    Raises:
        Refusal: It holds something else, or asks for what is not allowed.
        Damage: It is no torch file.
        Excess: Files lie in files too deeply.
    """
    from safepickle.guard.torch_loading import load_guarded

    depth = _depth.get()
    if depth >= NESTED_LOADS:
        raise Excess(f"files lie in files more than {NESTED_LOADS} deep")
    token = _depth.set(depth + 1)
    try:
        storage = load_guarded(io.BytesIO(payload), allowed)
    except GuardedLoadError as error:
        kind = {"NotAllowedError": Refusal, "LoadLimitError": Excess}.get(type(error).__name__, Damage)
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
    return storage, Facts("storage", name, itemsize, untyped.nbytes(), layout=layout)
