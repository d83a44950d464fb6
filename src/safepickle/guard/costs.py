"""What one load keeps account of: its budget, the weights of keys, and how deep values nest."""

from __future__ import annotations

from safepickle.guard.budget import budget_of_this_load
from safepickle.guard.keys import KeyGuard
from safepickle.guard.nesting import Nesting

__all__ = ["Costs"]


class Costs:
    """The accounts of a load, or of all loads that share a memo.

    Attributes:
        budget: The work that is left.
        keys: What hashing and comparing cost.
        nesting: How deep that nests which C frees by recursion.
    """

    def __init__(self) -> None:
        self.budget = budget_of_this_load()
        self.keys = KeyGuard(self.budget)
        self.nesting = Nesting(self.budget)
