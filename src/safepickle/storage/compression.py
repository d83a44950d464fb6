"""Compressed files: which compressor a path or a word asks for, and how its bytes are packed and unpacked.

It knows bytes, and neither pickles nor objects. The words are joblib's.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable
from typing import IO, Any, Final, NamedTuple, TypeAlias

from safepickle.storage.formats import HEAD, recognise

__all__ = ["CannotUnpackError", "Compress", "UnpacksToTooMuchError", "compression_of", "compressor", "pack", "unpack"]

Compress: TypeAlias = "bool | int | str | tuple[str, int] | None"

_CHUNK: Final = 1 << 20
_IN_MEMORY: Final = 1 << 26
"""How much of an unpacked file stays in memory, in bytes; more lies in a temporary file."""


class CannotUnpackError(Exception):
    """The compressed bytes are damaged or cut off."""


class UnpacksToTooMuchError(Exception):
    """The compressed bytes unpack to more than they may."""


class _Codec(NamedTuple):
    """A compressor.

    Attributes:
        suffix: Of the names of its files.
        modules: What may do it, the best one first.
        level: Its own level where none is asked for, or None for the module's.
        keyword: What the module calls the level.
    """

    suffix: str
    modules: tuple[str, ...]
    level: int | None
    keyword: str


_CODECS: Final = {
    "zlib": _Codec(".z", ("zlib",), 3, "level"),
    "gzip": _Codec(".gz", ("gzip",), 3, "compresslevel"),
    "bz2": _Codec(".bz2", ("bz2",), None, "compresslevel"),
    "xz": _Codec(".xz", ("lzma",), None, "preset"),
    "lzma": _Codec(".lzma", ("lzma",), None, "preset"),
    "zstd": _Codec(".zst", ("compression.zstd", "backports.zstd", "zstandard"), None, "level"),
    "lz4": _Codec(".lz4", ("lz4.frame",), None, "compression_level"),
}
_OTHER_WORDS: Final = {"bzip2": "bz2"}


def compressor(path: str | os.PathLike[str], compress: Compress) -> tuple[str, int | None] | None:
    """Return the compressor and its level that a dump asks for, or None for neither.

    Args:
        path: Its suffix chooses where `compress` names none.
        compress: None: by the suffix alone. False or 0: not at all. True or a level from 1 to 9: by the suffix, or
            zlib. The name of a compressor, or its name and a level.

    Raises:
        ValueError: There is no such compressor, or no such level.
        ModuleNotFoundError: Its library is not installed.
    """
    if compress is False or compress == 0:
        return None
    by_suffix = next((name for name, codec in _CODECS.items() if os.fsdecode(path).endswith(codec.suffix)), None)
    level: int | None = None
    if compress is None or compress is True:
        name = by_suffix if by_suffix is not None or compress is None else "zlib"
    elif isinstance(compress, int):
        name, level = by_suffix or "zlib", compress
    elif isinstance(compress, str):
        name = compress
    else:
        name, level = compress
    if name is None:
        return None
    name = _OTHER_WORDS.get(name, name)
    if name not in _CODECS:
        raise ValueError(f"compress={compress!r} is not known: pass one of {', '.join(map(repr, _CODECS))}, or a level")
    if level is not None and (type(level) is not int or not 0 <= level <= 22 or (level > 9 and name != "zstd")):
        raise ValueError(f"compress={compress!r} asks for no level of {name}: pass one from 1 to 9")
    _module(name)
    return name, level


def compression_of(file: IO[bytes]) -> str | None:
    """Tell by its first bytes how a seekable file is compressed, or None."""
    start = file.tell()
    found = recognise(file.read(HEAD))
    file.seek(start)
    return found.name if found is not None and found.is_compression else None


def pack(file: IO[bytes], compression: tuple[str, int | None], into: Any) -> None:
    """Compress what a file holds from its position on into another one."""
    name, level = compression
    codec, module = _CODECS[name], _module(name)
    level = codec.level if level is None else level
    options: dict[str, Any] = {} if level is None else {codec.keyword: level}
    if name == "zlib":
        packer = module.compressobj(**options)
        while chunk := file.read(_CHUNK):
            into.write(packer.compress(chunk))
        into.write(packer.flush())
        return
    with _writer(name, module, into, options) as packed:
        while chunk := file.read(_CHUNK):
            packed.write(chunk)


def unpack(file: IO[bytes], name: str, most: int | None = None) -> IO[bytes]:
    """Decompress a file from its position on, and hold it against the checksums of its format.

    Args:
        file: Compressed.
        name: How, as `compression_of` says.
        most: Bytes that it may unpack to, or None.

    Returns:
        What was in it, at its start: in memory, or in a temporary file when it is large.

    Raises:
        CannotUnpackError: It is damaged or cut off.
        UnpacksToTooMuchError: It holds more than `most`.
        ModuleNotFoundError: The library of its compressor is not installed.
    """
    read = _reader(_OTHER_WORDS.get(name, name), file)
    held: IO[bytes] = io.BytesIO()
    length = 0
    try:
        while chunk := _read(read, name):
            length += len(chunk)
            if most is not None and length > most:
                raise UnpacksToTooMuchError(f"it unpacks to more than {most:,} bytes")
            if length > _IN_MEMORY and isinstance(held, io.BytesIO):
                held = _on_disk(held)
            held.write(chunk)
    except BaseException:
        held.close()
        raise
    held.seek(0)
    return held


def _module(name: str) -> Any:
    modules = _CODECS[name].modules
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
    package = modules[-1].partition(".")[0]
    raise ModuleNotFoundError(f"{name} compression needs the package {package}: install it (pip install {package})")


def _writer(name: str, module: Any, into: Any, options: dict[str, Any]) -> Any:
    match name, module.__name__:
        case "gzip", _:
            # Equal objects give equal files: no time, no name.
            return module.GzipFile(filename="", mode="wb", fileobj=into, mtime=0, **options)
        case "lzma", _:
            return module.LZMAFile(into, "wb", format=module.FORMAT_ALONE, **options)
        case _, "zstandard":
            return module.ZstdCompressor(**options).stream_writer(into, closefd=False)
        case _:
            return module.open(into, "wb", **options)


def _reader(name: str, file: IO[bytes]) -> Callable[[], bytes]:
    """Return what gives the next unpacked bytes, and none at the end."""
    module = _module(name)
    if name == "zlib":
        return _read_zlib(module.decompressobj(), file)
    if module.__name__ == "zstandard":
        opened = module.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    else:
        opened = module.open(file, "rb")
    return lambda: bytes(opened.read(_CHUNK))


def _read_zlib(unpacker: Any, file: IO[bytes]) -> Callable[[], bytes]:
    def read() -> bytes:
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or file.read(_CHUNK)
            if not packed:
                raise EOFError("the stream ends before its end marker")
            chunk: bytes = unpacker.decompress(packed, _CHUNK)
            if chunk:
                return chunk
        return b""

    return read


def _read(read: Callable[[], bytes], name: str) -> bytes:
    try:
        return read()
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # each library has its own: zlib.error, LZMAError, ZstdError, RuntimeError, OSError
        raise CannotUnpackError(
            f"this {name} file is damaged or cut off and cannot be decompressed ({type(error).__name__}: {error})"
        ) from error


def _on_disk(held: io.BytesIO) -> IO[bytes]:
    import tempfile

    file = tempfile.TemporaryFile()  # noqa: SIM115 (whoever unpacks closes it)
    with held.getbuffer() as view:
        file.write(view)
    return file
