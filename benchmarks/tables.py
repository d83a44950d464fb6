"""Write what the benchmarks have measured into the pages: README.md and docs/performance.md.

Usage: ``python benchmarks/tables.py``, after the programs ``bench_<suite>.py`` have written their results into
``benchmarks/results``; ``make bench`` and ``make figures`` run it. A page says where a table goes, and of what:

    <!-- figures: SUITE: PATTERN -->      the cases of a suite whose names the regular expression matches
    <!-- figures: in short -->            the rows of IN_SHORT below
    <!-- figures: machine -->             what they were measured with
    <!-- end of figures -->

What stands between the two comments is replaced.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harness import RESULTS, quantity

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
_BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

IN_SHORT = {
    "100,000 plain objects": ("core", "100,000 plain objects", "pickle"),
    "a tree of 100,000 nodes with weak parent pointers": ("core", "tree of 100,000, weak parents", "pickle, strong"),
    "100,000 references that all come before their referents, the worst case": (
        "core",
        "100,000 forward references",
        "pickle, strong",
    ),
    "a torch model of 200 MB": ("tensors", "a model of 200 MB", "pickle"),
    "5,000 small torch parameters": ("tensors", "5,000 parameters of 16 floats", "pickle"),
}


def last_run(suite: str) -> dict[str, Any]:
    """Return the record of a suite's last run.

    Raises:
        SystemExit: There is none, or it has one column alone.
    """
    path = RESULTS / f"{suite}.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there: run benchmarks/bench_{suite}.py first")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["variant"] is None:
        raise SystemExit(f"{path} has no second column: run benchmarks/bench_{suite}.py with the compiled core")
    return record


def figures(suite: str) -> list[dict[str, Any]]:
    """Return the figures of a suite's last run."""
    found: list[dict[str, Any]] = last_run(suite)["figures"]
    return found


def machine() -> list[str]:
    """Return a sentence on what the last run was measured with."""
    run = last_run("core")
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in ("torch", "numpy", "cloudpickle", "dill"))
    clock = {"wall": "wall time", "cpu": "processor time"}[run["clock"]]
    return [
        f"Measured in {clock}, with CPython {run['python']} on {run['cores']} cores ({run['processor']}); {versions}."
    ]


def table(suite: str, pattern: str) -> list[str]:
    """Return the rows of the cases of a suite whose names match a pattern."""
    rows = ["| case | safepickle | against | compiled | Python alone | target |", f"|{' --- |' * 6}"]
    for figure in figures(suite):
        if not re.search(pattern, figure["case"]):
            continue
        subject, *_ = figure["medians"]
        for number, (compiled, pure) in enumerate(zip(figure["comparisons"], figure["variant"], strict=True)):
            peer = compiled["peer"]
            if peer in figure["medians"]:
                peer = f"{peer}, {quantity(figure['medians'][peer], figure['unit'])}"
            first = number == 0
            own = quantity(figure["medians"][subject], figure["unit"])
            cells = [figure["case"] if first else "", own if first else "", peer, ratio(compiled), ratio(pure)]
            rows.append(f"| {' | '.join(cells)} | {target(compiled)} |")
    if len(rows) == 2:
        raise SystemExit(f"no case of {suite} is called {pattern}")
    return rows


def in_short() -> list[str]:
    """Return the rows of the README: dumps and loads beside each other."""
    rows = ["| case | `dumps` | in Python alone | `loads` | in Python alone |", f"|{' --- |' * 5}"]
    for label, (suite, case, peer) in IN_SHORT.items():
        cells = [label]
        for way in ("dumps", "loads"):
            (figure,) = (found for found in figures(suite) if found["case"] == f"{case}: {way}")
            number = [comparison["peer"] for comparison in figure["comparisons"]].index(peer)
            cells += [ratio(figure["comparisons"][number]), ratio(figure["variant"][number])]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def ratio(comparison: dict[str, Any]) -> str:
    return f"{comparison['ratio']:.2f}"


def target(comparison: dict[str, Any]) -> str:
    promised = comparison["target"]
    if promised is None:
        return ""
    return f"{promised:g}" if comparison["ratio"] <= promised else f"{promised:g}, missed"


def with_tables(page: str) -> str:
    """Return a page with what the last run has measured."""

    def filled(block: re.Match[str]) -> str:
        suite, _, pattern = block[2].partition(": ")
        others = {"in short": in_short, "machine": machine}
        rows = others[suite]() if suite in others else table(suite, pattern)
        return f"{block[1]}\n" + "\n".join(rows) + f"\n\n{block[3]}"

    return _BLOCK.sub(filled, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
