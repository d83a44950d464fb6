"""One process of libFuzzer on one target. A finding is written down, once for each sort, and the fuzzing goes on.

usage: python -m fuzz.worker TARGET FOLDER [arguments of libFuzzer]

libFuzzer starts itself anew where it minimises a corpus, by the first of its arguments: that is a script in FOLDER.

What ends the process, a crash of the interpreter or a hang, is libFuzzer's to write down; `__main__` starts anew.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import pkgutil
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import atheris

_FLUSH = 64


def _import_instrumented() -> None:
    """Import all that a guarded load can reach, the guard and what it leans on with counters on their branches."""
    with atheris.instrument_imports(include=["safepickle.guard", "safepickle.report", "safepickle.rebuild"]):
        import safepickle.guard
        import safepickle.report

        for package in (safepickle.guard, safepickle.report):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)


class Worker:
    """Runs one target on inputs, and writes findings down."""

    def __init__(self, target: str, folder: Path) -> None:
        from fuzz.corpus import LONGEST
        from fuzz.programs import Author, TorchAuthor
        from fuzz.targets import TARGETS, import_listed
        from fuzz.watching import Finding

        import_listed()
        self._finding = Finding
        self._run = TARGETS[target]
        self._author = TorchAuthor if target == "torch" else Author
        self._longest = LONGEST
        self._target = target
        self._folder = folder
        self._executions = 0
        self._counter = os.open(folder / f"executions-{target}-{os.getpid()}", os.O_CREAT | os.O_WRONLY)

    def run(self, data: bytes) -> None:
        """Run the target on one input."""
        self._executions += 1
        if self._executions % _FLUSH == 0:
            os.pwrite(self._counter, b"%d" % self._executions, 0)
        try:
            self._run(data)
        except self._finding as finding:
            self._write_down(finding, finding.kind, finding.what, data)
        except Exception as error:
            self._write_down(error, "harness", f"{type(error).__name__} in {self._target}", data)

    def _write_down(self, error: BaseException, kind: str, what: str, data: bytes) -> None:
        """Keep the shortest input of each sort of finding."""
        sort = hashlib.sha1(f"{self._target} {kind} {what}".encode()).hexdigest()[:10]
        path = self._folder / "findings" / f"{self._target}-{kind}-{sort}"
        if path.exists() and path.stat().st_size <= len(data):
            return
        path.with_suffix(".txt").write_text(
            f"{self._target}: {kind}: {what}\n{len(data)} bytes: {data!r}\n\n"
            + "".join(traceback.format_exception(error)),
            encoding="utf-8",
        )
        path.write_bytes(data)

    def change(self, data: bytes, longest: int, seed: int) -> bytes:
        """Change an input, for libFuzzer."""
        return self._author(seed, atheris.Mutate).change(data, min(longest, self._longest))

    def cross(self, data: bytes, other: bytes, longest: int, seed: int) -> bytes:
        """Mix two inputs, for libFuzzer."""
        return self._author(seed, atheris.Mutate).change(data, min(longest, self._longest), other)


def main(arguments: list[str]) -> None:
    target, folder, *options = arguments
    _import_instrumented()
    warnings.simplefilter("ignore")
    worker = Worker(target, Path(folder))
    gc.freeze()
    run: Any = worker.run
    script = Path(folder).resolve() / f"worker-{target}"
    script.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m fuzz.worker "{target}" "{script.parent}" "$@"\n', encoding="utf-8"
    )
    script.chmod(0o700)
    atheris.Setup(
        [str(script), *options],
        run,
        custom_mutator=worker.change,
        custom_crossover=worker.cross,
        internal_libfuzzer=True,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
