"""Fuzz the targets in turns, keep what is found, and add the seeds that reach something new to the corpus.

A turn is one process of `worker`. A crash or a hang ends it: what was fed is kept as a finding, and the turn goes on in
a new process. The exit status is 1 when anything was found.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from fuzz import corpus

HANG = 300
"""Seconds of the clock after which an input counts as a hang. Less is measured in processor time: see `watching`."""

MEGABYTES = 3_000
"""Resident size at which a process ends, and its input counts as a finding."""

_COMMON = [f"-timeout={HANG}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={corpus.LONGEST}", "-verbosity=1"]


class Campaign:
    """Some time of fuzzing.

    Args:
        folder: Where seeds, logs and findings lie between one run and the next.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for sub in ("findings", "logs", *(f"seeds-{kind}" for kind in corpus.KINDS)):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        for kind in corpus.KINDS:
            _fill(self._seeds(kind), corpus.found(kind) + corpus.mended(kind))

    def _seeds(self, kind: str) -> Path:
        return self._folder / f"seeds-{kind}"

    def start(self, targets: Iterable[str]) -> None:
        """Write the seeds that the tables give."""
        for kind in {corpus.kind_of(target) for target in targets}:
            _fill(self._seeds(kind), corpus.written(kind))

    def turn(self, target: str, seconds: float) -> None:
        """Fuzz one target for some time, in as many processes as that takes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 1:
            log = self._folder / "logs" / f"{target}-{time.time_ns()}.log"
            prefix = self._folder / "findings" / f"{target}-"
            options = [*_COMMON, f"-artifact_prefix={prefix}", f"-max_total_time={int(left)}", "-print_final_stats=1"]
            started = time.monotonic()
            with log.open("wb") as output:
                status = self._worker(target, [str(self._seeds(corpus.kind_of(target))), *options], output)
            if status and time.monotonic() - started < 10:
                tail = log.read_text(errors="replace", encoding="utf-8")[-2000:]
                raise SystemExit(f"the worker for {target} does not start, or ends at once:\n{tail}")

    def _worker(self, target: str, options: list[str], output: object) -> int:
        command = [sys.executable, "-m", "fuzz.worker", target, str(self._folder), *options]
        return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode  # type: ignore[call-overload]

    def minimise(self, kind: str) -> int:
        """Keep the fewest seeds that reach all that the seeds reach; return how many found ones the corpus has."""
        target = "torch" if kind == "torch_files" else "agreement"
        with tempfile.TemporaryDirectory() as name:
            merged = Path(name)
            log = self._folder / "logs" / f"merge-{kind}.log"
            options = [*_COMMON, "-set_cover_merge=1", str(merged), str(self._seeds(kind))]
            with log.open("wb") as output:
                status = self._worker(target, options, output)
            fewest = {path.read_bytes() for path in merged.iterdir()}
        if status or not fewest:
            raise SystemExit(f"the seeds could not be minimised: see {log}")
        shutil.rmtree(self._seeds(kind))
        self._seeds(kind).mkdir()
        _fill(self._seeds(kind), fewest)
        return self._keep(kind, fewest - set(corpus.written(kind)) - set(corpus.mended(kind)))

    def _keep(self, kind: str, seeds: set[bytes]) -> int:
        """Keep seeds as the corpus, but for those that find something; return how many."""
        corpus.keep(kind, seeds)
        command = [sys.executable, "-m", "fuzz.replay", kind]
        said = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8").stdout
        return corpus.keep(kind, set(corpus.found(kind)) - {corpus.read(line.split()[0]) for line in said.splitlines()})

    def executions(self) -> int:
        """Return how many inputs were run, in this folder, in all."""
        return sum(int(path.read_bytes() or b"0") for path in self._folder.glob("executions-*"))

    def findings(self) -> list[tuple[Path, str]]:
        """Return the inputs that found something, each with what it was."""
        found = []
        for path in sorted((self._folder / "findings").iterdir()):
            if path.suffix != ".txt":
                said = path.with_suffix(".txt")
                what = (
                    said.read_text(encoding="utf-8").partition("\n")[0]
                    if said.exists()
                    else f"{path.name}: the process ended"
                )
                found.append((path, what))
        return found


def _fill(folder: Path, seeds: Iterable[bytes]) -> None:
    for seed in seeds:
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="in all, shared among the targets")
    parser.add_argument("--targets", default=",".join(corpus.ALL), help="names, with commas")
    parser.add_argument("--folder", type=Path, default=Path(".cache/fuzz"), help="for seeds, logs and findings")
    parser.add_argument("--turn", type=float, default=300, help="seconds of one target's turn")
    parser.add_argument("--keep", choices=["grown", "as-is"], default="grown", help="what becomes of the corpus")
    options = parser.parse_args()
    targets = options.targets.split(",")
    campaign = Campaign(options.folder)
    campaign.start(targets)
    before = {path for path, _ in campaign.findings()}
    turns = max(1, round(options.seconds / len(targets) / options.turn))
    for number in range(turns):
        for target in targets:
            campaign.turn(target, options.seconds / len(targets) / turns)
            print(
                f"turn {number + 1} of {turns}, {target}: {campaign.executions():,} executions, "
                f"{len(campaign.findings()):,} findings",
                flush=True,
            )
    if options.keep == "grown":
        for kind in sorted({corpus.kind_of(target) for target in targets}):
            print(f"the corpus of {kind} has {campaign.minimise(kind):,} found seeds")
    new = [(path, what) for path, what in campaign.findings() if path not in before]
    for path, what in new:
        print(f"{path}: {what}")
    print(f"{campaign.executions():,} executions in all, {len(new):,} new findings")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
