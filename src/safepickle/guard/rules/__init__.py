"""The built-in list: for each exact name, what it may do. One module for each library that is on it."""

from __future__ import annotations

from typing import Final

from safepickle.guard.rules import arrays, stdlib, stdlib_types, tensors, torch_layers, torch_weak, weak
from safepickle.guard.rules.base import Grant, Rule, RuleContext, ValueInfo

__all__ = ["BUILT_IN", "Grant", "Rule", "RuleContext", "ValueInfo"]

BUILT_IN: Final[dict[tuple[str, str], Rule]] = {
    **stdlib.RULES,
    **stdlib_types.RULES,
    **weak.RULES,
    **arrays.RULES,
    **tensors.RULES,
    **torch_layers.RULES,
    **torch_weak.RULES,
}
"""Every name that a guarded load takes without being told to, after Python 2's names have become Python 3's."""
