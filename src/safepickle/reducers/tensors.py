"""Reduce values of torch tensors and storages, for pickles that hold their data themselves.

A dense CPU tensor is its storage and how to look at it; the storage is one protocol-5 buffer, and one object in the
memo, so tensors that share a storage still share it after the load. torch's own reduce value writes a whole archive,
with the bytes copied several times, for every single storage.

Under `torch.save` all this stays out of the way: torch stores the data itself, through its pickler's ``persistent_id``.
"""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch._tensor import _rebuild_from_type_v2
from torch._utils import _rebuild_parameter, _rebuild_parameter_with_state
from torch.nn.parameter import Parameter
from torch.utils.hooks import warn_if_has_hooks

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceTuple, ReduceValue
from safepickle.reducers.decisions import Dump

__all__ = [
    "find_reducer",
    "reduce_parameter",
    "reduce_storage",
    "reduce_tensor",
    "reduce_typed_storage",
    "with_attributes_apart",
]


def find_reducer(cls: type) -> Callable[[Any, Dump], ReduceValue] | None:
    """Return the reducer for exactly `cls`: subclasses of tensors have reduce values, or losses, of their own."""
    return _REDUCERS.get(cls)


def reduce_tensor(tensor: torch.Tensor, dump: Dump) -> ReduceValue:
    """Reduce a dense CPU tensor to its storage and the view of it; its Python attributes follow as state.

    Returns:
        A reduce value, or NotImplemented for torch's own.
    """
    return _reduce_dense(rebuild.rebuild_torch_tensor, tensor, dump)


def reduce_parameter(parameter: Parameter, dump: Dump) -> ReduceValue:
    """Reduce a dense CPU parameter, as `reduce_tensor` does a tensor."""
    return _reduce_dense(rebuild.rebuild_torch_parameter, parameter, dump)


def reduce_storage(storage: torch.UntypedStorage, dump: Dump) -> ReduceValue:
    """Reduce a storage to one buffer, with the device that it was on if that is not the CPU.

    The pickler holds the storage for as long as it holds the buffer, and so does whoever got the buffer out of band.
    """
    device = storage.device.type
    if dump.has_persistent_id or device == "meta" or type(storage) in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    content = _bytes_of(storage if device == "cpu" else storage.cpu())
    buffer = pickle.PickleBuffer(content) if dump.protocol >= 5 else bytes(content)
    if device == "cpu":
        return rebuild.rebuild_torch_storage, (buffer,)
    return rebuild.rebuild_torch_storage, (buffer, torch.serialization.location_tag(storage))


def reduce_typed_storage(storage: torch.TypedStorage, dump: Dump) -> ReduceValue:
    """Reduce a typed storage, which is an untyped one and a dtype: torch's own reduce values of tensors hold these."""
    if dump.has_persistent_id or storage._untyped_storage.device.type == "meta":
        return NOT_REDUCED
    return rebuild.rebuild_torch_typed_storage, (storage._untyped_storage, _dtype_names[storage.dtype])


def with_attributes_apart(value: ReduceTuple) -> ReduceTuple:
    """Move the attributes of a tensor or parameter from the arguments into the state: they may lead back to it there.

    Args:
        value: A reduce value.

    Returns:
        The same value if it is not one of torch's own, or if the class says itself how it gets its state.
    """
    function, arguments = value[:2]
    if len(value) > 2 or function not in (_rebuild_from_type_v2, _rebuild_parameter_with_state):
        return value
    *kept, attributes = arguments
    if type(attributes) is not dict:
        return value
    if function is _rebuild_parameter_with_state:
        function = _rebuild_parameter
    elif kept[1].__setstate__ is torch.Tensor.__setstate__:
        kept.append({})
    else:
        return value
    return function, tuple(kept), attributes, None, None, rebuild.rebuild_torch_attributes


def _reduce_dense(build: Callable[..., object], tensor: torch.Tensor, dump: Dump) -> ReduceValue:
    if (
        dump.has_persistent_id
        or not tensor.is_cpu
        or tensor.layout is not torch.strided
        or tensor.is_quantized
        or tensor.is_nested
        or tensor._is_zerotensor()
        or type(tensor) in dump.pickler.own_dispatch_table
    ):
        return NOT_REDUCED
    if tensor._backward_hooks:
        warn_if_has_hooks(tensor)
    arguments: tuple[Any, ...] = (
        tensor.untyped_storage(),
        _dtype_names[tensor.dtype],
        tensor.storage_offset(),
        tuple(tensor.size()),
        tensor.stride(),
        tensor.requires_grad,
    )
    if tensor.is_conj() or tensor.is_neg():
        arguments = (*arguments, tensor.is_conj(), tensor.is_neg())
    attributes = tensor.__dict__
    if not attributes:
        return build, arguments
    # Not torch's way, inside the arguments: the attributes may lead back to the tensor.
    return build, arguments, attributes, None, None, rebuild.rebuild_torch_attributes


class _DtypeNames(dict[torch.dtype, str]):
    """Each dtype's name, always as the same string object, so that a pickle spells it out once."""

    def __missing__(self, dtype: torch.dtype) -> str:
        name = self[dtype] = str(dtype).removeprefix("torch.")
        return name


_dtype_names = _DtypeNames()


def _bytes_of(storage: torch.UntypedStorage) -> Any:
    """Return the bytes of a CPU storage: a writable object with the buffer protocol that keeps the storage alive.

    Neither storages nor tensors have the protocol, and numpy need not be there.
    """
    content: Any = (ctypes.c_ubyte * storage.nbytes()).from_address(storage.data_ptr())
    content.storage = storage
    return content


_REDUCERS: dict[type, Callable[[Any, Dump], ReduceValue]] = {
    torch.Tensor: reduce_tensor,
    Parameter: reduce_parameter,
    torch.UntypedStorage: reduce_storage,
    torch.TypedStorage: reduce_typed_storage,
}
