"""torch files without torch: the pickles of both formats, run in the world of symbols and held against the storages."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from safepickle.guard.containers import Member, read_members, torch_root
from safepickle.guard.limits import Damage, Excess, Refusal
from safepickle.guard.machine import Machine
from safepickle.guard.rules import Facts
from safepickle.guard.sketch import Sketch, Symbol
from safepickle.guard.source import Source, open_source

__all__ = ["LEGACY_MAGIC", "Run", "run_legacy", "run_pickle", "run_zip", "sketch_storage"]

LEGACY_MAGIC: Final = b"\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION: Final = 1001
_LITTLE_RECORD: Final = 256


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
    members = read_members(file, start)
    root = torch_root(members)
    _check_records(file, start, root, members)
    sizes = {
        name.removeprefix(f"{root}/data/"): member.size
        for name, member in members.items()
        if name.startswith(f"{root}/data/")
    }

    def hold(key: str, facts: Facts) -> None:
        if key not in sizes:
            raise Damage(f"the archive has no storage {key!r}")
        if sizes[key] != facts.nbytes:
            raise Damage(f"storage {key!r} claims {facts.nbytes:,} bytes, and the archive holds {sizes[key]:,}")

    member = members[f"{root}/data.pkl"]
    file.seek(start + member.offset)
    run = run_pickle(Source(file.read(member.size)), Sketch(hold, depth=depth))
    run.member, run.storages = member.name, sizes
    return run


def run_legacy(file: Any, depth: int = 0) -> Run:
    """Run the five pickles of torch's older format, and walk over the storages behind them.

    Raises:
        Damage: The file contradicts itself.
    """
    claimed: dict[str, Facts] = {}

    def hold(key: str, facts: Facts) -> None:
        claimed.setdefault(key, facts)
        if claimed[key].nbytes != facts.nbytes:
            raise Damage(f"storage {key!r} is claimed with two sizes")

    def next_pickle() -> Run:
        return run_pickle(open_source(file), Sketch(hold, depth=depth))

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
    if type(keys.root) is not list or not all(type(key) is str for key in keys.root):
        raise Damage("the list of storages is malformed")
    for key in keys.root:
        run.storages[key] = _pass_storage(file, key, claimed)
    if claimed.keys() - run.storages.keys():
        raise Damage("a storage that the file uses is not in its list of storages")
    return run


def sketch_storage(payload: bytes, outer: Sketch, depth: int) -> Facts:
    """Run a torch file that lies inside a pickle, and say what storage it holds.

    Raises:
        Refusal: It holds something else.
        Damage: It is no whole torch file.
    """
    file = io.BytesIO(payload)
    if payload[:4] == b"PK\x03\x04":
        run = run_zip(file, depth)
    elif payload[2 : 2 + len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        run = run_legacy(file, depth)
    else:
        raise Damage("the torch file inside it is none")
    outer.objections += run.world.objections
    if type(run.root) is not Symbol or run.root.facts is None or run.root.facts.kind != "storage":
        raise Refusal("the torch file inside it holds no storage")
    return run.root.facts


def _check_records(file: Any, start: int, root: str, members: dict[str, Member]) -> None:
    """Hold the small records that torch reads beside the pickle against what it takes."""
    records = {}
    for name in ("version", ".format_version", "byteorder", ".storage_alignment"):
        member = members.get(f"{root}/{name}")
        if member is not None:
            if member.size > _LITTLE_RECORD:
                raise Damage(f"the record {name!r} is too long")
            file.seek(start + member.offset)
            records[name] = file.read(member.size)
    version = records.get("version", b"").strip()
    if not version.isdigit() or not 1 <= int(version) <= 10:
        raise Damage("the archive does not say which version of torch's format it has")
    if records.get("byteorder", b"little") not in (b"little", b"big"):
        raise Damage("the byte order of the archive is unknown")
    if not records.get(".storage_alignment", b"64").isdigit():
        raise Damage("the alignment of the archive's storages is no number")


def _pass_storage(file: Any, key: str, claimed: dict[str, Facts]) -> int:
    facts = claimed.get(key)
    if facts is None:
        raise Damage(f"storage {key!r} is used nowhere")
    header = file.read(8)
    if len(header) != 8:
        raise Damage("the file is cut off in front of a storage")
    nbytes: int = struct.unpack("<q", header)[0] * facts.itemsize
    if nbytes != facts.nbytes:
        raise Damage(f"storage {key!r} claims {facts.nbytes:,} bytes, and the file holds {nbytes:,}")
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    if here + nbytes > end:
        raise Damage(f"the file is cut off in storage {key!r}")
    file.seek(here + nbytes)
    return nbytes
