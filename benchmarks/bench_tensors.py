"""Torch tensors and whole models: safepickle beside pickle, torch.save, safetensors and one memcpy.

The memcpy copies the payload into fresh memory, as every dump and every load has to do at least once.

Run: python benchmarks/bench_tensors.py
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from cores import both_cores
from torch import nn

import safepickle

MEGABYTES = 200
SMALL = 5_000
Calls = dict[str, Callable[[], object]]


def model(megabytes: int) -> nn.Module:
    """Return a model of about that size, in layers of 4 MiB."""
    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(megabytes // 4)))


def small_model() -> nn.Module:
    return nn.ParameterList([nn.Parameter(torch.randn(16)) for _ in range(SMALL)])


def torch_saved(obj: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file, **options)
    return file.getvalue()


def torch_save_calls(module: nn.Module) -> Calls:
    return {
        "safepickle": lambda: torch_saved(module, pickle_module=safepickle),
        "torch.save": lambda: torch_saved(module),
    }


def torch_loaded(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)


def payload(module: nn.Module) -> bytearray:
    return bytearray(sum(parameter.nbytes for parameter in module.parameters()))


def out_of_band(obj: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers: list[pickle.PickleBuffer] = []
    return safepickle.dumps(obj, buffer_callback=buffers.append), buffers


def dump_calls(module: nn.Module) -> Calls:
    source = payload(module)
    return {
        "safepickle": lambda: safepickle.dumps(module),
        "memcpy": lambda: bytes(source),
        "pickle": lambda: pickle.dumps(module, 5),
        "torch.save": lambda: torch_saved(module),
        "safetensors": lambda: safetensors.torch.save(module.state_dict()),
    }


def load_calls(module: nn.Module) -> Calls:
    source = payload(module)
    ours, theirs, saved = safepickle.dumps(module), pickle.dumps(module, 5), torch_saved(module)
    tensors = safetensors.torch.save(module.state_dict())
    return {
        "safepickle": lambda: safepickle.loads(ours),
        "memcpy": lambda: bytearray(source),
        "pickle": lambda: pickle.loads(theirs),
        "torch.load": lambda: torch_loaded(saved),
        "safetensors": lambda: safetensors.torch.load(tensors),
    }


def out_of_band_dumps(module: nn.Module) -> Calls:
    source = payload(module)
    return {"safepickle": lambda: out_of_band(module), "memcpy": lambda: bytes(source)}


def out_of_band_loads(module: nn.Module) -> Calls:
    source = payload(module)
    data, buffers = out_of_band(module)
    return {"safepickle": lambda: safepickle.loads(data, buffers=buffers), "memcpy": lambda: bytes(source)}


def without_memcpy(calls: Calls) -> Calls:
    return {name: call for name, call in calls.items() if name != "memcpy"}


suite = both_cores("tensors")
suite.compare(f"a model of {MEGABYTES} MB: dumps", lambda: dump_calls(model(MEGABYTES)), targets={"memcpy": 1.3})
suite.compare(f"a model of {MEGABYTES} MB: loads", lambda: load_calls(model(MEGABYTES)), targets={"memcpy": 1.3})
suite.compare(
    f"a model of {MEGABYTES} MB: dumps out of band",
    lambda: out_of_band_dumps(model(MEGABYTES)),
    targets={"memcpy": 0.05},
)
suite.compare(
    f"a model of {MEGABYTES} MB: loads out of band",
    lambda: out_of_band_loads(model(MEGABYTES)),
    targets={"memcpy": 0.05},
)
suite.compare(
    f"{SMALL:,} parameters of 16 floats: dumps",
    lambda: without_memcpy(dump_calls(small_model())),
    targets={"pickle": 0.5},
)
suite.compare(
    f"{SMALL:,} parameters of 16 floats: loads",
    lambda: without_memcpy(load_calls(small_model())),
    targets={"pickle": 0.7},
)
suite.compare(
    f"torch.save(pickle_module=safepickle) of {SMALL:,} parameters",
    lambda: torch_save_calls(small_model()),
    targets={"torch.save": 1.05},
)
suite.compare(
    f"torch.save(pickle_module=safepickle) of {MEGABYTES} MB",
    lambda: torch_save_calls(model(MEGABYTES)),
    targets={"torch.save": 1.05},
)

if __name__ == "__main__":
    suite.main()
