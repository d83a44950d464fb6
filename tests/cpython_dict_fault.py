"""Show a fault of CPython 3.11 with nothing but CPython: no pickler is imported here.

usage: python tests/cpython_dict_fault.py [SECONDS] [shared | own]

Four threads change objects, whose weak references have callbacks, while the collector runs often. With ``shared``, the
default, threads ask for the ``__dict__`` of an object that another one may be asking for: CPython 3.11 ends in many
runs of 20 seconds with a segmentation fault, mostly inside the collector. CPython 3.12 and later do not, and neither
does 3.11 with ``own``, where each object's ``__dict__`` is asked for, once, by the thread that makes it. A pickler asks
for it too, so a crash of such a program under a pickler on 3.11 is this fault.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import random
import sys
import threading
import time
import weakref
from typing import Any

OBJECTS, THREADS = 200, 4


class Node:
    """May hold others, and itself, so that only the collector frees it."""

    own = False

    def __init__(self, number: float) -> None:
        if Node.own:
            vars(self)
        self.number = number
        self.children: list[Node] = []
        self.parent: Any = None
        self.extra: dict[int, Node] = {}


def fire(reference: object) -> None:
    Node(1).parent = [1]


def change(nodes: list[Node], end: float, seed: int) -> None:
    """Change random ones of the objects until the time is over."""
    choose = random.Random(seed)
    while time.monotonic() < end:
        node, new = choose.choice(nodes), Node(choose.random())
        new.parent = new
        kind = choose.randrange(6)
        if kind == 0:
            node.extra[choose.randrange(20)] = new
        elif kind == 1:
            node.watched = weakref.ref(new, fire)  # type: ignore[attr-defined]
        elif kind == 2:
            node.children = [Node(child) for child in range(choose.randrange(5))]
        elif kind == 3:
            setattr(node, f"a{choose.randrange(30)}", new)
        elif kind == 4:
            for name in list(vars(node)):
                if name.startswith("a"):
                    with contextlib.suppress(AttributeError):  # another thread was first
                        delattr(node, name)
        else:
            nodes[choose.randrange(OBJECTS)] = Node(choose.randrange(1000))
        if choose.random() < 0.3:
            vars(choose.choice(nodes))


def main() -> None:
    faulthandler.enable()
    sys.setswitchinterval(1e-5)
    gc.set_threshold(50, 2, 2)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
    Node.own = sys.argv[2:] == ["own"]
    nodes = [Node(number) for number in range(OBJECTS)]
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=change, args=(nodes, end, seed)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"CPython {sys.version.split()[0]} ended well")


if __name__ == "__main__":
    main()
