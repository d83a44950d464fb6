"""`state_dict`, for modules whose buffers are held through weak proxies."""

from __future__ import annotations

from typing import Any

from torch import nn

from safepickle.callers import warn
from safepickle.errors import StateDictWarning
from safepickle.integrations.torch.proxies import resolved_proxies
from safepickle.messages import dotted_name

__all__ = ["state_dict"]


def state_dict(
    module: nn.Module, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
) -> dict[str, Any]:
    """Return the state dict of `module`, also where its buffers or parameters are held through a `weakref.proxy`.

    A live proxy gives its tensor. A dead one is left out, where torch raises `ReferenceError`. A submodule held
    through a proxy, such as a parent pointer, is left out too: its state belongs to its owner.

    Args:
        module: Any module; hooks and overrides of `state_dict` run as ever.
        destination: As in `torch.nn.Module.state_dict`.
        prefix: As in `torch.nn.Module.state_dict`.
        keep_vars: As in `torch.nn.Module.state_dict`.

    Returns:
        What `torch.nn.Module.state_dict` returns.

    Warns:
        StateDictWarning: Once, naming every key that was left out, unless its owner is in the state dict as well.

    Examples:
        >>> import weakref, torch
        >>> from safepickle.integrations.torch import state_dict
        >>> mean, layer = torch.zeros(1), torch.nn.Identity()
        >>> layer.register_buffer("mean", weakref.proxy(mean))
        >>> dict(state_dict(layer))
        {'mean': tensor([0.])}
    """
    keywords: dict[str, Any] = {} if destination is None else {"destination": destination}
    with resolved_proxies(module) as left_out:
        state: dict[str, Any] = module.state_dict(prefix=prefix, keep_vars=keep_vars, **keywords)
    if left_out:
        name = dotted_name(type(module))
        reasons = {prefix + entry.key: entry.reason for entry in left_out}
        warn(StateDictWarning(name, reasons))
    return state
