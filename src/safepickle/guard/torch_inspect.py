"""torch files without torch: the pickles of both formats, run with symbols, and compared with the storages."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from safepickle.guard.blob import Blob
from safepickle.guard.containers import read_torch_archive
from safepickle.guard.inspect_backend import InspectBackend, Symbol
from safepickle.guard.limits import LimitExceeded, Malformed, Refusal
from safepickle.guard.machine import Machine
from safepickle.guard.rules import ValueInfo
from safepickle.guard.sniff import torch_format
from safepickle.guard.source import Source, open_source
from safepickle.guard.storage_claims import StorageClaims
from safepickle.storage.formats import HEAD
from safepickle.storage.reading import read_file

__all__ = ["Run", "new_inspect_backend", "run_legacy", "run_nested", "run_pickle", "run_zip"]

_MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION: Final = 1001


@dataclass(slots=True)
class Run:
    """What running a file with symbols has shown.

    Attributes:
        backend: The backend, with its objections.
        root: The object, or None where the run stopped.
        protocol: Of the pickle.
        member: The member of the archive that held it, or ``""``.
        pickle_bytes: Length of the pickle.
        storages: The bytes of each storage by key, unread, as the file holds them.
        swapped: Whether the bytes of their elements are in the order of another machine.
        complete: Whether the run came to the end.
        last_nested: A storage that is a torch file inside the pickle, and what running that has shown: the last one
            whose elements somebody asked for.
    """

    backend: InspectBackend
    root: Any = None
    protocol: int = 0
    member: str = ""
    pickle_bytes: int = 0
    storages: dict[str, Blob] = field(default_factory=dict)
    swapped: bool = False
    complete: bool = False
    last_nested: tuple[Symbol, Run] | None = None


def new_inspect_backend(
    storages: StorageClaims | None = None, *, depth: int = 0, out_of_band: Iterable[Any] = ()
) -> InspectBackend:
    """Return a backend of symbols that can look into the torch files that lie inside a pickle. See `InspectBackend`."""
    return InspectBackend(storages, depth=depth, look_at_storage=inspect_storage, out_of_band=out_of_band)


def run_pickle(source: Source, backend: InspectBackend, encoding: str = "utf-8") -> Run:
    """Run one pickle; what stops it is noted. The encoding is torch's default."""
    run = Run(backend)
    machine = Machine(source, backend, encoding=encoding)
    backend.attach(machine)
    try:
        run.root = machine.run()
        run.complete = True
    except (Refusal, Malformed, LimitExceeded) as error:
        backend.object_to(error)
    run.protocol = machine.protocol
    run.pickle_bytes = machine.offset
    return run


def run_zip(file: Any, depth: int = 0) -> Run:
    """Run the pickle of a torch zip archive.

    Raises:
        Refusal: Its container could be read in two ways.
        Malformed: It is no whole torch archive.
    """
    start = file.tell()
    archive = read_torch_archive(file, start)
    file.seek(start + archive.pickle.offset)
    run = run_pickle(
        Source(file.read(archive.pickle.size)), new_inspect_backend(StorageClaims(archive.sizes), depth=depth)
    )
    run.member = archive.pickle.name
    run.swapped = archive.byteorder != sys.byteorder
    for key, member in archive.storages.items():
        read = read_file(file, start + member.offset, member.size)
        run.storages[key] = Blob(bytes, member.size, read, member.crc)
    return run


def run_legacy(file: object, depth: int = 0) -> Run:
    """Run the five pickles of torch's older format, and walk over the storages behind them.

    Raises:
        Malformed: The file contradicts itself.
    """
    claims = StorageClaims()

    def next_pickle() -> Run:
        return run_pickle(open_source(file), new_inspect_backend(claims, depth=depth))

    opening = [next_pickle() for _ in range(3)]
    for run in opening:
        if not run.complete or run.backend.objections:
            return run
    if opening[0].root != _MAGIC_NUMBER or opening[1].root != _LEGACY_VERSION:
        raise Malformed("it does not begin as torch's older format does")
    run = next_pickle()
    if not run.complete:
        return run
    keys = next_pickle()
    run.backend.objections += keys.backend.objections
    if not keys.complete:
        run.complete = False
        return run
    claims.hold_keys(keys.root)
    for key in keys.root:
        run.storages[key] = _pass_storage(file, key, *claims.size(key))
    return run


def inspect_storage(payload: bytes, outer: InspectBackend, depth: int) -> ValueInfo:
    """Run a torch file that lies inside a pickle, and say what storage it holds.

    Raises:
        Refusal: It holds something else.
        Malformed: It is no whole torch file.
    """
    run = run_nested(payload, depth)
    outer.objections += run.backend.objections
    if type(run.root) is not Symbol or run.root.info is None or run.root.info.kind != "storage":
        raise Refusal("the torch file inside it holds no storage")
    return run.root.info


def run_nested(payload: bytes, depth: int) -> Run:
    """Run a torch file that lies inside a pickle.

    Raises:
        Refusal: Its container could be read in two ways.
        Malformed: It is no whole torch file.
    """
    file = io.BytesIO(payload)
    form = torch_format(payload[:HEAD])
    if form is None:
        raise Malformed("the file inside it is not a torch file")
    return run_zip(file, depth) if form == "zip" else run_legacy(file, depth)


def _pass_storage(file: Any, key: str, itemsize: int, claimed: int) -> Blob:
    header = file.read(8)
    if len(header) != 8:
        raise Malformed("the file is cut off in front of a storage")
    nbytes: int = struct.unpack("<q", header)[0] * itemsize
    if nbytes != claimed:
        raise Malformed(f"storage {key!r} claims {claimed:,} bytes, and the file holds {nbytes:,}")
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    if here + nbytes > end:
        raise Malformed(f"the file is cut off in storage {key!r}")
    file.seek(here + nbytes)
    return Blob(bytes, nbytes, read_file(file, here, nbytes))
