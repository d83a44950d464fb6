"""Recognise by its first bytes what was given in place of a pickle, so that an error can name it."""

from __future__ import annotations

import tarfile
from typing import Final, Literal

from safepickle.guard.limits import Malformed, Refusal

HEAD: Final = 512
"""Bytes that `recognise` wants to see."""

_ZIP: Final = "a zip file, as torch.save writes: load it with safepickle.integrations.torch.load"
_MAGIC: Final = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was never fetched (git lfs pull)"),
    (b"\x1f\x8b", "a gzip file: open it with gzip.open first"),
    (b"BZh", "a bzip2 file: open it with bz2.open first"),
    (b"\xfd7zXZ\x00", "an xz file: open it with lzma.open first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file: decompress it first"),
    (b"PK\x03\x04", _ZIP),
    (b"PK\x05\x06", "an empty zip file"),
    (b"\x93NUMPY", "an array in numpy's own format: load it with numpy.load(allow_pickle=False)"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"%PDF", "a PDF file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\x7fELF", "a program"),
    (b"\xef\xbb\xbf", "a text file"),
)


_LOCAL_NAME: Final = 30
_LEGACY: Final = b"\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_KERAS: Final = (b"metadata.json", b"config.json", b"model.weights.h5")


def torch_format(head: bytes) -> Literal["zip", "legacy"] | None:
    """Tell which of torch's formats a file is of, by its first bytes; None for neither.

    Raises:
        Refusal: It is one of the older format and a tar archive at once, and torch would take it for the archive.
        Malformed: It is a zip archive of another program.
    """
    if head.startswith(b"PK\x03\x04"):
        known = recognise(head)
        if known != _ZIP:
            raise Malformed(f"this is {known}")
        return "zip"
    if head[:1] != b"\x80" or head[2 : 2 + len(_LEGACY)] != _LEGACY:
        return None
    try:
        tarfile.TarInfo.frombuf(head[:512].ljust(512, b"\0"), "ascii", "surrogateescape")
    except tarfile.HeaderError:
        return "legacy"
    raise Refusal("it is a torch file and a tar archive at once, and two readers would take different ones")


def recognise(head: bytes) -> str | None:
    """Name what the first bytes of a file say it is, or None when they may be a pickle's."""
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04") and head[_LOCAL_NAME:].startswith(_KERAS):
        return "a .keras archive: load it with keras.saving.load_model, which has a safe mode of its own"
    for magic, meaning in _MAGIC:
        if head.startswith(magic):
            return meaning
    text = head.lstrip()[:64].lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<script")):
        return "an HTML or XML page, most likely an error page that was saved in place of the file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if text[:1] == b"{" and b'"' in head[:64]:
        return "JSON text"
    if len(head) > 16 and head[8:10] == b'{"':
        return "a safetensors file: load it with safetensors"
    if not any(head):
        return "nothing but zeros: the file was never written, or the disk failed"
    return None
