"""How some types of other libraries are copied, whose own `__deepcopy__` refuses too much or tells too little."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from safepickle.copying.memo import MISSING, Copier, Memo, known_copy
from safepickle.copying.strong import by_reducer, copy_by_method, copy_by_reduction, copy_without_method
from safepickle.reducers.table import find_reducer

__all__ = ["find_library_copier"]


def find_library_copier(cls: type) -> Copier | None:
    """Choose how instances of ``cls`` are copied, or return None for a class that needs nothing from here."""
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


def _copy_tensor(original: Any, memo: Memo) -> Any:
    """Copy a tensor; one that was computed is refused by its own `__deepcopy__`, and is copied as it is pickled."""
    if original.is_leaf:
        return copy_by_method(original, memo)
    reducer = find_reducer(type(original))
    copier = copy_without_method if reducer is None else by_reducer(reducer)
    return copier(original, memo)


def _copy_graph(original: Any, memo: Memo) -> Any:
    """Copy a graph of `torch.fx`, which does not say which of its nodes is the copy of which."""
    found = known_copy(memo, id(original), MISSING)
    if found is not MISSING:
        return found
    copied = copy_by_method(original, memo)
    for node, copied_node in zip(original.nodes, copied.nodes, strict=True):
        memo.remember(node, copied_node)
    return copied


def _copy_node(original: Any, memo: Memo) -> Any:
    """Copy a node with the graph that it belongs to."""
    found = known_copy(memo, id(original), MISSING)
    if found is MISSING:
        memo.copy_sealed(original.graph)
        found = known_copy(memo, id(original), MISSING)
    return copy_by_reduction(original, memo) if found is MISSING else found
