"""Tensors and storages of torch, built on `safepickle.rebuild.tensor_storages`."""

from __future__ import annotations

from typing import Any

from safepickle.rebuild.mark import file_format

__all__ = [
    "rebuild_torch_attributes",
    "rebuild_torch_parameter",
    "rebuild_torch_storage",
    "rebuild_torch_tensor",
    "rebuild_torch_typed_storage",
]


@file_format
def rebuild_torch_storage(buffer: object, location: str = "cpu") -> Any:
    """Build a torch storage of the bytes of `buffer`, on the device that `location` names if there is one."""
    from safepickle.rebuild.tensor_storages import storage_from_buffer

    return storage_from_buffer(buffer, location)


@file_format
def rebuild_torch_typed_storage(storage: object, dtype: str) -> Any:
    """Build a `torch.TypedStorage`."""
    import torch

    from safepickle.rebuild.tensor_storages import dtype_of

    return torch.TypedStorage(wrap_storage=storage, dtype=dtype_of(dtype), _internal=True)


@file_format
def rebuild_torch_tensor(
    storage: object,
    dtype: str,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    conjugate: bool = False,
    negative: bool = False,
) -> Any:
    """Build a tensor that looks at `storage`; attributes follow as state.

    Args:
        storage: What `rebuild_torch_storage` has built.
        dtype: Name of a dtype.
        offset: Of the first element, counted in elements, as the strides are.
        size: Of each dimension.
        stride: Of each dimension.
        requires_grad: Whether autograd follows it.
        conjugate: Whether the elements are the conjugates of what the storage holds.
        negative: Whether they are its negatives.
    """
    from safepickle.rebuild.tensor_storages import dtype_of, strided_tensor

    tensor = strided_tensor(storage, dtype_of(dtype), offset, size, stride)
    if conjugate:
        tensor = tensor.conj()
    if negative:
        import torch

        tensor = torch._neg_view(tensor)
    return tensor.requires_grad_() if requires_grad else tensor


@file_format
def rebuild_torch_parameter(
    storage: object,
    dtype: str,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = True,
    conjugate: bool = False,
    negative: bool = False,
) -> Any:
    """Build a `torch.nn.Parameter`; the arguments are those of `rebuild_torch_tensor`."""
    from torch.nn import Parameter

    return Parameter(
        rebuild_torch_tensor(storage, dtype, offset, size, stride, False, conjugate, negative), requires_grad
    )


@file_format
def rebuild_torch_attributes(tensor: object, attributes: dict[str, object]) -> None:
    """Give a tensor its Python attributes, without the ``__setstate__`` that torch keeps for its oldest files."""
    import torch

    if not issubclass(type(tensor), torch.Tensor):
        raise TypeError(f"these are the attributes of a tensor, not of a {type(tensor).__qualname__}")
    tensor.__dict__.update(attributes)
