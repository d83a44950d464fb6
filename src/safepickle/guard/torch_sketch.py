"""torch files without torch: the pickles of both formats, run in the world of symbols and held against the storages."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from safepickle.guard.containers import read_torch_archive
from safepickle.guard.limits import Damage, Excess, Refusal
from safepickle.guard.machine import Machine
from safepickle.guard.rules import Facts
from safepickle.guard.sketch import Sketch, Symbol
from safepickle.guard.sniff import HEAD, torch_format
from safepickle.guard.source import Source, open_source
from safepickle.guard.storage_claims import StorageClaims

__all__ = ["Run", "new_sketch", "run_legacy", "run_pickle", "run_zip"]

_MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION: Final = 1001


@dataclass(slots=True)
class Run:
    """What running a file in the world of symbols has shown.

    Attributes:
        world: The world, with its objections.
        root: The object, or None where the run stopped.
        protocol: Of the pickle.
        member: The member of the archive that held it, or ``""``.
        pickle_bytes: Length of the pickle.
        storages: Bytes of each storage by key, as the file holds them.
        complete: Whether the run came to the end.
    """

    world: Sketch
    root: Any = None
    protocol: int = 0
    member: str = ""
    pickle_bytes: int = 0
    storages: dict[str, int] = field(default_factory=dict)
    complete: bool = False


def new_sketch(storages: StorageClaims | None = None, *, depth: int = 0) -> Sketch:
    """Return a world of symbols that can look into the torch files that lie inside a pickle. See `Sketch`."""
    return Sketch(storages, depth=depth, look_at_storage=sketch_storage)


def run_pickle(source: Source, world: Sketch, encoding: str = "utf-8") -> Run:
    """Run one pickle; what stops it is noted in the world. The encoding is torch's default."""
    run = Run(world)
    machine = Machine(source, world, encoding=encoding)
    world.attach(machine)
    try:
        run.root = machine.run()
        run.complete = True
    except (Refusal, Damage, Excess) as error:
        world.object_to(error)
    run.protocol = machine.protocol
    run.pickle_bytes = machine.offset
    return run


def run_zip(file: Any, depth: int = 0) -> Run:
    """Run the pickle of a torch zip archive.

    Raises:
        Refusal: Its container could be read in two ways.
        Damage: It is no whole torch archive.
    """
    start = file.tell()
    archive = read_torch_archive(file, start)
    file.seek(start + archive.pickle.offset)
    run = run_pickle(Source(file.read(archive.pickle.size)), new_sketch(StorageClaims(archive.storages), depth=depth))
    run.member, run.storages = archive.pickle.name, archive.storages
    return run


def run_legacy(file: Any, depth: int = 0) -> Run:
    """Run the five pickles of torch's older format, and walk over the storages behind them.

    Raises:
        Damage: The file contradicts itself.
    """
    claims = StorageClaims()

    def next_pickle() -> Run:
        return run_pickle(open_source(file), new_sketch(claims, depth=depth))

    opening = [next_pickle() for _ in range(3)]
    for run in opening:
        if not run.complete or run.world.objections:
            return run
    if opening[0].root != _MAGIC_NUMBER or opening[1].root != _LEGACY_VERSION:
        raise Damage("it does not begin as torch's older format does")
    run = next_pickle()
    if not run.complete:
        return run
    keys = next_pickle()
    run.world.objections += keys.world.objections
    if not keys.complete:
        run.complete = False
        return run
    claims.hold_keys(keys.root)
    for key in keys.root:
        run.storages[key] = _pass_storage(file, key, *claims.size(key))
    return run


def sketch_storage(payload: bytes, outer: Sketch, depth: int) -> Facts:
    """Run a torch file that lies inside a pickle, and say what storage it holds.

    Raises:
        Refusal: It holds something else.
        Damage: It is no whole torch file.
    """
    file = io.BytesIO(payload)
    form = torch_format(payload[:HEAD])
    if form is None:
        raise Damage("the torch file inside it is none")
    run = run_zip(file, depth) if form == "zip" else run_legacy(file, depth)
    outer.objections += run.world.objections
    if type(run.root) is not Symbol or run.root.facts is None or run.root.facts.kind != "storage":
        raise Refusal("the torch file inside it holds no storage")
    return run.root.facts


def _pass_storage(file: Any, key: str, itemsize: int, claimed: int) -> int:
    header = file.read(8)
    if len(header) != 8:
        raise Damage("the file is cut off in front of a storage")
    nbytes: int = struct.unpack("<q", header)[0] * itemsize
    if nbytes != claimed:
        raise Damage(f"storage {key!r} claims {claimed:,} bytes, and the file holds {nbytes:,}")
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    if here + nbytes > end:
        raise Damage(f"the file is cut off in storage {key!r}")
    file.seek(here + nbytes)
    return nbytes
