"""Addresses such as ``s3://bucket/key``, read and written through fsspec, where it is installed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import IO, Any, Final, TypeGuard

from safepickle.storage.atomic import replacing

__all__ = ["is_address", "open_path", "sending"]

_ADDRESS: Final = r"[A-Za-z][A-Za-z0-9+.:\-]+://"
_COLLAPSED: Final = r"[A-Za-z][A-Za-z0-9+.\-]+:/[^/]"


def is_address(path: Any) -> TypeGuard[str]:
    """Tell whether a path is an address that fsspec reads, rather than the path of a file of this machine.

    Raises:
        ValueError: It was one before `pathlib` took a slash from it.
    """
    if isinstance(path, str):
        return re.match(_ADDRESS, path) is not None
    if isinstance(path, os.PathLike):
        text = os.fsdecode(path)
        if re.match(_COLLAPSED, text) and not os.path.exists(text.partition("/")[0]):
            raise ValueError(f"{text} was an address before pathlib took a slash from it: pass it as a string")
    return False


def open_path(path: Any) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Open a path or an address for reading."""
    return _reading(path) if is_address(path) else open(path, "rb")


@contextlib.contextmanager
def _reading(address: str) -> Iterator[IO[bytes]]:
    """Fetch what is at an address into a temporary file, and open that."""
    import tempfile

    system, path = _locate(address)
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(path) or "file")  # messages name it
        system.get_file(path, local)
        with open(local, "rb") as file:
            yield file


@contextlib.contextmanager
def sending(address: str) -> Iterator[IO[bytes]]:
    """Open a temporary file that is put to an address in one step, once the block has ended well.

    Raises:
        ModuleNotFoundError: fsspec, or its package for this kind of address, is not installed.
    """
    import tempfile

    system, path = _locate(address)
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        with replacing(path) as replacement:
            yield replacement
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "file")
        with open(local, "wb") as file:
            yield file
        system.put_file(local, path)


def _locate(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{address} is an address, which takes fsspec, and fsspec is not installed: install it with the package "
            "for this kind of address, such as s3fs, or give a path of this machine"
        ) from error
    system, path = fsspec.core.url_to_fs(address)
    return system, path
