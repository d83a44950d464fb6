"""How some types of other libraries are copied, whose own `__deepcopy__` refuses too much or tells too little."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any

from safepickle.copying.followers import put
from safepickle.copying.memo import MISSING, Copier, Memo, known_copy, set_attribute
from safepickle.copying.strong import by_reducer, copy_by_method, copy_by_reduction, copy_without_method, fill
from safepickle.reducers.table import find_reducer
from safepickle.weak_types import find_weak_type

__all__ = ["find_library_copier"]


def find_library_copier(cls: type) -> Copier | None:
    """Choose how instances of ``cls`` are copied, or return None for a class that needs nothing from here."""
    if getattr(vars(cls).get("__deepcopy__"), "__module__", None) == "torch.nn.utils.parametrize":
        # It shares the class, which each parametrized module has to itself: removing a parametrization empties it.
        reducer = find_reducer(cls)
        return None if reducer is None else by_reducer(reducer)
    for base, copier in _bases():
        if base in cls.__mro__ and getattr(cls, "__deepcopy__", None) is getattr(base, "__deepcopy__", None):
            return copier
    return None


def _bases() -> Iterable[tuple[type, Copier]]:
    # What torch has is looked up only where somebody has imported it.
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "Tensor"):
        yield torch.Tensor, _copy_tensor
    graphs: Any = sys.modules.get("torch.fx.graph")
    if hasattr(graphs, "Graph"):
        yield graphs.Graph, _copy_graph
        yield graphs.Node, _copy_node
    modules: Any = sys.modules.get("torch.fx.graph_module")
    if hasattr(modules, "GraphModule"):
        yield modules.GraphModule, _copy_graph_module


def _copy_tensor(original: Any, memo: Memo) -> Any:
    """Copy a tensor; one that was computed is refused by its own `__deepcopy__`, and is copied as it is pickled."""
    if original.is_leaf:
        if type(original) is sys.modules["torch"].Tensor and original._is_zerotensor():
            return _copy_zero_tensor(original, memo)
        return copy_by_method(original, memo)
    reducer = find_reducer(type(original))
    copier = copy_without_method if reducer is None else by_reducer(reducer)
    return copier(original, memo)


def _copy_zero_tensor(original: Any, memo: Memo) -> Any:
    """Copy a tensor of zeros without a storage, which its own `__deepcopy__` looks for. Nothing can write to it."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    copied = original.detach().requires_grad_(original.requires_grad)
    memo.remember(original, copied)
    fill(vars(copied), vars(original).items(), memo, set_attribute)
    return copied


def _copy_graph(original: Any, memo: Memo) -> Any:
    """Copy a graph of `torch.fx`, which does not say which of its nodes is the copy of which."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    copied = copy_by_method(original, memo)
    pairs = list(zip(original.nodes, copied.nodes, strict=True))
    for node, copied_node in pairs:
        memo.remember(node, copied_node)
    for node, copied_node in pairs:
        for name, value in node.meta.items():
            # The copied node has another dictionary with the same values, which may be anything: tensors, whole modes.
            if _holds_reference(value):
                put(operator.setitem, copied_node.meta, name, value, memo)
    return copied


def _holds_reference(value: Any) -> bool:
    """Whether a value is a weak reference or a weak container, or a builtin container that holds one."""
    cls = type(value)
    if cls is dict:
        return any(map(_holds_reference, value.keys())) or any(map(_holds_reference, value.values()))
    if cls in (list, tuple, set):
        return any(map(_holds_reference, value))
    return find_weak_type(cls) is not None


def _copy_graph_module(original: object, memo: Memo) -> Any:
    """Copy a module of `torch.fx` with the attributes that its graph doesn't name, as it is pickled."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    copied = copy_by_method(original, memo)
    left_out = [(name, value) for name, value in vars(original).items() if not hasattr(copied, name)]
    fill(vars(copied), left_out, memo, set_attribute)
    return copied


def _copy_node(original: Any, memo: Memo) -> Any:
    """Copy a node with the graph that it belongs to."""
    found = known_copy(memo, id(original), MISSING)
    if found is MISSING:
        memo.copy_sealed(original.graph)
        found = known_copy(memo, id(original), MISSING)
    return copy_by_reduction(original, memo) if found is MISSING else found
