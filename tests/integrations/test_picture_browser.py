"""Pictures laid out by graphviz, and the page tried out in a headless Chromium."""

from __future__ import annotations

import html
import json
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

pytest.importorskip("graphviz")
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's program dot is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
def test_svg_is_drawn(tmp_path: Path) -> None:
    explanation().picture(tmp_path / "graph.svg")
    svg = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    assert "</svg>" in svg
    assert ".layers" in svg
    assert "cannot be pickled" in svg


def test_missing_program_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"dot is not on the PATH.*apt install graphviz.*\.dot file"):
        explanation().picture(tmp_path / "graph.svg")


def test_missing_package_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install safepickle-weakref\[cli\], or draw to a \.dot file"):
        explanation().picture(tmp_path / "graph.html")


@needs_dot
def test_page_needs_nothing_from_the_network(tmp_path: Path) -> None:
    explanation().picture(tmp_path / "graph.html")
    page = (tmp_path / "graph.html").read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "{{" not in page


TRY_OUT = """
<script>
const told = {};
const input = document.getElementById("search");
function type(text) { input.value = text; input.dispatchEvent(new Event("input")); }
const viewBox = () => svg.getAttribute("viewBox").split(" ").map(Number);
told.boxes = svg.querySelectorAll("g.node[id^=box]").length;
type("MISTAKE");
told.found = document.getElementById("found").textContent;
told.hits = [...svg.querySelectorAll("g.node.hit")].map(node => data.boxes[node.id].paths[0]);
told.dimmed = getComputedStyle(document.getElementById("box0")).opacity;
const before = viewBox();
input.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
told.enterZooms = viewBox()[2] < before[2];
told.details = document.getElementById("details").innerText;
type("");
document.getElementById("whole").click();
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
const node = document.getElementById("box0"), at = { bubbles: true, clientX: 5, clientY: 5 };
node.dispatchEvent(new PointerEvent("pointerdown", at));
node.dispatchEvent(new PointerEvent("pointerup", at));
told.chosen = document.getElementById("details").innerText;
const pre = document.createElement("pre");
pre.id = "told";
pre.textContent = JSON.stringify(told);
document.body.append(pre);
</script>
"""


@needs_dot
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_page_can_be_searched_zoomed_and_asked(tmp_path: Path) -> None:
    page = tmp_path / "graph.html"
    explanation().picture(page)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{TRY_OUT}</body>"), encoding="utf-8")
    arguments = [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    browser = subprocess.run(
        [str(CHROMIUM), *FLAGS, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    match = re.search(r'<pre id="told">(.*?)</pre>', browser.stdout, re.DOTALL)
    assert match is not None, "the page's program did not run to its end"
    told = json.loads(html.unescape(match[1]))
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
