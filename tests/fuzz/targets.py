"""What the fuzzer holds: each target takes an input and raises `Finding` where something is not as promised."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pickle
import re
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import safepickle
from fuzz.likeness import compare
from fuzz.watching import Finding, fill_new_memory, watched
from guard import targets as allowed
from guard.comparing import difference
from safepickle import ChecksumError, DamagedPickleError, LoadLimitError, NotAllowedError, speedups
from safepickle.guard.allow_list import AllowList
from safepickle.guard.load_backend import LoadBackend
from safepickle.guard.rules import BUILT_IN
from safepickle.guard.source import source_of_bytes
from safepickle.guard.torch_loading import load_storage
from safepickle.guard.verified import load_verified
from safepickle.options import LoadOptions
from safepickle.report.inspection import Inspection

ALLOW = (
    *(allowed.Victim, allowed.Slotted, allowed.Stateful, allowed.Chained, allowed.Color, allowed.Pair),
    *(allowed.Filling, allowed.Mapping, allowed.PlainList, allowed.PlainDict, allowed.Reference),
)
_FINDER = LoadBackend(AllowList(ALLOW), LoadOptions(), load_storage=load_storage)
_ERRORS = (NotAllowedError, DamagedPickleError, LoadLimitError, ChecksumError)
_SPARSE = b"_rebuild_sparse"
"""In what `inspect` does not judge: torch builds sparse tensors before it could see their indices."""

_SCRATCH = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") / f"safepickle-fuzz-{os.getpid()}.pt"

Refusal = NotAllowedError | DamagedPickleError | LoadLimitError | ChecksumError
Outcome = tuple[Any, Refusal | None]


def import_listed() -> None:
    """Import all that the built-in list names: a first import compiles regular expressions, looks for libraries..."""
    for module in {module for module, _ in BUILT_IN}:
        with contextlib.suppress(ImportError):  # another version's, or of what is not installed
            importlib.import_module(module)


def outcome(step: str, data: bytes, load: Callable[[], Any]) -> Outcome:
    """Return what a guarded load gave, or the error by which it refused.

    Raises:
        Finding: It raised anything else, cost too much, or had an effect.
    """
    result: Any = None
    refused: Refusal | None = None
    with watched(step, data):
        try:
            result = load()
        except _ERRORS as error:
            refused = error.with_traceback(None)
            refused.__cause__ = refused.__context__ = None
            _hold_message(str(refused))
        except Exception as error:
            raise Finding("exception", f"{step}: {described(error)}") from error
    return result, refused


def _hold_message(message: str) -> None:
    if not message or len(message) > 5_000:
        raise Finding("exception", "the message of a refusal is empty or endless")


def described(error: BaseException) -> str:
    """The type of an error and where in the package it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/safepickle/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "outside"
    return f"{type(error).__name__} in {where}"


def verdict(data: bytes) -> Inspection:
    """Return what `inspect` says, also as text and as data."""
    with watched("inspect", data):
        try:
            found = safepickle.inspect(data)
            str(found)
            found.to_dict()
        except Exception as error:
            raise Finding("exception", f"inspect: {described(error)}") from error
    return found


def hold_agreement(step: str, loaded: Outcome, found: Inspection) -> None:
    """Hold the verdict of `inspect` against the load, where both judge the same."""
    error = loaded[1]
    if (error is None) == (found.verdict == "safe"):
        return
    # inspect imports nothing, and says by a figure of its own how many buffers a load has to be given.
    missing = ("cannot be imported here", "ModuleNotFoundError")
    if any(word in _said(loaded) for word in missing) or (found.buffers and found.format == "pickle"):
        return
    problem = _plain(found.problems[0].reason) if found.problems else ""
    raise Finding("disagreement", f"{step}: {_said(loaded)} / inspect: {found.verdict} {problem}")


def _said(result: Outcome) -> str:
    return "loads" if result[1] is None else _plain(result[1].reason)


def _plain(message: str) -> str:
    """A message without names and figures."""
    return re.sub(r"[\w.<>]+:[\w.<>]+|\d[\d,]*|'[^']*'", "…", message)[:160]


def load(data: bytes) -> None:
    """A guarded load with nothing allowed: three errors, or a graph that can be walked and freed."""
    result, error = outcome("loads", data, lambda: safepickle.loads(data, allow=()))
    if error is None:
        with watched("walking the result", data):
            compare(result, result)
        with watched("freeing the result", data):
            del result


def load_allowed(data: bytes) -> None:
    """The same, with classes of the user's: their methods and properties make directories, which nobody may."""
    result, error = outcome("loads with allow", data, lambda: safepickle.loads(data, allow=ALLOW))
    if error is None:
        with watched("freeing the result", data):
            del result


def verified(data: bytes) -> None:
    """The compiled core grants nothing that the machine refuses, and what it grants is built alike, shared alike."""
    found = load_verified(source_of_bytes(data), _FINDER.find_plain)
    if found is None:
        return
    with mock.patch.object(speedups, "current", speedups.PURE):
        loaded, error = outcome("the machine", data, lambda: safepickle.loads(data, allow=ALLOW))
    if error is not None:
        raise Finding("disagreement", f"the core grants / the machine: {_plain(str(error))}")
    different = difference(found[0], loaded)
    if different:
        raise Finding("disagreement", f"the core and the machine differ: {_plain(different)}")


def inspect(data: bytes) -> None:
    """`inspect` has one way out: a verdict."""
    verdict(data)


def agreement(data: bytes) -> None:
    """The guard, `inspect` and the C unpickler: one answer, from bytes, a file and a slow stream."""
    fill_new_memory(0x5A)
    loaded = outcome("loads", data, lambda: safepickle.loads(data, allow=()))
    found = verdict(data)
    # As a torch file it judges what follows the pickle, too.
    if found.format == "pickle" and found.compression is None and _SPARSE not in data:
        hold_agreement("loads", loaded, found)
    if isinstance(loaded[1], ChecksumError):
        return  # it is held against a stream only where that is asked for
    for step, source in (("a file", io.BytesIO(data)), ("a stream", io.BufferedReader(_Trickle(data), 16))):
        again = outcome(step, data, partial(safepickle.load, source, allow=()))
        if (again[1] is None) != (loaded[1] is None):
            raise Finding("disagreement", f"{step}: {_said(again)} / bytes: {_said(loaded)}")
    if loaded[1] is not None:
        return
    fill_new_memory(0xA5)
    for step, unpickle in (
        ("pickle.loads", lambda: pickle.loads(data)),
        ("pickle.load", lambda: pickle.load(io.BytesIO(data))),
    ):
        try:
            with watched(step, data), warnings.catch_warnings(action="ignore"):
                plain = unpickle()
        except Finding:
            raise
        except Exception as error:
            raise Finding(
                "disagreement", f"the guard loads / {step}: {type(error).__name__}: {_plain(str(error))}"
            ) from error
        compare(loaded[0], plain)
    fill_new_memory(0)


class _Trickle(io.RawIOBase):
    """A stream that cannot seek and gives few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._left.read(min(len(buffer), 3))
        buffer[: len(part)] = part
        return len(part)


def torch(data: bytes) -> None:
    """A torch file: from a file in memory, from a path, mapped; `inspect` says the same, and so does `torch.load`."""
    import torch as framework

    from safepickle.integrations.torch import load as guarded

    fill_new_memory(0x5A)
    loaded = outcome("torch.load", data, lambda: guarded(io.BytesIO(data)))
    found = verdict(data)
    if found.format.startswith("torch") and _SPARSE not in data:
        hold_agreement("torch.load", loaded, found)
    mapped = None
    with contextlib.suppress(FileNotFoundError):
        _SCRATCH.write_bytes(data)
        path = os.fspath(_SCRATCH)
        from_path = outcome("torch.load of a path", data, lambda: guarded(path))
        if (from_path[1] is None) != (loaded[1] is None):
            raise Finding("disagreement", f"a path: {_said(from_path)} / a file: {_said(loaded)}")
        if data[:2] == b"PK":
            mapped = outcome("torch.load, mapped", data, lambda: guarded(path, mmap=True))
    if loaded[1] is None:
        fill_new_memory(0xA5)
        try:
            with watched("torch's own load", data), warnings.catch_warnings(action="ignore"):
                plain = framework.load(io.BytesIO(data), weights_only=False, map_location="cpu")
        except Finding:
            raise
        except Exception as error:
            raise Finding("disagreement", f"the guard loads / torch: {type(error).__name__}") from error
        compare(loaded[0], plain)
    if mapped is not None:
        if (mapped[1] is None) != (loaded[1] is None):
            raise Finding("disagreement", f"mapped: {_said(mapped)} / a file: {_said(loaded)}")
        if mapped[1] is None:
            compare(loaded[0], mapped[0])
    fill_new_memory(0)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "load": load,
    "load_allowed": load_allowed,
    "verified": verified,
    "inspect": inspect,
    "agreement": agreement,
    "torch": torch,
}
"""The targets by name. Those of one kind of input share their corpus: see `corpus.KINDS`."""
