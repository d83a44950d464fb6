"""Sparse tensors of a guarded load: built with their indices checked, now or after the storages are read.

The older torch format reads the storages after the pickle, so the indices are not there yet when the tensor is built.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from safepickle.guard.limits import Malformed, Refusal

_waiting: ContextVar[list[Any] | None] = ContextVar("safepickle_sparse", default=None)
_ROWS_FIRST: Final = ("torch.sparse_csr", "torch.sparse_bsr")


def rebuild_checked(layout: Any, data: Any) -> Any:
    """Build a sparse tensor as ``torch._utils._rebuild_sparse_tensor`` does, with its indices checked.

    Raises:
        Malformed: They do not fit.
        Refusal: They cannot be checked, because the storages are read later and nobody will.
    """
    import torch

    parts = [part for part in data if isinstance(part, torch.Tensor)]
    later = any(getattr(part.untyped_storage(), "_torch_load_uninitialized", False) for part in parts)
    if later and _waiting.get() is None:
        raise Refusal(
            "sparse tensors of torch's older format are checked after the load: use "
            "safepickle.integrations.torch.load, which does"
        )
    try:
        if str(layout) == "torch.sparse_coo":
            coalesced = data[3] if len(data) == 4 else None
            tensor = torch.sparse_coo_tensor(*data[:3], check_invariants=not later, is_coalesced=coalesced)
        else:
            tensor = torch.sparse_compressed_tensor(*data, layout=layout, check_invariants=not later)
    except (RuntimeError, ValueError, TypeError) as error:
        raise Malformed(f"the sparse tensor contradicts itself: {error}") from error
    waiting = _waiting.get()
    if later and waiting is not None:
        waiting.append(tensor)
    return tensor


@contextlib.contextmanager
def checked_at_the_end() -> Iterator[None]:
    """Check at the end of a block the sparse tensors that were built before their storages were read.

    Raises:
        Malformed: The indices of one do not fit.
    """
    waiting: list[Any] = []
    token = _waiting.set(waiting)
    try:
        yield
        for tensor in waiting:
            _check(tensor)
    finally:
        _waiting.reset(token)


def _check(tensor: Any) -> None:
    import torch

    try:
        if str(tensor.layout) == "torch.sparse_coo":
            torch._validate_sparse_coo_tensor_args(
                tensor._indices(), tensor._values(), tensor.size(), tensor.is_coalesced()
            )
            return
        rows = str(tensor.layout) in _ROWS_FIRST
        compressed, plain = (
            (tensor.crow_indices(), tensor.col_indices()) if rows else (tensor.ccol_indices(), tensor.row_indices())
        )
        torch._validate_sparse_compressed_tensor_args(compressed, plain, tensor.values(), tensor.size(), tensor.layout)
    except RuntimeError as error:
        raise Malformed(f"the sparse tensor contradicts itself: {error}") from error
