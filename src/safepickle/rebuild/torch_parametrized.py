"""Modules of torch whose tensors are computed by parametrizations."""

from __future__ import annotations

from typing import Any

from safepickle.rebuild.containers import set_attributes
from safepickle.rebuild.mark import file_format

__all__ = ["rebuild_torch_parametrizations", "rebuild_torch_parametrized"]


@file_format
def rebuild_torch_parametrized(cls: Any) -> Any:
    """Build a module of the class that it had before it was parametrized, without its constructor."""
    return cls.__new__(cls)


@file_format
def rebuild_torch_parametrizations(module: object, contents: tuple[object, tuple[str, ...]]) -> None:
    """Give a module its state, and a class of its own whose properties compute tensors.

    torch does the same when the first parametrization of a module is registered.

    Args:
        module: Of the class that it had before.
        contents: Its state, and the names of the tensors.
    """
    from torch.nn.utils import parametrize

    state, names = contents
    set_attributes(module, state)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
