"""What a file is, told from its bytes: the one table of formats that load, the guard and inspect ask.

A recognised file is no plain pickle, or one that plain pickle cannot read. It knows bytes and the members of archives,
and loads nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import IO, Final, NamedTuple

__all__ = ["HEAD", "LEGACY_TORCH", "ZIP_MEMBER", "Format", "is_legacy_torch", "look_at", "recognise"]

HEAD: Final = 512
"""Bytes that `recognise` wants to see."""

LEGACY_TORCH: Final = b"\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The number that older files of torch begin with, pickled, without the protocol."""

ZIP_MEMBER: Final = b"PK\x03\x04"
"""What a zip archive with members begins with."""

_LOOKED_THROUGH: Final = 1 << 20
"""Bytes at the start of a pickle among which the name of its writer is looked for."""


class Format(NamedTuple):
    """A format that a file may have.

    Attributes:
        name: In a word or two.
        what: As messages call a file of it.
        advice: What to do with it, or ``""``.
        is_compression: Whether there is another file inside.
        is_pickled: Whether there is a pickle inside, which runs where the file is loaded as it is meant to be.
        is_damaged: Whether it is only what is left of a file.
    """

    name: str
    what: str
    advice: str = ""
    is_compression: bool = False
    is_pickled: bool = False
    is_damaged: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}" if self.advice else self.what


def _packed(name: str, what: str, module: str) -> Format:
    return Format(name, what, f"load it from its path with safepickle.load, or open it with {module} first", True)


TORCH_ZIP: Final = Format(
    "torch zip",
    "a zip file, as torch.save writes",
    "load it from its path with safepickle.load, with torch.load, or guarded with safepickle.integrations.torch.load",
    is_pickled=True,
)
TORCH_LEGACY: Final = Format(
    "torch legacy", "a file of torch.save, in the older format", TORCH_ZIP.advice, is_pickled=True
)
CUT_TORCH_ZIP: Final = Format(
    "torch zip",
    "a zip file, as torch.save writes, that is cut off or damaged",
    "get a whole copy of it",
    is_pickled=True,
)
TORCHSCRIPT: Final = Format(
    "TorchScript", "a TorchScript archive, which is a program", "torch.jit.load loads it, and runs it", is_pickled=True
)
TORCH_EXPORT: Final = Format(
    "torch.export", "a program of torch.export", "load it with torch.export.load", is_pickled=True
)
KERAS: Final = Format(
    ".keras", "a .keras archive", "load it with keras.saving.load_model, which has a safe mode of its own"
)
NPZ: Final = Format(
    "npz", "an .npz archive of arrays in numpy's own format", "load it with numpy.load(allow_pickle=False)"
)
NPY: Final = Format("npy", "an array in numpy's own format", "load it with numpy.load(allow_pickle=False)")
HDF5: Final = Format(
    "HDF5", "an HDF5 file, as older versions of Keras write", "load it with keras.saving.load_model or h5py"
)
ZIP: Final = Format("zip", "a zip file, and torch.save did not write it", "look into it with zipfile.ZipFile")
SAFETENSORS: Final = Format(
    "safetensors", "a safetensors file", "load it with safetensors, such as safetensors.torch.load_file"
)
JOBLIB: Final = Format(
    "joblib",
    "a file of joblib.dump, with arrays between the opcodes of the pickle",
    "load it with joblib.load, which runs what it says",
    is_pickled=True,
)
ONNX: Final = Format("ONNX", "an ONNX model", "load it with onnx.load, or run it with onnxruntime")
SAVED_MODEL: Final = Format(
    "SavedModel", "the graph of a TensorFlow SavedModel", "load its folder with tf.saved_model.load"
)
TFLITE: Final = Format("TFLite", "a TensorFlow Lite model", "run it with an interpreter of LiteRT")
MARKUP: Final = Format(
    "HTML or XML",
    "an HTML or XML page, most likely an error page that was saved in place of the file",
    "fetch the file again",
)
JSON: Final = Format("JSON", "JSON text", "load it with json.load")
TEXT: Final = Format("text", "text", "look at it: it may be the message of an error in place of the file")
TAR: Final = Format("tar", "a tar archive", "look into it with tarfile.open")
EMPTY: Final = Format("empty", "an empty file", "it was never written, or cut off at its start", is_damaged=True)
ZEROS: Final = Format("zeros", "nothing but zeros", "the file was never written, or the disk failed", is_damaged=True)
BZIP2: Final = _packed("bzip2", "a bzip2 file", "bz2.open")
ZLIB: Final = _packed("zlib", "a zlib stream, as joblib.dump(compress=...) writes", "zlib.decompress")

_MAGIC: Final = (
    (
        b"version https://git-lfs",
        Format("Git LFS pointer", "a Git LFS pointer", "the file itself was never fetched (git lfs pull)"),
    ),
    (b"/annex/objects/", Format("git-annex pointer", "a git-annex pointer", "fetch the file (git annex get)")),
    (b"outs:\n- md5", Format("DVC pointer", "a DVC pointer", "fetch the file (dvc pull)")),
    (b"\x1f\x8b", _packed("gzip", "a gzip file", "gzip.open")),
    (b"\xfd7zXZ\x00", _packed("xz", "an xz file", "lzma.open")),
    (b"\x5d\x00\x00", _packed("lzma", "an LZMA file", "lzma.open")),
    (b"\x28\xb5\x2f\xfd", _packed("zstd", "a Zstandard file", "the package zstandard")),
    (b"\x04\x22\x4d\x18", _packed("lz4", "an LZ4 file", "lz4.frame.open")),
    (b"PK\x05\x06", Format("zip", "an empty zip file")),
    (b"\x93NUMPY", NPY),
    (b"\x89HDF", HDF5),
    (b"GGUF", Format("GGUF", "a GGUF model", "run it with llama.cpp, or read it with the package gguf")),
    (b"PAR1", Format("Parquet", "a Parquet file", "load it with pandas.read_parquet")),
    (b"ARROW1", Format("Arrow", "an Arrow file", "load it with pyarrow.feather.read_table")),
    (b"SQLite format 3\0", Format("SQLite", "an SQLite database", "open it with sqlite3")),
    (b"MATLAB ", Format("MATLAB", "a MATLAB file", "load it with scipy.io.loadmat")),
    (b"7z\xbc\xaf\x27\x1c", Format("7z", "a 7z archive")),
    (b"Rar!\x1a\x07", Format("RAR", "a RAR archive")),
    (b"%PDF", Format("PDF", "a PDF file")),
    (b"\x89PNG", Format("PNG", "a PNG picture")),
    (b"\xff\xd8\xff", Format("JPEG", "a JPEG picture")),
    (b"\x7fELF", Format("ELF", "a program")),
)

_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_HEADER: Final = 100_000_000
"""The longest header that safetensors itself takes, in bytes."""

_ONNX_FIELDS: Final = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42")
_BZIP2_BLOCKS: Final = (b"1AY&SY", b"\x17rE8P\x90")
_PRINTABLE: Final = frozenset(range(32, 127)) | frozenset(b"\t\n\r\f") | frozenset(range(128, 256))


def recognise(head: bytes) -> Format | None:
    """Tell the format of a file by its first bytes, or None when they may be a pickle's.

    A pickle that loads is never asked about: a few formats share their first bytes with opcodes.
    """
    if not head:
        return EMPTY
    if head.startswith(ZIP_MEMBER):
        return _zip_format([_first_member(head)])
    for magic, form in _MAGIC:
        if head.startswith(magic):
            return form
    return _structured(head) or _text(head)


def is_legacy_torch(head: bytes) -> bool:
    """Tell whether a file begins as torch's older format does."""
    return head[:1] == b"\x80" and head[2 : 2 + len(LEGACY_TORCH)] == LEGACY_TORCH


def look_at(file: IO[bytes], start: int = 0) -> Format | None:
    """Tell the format of a file that did not load, from all that it shows without being loaded.

    Args:
        file: Seekable; it is left where it stands.
        start: Where it begins.

    Returns:
        The format, or None for a pickle.
    """
    stands = file.tell()
    try:
        file.seek(start)
        head = file.read(HEAD)
        if head.startswith(ZIP_MEMBER):
            return _look_into_zip(file, head, start)
        if is_legacy_torch(head):
            return TORCH_LEGACY
        return recognise(head) or _writer(head + file.read(_LOOKED_THROUGH))
    finally:
        file.seek(stands)


def _structured(head: bytes) -> Format | None:
    """Recognise what has no magic word at its very start."""
    if head.startswith(b"BZh") and head[4:10] in _BZIP2_BLOCKS:
        return BZIP2
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return ZLIB
    if head[4:8] == b"TFL3":
        return TFLITE
    if head[:3] == b"\x08\x01\x12":
        return SAVED_MODEL
    if len(head) > 2 and head[0] == 8 and 1 <= head[1] < 32 and head[2] in _ONNX_FIELDS:
        return ONNX
    if head[257:262] == b"ustar":
        return TAR
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return SAFETENSORS
    return None if any(head) else ZEROS


def _text(head: bytes) -> Format | None:
    """Recognise what people can read. The pickles of protocol 0 are text as well."""
    text = head.removeprefix(_BOM).lstrip()
    if not set(text) <= _PRINTABLE:
        return None
    if text[:1] == b"<":
        return MARKUP
    if text[:1] in (b"{", b"["):
        return JSON
    return TEXT if head.startswith(_BOM) or not _may_be_opcodes(head) else None


def _may_be_opcodes(head: bytes) -> bool:
    import pickletools  # not at the top: only what fails to load needs it

    try:
        for _ in pickletools.genops(head):
            pass
    except ValueError as error:
        return "unknown" not in str(error)
    except Warning:
        # Somebody wants errors for warnings, and a text has an escape that Python does not know.
        return True
    return True


def _first_member(head: bytes) -> str:
    """Return the name in the first header of a zip archive."""
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].decode("utf-8", "replace")


def _zip_format(members: Collection[str]) -> Format:
    """Tell by its members who wrote a zip archive."""
    inner = {name.partition("/")[2] for name in members}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return TORCHSCRIPT
    if "data.pkl" in inner:
        return TORCH_ZIP
    if "archive_format" in inner or "serialized_exported_program.json" in members:
        return TORCH_EXPORT
    if {"metadata.json", "config.json", "model.weights.h5"} & set(members):
        return KERAS
    if members and all(name.endswith(".npy") for name in members):
        return NPZ
    return ZIP


def _look_into_zip(file: IO[bytes], head: bytes, start: int) -> Format:
    import zipfile

    file.seek(start)
    try:
        with zipfile.ZipFile(file) as archive:
            return _zip_format(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        known = _zip_format([_first_member(head)])
        if known is TORCH_ZIP:
            return CUT_TORCH_ZIP
        return Format(known.name, f"{known.what}, cut off or damaged", "get a whole copy of it", is_damaged=True)


def _writer(start: bytes) -> Format | None:
    """Tell who wrote a pickle that plain pickle cannot read."""
    return JOBLIB if b"joblib.numpy_pickle" in start and b"NumpyArrayWrapper" in start else None
