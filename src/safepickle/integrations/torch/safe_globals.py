"""What of safepickle's file format `torch.load(..., weights_only=True)` may use."""

from __future__ import annotations

import weakref

import torch

from safepickle.rebuild import StrongRef, Tombstone, rebuild_dead_proxy

__all__ = ["register_safe_globals"]


def register_safe_globals() -> None:
    """Let ``torch.load(..., weights_only=True)`` read state dicts that hold weak references, relinked or dead.

    Importing `safepickle.integrations.torch` calls this. They hold what the file puts into them. All that one of them
    can call is the callback that came with it, which has to be a safe global itself.

    Examples:
        >>> import weakref, torch
        >>> import safepickle.integrations.torch
        >>> weakref.ref in torch.serialization.get_safe_globals()
        True
    """
    torch.serialization.add_safe_globals([Tombstone, StrongRef, weakref.ref, weakref.proxy, rebuild_dead_proxy])
