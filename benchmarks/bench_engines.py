"""What it costs an engine to send objects through safepickle, beside its own pickler: the same payload, in one run.

Measured without processes and sockets, which would drown it: from the object to what the engine writes to the wire, and
back. The payload holds no weak reference, for the engines' own picklers cannot send one.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from cores import both_cores

MANY = 20_000
Calls = dict[str, Callable[[], object]]


class Node:
    def __init__(self, number: int) -> None:
        self.number = number
        self.children: list[Node] = []


def tree() -> Node:
    nodes = [Node(0)]
    for number in range(1, MANY):
        nodes.append(Node(number))
        nodes[(number - 1) // 10].children.append(nodes[-1])
    return nodes[0]


def arrays() -> dict[str, Any]:
    return {f"layer {number}": np.full(2_000_000, number, dtype=np.float64) for number in range(4)}


PAYLOADS = {f"{MANY:,} objects": tree, "64 MB in 4 arrays": arrays}


def loky(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        from joblib.externals.loky.backend import reduction

        from safepickle.integrations.joblib import register

        payload = build()

        def ours() -> Any:
            undo = register()
            try:
                return pickle.loads(reduction.dumps(payload))
            finally:
                undo()

        return {"safepickle": ours, "joblib": lambda: pickle.loads(reduction.dumps(payload))}

    return contenders


def pipe(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        from multiprocessing.reduction import ForkingPickler

        from safepickle.integrations.multiprocessing import _dumps

        payload = build()
        return {
            "safepickle": lambda: pickle.loads(_dumps(payload)),
            "multiprocessing": lambda: pickle.loads(ForkingPickler.dumps(payload)),
        }

    return contenders


def queue(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        from multiprocessing.reduction import ForkingPickler

        from safepickle.integrations.multiprocessing import _Parcel

        payload = build()
        return {
            "safepickle": lambda: pickle.loads(ForkingPickler.dumps(_Parcel(payload))),
            "multiprocessing": lambda: pickle.loads(ForkingPickler.dumps(payload)),
        }

    return contenders


def dask(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        from distributed.protocol import deserialize, serialize

        from safepickle.integrations.dask import register

        payload = [build()]  # in one piece: dask takes a dict apart
        register()
        own = _dask_own()

        def ours() -> Any:
            return deserialize(*serialize(payload, serializers=["safepickle"], iterate_collection=False))

        return {"safepickle": ours, "dask": lambda: own[1](*own[0](payload))}

    return contenders


def _dask_own() -> Any:
    from distributed.protocol.serialize import pickle_dumps, pickle_loads

    return pickle_dumps, pickle_loads


def ray(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        from ray import cloudpickle

        from safepickle.integrations.ray import _deserialize, _serialize

        payload = build()

        def ours() -> Any:
            buffers: list[pickle.PickleBuffer] = []
            data = cloudpickle.dumps(_serialize(payload), protocol=5, buffer_callback=buffers.append)
            return _deserialize(cloudpickle.loads(data, buffers=buffers))

        def theirs() -> Any:
            buffers: list[pickle.PickleBuffer] = []
            data = cloudpickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
            return cloudpickle.loads(data, buffers=buffers)

        return {"safepickle": ours, "ray": theirs}

    return contenders


def spark(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        from pyspark.serializers import CPickleSerializer

        from safepickle.integrations.spark import SafepickleSerializer

        payload = build()
        own, mine = CPickleSerializer(), SafepickleSerializer()
        return {
            "safepickle": lambda: mine.loads(mine.dumps(payload)),
            "spark": lambda: own.loads(own.dumps(payload)),
        }

    return contenders


def checkpoint(build: Callable[[], Any]) -> Callable[[], Calls]:
    def contenders() -> Calls:
        import torch

        import safepickle

        payload = build()

        def through(module: Any) -> Any:
            file = io.BytesIO()
            torch.save(payload, file, pickle_module=module)
            file.seek(0)
            return torch.load(file, pickle_module=module, weights_only=False)

        return {"safepickle": lambda: through(safepickle), "torch.save": lambda: through(pickle)}

    return contenders


ENGINES = {
    "joblib": ("joblib", loky),
    "multiprocessing, pipes and pools": ("multiprocessing", pipe),
    "multiprocessing, queues": ("multiprocessing", queue),
    "dask": ("distributed", dask),
    "ray": ("ray", ray),
    "Spark": ("pyspark", spark),
    "Hugging Face, torch.save": ("torch", checkpoint),
}

suite = both_cores("engines")
for engine, (needed, contenders_of) in ENGINES.items():
    try:
        __import__(needed)
    except ImportError:
        print(f"{needed} is not installed: {engine} is left out", file=sys.stderr)
        continue
    for name, build_payload in PAYLOADS.items():
        suite.compare(f"{engine}: {name}", contenders_of(build_payload))

if __name__ == "__main__":
    suite.main()
