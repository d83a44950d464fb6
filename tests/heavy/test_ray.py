"""ray on this machine, with safepickle registered for the classes that are sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import safepickle
from averaged import Averaged
from engine_objects import Node, fail_on_a_generator, fail_with_a_path, is_whole, tells_where, there_and_back, tree
from safepickle.integrations.ray import register, setup_hook

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    environment = {
        "worker_process_setup_hook": setup_hook(Node, Averaged),
        "env_vars": {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])},
    }
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    undo = register(Node, Averaged)
    yield
    undo()
    ray.shutdown()


def run(function: Any, *arguments: Any) -> Any:
    return ray.get(ray.remote(function).remote(*arguments), timeout=120)


def test_weak_references_go_there_and_back() -> None:
    was_whole, copied = run(there_and_back, tree())
    assert was_whole
    assert is_whole(copied)


def test_without_registration_ray_cannot_send_them() -> None:
    class Unregistered(Node):
        pass

    parent = Unregistered("parent")
    Unregistered("child", parent)
    with pytest.raises(TypeError, match="cannot pickle"):
        ray.put(parent)


def test_model_with_ema_goes_there_and_back() -> None:
    linked, copied = run(lambda model: (model.is_whole(), model), Averaged())
    assert linked
    assert copied.is_whole()


def test_objects_are_put_once_with_their_arrays_in_the_store() -> None:
    root: Any = tree()
    root.array = np.arange(100_000)
    copied = ray.get(ray.put(root))
    assert is_whole(copied)
    assert not copied.array.flags.owndata
    assert not copied.array.flags.writeable
    assert (copied.array == root.array).all()


def test_object_references_inside_are_rays() -> None:
    root: Any = tree()
    root.held = ray.put("held")
    assert run(lambda node: ray.get(node.held), root) == "held"


def test_an_error_with_a_path_comes_back_whole() -> None:
    with pytest.raises(safepickle.WeakReferenceError, match="cannot pickle the weak reference") as caught:
        run(fail_with_a_path)
    cause = cause_of(caught)
    assert type(cause) is safepickle.WeakReferenceError
    assert (cause.referent_type, cause.reason) == ("engine_objects.Node", "outside")
    with pytest.raises(TypeError, match="cannot pickle 'generator' object") as failed:
        run(fail_on_a_generator)
    assert tells_where(cause_of(failed))


def cause_of(caught: pytest.ExceptionInfo[Any]) -> Any:
    """Return the error in the worker, which ray wraps."""
    return caught.value.cause
