"""inspect: what a file holds and would import, without running any of it.

The pickle is run by the guard's own machine with symbols, so the verdict is that of the load. Reads pickles and torch
files (zip and legacy), plain or compressed, and lists files of arrays that are no pickles.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, fields
from typing import Any

from safepickle.guard.inspect_backend import Objection, Verdict
from safepickle.guard.limits import LimitExceeded, Malformed, Refusal, most_unpacked, told
from safepickle.guard.sniff import torch_format
from safepickle.guard.source import open_source
from safepickle.guard.torch_inspect import Run, new_inspect_backend, run_legacy, run_pickle, run_zip
from safepickle.load_errors import ChecksumError
from safepickle.public import public
from safepickle.report.inspect_arrays import find_arrays
from safepickle.report.inspect_walk import Findings, walk
from safepickle.report.inspection import GlobalUse, Inspection, Problem
from safepickle.storage.array_files import list_arrays
from safepickle.storage.checksum import check_file
from safepickle.storage.compression import CannotUnpackError, UnpacksToTooMuchError, compression_of, unpack
from safepickle.storage.contents import CannotListError
from safepickle.storage.formats import HEAD, Format, look_at
from safepickle.storage.remote import open_path

__all__ = ["inspect"]


@public
def inspect(file: Any) -> Inspection:
    """Say what a file holds and would import, executing and importing nothing that it names.

    Works on files that safepickle did not write, on truncated and on hostile ones. A file that is no pickle is no
    error: the verdict says so.

    Args:
        file: A path, a seekable file open for reading (left standing anywhere), or the bytes themselves.

    Returns:
        The names, tombstones, tensors and sizes, and the verdict of a guarded load.

    Raises:
        OSError: The file cannot be read.

    Examples:
        >>> import argparse
        >>> found = safepickle.inspect(safepickle.dumps(argparse.Namespace(epoch=3)))
        >>> found.verdict, found.allow
        ('needs_allow', ('argparse:Namespace',))
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        return _inspect(io.BytesIO(file), "")
    if isinstance(file, (str, os.PathLike)):
        with open_path(file) as opened:
            return _inspect(opened, os.fsdecode(file))
    name = getattr(file, "name", "")
    return _inspect(file, name if isinstance(name, str) else "")


def _inspect(file: Any, name: str) -> Inspection:
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    packed = compression_of(file)
    if packed is None:
        look = _look(file, start)
    else:
        try:
            with unpack(file, packed, most_unpacked(size)) as unpacked:
                look = _look(unpacked, 0)
        except UnpacksToTooMuchError as error:
            look = _stopped(LimitExceeded(str(error)))
        except (CannotUnpackError, ModuleNotFoundError) as error:
            look = _stopped(Malformed(str(error)))
    return _result(name, packed, size, look)


@dataclass(slots=True)
class _Look:
    """What looking into a file has shown."""

    run: Run
    format: str
    findings: Findings


def _look(file: Any, start: int) -> _Look:
    """Run what a file holds, or list what it holds when it is no pickle."""
    head = file.read(HEAD)
    file.seek(start)
    try:
        form = torch_format(head)
        if form == "zip":
            run, name = run_zip(file), "torch zip"
        elif form == "legacy":
            run, name = run_legacy(file), "torch legacy"
        else:
            damaged = _hold_against_checksum(file)
            file.seek(start)
            run, name = run_pickle(open_source(file), new_inspect_backend(), "ASCII"), "pickle"
            objections = run.backend.objections
            known = None if run.complete else look_at(file, start)
            if known is not None and known.is_pickled:
                name = known.name
                rest = [objection for objection in objections if objection.verdict != "damaged"]
                objections[:] = [Objection("refused", -1, "", f"this is {known}"), *rest]
            elif known is not None and not run.backend.grants:
                # Where a name was read, pickle has found opcodes, whatever the first bytes look like.
                return _list(file, start, known)
            else:
                objections[:0] = damaged
    except (Refusal, Malformed, LimitExceeded) as error:
        known = look_at(file, start)
        if known is None or known.is_pickled:
            return _stopped(error, "pickle" if known is None else known.name)
        return _list(file, start, known)
    return _Look(run, name, _walk(run) if run.complete else Findings(complete=False))


def _walk(run: Run) -> Findings:
    """Look through what was read. Its values are real ones in part, so whatever they do to the walk is a finding."""
    try:
        return walk(run)
    except Exception as error:
        run.backend.objections.append(Objection("refused", -1, "", f"it cannot be looked through ({told(error)})"))
        return Findings(complete=False)


def _list(file: Any, start: int, known: Format) -> _Look:
    """List what a file holds that is no pickle, as far as its format is known well enough."""
    look = _stopped(Malformed(f"this is {known}"), known.name)
    if known.is_damaged:
        return look
    objections = look.run.backend.objections
    objections[:] = [Objection("not_a_pickle", -1, "", f"this is {known}")]
    try:
        contents = list_arrays(file, known, start)
        if contents is not None:
            look.findings = find_arrays(known.name, contents)
    except CannotListError as error:
        objections[:] = [Objection("damaged", -1, "", f"this is {known.what}, and {error}")]
    return look


def _stopped(error: Exception, name: str = "unknown") -> _Look:
    """Return what was shown by a file that was stopped at its container."""
    run = Run(new_inspect_backend())
    verdict: Verdict = "damaged" if isinstance(error, Malformed) else "refused"
    run.backend.objections.append(Objection(verdict, -1, "", str(error)))
    return _Look(run, name, Findings(complete=False))


def _hold_against_checksum(file: Any) -> list[Objection]:
    try:
        check_file(file, "check")
    except ChecksumError as error:
        return [Objection("damaged", -1, "", str(error))]
    return []


def _result(name: str, packed: str | None, size: int, look: _Look) -> Inspection:
    run, backend, verdict = look.run, look.run.backend, look.run.backend.verdict
    shown: dict[str, Any] = {entry.name: getattr(look.findings, entry.name) for entry in fields(Findings)}
    shown = {key: tuple(value) if type(value) is list else value for key, value in shown.items()}
    paths, counts = shown.pop("paths"), shown.pop("counts")
    grants = [grant for grant in backend.grants if grant.module]
    status = {"needed": "needs_allow", "refused": "refused"}
    return Inspection(
        file=name,
        format=look.format,
        compression=packed,
        protocol=run.protocol if run.complete or run.protocol else None,
        verdict=verdict,
        allow=tuple(grant.key for grant in grants if grant.listed == "needed") if verdict == "needs_allow" else (),
        problems=tuple(
            Problem(found.verdict, run.member, found.offset if found.offset >= 0 else None, found.name, found.reason)
            for found in backend.objections
        ),
        globals=tuple(
            GlobalUse(
                grant.key,
                status.get(grant.listed, "built-in"),
                grant.offset,
                tuple(paths.get(grant.key, ())),
                counts.get(grant.key, 0),
            )
            for grant in grants
        ),
        buffers=backend.buffers,
        file_bytes=size,
        pickle_bytes=run.pickle_bytes,
        tensor_bytes=sum(map(len, run.storages.values())) or sum(tensor.nbytes for tensor in look.findings.tensors),
        **shown,
    )
