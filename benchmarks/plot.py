"""Draw what the benchmarks have measured: every ratio of the suites' results beside its target, as one SVG.

Usage: ``python benchmarks/plot.py [docs/performance.svg]``, after the programs ``bench_core.py`` and
``bench_tensors.py`` have written ``benchmarks/results/*.json``; ``make bench`` runs it last.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"
SUITES = ("core", "tensors")
PEER_COLORS = {"pickle": "#4c72b0", "cloudpickle": "#dd8452", "dill": "#937860", "torch.save": "#c44e52"}
OTHER = "#8c8c8c"


def rows(results: Path = RESULTS) -> list[tuple[str, str, dict[str, Any]]]:
    """Return case, peer and comparison for every ratio of times or sizes that was measured."""
    found = []
    for suite in SUITES:
        path = results / f"{suite}.json"
        if not path.exists():
            raise SystemExit(f"{path} is not there: run benchmarks/bench_{suite}.py first")
        for figure in json.loads(path.read_text())["figures"]:
            if figure["unit"] != "log-log slope":
                found += [(figure["case"], each["peer"], each) for each in figure["comparisons"]]
    return found


def draw(measured: list[tuple[str, str, dict[str, Any]]], target: Path) -> None:
    """Draw one bar for each ratio, its quartiles as a line, and its target as a tick; left of 1 we are quicker."""
    figure, axes = pyplot.subplots(figsize=(9, 0.26 * len(measured) + 1))
    for number, (_, peer, comparison) in enumerate(measured):
        color = PEER_COLORS.get(peer.split(",")[0], OTHER)
        axes.barh(number, comparison["ratio"] - 1, left=1, color=color, height=0.7)
        axes.plot([comparison["low"], comparison["high"]], [number, number], color="black", linewidth=1)
        if comparison["target"] is not None:
            axes.plot([comparison["target"]] * 2, [number - 0.45, number + 0.45], color="black", linewidth=2)
    axes.set_xscale("log")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(measured)), [f"{case}  |  {peer}" for case, peer, _ in measured], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(
        "safepickle / peer in the same run: less is better; thick tick: target, thin line: quartiles", fontsize=8
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    # No date, and ids that do not change: the same figures draw the same file.
    with pyplot.rc_context({"svg.hashsalt": "safepickle"}):
        figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(rows(), Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "performance.svg")
