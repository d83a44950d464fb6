"""Make torch storages out of the buffers of a pickle, on the device where they belong.

This is the loading half of `safepickle.reducers.tensors`; `rebuild` calls it, so torch is imported here and not there.
It trusts neither buffers nor sizes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch

__all__ = ["MapLocation", "dtype_of", "map_location", "storage_from_buffer", "strided_tensor"]

MapLocation: TypeAlias = "str | torch.device | Mapping[str, str] | Callable[[Any, str], Any] | None"

ALIGNMENT = 16
"""Bytes. What malloc gives, and what the widest dtype needs."""

_current: ContextVar[MapLocation] = ContextVar("safepickle_map_location", default=None)


@contextmanager
def map_location(location: MapLocation) -> Iterator[None]:
    """For the length of the block, restore tensors where `location` says, in loads of this thread or task.

    Without it a tensor goes back to the device that it was on, or to the CPU where there is no such device.

    Args:
        location: As in `torch.load`: a device or its name for all tensors, a mapping from names to names, or a
            function of storage and name that returns the storage, moved, or None to leave it to the default.

    Yields:
        Nothing.

    Examples:
        >>> import torch
        >>> from safepickle.integrations.torch import map_location
        >>> data = safepickle.dumps(torch.zeros(3))
        >>> with map_location("meta"):
        ...     safepickle.loads(data).device
        device(type='meta')
    """
    token = _current.set(location)
    try:
        yield
    finally:
        _current.reset(token)


def storage_from_buffer(buffer: Any, location: str) -> torch.UntypedStorage:
    """Return a writable storage of the buffer's bytes.

    The storage stands on the buffer itself, and keeps it alive, where that is writable; else on a copy.

    Args:
        buffer: Any object with the buffer protocol.
        location: The device that the storage was on, as `torch.serialization.location_tag` names it.
    """
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        view = memoryview(bytearray(view))
    if not view.nbytes:
        return _placed(torch.UntypedStorage(0, device="cpu"), location)
    # The view holds the buffer exported for as long as the storage lives: nobody can resize or unmap it below.
    storage = torch.frombuffer(view, dtype=torch.uint8).untyped_storage()
    if storage.data_ptr() % ALIGNMENT:
        storage = storage.clone()
    return _placed(storage, location)


def _placed(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
    wanted = _current.get()
    if wanted is None:
        return storage if location == "cpu" or not _exists(location) else _restored(storage, location)
    if callable(wanted):
        moved = wanted(storage, location)
        return _restored(storage, location) if moved is None else moved
    return _restored(storage, wanted.get(location, location) if isinstance(wanted, Mapping) else str(wanted))


def _restored(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
    restored: torch.UntypedStorage = torch.serialization.default_restore_location(storage, location)
    return restored


def _exists(location: str) -> bool:
    """Whether this machine has the device that `location` names."""
    device = torch.device(location)
    try:
        module = torch.get_device_module(device.type)
    except RuntimeError:
        return False
    return bool(module.is_available()) and (device.index is None or device.index < module.device_count())


def dtype_of(name: str) -> torch.dtype:
    """Return the dtype of that name.

    Raises:
        pickle.UnpicklingError: torch has no dtype of that name. It may be older than the pickle.
    """
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError(
            f"cannot load a tensor of dtype {name!r}: torch {torch.__version__} has none of that name. "
            "Load it with the version of torch that wrote it."
        )
    return dtype


def strided_tensor(
    storage: torch.UntypedStorage, dtype: torch.dtype, offset: int, size: Sequence[int], stride: Sequence[int]
) -> torch.Tensor:
    """Return a tensor over `storage`, all of which lies within it.

    Args:
        storage: On any device.
        dtype: Of the elements.
        offset: Of the first element, counted in elements, as in `stride`.
        size: Of each dimension.
        stride: Of each dimension.

    Raises:
        pickle.UnpicklingError: The elements reach outside the storage.
    """
    if type(storage) is not torch.UntypedStorage or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError(_damaged(f"offset {offset}, shape {size} and strides {stride} describe no tensor"))
    if 0 not in size:
        needed = (
            offset + 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        ) * dtype.itemsize
        if needed > storage.nbytes():
            raise pickle.UnpicklingError(
                _damaged(
                    f"a tensor of shape {size}, strides {stride} and offset {offset} needs {needed} bytes, "
                    f"and its storage has {storage.nbytes()}"
                )
            )
    return torch.empty(0, dtype=dtype, device=storage.device).set_(storage, offset, size, stride)


def _damaged(what: str) -> str:
    return (
        f"cannot load a tensor: {what}. The pickle is damaged, or its buffers are not those that it was written with."
    )
