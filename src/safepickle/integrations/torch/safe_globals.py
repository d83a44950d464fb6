"""What of safepickle's file format `torch.load(..., weights_only=True)` may use."""

from __future__ import annotations

import torch

from safepickle.rebuild import StrongRef, Tombstone

__all__ = ["register_safe_globals"]


def register_safe_globals() -> None:
    """Let ``torch.load(..., weights_only=True)`` read state dicts in which tombstones and strong copies stand.

    Importing `safepickle.integrations.torch` calls this. Both are harmless: they hold what the file puts into them,
    and call nothing.
    """
    torch.serialization.add_safe_globals([Tombstone, StrongRef])
