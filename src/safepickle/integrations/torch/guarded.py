"""Load torch files that came from elsewhere: the container is checked first, then the pickle is guarded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from safepickle.guard.allow_list import AllowList
from safepickle.guard.allowing import allow_list
from safepickle.guard.torch_loading import load_guarded
from safepickle.options import AllowItem

__all__ = ["load"]


def load(path: Any, *, allow: Iterable[AllowItem] = (), map_location: Any = None, mmap: bool | None = None) -> Any:
    """Load a file that ``torch.save`` wrote, guarded.

    ``torch.load(path, pickle_module=safepickle, allow=[Net])`` guards the pickle too, but torch reads TorchScript
    archives and old tar files before it asks the pickle module, and takes archives that two readers see differently.
    Here the container is checked first.

    Args:
        path: A path, or a seekable file open for reading.
        allow: Classes, functions and ``"module:name"`` strings beside the built-in list.
        map_location: As for ``torch.load``.
        mmap: As for ``torch.load``; for paths alone.

    Returns:
        What was saved.

    Raises:
        NotAllowedError: The file asks for what is not allowed, or could be read in two ways.
        DamagedPickleError: It is no whole torch file.
        LoadLimitError: It costs more than one of its length may.

    Examples:
        >>> import torch
        >>> import safepickle.integrations.torch
        >>> torch.save({"weight": torch.ones(2)}, "weights.pt")
        >>> safepickle.integrations.torch.load("weights.pt")
        {'weight': tensor([1., 1.])}
    """
    allowed = allow_list(tuple(allow)) or AllowList()
    if isinstance(path, (str, os.PathLike)):
        with open(path, "rb") as file:
            return load_guarded(file, allowed, map_location=map_location, mmap=mmap, path=path)
    return load_guarded(path, allowed, map_location=map_location, mmap=mmap)
