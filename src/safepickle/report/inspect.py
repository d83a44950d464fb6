"""inspect: what a file holds and would import, without running any of it.

The pickle is run by the guard's own machine with symbols, so the verdict is that of the load. Reads pickles
and torch files (zip and legacy), plain or compressed.
"""

from __future__ import annotations

import io
import os
from typing import Any

from safepickle.errors import ChecksumError
from safepickle.guard.inspect_backend import Objection
from safepickle.guard.limits import LimitExceeded, Malformed, Refusal, most_unpacked, told
from safepickle.guard.sniff import torch_format
from safepickle.guard.source import open_source
from safepickle.guard.torch_inspect import Run, new_inspect_backend, run_legacy, run_pickle, run_zip
from safepickle.public import public
from safepickle.report.inspect_walk import Findings, walk
from safepickle.report.inspection import GlobalUse, Inspection, Problem, Verdict
from safepickle.storage.checksum import check_file
from safepickle.storage.compression import CannotUnpackError, UnpacksToTooMuchError, compression_of, unpack
from safepickle.storage.formats import HEAD, look_at
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
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        return _inspect(io.BytesIO(file), "")
    if isinstance(file, (str, os.PathLike)):
        with open_path(file) as opened:
            return _inspect(opened, os.fspath(file))
    name = getattr(file, "name", "")
    return _inspect(file, name if isinstance(name, str) else "")


def _inspect(file: Any, name: str) -> Inspection:
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    head = file.read(HEAD)
    file.seek(start)
    packed = compression_of(file)
    if packed is None:
        run, form = _run(file, head, start)
    else:
        try:
            with unpack(file, packed, most_unpacked(size)) as unpacked:
                head = unpacked.read(HEAD)
                run, form = _run(unpacked, head, 0)
        except UnpacksToTooMuchError as error:
            run, form = _stopped(LimitExceeded(str(error))), "pickle"
        except (CannotUnpackError, ModuleNotFoundError) as error:
            run, form = _stopped(Malformed(str(error))), "pickle"
    findings = _walk(run) if run.complete else Findings(complete=False)
    return _result(name, form, packed, size, run, findings)


def _walk(run: Run) -> Findings:
    """Look through what was read. Its values are real ones in part, so whatever they do to the walk is a finding."""
    try:
        return walk(run.root, run.backend)
    except Exception as error:
        run.backend.objections.append(Objection("refused", -1, "", f"it cannot be looked through ({told(error)})"))
        return Findings(complete=False)


def _run(file: Any, head: bytes, start: int) -> tuple[Run, str]:
    """Run what a file holds, and name its format."""
    try:
        form = torch_format(head)
        file.seek(start)
        if form == "zip":
            return run_zip(file), "torch zip"
        if form == "legacy":
            return run_legacy(file), "torch legacy"
        damaged = _hold_against_checksum(file)
        file.seek(start)
        run = run_pickle(open_source(file), new_inspect_backend(), "ASCII")
    except (Refusal, Malformed, LimitExceeded) as error:
        known = look_at(file, start)
        return _stopped(error), "pickle" if known is None else known.name
    known = None if run.complete else look_at(file, start)
    if known is None:
        run.backend.objections[:0] = damaged
        return run, "pickle"
    run.backend.objections[:] = [Objection("damaged", 0, "", f"this is {known}")]
    return run, known.name


def _stopped(error: Exception) -> Run:
    """Return what a run has shown that was stopped by the container."""
    run = Run(new_inspect_backend())
    verdict: Verdict = "damaged" if isinstance(error, Malformed) else "refused"
    run.backend.objections.append(Objection(verdict, -1, "", str(error)))
    return run


def _hold_against_checksum(file: Any) -> list[Objection]:
    try:
        check_file(file, "check")
    except ChecksumError as error:
        return [Objection("damaged", -1, "", str(error))]
    return []


def _result(name: str, form: str, packed: str | None, size: int, run: Run, findings: Findings) -> Inspection:
    objections = run.backend.objections
    verdicts = {objection.verdict for objection in objections}
    verdict: Verdict = "safe"
    for worse in ("needs_allow", "damaged", "refused"):
        if worse in verdicts:
            verdict = worse
    needed = [grant.key for grant in run.backend.grants if grant.listed == "needed" and grant.module]
    status = {"needed": "needs_allow", "refused": "refused"}
    globals_ = tuple(
        GlobalUse(
            grant.key,
            status.get(grant.listed, "built-in"),
            grant.offset,
            tuple(findings.paths.get(grant.key, ())),
            findings.counts.get(grant.key, 0),
        )
        for grant in run.backend.grants
        if grant.module
    )
    problems = tuple(
        Problem(
            objection.verdict,  # type: ignore[arg-type]
            run.member,
            objection.offset if objection.offset >= 0 else None,
            objection.name,
            objection.reason,
        )
        for objection in objections
    )
    return Inspection(
        file=name,
        format=form,
        compression=packed,
        protocol=run.protocol if run.complete or run.protocol else None,
        verdict=verdict,
        allow=tuple(needed) if verdict == "needs_allow" else (),
        problems=problems,
        globals=globals_,
        tombstones=tuple(findings.tombstones),
        strong_copies=tuple(findings.strong_copies),
        recipes=tuple(findings.recipes),
        tensors=tuple(findings.tensors),
        buffers=run.backend.buffers,
        tree=tuple(findings.tree),
        file_bytes=size,
        pickle_bytes=run.pickle_bytes,
        tensor_bytes=sum(map(len, run.storages.values())) or sum(tensor.nbytes for tensor in findings.tensors),
        complete=run.complete and findings.complete,
    )
