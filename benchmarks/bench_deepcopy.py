"""`safepickle.deepcopy` beside `copy.deepcopy`: objects with and without weak references, containers, a 200 MB model.

Both copy the same graph. Where it holds weak references, `copy.deepcopy` does less: it leaves them at the original.
"""

from __future__ import annotations

import copy
import itertools
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from cores import both_cores

import safepickle

MANY = 100_000
Calls = dict[str, Callable[[], object]]
TARGETS = {"copy.deepcopy": 1.0}
# Both spend their time in the same calls that copy memory, so the ratio is 1, give or take the noise.
SAME_WORK = {"copy.deepcopy": 1.1}


class Node:
    def __init__(self, number: int, parent: Any = None) -> None:
        self.number = number
        self.parent = parent
        self.children: list[Node] = []


class Slotted:
    __slots__ = ("items", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.items = [number]


def both(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        graph = build()
        return {
            "safepickle": lambda: safepickle.deepcopy(graph),
            "copy.deepcopy": lambda: copy.deepcopy(graph),
        }

    return contenders


def tree(link: Callable[[Node], Any]) -> Callable[[], Node]:
    """A tree of MANY nodes, 10 children each, every child linked to its parent."""

    def build() -> Node:
        nodes = [Node(0)]
        for number in range(1, MANY):
            parent = nodes[(number - 1) // 10]
            nodes.append(Node(number, link(parent)))
            parent.children.append(nodes[-1])
        return nodes[0]

    return build


def forward() -> list[Node]:
    """MANY nodes, each linked weakly to the next one, which the walk has not met yet."""
    nodes = [Node(number) for number in range(MANY)]
    for node, following in itertools.pairwise(nodes):
        node.parent = weakref.ref(following)
    return nodes


def sealed() -> list[tuple[Any, Node]]:
    """The same with the references in tuples, which takes a second walk."""
    nodes = [Node(number) for number in range(MANY)]
    return [(weakref.ref(following), node) for node, following in itertools.pairwise(nodes)]


def records() -> list[dict[str, Any]]:
    return [{"number": number, "name": str(number), "tags": ("a", "b"), "scores": [1.0, 2.0]} for number in range(MANY)]


def arrays() -> dict[str, Any]:
    return {f"layer {number}": np.full(2_500_000, number, dtype=np.float64) for number in range(10)}


def model() -> Any:
    """200 MB of parameters in 50 layers, each with a parent pointer."""
    import torch

    layers = [torch.nn.Linear(1000, 1000) for _ in range(50)]
    net = torch.nn.Sequential(*layers)
    for layer in layers:
        layer.parent = weakref.ref(net)
    return net


suite = both_cores("deepcopy")
suite.compare("100,000 plain objects in a tree", both(tree(lambda parent: None)), targets=TARGETS)
suite.compare("100,000 objects with weak parent pointers", both(tree(weakref.ref)), targets=TARGETS)
suite.compare("100,000 objects with weak references forward", both(forward), targets=TARGETS)
suite.compare(
    "100,000 weak references forward, in tuples",
    both(sealed),
    note="the references can't be replaced in a tuple, so the graph is walked twice; nothing was promised",
)
suite.compare("100,000 objects with slots", both(lambda: [Slotted(n) for n in range(MANY)]), targets=TARGETS)
suite.compare("100,000 dicts of strings, numbers, tuples and lists", both(records), targets=TARGETS)
suite.compare("200 MB in 10 arrays", both(arrays), targets=SAME_WORK)
suite.compare("a small dict", both(lambda: {"a": [1, 2], "b": (3, "c")}), note="what a call costs before it copies")
if __name__ == "__main__":
    try:
        import torch  # noqa: F401
    except ImportError:
        print("torch is not installed: the model is left out", file=sys.stderr)
    else:
        suite.compare("200 MB torch model, 50 layers with parent pointers", both(model), targets=SAME_WORK)
    suite.main()
