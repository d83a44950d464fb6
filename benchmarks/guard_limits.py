"""What a guarded load may cost: the limits that the code sets, and what the costliest inputs known take, in Markdown.

The first table is read from ``safepickle/guard/limits.py``. For the second, each input of the tests' tables that costs
much, and some that make as many objects of each byte as can be, is loaded and inspected in a process of its own. Run:
python benchmarks/guard_limits.py docs/guarded-loading.md
"""

from __future__ import annotations

import ast
import os
import pickle
import re
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import safepickle  # noqa: E402
from safepickle.guard import limits  # noqa: E402

BEGIN, END = "<!-- written by benchmarks/guard_limits.py -->", "<!-- end of the limits -->"
MEGABYTE = 1_000_000
LEAST = 100_000
"""Bytes: of a shorter input no cost per byte is given, since what is spent at once regardless would be all of it."""


class Cost(NamedTuple):
    """What one input took.

    Attributes:
        title: What it is.
        length: Bytes of it.
        load, inspect: Seconds of processor time.
        memory, inspect_memory: Bytes by which the process grew at its highest.
        outcome: What the load said.
    """

    title: str
    length: int
    load: float
    inspect: float
    memory: int
    inspect_memory: int
    outcome: str


def limit_rows() -> list[str]:
    """Return the constants of the code with what is said of them."""
    rows, names = [], list[str]()
    for node in ast.parse(Path(limits.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            names.append(node.targets[0].id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and names:
            meaning = re.split(r"(?<=[^.]{3})\. |\.$", " ".join(str(node.value.value).split()))[0]
            values = ", ".join(f"`{name}` {getattr(limits, name):,}" for name in names if name[0] != "_")
            rows.append(f"| {meaning} | {values} |")
            names = []
    return rows


def _many(opcode: bytes, count: int) -> bytes:
    return b"\x80\x04(" + opcode * count + b"l."


def _keys(count: int) -> bytes:
    return b"\x80\x04}(" + b"".join(b"J" + struct.pack("<i", number) + b"N" for number in range(count)) + b"u."


DENSE: dict[str, Callable[[], bytes]] = {
    "a million empty lists": lambda: _many(b"]", MEGABYTE),
    "a million empty dicts": lambda: _many(b"}", MEGABYTE),
    "a million empty sets": lambda: _many(b"\x8f", MEGABYTE),
    "a million nested lists": lambda: b"\x80\x04" + b"]" * MEGABYTE + b"a" * (MEGABYTE - 1) + b".",
    "a million tuples, each in the memo": lambda: _many(b"N\x85\x94", MEGABYTE // 3),
    "170,000 keys of one dict": lambda: _keys(MEGABYTE // 6),
    "a megabyte of bytes": lambda: b"\x80\x04B" + struct.pack("<I", MEGABYTE) + bytes(MEGABYTE) + b".",
    "200,000 plain objects": lambda: b"\x80\x04cbuiltins\nobject\nq\x00(" + b"h\x00)\x81" * (MEGABYTE // 5) + b"l.",
}
"""Inputs of about a megabyte, of objects that take the fewest bytes."""


def measured(title: str, data: bytes) -> Cost:
    """Load and inspect one input, each in a process of its own."""
    load, memory, outcome = _in_child(lambda: safepickle.loads(data, allow=()))
    inspect, inspect_memory, _ = _in_child(lambda: safepickle.inspect(data))
    return Cost(title, len(data), load, inspect, memory, inspect_memory, outcome)


def _in_child(act: Callable[[], object]) -> tuple[float, int, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        before, start, outcome = _resident(), time.process_time(), "loads"
        try:
            act()
        except pickle.UnpicklingError as error:
            outcome = type(error).__name__
        taken = time.process_time() - start
        grown = max(0, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before)
        os.write(writing, f"{taken} {grown} {outcome}".encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode().split()
    os.waitpid(child, 0)
    return (float(said[0]), int(said[1]), said[2]) if said else (0.0, 0, "ended the process")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


def costs() -> list[Cost]:
    """Measure every input."""
    from guard.costly import COSTLY

    safepickle.loads(pickle.dumps({"warm": (1, 2)}), allow=())
    return [measured(title, build()) for title, build in {**DENSE, **COSTLY}.items()]


def cost_rows(measurements: list[Cost]) -> list[str]:
    """Return rows for the inputs of objects, and for what is worst among all others."""
    dense = [cost for cost in measurements if cost.title in DENSE]
    others = [cost for cost in measurements if cost.title not in DENSE]
    worst = {
        "slowest": max(others, key=lambda cost: cost.load),
        "slowest to inspect": max(others, key=lambda cost: cost.inspect),
        "largest": max(others, key=lambda cost: cost.memory),
        "largest to inspect": max(others, key=lambda cost: cost.inspect_memory),
    }
    rows = [_row(cost.title, cost) for cost in dense]
    return rows + [
        _row(f"the {what} of {len(others)} costly inputs: {cost.title}", cost) for what, cost in worst.items()
    ]


def _row(title: str, cost: Cost) -> str:
    each = (
        f"{cost.load / cost.length * 1e6:.2g} µs, {cost.memory / cost.length:,.0f} bytes"
        if cost.length >= LEAST
        else "-"
    )
    return (
        f"| {title} | {cost.length:,} | {cost.load:.2f} s, {cost.memory / 1e6:,.0f} MB "
        f"| {cost.inspect:.2f} s, {cost.inspect_memory / 1e6:,.0f} MB | {each} | {cost.outcome} |"
    )


def main(page: str) -> None:
    measurements = costs()
    ended = [cost.title for cost in measurements if cost.outcome == "ended the process"]
    table = [
        "| limit | figure |",
        "| --- | --- |",
        *limit_rows(),
        "",
        "| input | bytes | load | `inspect` | each byte of it, in the load | outcome |",
        "| --- | --- | --- | --- | --- | --- |",
        *cost_rows(measurements),
    ]
    path = Path(page)
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}", encoding="utf-8")
    print("\n".join(table))
    if ended:
        sys.exit(f"these ended the process: {', '.join(ended)}")


if __name__ == "__main__":
    main(sys.argv[1])
