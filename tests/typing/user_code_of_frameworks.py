"""What users write with the integrations, for the type checkers of `make lint`, where no framework is installed."""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import multiprocessing.context
from collections.abc import Callable
from typing import assert_type

import safepickle.integrations.dask
import safepickle.integrations.huggingface
import safepickle.integrations.joblib
import safepickle.integrations.keras
import safepickle.integrations.multiprocessing
import safepickle.integrations.ray
import safepickle.integrations.spark
import safepickle.integrations.torch
from safepickle.integrations.distributed_checkpoint import SafePickleLoadPlanner, SafePickleSavePlanner
from safepickle.integrations.lightning import SafePickleIO


class Trainer: ...


def as_users_of_engines() -> None:
    undo = assert_type(safepickle.integrations.joblib.register(), Callable[[], None])
    undo()
    safepickle.integrations.dask.register()()
    safepickle.integrations.ray.register(Trainer)
    safepickle.integrations.ray.setup_hook(Trainer)()
    context: multiprocessing.context.BaseContext = safepickle.integrations.multiprocessing.context("spawn")
    context.Queue()
    safepickle.integrations.spark.SafepickleSerializer()
    safepickle.integrations.huggingface.register(object(), average=Trainer())


def as_users_of_torch(path: str) -> None:
    safepickle.integrations.torch.load(path, allow=[Trainer])
    with safepickle.integrations.torch.map_location("cpu"):
        safepickle.load(path)
    SafePickleIO(weakrefs="tombstone", weights_only=True).load_checkpoint(path)
    SafePickleSavePlanner()
    SafePickleLoadPlanner()


def as_users_of_keras(model: object) -> bytes:
    with safepickle.integrations.keras.use_route("archive"):
        return safepickle.dumps(model)
