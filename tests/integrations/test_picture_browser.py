"""Pictures laid out by graphviz, and the page laid out and tried out in a headless Chromium."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import Node

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's program dot is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1200,800"),
]


class Offender:
    def __reduce__(self) -> Any:
        raise ValueError("</script><b>not today</b>")


OUTSIDE = Node()


def explanation() -> Any:
    root = Node(layers=[Node(weights=bytes(1000), number=number) for number in range(40)], outside=weakref.ref(OUTSIDE))
    for layer in root.layers:
        layer.parent = weakref.proxy(root, lambda _: None)
    root.mistake = Offender()
    return safepickle.explain(root)


@needs_dot
@pytest.mark.parametrize(("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG\r\n\x1a\n"), ("pdf", b"%PDF-")])
def test_documents_are_drawn(tmp_path: Path, suffix: str, begins: bytes) -> None:
    explanation().picture(tmp_path / f"graph.{suffix}")
    assert (tmp_path / f"graph.{suffix}").read_bytes().startswith(begins)


@needs_dot
def test_svg_says_what_is_drawn(tmp_path: Path) -> None:
    explanation().picture(tmp_path / "graph.svg")
    svg = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    for text in ("</svg>", ".layers", "cannot be pickled", "\N{DAGGER} tombstone"):
        assert text in svg


def test_missing_program_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"dot is not on the PATH.*apt install graphviz.*\.html file"):
        explanation().picture(tmp_path / "graph.svg")


def test_missing_package_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install graphviz, or draw to a \.html file"):
        explanation().picture(tmp_path / "graph.png")


def test_what_graphviz_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dot").write_text("#!/bin/sh\necho no memory left >&2\nexit 3\n", encoding="utf-8")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match=r"graphviz could not draw a \.pdf: no memory left"):
        explanation().picture(tmp_path / "graph.pdf")


TRY_OUT = """
<script type="module">
const told = {}, of = id => document.getElementById(id);
const stage = of("stage"), svg = stage.querySelector("svg"), input = of("search");
const data = JSON.parse(of("data").textContent);
function type(text) { input.value = text; input.dispatchEvent(new Event("input")); }
function press(target, key) { target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true })); }
const viewBox = () => svg.getAttribute("viewBox").split(" ").map(Number);
const centre = box => [box.left + box.width / 2, box.top + box.height / 2];
const holds = (outer, inner) => outer.left <= inner.left + .5 && outer.right >= inner.right - .5 &&
  outer.top <= inner.top + .5 && outer.bottom >= inner.bottom - .5;
const nodes = [...svg.querySelectorAll(".node")], edges = [...svg.querySelectorAll(".edge")];
const bounds = (node, name) => node.querySelector(name).getBoundingClientRect();
const rects = nodes.map(node => bounds(node, "rect")), lines = edges.map(edge => edge.querySelector("path"));
told.boxes = nodes.filter(node => node.id.startsWith("box")).length;
told.stones = nodes.filter(node => node.id.startsWith("stone")).map(node => node.textContent);
told.textsThatStickOut = nodes.filter((node, at) => !holds(rects[at], bounds(node, "text"))).map(node => node.id);
told.boxesThatOverlap = 0;
rects.forEach((one, at) => rects.slice(at + 1).forEach(other => {
  const beside = one.left >= other.right || other.left >= one.right;
  if (!beside && one.top < other.bottom && other.top < one.bottom) told.boxesThatOverlap++;
}));
told.allIsSeen = nodes.every((node, at) => holds(stage.getBoundingClientRect(), rects[at]));
told.edges = edges.map(edge => [edge.getAttribute("class"), edge.querySelector("text")?.textContent ?? ""]);
told.edgesOfNoLength = lines.filter(line => !(line.getTotalLength() > 5)).length;
told.edgesOfNoColour = lines.filter(line => getComputedStyle(line).stroke === "none").length;
type("MISTAKE");
told.found = of("found").textContent;
told.hits = [...svg.querySelectorAll(".node.hit")].map(node => data.boxes[node.id].paths[0]);
told.dimmed = getComputedStyle(of("box0")).opacity;
const before = viewBox();
press(input, "Enter");
told.enterZooms = viewBox()[2] < before[2];
told.details = of("details").innerText;
type("");
of("whole").click();
told.fits = JSON.stringify(viewBox()) === JSON.stringify(before);
const area = stage.getBoundingClientRect(), center = { clientX: area.left + 300, clientY: area.top + 300 };
function under() {
  const point = new DOMPoint(center.clientX, center.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [point.x, point.y];
}
const [x, y] = under();
stage.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, cancelable: true, ...center }));
told.wheelZooms = viewBox()[2] < before[2];
const [nx, ny] = under();
told.zoomKeepsThePointUnderThePointer = Math.hypot(nx - x, ny - y) < 0.5;
const start = viewBox();
stage.dispatchEvent(new PointerEvent("pointerdown", { ...center, bubbles: true }));
window.dispatchEvent(new PointerEvent("pointermove", { clientX: center.clientX + 50, clientY: center.clientY }));
window.dispatchEvent(new PointerEvent("pointerup", { clientX: center.clientX + 50, clientY: center.clientY }));
told.dragMoves = viewBox()[0] < start[0];
const node = of("box0"), at = { bubbles: true, clientX: 5, clientY: 5 };
node.dispatchEvent(new PointerEvent("pointerdown", at));
node.dispatchEvent(new PointerEvent("pointerup", at));
told.chosen = of("details").innerText;
of("whole").click();
told.reachableByTab = svg.querySelectorAll("[tabindex='0']").length;
told.focused = document.activeElement.id;
const [fromX, fromY] = centre(document.activeElement.getBoundingClientRect());
for (const [key, further] of [["ArrowRight", box => box[0] > fromX + 1], ["ArrowDown", box => box[1] > fromY + 1]]) {
  const standing = document.activeElement;
  press(standing, key);
  const reached = document.activeElement;
  if (reached !== standing && further(centre(reached.getBoundingClientRect()))) told.arrowKeysMove = true;
}
const walked = document.activeElement.id;
press(document.activeElement, "Enter");
told.enterChooses = of(walked).classList.contains("chosen");
press(document.activeElement, "+");
told.keysZoom = viewBox()[2] < before[2];
press(document.activeElement, "0");
told.keysFit = JSON.stringify(viewBox()) === JSON.stringify(before);
told.paper = getComputedStyle(document.body).backgroundColor;
told.ink = getComputedStyle(nodes[0].querySelector("text")).fill;
const pre = document.createElement("pre");
pre.id = "told";
pre.textContent = JSON.stringify(told);
document.body.append(pre);
</script>
"""


def tried_out(tmp_path: Path, drawn: Any, *flags: str) -> dict[str, Any]:
    page = tmp_path / "graph.html"
    drawn.picture(page)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{TRY_OUT}</body>"), encoding="utf-8")
    arguments = [f"--user-data-dir={tmp_path / 'profile'}", *flags, "--dump-dom", page.as_uri()]
    browser = subprocess.run(
        [str(CHROMIUM), *FLAGS, *arguments], capture_output=True, text=True, timeout=60, check=True, encoding="utf-8"
    )
    match = re.search(r'<pre id="told">(.*?)</pre>', browser.stdout, re.DOTALL)
    assert match is not None, "the page's program did not run to its end"
    told: dict[str, Any] = json.loads(html.unescape(match[1]))
    return told


@needs_chromium
def test_page_can_be_searched_zoomed_and_asked(tmp_path: Path) -> None:
    told = tried_out(tmp_path, explanation())
    assert told["boxes"] >= 5
    assert told["found"] == "1 box"
    assert told["hits"] == ["$.mistake"]
    assert float(told["dimmed"]) < 0.5
    assert "$.mistake" in told["details"]
    assert "ValueError: </script><b>not today</b>" in told["details"]
    for behaviour in ("enterZooms", "fits", "wheelZooms", "zoomKeepsThePointUnderThePointer", "dragMoves"):
        assert told[behaviour] is True, behaviour
    assert "Weak references from here" in told["chosen"]
    assert "$.outside" in told["chosen"]


@needs_chromium
def test_page_is_of_use_with_the_keyboard_alone(tmp_path: Path) -> None:
    told = tried_out(tmp_path, explanation())
    assert told["reachableByTab"] == 1
    assert told["focused"] == "box0"
    for behaviour in ("arrowKeysMove", "enterChooses", "keysZoom", "keysFit"):
        assert told[behaviour] is True, behaviour


def many_kinds(policy: Any) -> Any:
    """All that can be drawn: tombstones, copies, what is wrong, wide letters, a self-reference, 300 keys."""
    root = Node(cb=[weakref.ref(OUTSIDE)], dead=weakref.ref(Node()), mistake=Offender(), weights=bytes(50_000))
    root.layers = [Node(parent=weakref.proxy(root, lambda _: None), weights=bytes(1000)) for _ in range(8)]
    for layer in root.layers:
        layer.neighbour = weakref.ref(root.layers[0])
    root.best = weakref.ref(root.layers[3])
    root.cache = weakref.WeakValueDictionary(outside=OUTSIDE, inside=root.layers[0])
    root.table = {"\N{FULLWIDTH LATIN CAPITAL LETTER W}" * 40: Node(v=[1]), "MW" * 40: Node(v=[2])}
    root.table.update({chr(0x4E00 + number): Node(v=[number]) for number in range(298)})
    return safepickle.explain(root, weakrefs=policy)


@needs_chromium
@pytest.mark.parametrize("policy", ["relink", "strong", "tombstone", "strict"])
def test_page_is_laid_out_so_that_all_can_be_read(tmp_path: Path, policy: str) -> None:
    told = tried_out(tmp_path, many_kinds(policy))
    assert told["boxes"] > 15
    assert told["textsThatStickOut"] == []
    assert told["boxesThatOverlap"] == 0
    assert told["allIsSeen"] is True
    assert (told["edgesOfNoLength"], told["edgesOfNoColour"]) == (0, 0)
    drawn_as = {"relink": "gone", "strong": "copy", "tombstone": "gone", "strict": "refused"}
    assert [f"edge {drawn_as[policy]}", ".cb[0]"] in told["edges"]
    assert ["edge gone", ".dead"] in told["edges"]
    assert "\N{DAGGER} tombstone" in told["stones"]


@needs_chromium
def test_page_is_dark_where_the_reader_wants_it_so(tmp_path: Path) -> None:
    light = tried_out(tmp_path, explanation())
    dark = tried_out(tmp_path, explanation(), "--blink-settings=preferredColorScheme=0")
    assert (light["paper"], light["ink"]) == ("rgb(255, 255, 255)", "rgb(29, 39, 51)")
    assert (dark["paper"], dark["ink"]) == ("rgb(20, 24, 29)", "rgb(228, 233, 238)")


@needs_chromium
@pytest.mark.parametrize("obj", [1, [], Node(), [weakref.ref(OUTSIDE)]], ids=["number", "list", "node", "tombstone"])
def test_the_smallest_graphs_are_drawn(tmp_path: Path, obj: Any) -> None:
    told = tried_out(tmp_path, safepickle.explain(obj))
    assert told["boxes"] >= 1
    assert told["textsThatStickOut"] == []
