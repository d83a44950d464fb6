"""What `safepickle.diff` compares: a file or a live object, opened, run with symbols, and closed again."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

from safepickle.dumping.pickler import dumps
from safepickle.errors import UnpicklableWarning, WeakReferenceWarning
from safepickle.guard.limits import LimitExceeded, Malformed, Refusal, most_unpacked
from safepickle.guard.sniff import torch_format
from safepickle.guard.source import Source, open_source
from safepickle.guard.torch_inspect import Run, new_inspect_backend, run_legacy, run_pickle, run_zip
from safepickle.load_errors import DamagedPickleError, NotAllowedError
from safepickle.messages import dotted_name, shorten
from safepickle.report.diff_values import look_at_value
from safepickle.storage.array_files import list_arrays
from safepickle.storage.compression import CannotUnpackError, UnpacksToTooMuchError, compression_of, unpack
from safepickle.storage.contents import CannotListError
from safepickle.storage.formats import HEAD, look_at
from safepickle.storage.remote import open_path
from safepickle.tracing.naming import NEAREST
from safepickle.tracing.path_table import PathTable

__all__ = ["Side", "align", "open_side"]

_OBJECT: Final = "object"
_SEARCHED: Final = 10_000
"""Values among which the dictionary is looked for that a file of arrays is compared with."""


@dataclass(slots=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: Of the file, or the type of a live object.
        form: Its format; ``"object"`` for a live one.
        root: What it holds.
        run: What running it with symbols has shown; None for a file of arrays.
        size: Bytes of the file, or of the pickle and its buffers.
        compression: Name of the compressor, or None.
        complete: Whether all that it holds is in `root`.
        documents: JSON that lies beside the arrays, by name.
    """

    name: str
    form: str
    root: Any
    run: Run | None
    size: int
    compression: str | None = None
    complete: bool = True
    documents: dict[str, Any] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        """Whether it is no live object."""
        return self.form != _OBJECT


@contextlib.contextmanager
def open_side(given: Any) -> Iterator[Side]:
    """Open what `safepickle.diff` was given."""
    if isinstance(given, (bytes, bytearray, memoryview)):
        given = io.BytesIO(given)
    if isinstance(given, (str, os.PathLike)):
        with open_path(given) as file, _unpacked(file, os.fsdecode(given)) as side:
            yield side
    elif hasattr(given, "read") and hasattr(given, "seek"):
        name = getattr(given, "name", "")
        with _unpacked(given, name if isinstance(name, str) else "") as side:
            yield side
    else:
        yield _of_object(given)


@contextlib.contextmanager
def _unpacked(file: Any, name: str) -> Iterator[Side]:
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    packed = compression_of(file)
    if packed is None:
        yield _of_file(file, name, start, size)
        return
    try:
        unpacked = unpack(file, packed, most_unpacked(size))
    except UnpacksToTooMuchError as error:
        raise NotAllowedError(name, None, "", "", str(error)) from error
    except CannotUnpackError as error:
        raise DamagedPickleError(name, None, "", "", str(error)) from error
    with unpacked:
        side = _of_file(unpacked, name, 0, size)
        side.compression = packed
        yield side


def _of_file(file: IO[bytes], name: str, start: int, size: int) -> Side:
    head = file.read(HEAD)
    file.seek(start)
    form, stopped = None, None
    try:
        form = torch_format(head)
        if form == "zip":
            run = run_zip(file)
        elif form == "legacy":
            run = run_legacy(file)
        else:
            run = run_pickle(open_source(file), new_inspect_backend(), "ASCII")
        if run.complete:
            return Side(name, f"torch {form}" if form else "pickle", run.root, run, size)
    except (Refusal, Malformed, LimitExceeded) as error:
        stopped = error
    known = look_at(file, start)
    try:
        contents = None if known is None else list_arrays(file, known, start)
    except CannotListError as error:
        raise DamagedPickleError(name, None, "", "", f"{known.what if known else 'it'}: {error}") from error
    if contents is not None and known is not None:
        root = contents.arrays if list(contents.arrays) != [""] else contents.arrays[""]
        return Side(name, known.name, root, None, size, complete=contents.complete, documents=contents.documents)
    if stopped is not None:
        wrong = NotAllowedError if isinstance(stopped, Refusal) else DamagedPickleError
        raise wrong(name, None, "", "", f"this is {known}" if known and not form else str(stopped)) from stopped
    found = run.backend.objections[-1]
    wrong = DamagedPickleError if found.verdict == "damaged" or known else NotAllowedError
    raise wrong(name, found.offset, "", found.name, found.reason if known is None else f"this is {known}")


def _of_object(obj: Any) -> Side:
    """Pickle an object, its buffers left where they are, and run that with symbols."""
    buffers: list[Any] = []
    with warnings.catch_warnings():
        # What a copy would lack is no matter here.
        warnings.simplefilter("ignore", WeakReferenceWarning)
        warnings.simplefilter("ignore", UnpicklableWarning)
        data = dumps(obj, buffer_callback=lambda buffer: buffers.append(buffer.raw()), unpicklable="tombstone")
    run = run_pickle(Source(data), new_inspect_backend(out_of_band=buffers))
    name = dotted_name(type(obj))
    if not run.complete:
        found = run.backend.objections[-1]
        raise NotAllowedError(name, None, "", found.name, f"it cannot be compared: {found.reason}")
    return Side(name, _OBJECT, run.root, run, len(data) + sum(buffer.nbytes for buffer in buffers))


def align(one: Side, other: Side) -> tuple[str, ...]:
    """Choose what of the two is compared: of a pickle beside a file of arrays, the dictionary with most of its names.

    Returns:
        What to say of it.
    """
    if one.form == other.form and one.documents:
        one.root, other.root = one.root | one.documents, other.root | other.documents
    for flat, nested in ((one, other), (other, one)):
        if flat.run is None and nested.run is not None and type(flat.root) is dict:
            found = _find(set(flat.root), nested)
            if found is not None:
                nested.root, path, prefix = found
                if path != "$" or prefix:
                    named = f", whose names begin with {prefix!r}" if prefix else ""
                    return (f"{flat.name or 'bytes'} was compared with {path} of {nested.name or 'bytes'}{named}.",)
    return ()


def _find(names: set[str], side: Side) -> tuple[dict[str, Any], str, str] | None:
    """Find the dictionary with most of some names, perhaps behind a common prefix, its path, and that prefix."""
    if not names:
        return None
    paths = PathTable()
    waiting: deque[tuple[Any, int]] = deque([(side.root, paths.add(-1, NEAREST))])
    seen: dict[int, Any] = {}
    best, most = None, len(names) // 2
    while waiting and len(seen) < _SEARCHED:
        value, number = waiting.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        children = look_at_value(value, side.run).children or []
        members = {key[1]: part for key, _, part in children if type(key) is tuple and _is_named(key)}
        for prefix in _prefixes(names, members):
            shared = sum(f"{prefix}{name}" in members for name in names)
            if shared > most:
                inside = {name.removeprefix(prefix): part for name, part in members.items() if name.startswith(prefix)}
                best, most = (inside, shorten(paths.path(number)), prefix), shared
        waiting.extend((child.value, paths.add(number, child.edge)) for child in children if child.edge is not NEAREST)
    return best


def _is_named(key: tuple[Any, ...]) -> bool:
    return key[0] == "key" and type(key[1]) is str


def _prefixes(names: set[str], members: dict[str, Any]) -> set[str]:
    longest = max(names, key=len)
    return {name.removesuffix(longest) for name in members if name.endswith(longest)}
