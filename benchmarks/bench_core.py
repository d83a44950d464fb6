"""Object graphs and numpy arrays: safepickle beside pickle, cloudpickle and dill.

Run: python benchmarks/bench_core.py
"""

from __future__ import annotations

import argparse
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import dill
import numpy as np
from cores import both_cores
from harness import Suite, child_peak, child_seconds

import safepickle

MANY = 100_000
Calls = dict[str, Callable[[], object]]


class Plain:
    """An object as most programs have them: a few attributes, no weak reference."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"item {number}"
        self.weights = [number * 0.5, number * 0.25]


class Node:
    """A node of a tree that knows its parent, strongly or weakly."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.children: list[Node] = []
        self.parent: Any = None


def plain_objects(count: int) -> list[Plain]:
    return [Plain(number) for number in range(count)]


def importable_objects(count: int) -> list[argparse.Namespace]:
    """Return instances of a class that can be imported, where those of this program are pickled by value."""
    return [argparse.Namespace(number=number, name=str(number), scale=number / 3) for number in range(count)]


def tree(count: int, link: Callable[[Node], object], fan_out: int = 10) -> Node:
    """Return a tree whose nodes hold `link(parent)`."""
    nodes = [Node(number) for number in range(count)]
    for number in range(1, count):
        parent = nodes[(number - 1) // fan_out]
        parent.children.append(nodes[number])
        nodes[number].parent = link(parent)
    return nodes[0]


def forward(count: int, link: Callable[[Node], object]) -> list[list[Any]]:
    """Return references followed by the objects they point to: each is met before its referent."""
    nodes = [Node(number) for number in range(count)]
    return [[link(node) for node in nodes], nodes]


def ephemerons(count: int, link: Callable[[Node], object], length: int = 1000) -> list[Any]:
    """Return chains of entries, each with the next one's key as its value, in the order that takes most walks.

    With `link` as `weakref.ref` the tables are weak-key dictionaries, else dicts.
    """
    make: Callable[[], Any] = weakref.WeakKeyDictionary if link is weakref.ref else dict
    owners = []
    for _ in range(count // length):
        keys = [Node(number) for number in range(length)]
        table = make()
        for number in reversed(range(length - 1)):
            table[keys[number]] = keys[number + 1]
        owners.append([table, keys[0]])
    return owners


def itself(node: Node) -> Node:
    return node


def dumps_plain() -> Calls:
    graph = plain_objects(MANY)
    return {
        "safepickle": lambda: safepickle.dumps(graph),
        "pickle": lambda: pickle.dumps(graph, pickle.HIGHEST_PROTOCOL),
        "cloudpickle": lambda: cloudpickle.dumps(graph),
        "dill": lambda: dill.dumps(graph, pickle.HIGHEST_PROTOCOL),
    }


def loads_plain() -> Calls:
    ours = safepickle.dumps(plain_objects(MANY))
    theirs = pickle.dumps(plain_objects(MANY), pickle.HIGHEST_PROTOCOL)
    return {"safepickle": lambda: safepickle.loads(ours), "pickle": lambda: pickle.loads(theirs)}


def dumps_tree() -> Calls:
    weak, strong = tree(MANY, weakref.ref), tree(MANY, itself)
    return {
        "safepickle": lambda: safepickle.dumps(weak),
        "pickle, strong": lambda: pickle.dumps(strong, pickle.HIGHEST_PROTOCOL),
    }


def loads_tree() -> Calls:
    weak = safepickle.dumps(tree(MANY, weakref.ref))
    strong = pickle.dumps(tree(MANY, itself), pickle.HIGHEST_PROTOCOL)
    return {"safepickle": lambda: safepickle.loads(weak), "pickle, strong": lambda: pickle.loads(strong)}


def dumps_forward() -> Calls:
    weak, strong = forward(MANY, weakref.ref), forward(MANY, itself)
    return {
        "safepickle": lambda: safepickle.dumps(weak),
        "pickle, strong": lambda: pickle.dumps(strong, pickle.HIGHEST_PROTOCOL),
    }


def loads_forward() -> Calls:
    weak = safepickle.dumps(forward(MANY, weakref.ref))
    strong = pickle.dumps(forward(MANY, itself), pickle.HIGHEST_PROTOCOL)
    return {"safepickle": lambda: safepickle.loads(weak), "pickle, strong": lambda: pickle.loads(strong)}


def small(obj: Any) -> Callable[[], Calls]:
    """What a call costs before it pickles much."""

    def contenders() -> Calls:
        return {
            "safepickle": lambda: safepickle.dumps(obj),
            "cloudpickle": lambda: cloudpickle.dumps(obj),
            "pickle": lambda: pickle.dumps(obj, pickle.HIGHEST_PROTOCOL),
        }

    return contenders


def arrays() -> dict[str, Any]:
    """Return 200 MB in ten arrays."""
    return {f"layer {number}": np.full(2_500_000, number, dtype=np.float64) for number in range(10)}


def dumps_arrays() -> Calls:
    payload = arrays()
    return {"safepickle": lambda: safepickle.dumps(payload), "pickle": lambda: pickle.dumps(payload, 5)}


def loads_arrays() -> Calls:
    data = safepickle.dumps(arrays())
    return {"safepickle": lambda: safepickle.loads(data), "pickle": lambda: pickle.loads(data)}


def dumps_arrays_out_of_band() -> Calls:
    payload = arrays()
    return {
        "safepickle": lambda: safepickle.dumps(payload, buffer_callback=list[Any]().append),
        "pickle": lambda: pickle.dumps(payload, 5, buffer_callback=list[Any]().append),
    }


def loads_arrays_out_of_band() -> Calls:
    buffers: list[pickle.PickleBuffer] = []
    data = safepickle.dumps(arrays(), buffer_callback=buffers.append)
    return {
        "safepickle": lambda: safepickle.loads(data, buffers=buffers),
        "pickle": lambda: pickle.loads(data, buffers=buffers),
    }


def seconds_to_import(module: str) -> Callable[[], float]:
    program = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return lambda: child_seconds(program)


GIGABYTE = """
import pickle, weakref
import numpy as np
import safepickle

class Owner:
    pass

payload = {"arrays": [np.ones(12_500_000) for _ in range(5)], "bytes": [b"x" * (100_000_000 + n) for n in range(5)]}
if links == "weak":
    owners = [Owner() for _ in range(1000)]
    payload = [[weakref.ref(owner) for owner in owners], payload, owners]
"""


def peak_of_dump(module: str, links: str) -> Callable[[], float]:
    action = f"import tempfile\nwith tempfile.TemporaryFile() as file: {module}.dump(payload, file, protocol=5)"
    return lambda: child_peak(f"links = {links!r}{GIGABYTE}", action)


def peak_of_dump_to_path() -> float:
    action = (
        "import os, tempfile\n"
        "with tempfile.TemporaryDirectory() as folder: safepickle.dump(payload, os.path.join(folder, 'payload'))"
    )
    return child_peak(f"links = 'weak'{GIGABYTE}", action)


def declare(suite: Suite) -> None:
    suite.compare(
        "100,000 plain objects: dumps",
        dumps_plain,
        targets={"pickle": 0.85, "cloudpickle": 0.7, "dill": 0.08},
        rounds=5,
    )
    suite.compare("100,000 plain objects: loads", loads_plain, targets={"pickle": 1.1})
    suite.compare("tree of 100,000, weak parents: dumps", dumps_tree, targets={"pickle, strong": 0.85})
    suite.compare("tree of 100,000, weak parents: loads", loads_tree, targets={"pickle, strong": 1.1})
    suite.compare("100,000 forward references: dumps", dumps_forward, targets={"pickle, strong": 1.8})
    suite.compare("100,000 forward references: loads", loads_forward, targets={"pickle, strong": 1.3})
    suite.compare("dumps({'a': 1})", small({"a": 1}), targets={"cloudpickle": 1.0})
    suite.compare("10 plain objects: dumps", small(importable_objects(10)), targets={"cloudpickle": 0.7})
    suite.compare("numpy, 200 MB: dumps in band", dumps_arrays, targets={"pickle": 1.05})
    suite.compare("numpy, 200 MB: loads in band", loads_arrays, targets={"pickle": 1.05})
    suite.compare("numpy, 200 MB: dumps out of band", dumps_arrays_out_of_band, targets={"pickle": 1.5})
    suite.compare("numpy, 200 MB: loads out of band", loads_arrays_out_of_band, targets={"pickle": 1.05})
    suite.measure(
        "import, fresh process",
        "s",
        {"safepickle": seconds_to_import("safepickle"), "cloudpickle": seconds_to_import("cloudpickle")},
        targets={"cloudpickle": 1.2},
        rounds=11,
    )
    for links in ("none", "weak"):
        suite.measure(
            f"peak memory of dump to a file, 1 GB, weak references: {links}",
            "MiB",
            {
                "safepickle": peak_of_dump("safepickle", links),
                "pickle, without the references": peak_of_dump("pickle", "none"),
            },
            targets={"pickle, without the references": 1.1},
            rounds=1,
        )
    suite.measure(
        "peak memory of dump to a path, 1 GB, forward references",
        "MiB",
        {"safepickle": peak_of_dump_to_path, "pickle, without the references": peak_of_dump("pickle", "none")},
        targets={"pickle, without the references": 1.1},
        rounds=1,
    )
    sizes = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    suite.slope("growth: weak parents", sizes, lambda size: _weak_and_strong(tree, size), target=1.1)
    suite.slope("growth: forward references", sizes, lambda size: _weak_and_strong(forward, size), target=1.1)
    suite.slope("growth: ephemeron chains of 1,000", sizes, lambda size: _weak_and_strong(ephemerons, size), target=1.1)


def _weak_and_strong(build: Callable[[int, Any], object], size: int) -> Calls:
    strong = build(size, itself)
    return _dumps(build(size, weakref.ref)) | {"pickle, strong": lambda: pickle.dumps(strong, pickle.HIGHEST_PROTOCOL)}


def _dumps(graph: object) -> Calls:
    return {"safepickle": lambda: safepickle.dumps(graph)}


if __name__ == "__main__":
    suite = both_cores("core")
    declare(suite)
    suite.main()
