"""The guarded load beside the C unpickler: objects, integers, containers, a 200 MB checkpoint; and inspect."""

from __future__ import annotations

import io
import pickle
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cores import both_cores

import safepickle

MANY = 100_000
GRANTED = {"pickle": 1.3 if safepickle.COMPILED else 15}
"""The target for what the compiled core grants."""

Calls = dict[str, Callable[[], object]]


class Node:
    children: list[Node]
    parent: weakref.ref[Node]

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = "node"


class Linking(pickle.Pickler):
    """Writes a weak reference as safepickle does, and classes of this program by name, as a module's."""

    def reducer_override(self, obj: Any) -> Any:
        return (weakref.ref, (obj(),)) if type(obj) is weakref.ref else NotImplemented


def loading(build: Callable[[], Any], *allow: Any) -> Callable[[], Calls]:
    def contenders() -> Calls:
        file = io.BytesIO()
        Linking(file, 5).dump(build())
        data = file.getvalue()
        return {
            "safepickle": lambda: safepickle.loads(data, allow=allow),
            "pickle": lambda: pickle.loads(data),
        }

    return contenders


def tree() -> Node:
    """A binary tree whose nodes refer weakly to their parents."""
    nodes = [Node(number) for number in range(MANY)]
    for number, node in enumerate(nodes):
        node.children = nodes[2 * number + 1 : 2 * number + 3]
        for child in node.children:
            child.parent = weakref.ref(node)
    return nodes[0]


def checkpoint() -> Calls:
    import torch

    import safepickle.integrations.torch as torch_integration

    folder = tempfile.mkdtemp()
    path = Path(folder) / "checkpoint.pt"
    torch.save({f"layer{i}": torch.randn(1000, 1000) for i in range(50)}, path)
    return {
        "safepickle": lambda: torch_integration.load(path),
        "torch.load": lambda: torch.load(path, weights_only=False),
    }


def arrays() -> Calls:
    data = io.BytesIO()
    pickle.dump([np.random.default_rng(0).random(1_250_000) for _ in range(20)], data, 5)
    plain = data.getvalue()
    return {
        "safepickle": lambda: safepickle.loads(plain, allow=()),
        "pickle": lambda: pickle.loads(plain),
    }


def inspecting() -> Calls:
    data = pickle.dumps([Node(i) for i in range(MANY)], 5)
    return {
        "safepickle": lambda: safepickle.inspect(data),
        "pickle": lambda: pickle.loads(data),
    }


suite = both_cores("guard")
suite.compare(
    "100,000 plain objects: guarded load", loading(lambda: [Node(i) for i in range(MANY)], Node), targets=GRANTED
)
suite.compare("tree of 100,000 nodes with weak parents: guarded load", loading(tree, Node), targets=GRANTED)
suite.compare("1,000,000 integers: guarded load", loading(lambda: list(range(1_000_000))), targets=GRANTED)
suite.compare(
    "50,000 rows of dict, text and tuple: guarded load",
    loading(lambda: [{"a": i, "b": str(i), "c": (i, i)} for i in range(50_000)]),
    targets=GRANTED,
)
suite.compare("200 MB torch checkpoint: guarded load", checkpoint, targets={"torch.load": 1.1})
suite.compare("200 MB of arrays: guarded load", arrays, targets={"pickle": 1.1})
suite.compare("100,000 plain objects: inspect", inspecting)

if __name__ == "__main__":
    suite.main()
