"""joblib's loky workers, with safepickle between them and us."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.reduction import get_loky_pickler_name
from joblib.externals.loky.process_executor import _SafeQueue

import safepickle
from averaged import Averaged
from engine_objects import (
    Node,
    Orphan,
    fail_on_a_generator,
    fail_with_a_path,
    is_orphan,
    is_whole,
    lines,
    tells_the_path,
    tells_where,
    there_and_back,
    tree,
    unpicklable,
)
from safepickle.integrations.joblib import register


@pytest.fixture(scope="module", autouse=True)
def _shut_workers_down() -> Iterator[None]:
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def registered() -> Iterator[None]:
    undo = register()
    yield
    undo()


def run(function: Any, *arguments: Any) -> list[Any]:
    return list(joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(function)(each) for each in arguments))


def test_cloudpickle_as_joblib_uses_it_cannot_send_a_parent_pointer() -> None:
    with pytest.raises((pickle.PicklingError, TypeError), match="pickle"):
        run(there_and_back, tree(), tree())


@pytest.mark.usefixtures("registered")
def test_weak_references_go_there_and_back() -> None:
    for was_whole, root in run(there_and_back, tree(), tree()):
        assert was_whole
        assert is_whole(root)


@pytest.mark.usefixtures("registered")
def test_closures_and_classes_of_main_are_sent_by_value() -> None:
    class Local:
        def __init__(self, owner: Node) -> None:
            self.owner = weakref.ref(owner)

    owner: Any = Node("owner")
    owner.local = Local(owner)
    results = run(lambda node: (node.local.owner() is node, node), owner, owner)
    assert all(was_linked and node.local.owner() is node for was_linked, node in results)


@pytest.mark.usefixtures("registered")
def test_large_arrays_are_still_memory_mapped() -> None:
    array = np.arange(300_000)
    owner: Any = Node("owner")
    owner.child = Node("child", owner)
    owner.child.array = array
    results = run(lambda node: (type(node.child.array), node.child.parent() is node, node.child.array.sum()), owner)
    assert results == [(np.memmap, True, array.sum())]


@pytest.mark.usefixtures("registered")
def test_model_with_ema_goes_there_and_back() -> None:
    model = Averaged()
    ((was_whole, copied),) = run(lambda m: (m.is_whole(), m), model)
    assert was_whole
    assert copied.is_whole()
    assert torch.equal(copied.layer.weight, model.layer.weight)


@pytest.mark.usefixtures("registered")
def test_an_error_with_a_path_comes_back_whole() -> None:
    with pytest.raises(safepickle.WeakReferenceError, match="cannot pickle the weak reference") as caught:
        run(fail_with_a_path, 1)
    assert caught.value.referent_type == "engine_objects.Node"
    assert caught.value.reason == "outside"
    with pytest.raises(TypeError, match="cannot pickle 'generator' object") as failed:
        run(fail_on_a_generator, 1)
    assert tells_where(failed.value)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("function", "argument"), [(is_whole, unpicklable()), (unpicklable, None)])
def test_what_cannot_be_sent_has_its_path_in_the_outer_error(function: Any, argument: Any) -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="pickle") as caught:
        run(function, argument)
    assert tells_the_path(caught.value)


@pytest.mark.usefixtures("registered")
def test_a_warning_points_at_the_line_that_calls_joblib() -> None:
    parent = Node("parent")
    call = joblib.delayed(is_orphan)(Orphan(parent))
    with pytest.warns(safepickle.WeakReferenceWarning, match="outside the pickle") as caught:
        answers = joblib.Parallel(n_jobs=2, backend="loky")([call, call])
    assert answers == [True, True]
    assert lines(caught) == {'answers = joblib.Parallel(n_jobs=2, backend="loky")([call, call])'}


def test_undo_puts_the_old_pickler_back() -> None:
    before = get_loky_pickler_name()
    report = _SafeQueue._on_queue_feeder_error
    undo = register()
    assert get_loky_pickler_name() == "safepickle"
    again = register()
    again()
    assert get_loky_pickler_name() == "safepickle"
    undo()
    assert get_loky_pickler_name() == before
    assert _SafeQueue._on_queue_feeder_error is report
