"""Write the golden pickles of this version of safepickle, made by this version of Python.

Run it once on each Python before a release, where torch, Keras, JAX and TensorFlow are installed, and commit what it
writes: what needs a framework that is missing is passed over. It never overwrites: a golden pickle that exists
stands for files that people have. Run: python tests/make_golden.py
"""

from __future__ import annotations

import gc
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS / "integrations")]

import golden_cases  # noqa: E402 (the path comes first)
import safepickle  # noqa: E402

GOLDEN = TESTS / "data" / "golden"
FOREIGN = TESTS / "data" / "foreign"


def write(path: Path, build: Any, options: dict[str, Any]) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    obj = build()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        safepickle.dump(obj, path, **options)
    print(path.relative_to(TESTS))


def write_golden(cases: dict[str, golden_cases.Case]) -> None:
    folder = GOLDEN / safepickle.__version__ / golden_cases.version_folder()
    for name, case in cases.items():
        write(folder / f"{name.replace(' ', '_')}.pickle", case.build, case.options)


def write_foreign() -> None:
    """Write what other picklers make of the plain objects, in every protocol."""
    import cloudpickle
    import dill

    folder = FOREIGN / golden_cases.version_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for module in (pickle, cloudpickle, dill):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            path = folder / f"{module.__name__}-{protocol}.pickle"
            if not path.exists():
                path.write_bytes(module.dumps(golden_cases.plain_objects(), protocol))
                print(path.relative_to(TESTS))


def write_torch() -> None:
    import golden_torch_cases
    import torch

    write_golden(golden_torch_cases.CASES)
    folder = FOREIGN / golden_cases.version_folder()
    for kind, zipped in (("zip", True), ("legacy", False)):
        path = folder / f"torch-{kind}.pt"
        if not path.exists():
            torch.save(golden_torch_cases.module(), path, _use_new_zipfile_serialization=zipped)
            print(path.relative_to(TESTS))


def write_blinker() -> None:
    import golden_blinker_cases

    write_golden(golden_blinker_cases.CASES)


def write_keras(backend: str) -> None:
    """Write what Keras has on one of its backends: each needs a process of its own."""
    if importlib.util.find_spec("keras") is None or importlib.util.find_spec(backend) is None:
        return
    command = (
        f"import golden_keras_cases, make_golden; make_golden.write_golden(golden_keras_cases.cases_of({backend!r}))"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment)


if __name__ == "__main__":
    os.chdir(TESTS)
    write_golden(golden_cases.CASES)
    write_foreign()
    if importlib.util.find_spec("torch") is not None:
        write_torch()
    if importlib.util.find_spec("blinker") is not None:
        write_blinker()
    for keras_backend in ("torch", "jax", "tensorflow"):
        write_keras(keras_backend)
    for thing in golden_cases.HELD:
        if hasattr(thing, "close"):
            thing.close()
