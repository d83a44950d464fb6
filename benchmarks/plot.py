"""Draw what the benchmarks have measured: every ratio of the suites' results beside its target, as one SVG.

Usage: ``python benchmarks/plot.py [docs/performance.svg]``, after the programs ``bench_core.py``, ``bench_guard.py``
and ``bench_tensors.py`` have written ``benchmarks/results/*.json``; ``make bench`` and ``make figures`` run it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from tables import figures

SUITES = ("core", "guard", "tensors")
MET, MISSED, NO_TARGET = "#4c72b0", "#dd8452", "#b0b0b0"


Row = tuple[str, dict[str, Any], dict[str, Any]]


def rows() -> list[Row]:
    """Return for every ratio of times or sizes that was measured its name, and both cores' comparisons."""
    return [
        (f"{figure['case']}  |  {compiled['peer']}", compiled, pure)
        for suite in SUITES
        for figure in figures(suite)
        if figure["unit"] != "log-log slope"
        for compiled, pure in zip(figure["comparisons"], figure["variant"], strict=True)
    ]


def draw(measured: list[Row], target: Path) -> None:
    """Draw one bar for each ratio, its quartiles as a line, and its target as a tick; left of 1 we are quicker.

    A ring shows the ratio without the compiled core.
    """
    figure, axes = pyplot.subplots(figsize=(10, 0.22 * len(measured) + 0.9))
    for number, (_, comparison, pure) in enumerate(measured):
        ratio, promised = comparison["ratio"], comparison["target"]
        color = NO_TARGET if promised is None else MET if ratio <= promised else MISSED
        axes.barh(number, ratio - 1, left=1, color=color, height=0.75)
        axes.plot([comparison["low"], comparison["high"]], [number, number], color="black", linewidth=1)
        axes.plot([pure["ratio"]], [number], "o", markersize=4, markerfacecolor="white", markeredgecolor="black")
        if promised is not None:
            axes.plot([promised] * 2, [number - 0.45, number + 0.45], color="black", linewidth=2)
        axes.text(
            1.01,
            number,
            f"{ratio:.2f}  ({pure['ratio']:.2f})",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
        )
    axes.set_xscale("log")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(measured)), [name for name, _, _ in measured], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_title(
        "safepickle / peer in the same run: less is better. Thick tick: target (orange: missed). Thin line: quartiles. "
        "Ring, and in brackets: without the compiled core.",
        fontsize=8,
        loc="right",
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    # No date, ids that do not change and text as text: the same figures draw the same small file.
    with pyplot.rc_context({"svg.hashsalt": "safepickle", "svg.fonttype": "none"}):
        figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(rows(), Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "performance.svg")
