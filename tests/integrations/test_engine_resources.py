"""Engines send copies to other processes, and the original's resources are there when a worker has dropped its copy."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import filelock
import joblib
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from joblib.externals.loky import get_reusable_executor

import safepickle
from nodes import round_trip
from owned_resources import LEFT_ALONE, REFUSED, Holder, Owned, drop
from safepickle.integrations import dask
from safepickle.integrations import joblib as joblib_integration
from safepickle.integrations.multiprocessing import context

Send = Callable[[Any], Any]

# dask's scheduler, which is in this process, loads copies, too, and drops their files.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def spawn() -> Any:
    return context("spawn")


@pytest.fixture(scope="module")
def to_pool(spawn: Any) -> Iterator[Send]:
    # A new process for each task, which ends before the next.
    with spawn.Pool(1, maxtasksperchild=1) as pool:
        yield lambda obj: pool.apply(drop, (obj,))


@pytest.fixture(scope="module")
def to_loky() -> Iterator[Send]:
    undo = joblib_integration.register()
    yield lambda obj: joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(drop)(obj)] * 2)[0]
    get_reusable_executor().shutdown(wait=True)
    undo()


@pytest.fixture(scope="module")
def to_dask() -> Iterator[Send]:
    undo = dask.register()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield lambda obj: client.submit(drop, obj, pure=False).result(timeout=60)
    undo()


@pytest.fixture(params=["to_pool", "to_loky", "to_dask"])
def send(request: pytest.FixtureRequest) -> Send:
    found: Send = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=LEFT_ALONE)
def owned(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Owned]:
    made = LEFT_ALONE[request.param](tmp_path)
    yield made
    assert made.is_there()
    made.close()


def test_worker_that_drops_its_copy_leaves_the_resource_alone(send: Send, owned: Owned) -> None:
    assert send(owned.holder) == "done"


@pytest.mark.parametrize("name", ["named temporary file", "running child", "archive being written"])
def test_what_would_act_when_it_goes_is_refused(send: Send, name: str, tmp_path: Path) -> None:
    owned = REFUSED[name][0](tmp_path)
    try:
        # joblib and dask say only that the task cannot be sent, and chain the reason.
        with pytest.raises((TypeError, pickle.PicklingError), match=r"[Cc](annot|ould not) (pickle|serialize)"):
            send(owned.holder)
        assert owned.is_there()
    finally:
        owned.close()


def use(given: Any) -> None:
    """Be the target of a process: use what was handed over, and drop it."""
    for each in given:
        if isinstance(each, connection.Connection):
            each.send("sent")
        elif hasattr(each, "sendall"):
            each.sendall(b"sent")
        else:
            with each:
                pass
    del given, each
    gc.collect()


def test_what_multiprocessing_hands_over_is_the_childs_own(spawn: Any, tmp_path: Path) -> None:
    end, pipe = REFUSED["end of a pipe"][0](tmp_path), REFUSED["socket"][0](tmp_path)
    lock, semaphore = spawn.Lock(), spawn.Semaphore(1)
    given = [end.holder.end, pipe.holder.socket, lock, semaphore]
    for _ in range(2):
        process = spawn.Process(target=use, args=(given,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    for each in (lock, semaphore):
        with each:
            pass
    end.holder.end.send("still open")
    pipe.holder.socket.sendall(b"still open")
    end.close()
    pipe.close()


def test_a_module_that_torch_has_saved_leaves_the_resource_alone(owned: Owned, tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)
    module.owned = owned.holder
    torch.save(module, tmp_path / "module.pt", pickle_module=safepickle)
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    del loaded
    gc.collect()


@pytest.mark.parametrize("cls", [filelock.FileLock, filelock.SoftFileLock])
def test_file_lock_is_copied_as_long_as_it_is_not_held(cls: Any, tmp_path: Path) -> None:
    lock = cls(tmp_path / "lock")
    assert not round_trip(lock).is_locked
    with lock:
        with pytest.raises(TypeError, match="FileLock that is held: a copy that goes releases it"):
            safepickle.dumps(lock)
        gc.collect()
        assert lock.is_locked


def total(array: Any) -> tuple[str, float]:
    return type(array).__name__, float(array.sum())


def test_arrays_that_joblib_maps_into_memory(to_loky: Send, tmp_path: Path) -> None:
    array = np.ones(100_000)
    found = joblib.Parallel(n_jobs=2, backend="loky", max_nbytes=1000)([joblib.delayed(total)(array)] * 4)
    assert found == [("memmap", 100_000.0)] * 4
    mapped = np.memmap(tmp_path / "array", dtype="float64", mode="w+", shape=(1000,))
    mapped[:] = 1
    assert joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(total)(mapped)] * 2)[1] == ("memmap", 1000.0)
    assert to_loky(Holder(mapped=mapped)) == "done"
    assert mapped.sum() == 1000
    assert os.path.getsize(tmp_path / "array") == 8000


@pytest.mark.parametrize("mode", ["r", "r+", "w+", "c"])
def test_copy_of_a_mapped_array_is_no_map(mode: Any, tmp_path: Path) -> None:
    np.ones(1000).tofile(tmp_path / "array")
    mapped = np.memmap(tmp_path / "array", dtype="float64", mode=mode, shape=(1000,))
    if mode == "w+":
        mapped[:] = 1
    copy = round_trip(Holder(mapped=mapped)).mapped
    copy[:] = 2
    del copy
    gc.collect()
    assert mapped.sum() == 1000
    assert np.fromfile(tmp_path / "array").sum() == 1000


def test_loaded_with_a_map_by_joblib(tmp_path: Path) -> None:
    joblib.dump({"weights": np.ones(1000)}, tmp_path / "model")
    model = joblib.load(tmp_path / "model", mmap_mode="r+")
    copy = safepickle.loads(safepickle.dumps(model))
    copy["weights"][:] = 2
    del copy
    gc.collect()
    assert joblib.load(tmp_path / "model")["weights"].sum() == 1000
