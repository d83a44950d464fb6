"""The private names of torch that this package leans on: when torch moves one, this list says what breaks.

Each is an expression that a test evaluates on every torch that is tested. Whoever uses another one adds it here, which
the tests ask for as well. Nothing is imported by this module.
"""

from __future__ import annotations

from typing import Final

__all__ = ["OPTIONAL_NAMES", "PRIVATE_NAMES"]

PRIVATE_NAMES: Final[dict[str, str]] = {
    "torch.Tensor._backward_hooks": "whether a tensor has hooks, which are not pickled",
    "torch.Tensor._indices": "of a sparse tensor that may not be coalesced",
    "torch.Tensor._is_zerotensor": "a tensor of zeros that has no storage",
    "torch.Tensor._values": "of a sparse tensor that may not be coalesced",
    "torch.TypedStorage()._untyped_storage": "the bytes of a typed storage",
    "torch._neg_view": "a view of the negatives",
    "torch._ops.HigherOrderOperator": "the types of operators, which are pickled by name",
    "torch._ops.OpOverload": "the types of operators, which are pickled by name",
    "torch._ops.OpOverloadPacket": "the types of operators, which are pickled by name",
    "torch._subclasses.fake_tensor.FakeTensor": "the tests of tensors without data",
    "torch._tensor._rebuild_from_type_v2": "torch's reduce value of a tensor of a subclass",
    "torch._utils._rebuild_parameter": "torch's reduce value of a parameter",
    "torch._utils._rebuild_parameter_with_state": "torch's reduce value of a parameter with attributes",
    "torch._validate_sparse_compressed_tensor_args": "what a guarded load checks the indices with",
    "torch._validate_sparse_coo_tensor_args": "what a guarded load checks the indices with",
    "torch.nn.Module()._buffers": "where a module keeps what it owns",
    "torch.nn.Module()._load_from_state_dict": "the method that torch calls for each module",
    "torch.nn.Module()._load_state_dict_post_hooks": "hooks that run once a state dict is loaded",
    "torch.nn.Module()._load_state_dict_pre_hooks": "hooks that may change a state dict before it is loaded",
    "torch.nn.Module()._modules": "where a module keeps what it owns",
    "torch.nn.Module()._non_persistent_buffers_set": "buffers that belong in no state dict",
    "torch.nn.Module()._parameters": "where a module keeps what it owns",
    "torch.nn.Module()._register_load_state_dict_pre_hook": "how extra state is taken out of a state dict",
    "torch.nn.Module()._register_state_dict_hook": "how extra state gets into a state dict",
    "torch.nn.Module().state_dict()._metadata": "the versions that a state dict carries",
    "torch.nn.utils.parametrize._inject_new_class": "the class that a parametrised module gets",
    "torch.nn.utils.parametrize._inject_property": "the property by which a parametrised tensor is computed",
    "torch.ops.aten.add.Tensor._overloadname": "the name of an operator",
    "torch.ops.aten.add._qualified_op_name": "the name of an operator",
    "torch.utils.weak.WeakIdRef(torch.ones(1))._id": "the identity hash, which is computed afresh",
    "torch.utils.weak._WeakHashRef": "a kind of weak reference to tensors",
}
"""Expression -> what it is used for."""

OPTIONAL_NAMES: Final = frozenset({"_torch_load_uninitialized"})
"""Attributes that torch sets on some objects alone, and that are asked for with a default."""
