"""Measure programs side by side, fairly: the shared part of every `bench_<what>.py`.

A `Suite` runs the contenders of a case in turn, round after round in one process, so that whatever else the machine
does falls on all of them alike. It compares them round by round: a figure is the median of the pairwise ratios, with
its quartiles. The collector is off while the clock runs, and what a contender returns is freed after the clock stopped.
Large blocks come fresh from the system each time, as they do in a program that saves or loads once.

    suite = Suite("core")
    suite.compare(
        "100,000 plain objects: dumps",
        {"safepickle": lambda: safepickle.dumps(graph), "pickle": lambda: pickle.dumps(graph, 5)},
        targets={"pickle": 1.2},
    )
    suite.main()

Where the suite has a `variant`, each case is measured once more in a process with other variables in its environment:
both run beside the same peers, one after the other, and their ratios stand side by side.

Knows nothing of safepickle: what is measured, and against what, is up to the programs that use it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Comparison", "Figure", "Suite", "child_peak", "child_seconds", "growth", "interleave"]

RESULTS = Path(__file__).parent / "results"
PEERS = ("safepickle-weakref", "cloudpickle", "dill", "numpy", "torch", "safetensors", "keras", "joblib")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHORTEST_SAMPLE = 0.02
M_MMAP_THRESHOLD, LARGE = -3, 128 * 1024


@dataclass
class Comparison:
    """One contender against one peer.

    Attributes:
        ratio: Median over the rounds of (subject's figure / peer's figure in the same round).
        low, high: First and third quartile of those ratios.
        target: The ratio asked for, or None where nothing was promised.
    """

    peer: str
    ratio: float
    low: float
    high: float
    target: float | None = None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.ratio <= self.target else "MISSED"


@dataclass
class Figure:
    """What one case came to: absolute figures of each contender, and the subject's ratios to its peers.

    Attributes:
        variant: The same of the suite's variant, in the order of `comparisons`; empty where there is none.
        variant_figure: The subject's own figure there.
    """

    case: str
    unit: str
    medians: dict[str, float]
    comparisons: list[Comparison] = field(default_factory=list)
    note: str = ""
    variant: list[Comparison] = field(default_factory=list)
    variant_figure: float | None = None


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    clock: Callable[[], float] = time.perf_counter,
    shortest_sample: float = SHORTEST_SAMPLE,
) -> dict[str, list[float]]:
    """Time the contenders in turn, and return the seconds for one call, per contender and round.

    A contender that returns sooner than `shortest_sample` is called several times within one sample. Every other round
    runs in the opposite order, so that no contender always follows the same neighbour.
    """
    repeats = {}
    for name, call in contenders.items():
        start = clock()
        call()
        repeats[name] = max(1, math.ceil(shortest_sample / max(clock() - start, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in _order(contenders, number):
            samples[name].append(_sample(contenders[name], repeats[name], clock))
    return samples


def _order(names: Iterable[str], number: int) -> list[str]:
    return list(names)[:: 1 if number % 2 == 0 else -1]


def _sample(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    gc.collect()
    gc.disable()
    try:
        seconds = 0.0
        for _ in range(repeats):
            start = clock()
            result = call()
            seconds += clock() - start
            del result
        return seconds / repeats
    finally:
        gc.enable()


def child_seconds(program: str, *, arguments: Sequence[str] = ()) -> float:
    """Run a program in a fresh interpreter and return the number that it prints last."""
    return _last_number(program, arguments)


def child_peak(setup: str, action: str, *, arguments: Sequence[str] = ()) -> float:
    """Return the peak resident memory, in MiB, of `action` in a fresh interpreter that has run `setup`.

    The high-water mark is reset between the two: what the setup needed for a moment does not count, what it left does.

    Source:
        ``clear_refs`` in proc(5): writing 5 resets VmHWM.
    """
    program = "\n".join(
        [
            setup,
            "import gc; gc.collect()",
            "with open('/proc/self/clear_refs', 'w') as clear: clear.write('5')",
            action,
            "with open('/proc/self/status') as status:",
            "    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith('VmHWM')))",
        ]
    )
    return _last_number(program, arguments)


def _last_number(program: str, arguments: Sequence[str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(),
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"the child process ended with {done.returncode}:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def _environment() -> dict[str, str]:
    """Return an environment in which a child finds what we find, and byte code that an earlier child has compiled."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment | {"PYTHONPYCACHEPREFIX": str(RESULTS / "bytecode")}


def have_fresh_memory() -> None:
    """Let every large block be mapped anew, and unmapped when it is freed.

    Left to itself, glibc begins to keep large blocks after it has seen some freed, and whoever comes next finds pages
    that need no clearing: a load of 200 MB then takes 20 ms or 90, by what ran before it.

    Source:
        mallopt(3): setting ``M_MMAP_THRESHOLD`` switches its adjustment off. Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the slope of log(seconds) over log(size): 1 is linear, 2 is quadratic."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(time) for time in seconds]).slope


class Suite:
    """Named cases, run in order by `main`, printed as one table and written as JSON.

    Cases are declared, not run at once, so that ``--only`` can choose among them; what a case needs is built by its own
    function and dropped before the next one starts.

    Args:
        name: Of the results' file.
        subject: The contender whose ratios to the others are the figures.
        variant: What the other column is called, and the variables in the environment that make it.
    """

    def __init__(
        self, name: str, *, subject: str = "safepickle", variant: tuple[str, Mapping[str, str]] | None = None
    ) -> None:
        self.name = name
        self.subject = subject
        self.variant = variant
        self._cases: list[tuple[str, Callable[[argparse.Namespace], Figure]]] = []

    def compare(
        self,
        case: str,
        contenders: Mapping[str, Callable[[], object]] | Callable[[], Mapping[str, Callable[[], object]]],
        *,
        targets: Mapping[str, float] | None = None,
        rounds: int | None = None,
        note: str = "",
    ) -> None:
        """Time the contenders beside each other.

        Args:
            case: What is measured.
            contenders: Calls by name, the suite's subject among them; or a function that builds what they need and
                returns them.
            targets: For each peer, the ratio subject / peer that was promised.
            rounds: Rounds of this case, where it needs another number than ``--rounds``.
            note: Printed below the table.
        """

        def run(options: argparse.Namespace) -> Figure:
            calls = contenders() if callable(contenders) else contenders
            samples = interleave(calls, rounds=rounds or options.rounds, clock=CLOCKS[options.clock])
            return self._figure(case, "s", samples, targets or {}, note)

        self._cases.append((case, run))

    def measure(
        self,
        case: str,
        unit: str,
        contenders: Mapping[str, Callable[[], float]],
        *,
        targets: Mapping[str, float] | None = None,
        rounds: int = 3,
        note: str = "",
    ) -> None:
        """Like `compare`, for calls that return their own figure, as `child_peak` and `child_seconds` do."""

        def run(options: argparse.Namespace) -> Figure:
            samples: dict[str, list[float]] = {name: [] for name in contenders}
            for number in range(rounds):
                for name in _order(contenders, number):
                    samples[name].append(contenders[name]())
            return self._figure(case, unit, samples, targets or {}, note)

        self._cases.append((case, run))

    def slope(
        self,
        case: str,
        sizes: Sequence[int],
        build: Callable[[int], Mapping[str, Callable[[], object]]],
        *,
        target: float | None = None,
        rounds: int = 3,
        note: str = "",
    ) -> None:
        """Measure how the time grows with the size.

        Args:
            case: What is measured.
            sizes: Sizes, in rising order.
            build: Makes the contenders for one size.
            target: The slope promised for the suite's subject.
            rounds: Rounds for each size; the quickest one counts, for noise only ever adds.
            note: Printed below the table.
        """

        def run(options: argparse.Namespace) -> Figure:
            best: dict[str, list[float]] = {}
            for size in sizes:
                contenders = build(size)
                for name, samples in interleave(contenders, rounds=rounds, clock=CLOCKS[options.clock]).items():
                    best.setdefault(name, []).append(min(samples))
                del contenders
            slopes = {name: growth(sizes, seconds) for name, seconds in best.items()}
            ours = slopes.pop(self.subject)
            comparisons = [Comparison("linear", ours, ours, ours, target)]
            for name, slope in slopes.items():
                comparisons.append(Comparison(f"{name}, whose own is {slope:.2f}", *[ours / slope] * 3))
            return Figure(case, "log-log slope", {self.subject: ours}, comparisons, note)

        self._cases.append((case, run))

    def _figure(
        self, case: str, unit: str, samples: Mapping[str, Sequence[float]], targets: Mapping[str, float], note: str
    ) -> Figure:
        unknown = [peer for peer in targets if peer not in samples]
        if unknown:
            raise ValueError(f"{case}: a target is set for {unknown}, which was not measured")
        comparisons = []
        for peer, theirs in samples.items():
            if peer == self.subject:
                continue
            ratios = [mine / other for mine, other in zip(samples[self.subject], theirs, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            comparisons.append(Comparison(peer, middle, low, high, targets.get(peer)))
        medians = {name: statistics.median(samples[name]) for name in sorted(samples, key=lambda n: n != self.subject)}
        return Figure(case, unit, medians, comparisons, note)

    def _add_variant(self, figure: Figure, options: argparse.Namespace) -> None:
        """Measure the case again in a process of the suite's variant."""
        if self.variant is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results.json"
            command = [sys.executable, sys.argv[0], "--case", figure.case, "--json", str(results)]
            command += ["--rounds", str(options.rounds), "--clock", options.clock]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **self.variant[1]})
            (found,) = json.loads(results.read_text(encoding="utf-8"))["figures"]
        figure.variant = [Comparison(**comparison) for comparison in found["comparisons"]]
        figure.variant_figure = found["medians"][self.subject]

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Run what the command line asks for, print the table and write ``results/<suite>.json``."""
        parser = argparse.ArgumentParser(description=f"The benchmark suite {self.name!r}.")
        parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (default: 7)")
        parser.add_argument("--only", default="", help="run only the cases whose name contains this")
        parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: less noise where neighbours are busy")
        parser.add_argument("--json", type=Path, default=RESULTS / f"{self.name}.json", help="where the results go")
        parser.add_argument("--case", help="run exactly this case, and no variant of it")
        options = parser.parse_args(argv)
        have_fresh_memory()
        options.json.parent.mkdir(parents=True, exist_ok=True)
        variant = self.variant and self.variant[0]
        record = {"suite": self.name, "variant": variant, "clock": options.clock, **surroundings()}
        figures: list[Figure] = []
        for case, run in self._cases:
            if options.only.lower() not in case.lower() or options.case not in (None, case):
                continue
            figures.append(run(options))
            if options.case is None:
                self._add_variant(figures[-1], options)
            print(render([figures[-1]], heading=len(figures) == 1), flush=True)
            # After each: whoever interrupts a run keeps what it has measured.
            written = json.dumps({**record, "figures": [asdict(figure) for figure in figures]}, indent=1)
            options.json.write_text(written + "\n", encoding="utf-8")
        for figure in figures:
            if figure.note:
                print(f"\n{figure.case}: {figure.note}")


def render(figures: Sequence[Figure], *, heading: bool = True) -> str:
    """Return the figures as the rows of a Markdown table."""
    rows = []
    if heading:
        rows = ["| case | measured | against | ratio (quartiles) | variant (quartiles) | target |", f"|{' --- |' * 6}"]
    for figure in figures:
        subject = next(iter(figure.medians))
        for number, comparison in enumerate(figure.comparisons):
            case = figure.case if number == 0 else ""
            mine = quantity(figure.medians[subject], figure.unit) if number == 0 else ""
            peer = comparison.peer
            if peer in figure.medians:
                peer = f"{peer}, {quantity(figure.medians[peer], figure.unit)}"
            variant = _ratio(figure.variant[number]) if figure.variant else ""
            target = "" if comparison.target is None else f"{comparison.target:g}: {comparison.verdict}"
            rows.append(f"| {case} | {mine} | {peer} | {_ratio(comparison)} | {variant} | {target} |")
    return "\n".join(rows)


def _ratio(comparison: Comparison) -> str:
    return f"{comparison.ratio:.2f} ({comparison.low:.2f} to {comparison.high:.2f})"


def quantity(figure: float, unit: str) -> str:
    """Return the figure with its unit, seconds scaled to be read."""
    if unit != "s":
        return f"{figure:,.2f} {unit}" if figure < 10 else f"{figure:,.0f} {unit}"
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if figure >= scale:
            return f"{figure / scale:.3g} {name}"
    return f"{figure * 1e9:.3g} ns"


def surroundings() -> dict[str, Any]:
    """Return what a reader needs to compare two runs: interpreter, machine, versions."""
    versions = {}
    for package in PEERS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as description:
            return next(line.split(":", 1)[1].strip() for line in description if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
