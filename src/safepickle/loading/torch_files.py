"""Recognise the files that ``torch.save`` writes, so that `load` can hand them to ``torch.load``.

A zip archive is no pickle, and the older format is five of them in a row. torch is imported only for a file of its own.
"""

from __future__ import annotations

from typing import IO, Any

__all__ = ["is_torch_file", "load_torch_file"]

_ZIP = b"PK\x03\x04"
_MAGIC_NUMBER = b"\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The number that older files begin with, pickled, without the protocol."""


def is_torch_file(file: IO[bytes]) -> bool:
    """Tell whether a file was written by ``torch.save``. One that cannot seek is not looked at."""
    if not file.seekable():
        return False
    start = file.tell()
    opening = file.read(2 + len(_MAGIC_NUMBER))
    file.seek(start)
    if opening.startswith(_ZIP):
        return _holds_torch_data(file, start)
    return opening[:1] == b"\x80" and opening[2:] == _MAGIC_NUMBER


def load_torch_file(file: IO[bytes], allow: Any = None, aliases: Any = None, missing: Any = None) -> Any:
    """Load what ``torch.save`` wrote; guarded, with its container checked, unless `allow` is None and nothing guards.

    Raises:
        ImportError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("this file was written by torch.save, and torch is needed to load it") from error
    import safepickle
    from safepickle.guard.allowing import allow_list
    from safepickle.loading.aliases import names

    renaming = names(aliases, missing)
    allowed = allow_list(allow)
    if allowed is not None:
        from safepickle.guard.torch_loading import load_guarded

        return load_guarded(file, allowed, renaming=renaming)
    module = safepickle if renaming is None else safepickle.backend(aliases=aliases, missing=missing)
    return torch.load(file, pickle_module=module, weights_only=False)


def _holds_torch_data(file: IO[bytes], start: int) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
    finally:
        file.seek(start)
