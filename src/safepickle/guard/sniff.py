"""Which of torch's two formats a file is of, where every reader says the same."""

from __future__ import annotations

import tarfile
from typing import Literal

from safepickle.guard.limits import Malformed, Refusal
from safepickle.storage.formats import KERAS, NPZ, TORCH_EXPORT, ZIP_MEMBER, is_legacy_torch, recognise

__all__ = ["torch_format"]


def torch_format(head: bytes) -> Literal["zip", "legacy"] | None:
    """Tell which of torch's formats a file is of, by its first bytes; None for neither.

    Raises:
        Refusal: It is one of the older format and a tar archive at once, and torch would take it for the archive.
        Malformed: It is a zip archive of another program.
    """
    if head.startswith(ZIP_MEMBER):
        known = recognise(head)
        if known in (KERAS, NPZ, TORCH_EXPORT):
            raise Malformed(f"this is {known}")
        return "zip"
    if not is_legacy_torch(head):
        return None
    try:
        tarfile.TarInfo.frombuf(head[:512].ljust(512, b"\0"), "ascii", "surrogateescape")
    except tarfile.HeaderError:
        return "legacy"
    raise Refusal("it is a torch file and a tar archive at once, and two readers would take different ones")
