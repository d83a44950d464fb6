"""Draw an object graph: ``.html`` to look around in, ``.svg``, ``.png``, ``.pdf`` and ``.dot`` for documents.

Strong edges are solid, relinked references dashed, strong copies bold; a dagger stands for a tombstone, red for what
cannot be pickled, and what is large in the pickle is large in the picture. Graphviz does the layout for documents; a
page brings its own, dagre, and lays itself out when it is looked at.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from safepickle.report.drawing.folding import Arrow, Box, Folded, fold
from safepickle.report.graph import COPIED, OUTSIDE, Graph
from safepickle.report.units import counted, human_bytes

__all__ = ["draw"]

_SUFFIXES: Final = (".html", ".svg", ".png", ".pdf", ".dot")
_TEMPLATE: Final = Path(__file__).with_name("picture.html")
_DAGRE: Final = Path(__file__).with_name("dagre.js")
_LONGEST_LABEL: Final = 34

# Told apart also by those who see no red or green: the kinds differ in lightness, line and mark as well.
_KEPT, _COPIED, _OUTSIDE, _UNPICKLABLE = "#eef3f9", "#fde8c8", "#ffffff", "#c62828"
_INK, _BLUE, _ORANGE, _GREY = "#1d2733", "#1f5fa8", "#b25e00", "#77818c"
_ARROWS: Final = {
    "strong": f'color="{_GREY}80", arrowsize=0.5',
    "weak reference": f'color="{_BLUE}", style=dashed, arrowsize=0.7',
    "strong copy": f'color="{_ORANGE}", penwidth=2.2, arrowsize=0.8',
    "tombstone": f'color="{_INK}", style=dotted, arrowhead=none, penwidth=1.6',
    "left out": f'color="{_INK}", style=dotted, arrowhead=none, penwidth=1.6',
    "dead finalizer": f'color="{_INK}", style=dotted, arrowhead=none, penwidth=1.6',
    "error": f'color="{_UNPICKLABLE}", style=dotted, penwidth=1.8, arrowsize=0.7',
}
_MARKS: Final = {
    "tombstone": "\N{DAGGER} tombstone",
    "left out": "\N{DAGGER} left out",
    "dead finalizer": "\N{DAGGER} dead finalizer",
    "error": "refused",
}


def draw(graph: Graph, path: str | os.PathLike[str], max_nodes: int, *, title: str, reasons: Mapping[str, str]) -> None:
    """Draw the graph of an explanation to a file. See `Explanation.picture`.

    Args:
        graph: What to draw.
        path: Where to.
        max_nodes: About how many boxes to draw.
        title: Of a page.
        reasons: Why what cannot be pickled cannot be, by path.
    """
    target = Path(path)
    if target.suffix not in _SUFFIXES:
        raise ValueError(
            f"a picture is drawn to a file that ends in {', '.join(_SUFFIXES)}, not in {target.suffix or 'no suffix'!r}"
        )
    if max_nodes < 1:
        raise ValueError(f"max_nodes is {max_nodes}: a picture needs at least one box")
    folded = fold(graph, max_nodes)
    if target.suffix == ".html":
        drawn = as_page(title, reasons, folded).encode()
    elif target.suffix == ".dot":
        drawn = as_dot(folded).encode()
    else:
        drawn = _lay_out(as_dot(folded), target.suffix[1:])
    target.write_bytes(drawn)


def as_dot(folded: Folded) -> str:
    """Write the boxes in graphviz's language."""
    lines = [
        "digraph safepickle {",
        f"  rankdir={_direction(folded)}; ranksep=0.55; nodesep=0.18; bgcolor=white; splines=true;",
        f'  node [shape=box, style="filled,rounded", fontname="Helvetica", color="{_GREY}", fontcolor="{_INK}"];',
        f'  edge [fontname="Helvetica", fontsize=9, color="{_INK}", fontcolor="{_GREY}", arrowsize=0.6];',
    ]
    lines += [_box(box, folded.total) for box in folded.boxes]
    lines += [f"  box{box.parent} -> box{box.number};" for box in folded.boxes if _hangs_on_parent(box, folded.boxes)]
    for number, arrow in enumerate(folded.arrows):
        lines += _arrow(number, arrow, folded.boxes)
    return "\n".join([*lines, "}", ""])


def _direction(folded: Folded) -> str:
    """Choose the direction in which the picture fits a screen with larger letters."""
    depths: list[int] = []
    for box in folded.boxes:
        depths.append(0 if box.parent < 0 else depths[box.parent] + 1)
    deep, broad = max(depths) + 1, max(Counter(depths).values())
    rightwards = max(deep * 190 / 1280, broad * 55 / 900)
    downwards = max(broad * 150 / 1280, deep * 90 / 900)
    return "LR" if rightwards <= downwards else "TB"


def as_page(title: str, reasons: Mapping[str, str], folded: Folded) -> str:
    """Make a page that needs nothing but itself."""
    boxes: dict[str, Any] = {
        f"box{box.number}": {
            "lines": _lines(box),
            "share": _share(box, folded.total),
            "type": box.type or "objects of several types",
            "count": len(box.members),
            "bytes": human_bytes(box.size),
            "objects": box.objects,
            "hidden": box.hidden,
            "region": box.region,
            "unpicklable": box.unpicklable,
            "paths": box.paths,
            "parent": f"box{box.parent}" if box.parent >= 0 else "",
            "hangs": _hangs_on_parent(box, folded.boxes),
        }
        for box in folded.boxes
    }
    arrows = [
        {
            "source": f"box{arrow.source}",
            "target": f"box{arrow.target}" if arrow.target >= 0 else "",
            "kind": arrow.kind,
            "mark": _MARKS.get(arrow.kind, ""),
            "count": arrow.count,
            "label": _arrow_label(arrow),
            "path": arrow.path,
        }
        for arrow in folded.arrows
    ]
    data = json.dumps({"boxes": boxes, "arrows": arrows, "reasons": dict(reasons)}).replace("<", "\\u003c")
    filling = {"title": escape(title), "data": data, "dagre": _DAGRE.read_text(encoding="utf-8")}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filling[found[1]], _TEMPLATE.read_text(encoding="utf-8"))


def _lay_out(dot: str, kind: str) -> bytes:
    try:
        import graphviz
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the Python package graphviz is not installed, and a .{kind} is laid out by it: "
            "pip install graphviz, or draw to a .html file, which needs nothing",
            name="graphviz",
        ) from error
    try:
        laid_out: bytes = graphviz.Source(dot).pipe(format=kind, quiet=True)
    except graphviz.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"graphviz could not draw a .{kind}: {said or error}") from error
    except graphviz.ExecutableNotFound as error:
        raise RuntimeError(
            f"graphviz's program dot is not on the PATH, and a .{kind} is laid out by it: install graphviz "
            "(apt install graphviz, brew install graphviz, ...), or draw to a .html file, which needs nothing"
        ) from error
    return laid_out


def _hangs_on_parent(box: Box, boxes: list[Box]) -> bool:
    """Tell whether a strong edge leads to a box. From region to region, an arrow of weak references is the way."""
    return box.parent >= 0 and box.region == boxes[box.parent].region


def _share(box: Box, total: int) -> float:
    """Return what a box is of the whole pickle, from 0 to 1."""
    return box.size / total if total and box.region != OUTSIDE else 0.0


def _lines(box: Box) -> list[str]:
    count = len(box.members)
    if not box.label:
        label = f"and {count:,} more"
    else:
        label = _clip(box.label) + (f" \N{MULTIPLICATION SIGN} {count:,}" if count > 1 else "")
    lines = [label, _clip(box.type.removeprefix("builtins.").rpartition(".")[2])]
    if box.unpicklable:
        lines.append("cannot be pickled")
    elif box.hidden:
        lines.append(f"{human_bytes(box.size)}, {counted(box.objects, 'object')}")
    else:
        lines.append(human_bytes(box.size))
    return [_printable(line) for line in lines if line]


def _arrow_label(arrow: Arrow) -> str:
    if arrow.kind == "strong":
        return ""
    return _printable(_clip(arrow.label) + (f" \N{MULTIPLICATION SIGN} {arrow.count:,}" if arrow.count > 1 else ""))


def _box(box: Box, total: int) -> str:
    share = _share(box, total)
    text = "\\n".join(_quoted(line) for line in _lines(box))
    fill = {COPIED: _COPIED, OUTSIDE: _OUTSIDE}.get(box.region, _KEPT)
    look = f'fillcolor="{fill}"'
    if box.unpicklable:
        look = f'fillcolor="{_UNPICKLABLE}", fontcolor=white, color="{_UNPICKLABLE}"'
    elif box.region == OUTSIDE:
        look += ', style="rounded,dotted"'
    size = 9 + 13 * math.sqrt(share)
    width = 0.7 + 2.4 * math.sqrt(share)
    tooltip = _quoted(_clip(box.paths[0], 200) if box.paths else "")
    return (
        f'  box{box.number} [id="box{box.number}", label="{text}", tooltip="{tooltip}", fontsize={size:.1f}, '
        f"width={width:.2f}, margin={0.06 + 0.12 * math.sqrt(share):.2f}, penwidth={0.8 + 2 * share:.1f}, {look}];"
    )


def _arrow(number: int, arrow: Arrow, boxes: list[Box]) -> list[str]:
    look = (
        _ARROWS[arrow.kind] + f', label="{_quoted(_arrow_label(arrow))}", tooltip="{_quoted(_clip(arrow.path, 200))}"'
    )
    if arrow.kind == "strong copy":
        look += f', fontcolor="{_ORANGE}"'
    mark = _MARKS.get(arrow.kind)
    if mark is None:
        # The layout is that of the tree, which hangs together by these arrows where an object is behind a reference.
        part = boxes[arrow.target].parent == arrow.source and arrow.kind != "strong"
        return [f"  box{arrow.source} -> box{arrow.target} [constraint={'true' if part else 'false'}, {look}];"]
    # What is behind a tombstone is not in the pickle: the way there ends at the stone.
    lines = [
        f'  stone{number} [label="{mark}", style="rounded,dotted", fontsize=10, height=0.2, color="{_INK}"];',
        f"  box{arrow.source} -> stone{number} [{look}];",
    ]
    if arrow.target >= 0:
        lines.append(
            f'  stone{number} -> box{arrow.target} [style=dotted, color="{_INK}", penwidth=1.6, arrowsize=0.6];'
        )
    return lines


def _clip(text: str, longest: int = _LONGEST_LABEL) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{text[-longest // 2 :]}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _quoted(text: str) -> str:
    return _printable(text).replace("\\", "\\\\").replace('"', '\\"')
