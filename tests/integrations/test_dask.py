"""dask.distributed on a cluster of processes, with safepickle registered."""

from __future__ import annotations

import copyreg
import sys
import uuid
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import dask
import dask.multiprocessing
import distributed.client
import numpy as np
import pytest
import torch
from dask.tokenize import TokenizationError, normalize_token, tokenize
from distributed import Client, LocalCluster
from distributed.protocol import deserialize, serialize
from distributed.protocol.serialize import families

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
from safepickle.integrations.dask import register


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    undo = register()
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster
    undo()


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


def test_arguments_and_results_of_tasks(client: Client) -> None:
    was_whole, copied = client.submit(there_and_back, tree(), pure=False).result(timeout=60)
    assert was_whole
    assert is_whole(copied)


def test_proxies_among_the_arguments_are_not_torn_off(client: Client) -> None:
    root: Any = Node("root")
    child = Node.__new__(Node)
    child.proxy = weakref.proxy(root)
    root.child = child
    assert client.submit(proxy_leads_to, root, pure=False).result(timeout=60) is True


def proxy_leads_to(root: Any) -> Any:
    root.name = "renamed"
    return root.child.proxy.name == "renamed"


def test_scattered_objects(client: Client) -> None:
    scattered = client.scatter(tree())
    was_whole, copied = client.submit(there_and_back, scattered, pure=False).result(timeout=60)
    assert was_whole
    assert is_whole(copied)


def test_results_that_move_from_worker_to_worker(client: Client) -> None:
    first, second = client.scheduler_info()["workers"]
    made = client.submit(tree, workers=[first], pure=False)
    assert client.submit(is_whole, made, workers=[second], pure=False).result(timeout=60) is True


def test_a_client_that_names_the_family(cluster: LocalCluster) -> None:
    with Client(cluster, serializers=["dask", "safepickle"], set_as_default=False) as client:
        scattered = client.scatter(tree())
        assert is_whole(scattered.result(timeout=60))


def test_delayed_graphs(client: Client) -> None:
    root = dask.delayed(tree)()
    assert dask.compute(dask.delayed(is_whole)(root), scheduler=client) == (True,)


def test_model_with_ema_goes_there_and_back(client: Client) -> None:
    model = Averaged()
    was_whole, copied = client.submit(lambda m: (m.is_whole(), m), model, pure=False).result(timeout=60)
    assert was_whole
    assert copied.is_whole()
    assert torch.equal(copied.layer.weight, model.layer.weight)


def test_a_result_of_several_objects_stays_in_one_piece(client: Client) -> None:
    result: Any = Node("result")
    result.model, result.average = torch.nn.Linear(2, 2), Node("average")
    result.average.of = weakref.ref(result.model.weight)
    copied = client.submit(itself, result, pure=False).result(timeout=60)
    assert copied.average.of() is copied.model.weight


def itself(obj: Any) -> Any:
    return obj


def test_an_error_with_a_path_comes_back_whole(client: Client) -> None:
    with pytest.raises(safepickle.WeakReferenceError, match="cannot pickle the weak reference") as caught:
        client.submit(fail_with_a_path, pure=False).result(timeout=60)
    assert caught.value.referent_type == "engine_objects.Node"
    assert caught.value.reason == "outside"
    with pytest.raises(TypeError, match="cannot pickle 'generator' object") as failed:
        client.submit(fail_on_a_generator, pure=False).result(timeout=60)
    assert tells_where(failed.value)


@pytest.mark.parametrize(("function", "argument"), [(is_whole, unpicklable()), (unpicklable, None)])
def test_what_cannot_be_sent_has_its_path_in_the_outer_error(client: Client, function: Any, argument: Any) -> None:
    with pytest.raises(TypeError, match="Could not serialize object of type") as caught:
        client.submit(function, argument, pure=False).result(timeout=60)
    assert tells_the_path(caught.value)


def test_what_cannot_be_scattered_has_its_path_in_the_outer_error(client: Client) -> None:
    with pytest.raises(TypeError, match="Could not serialize object of type") as caught:
        client.scatter(unpicklable(), hash=False)
    assert tells_the_path(caught.value)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("function", "argument"), [(is_whole, unpicklable()), (unpicklable, None)])
def test_what_processes_of_this_machine_cannot_be_sent_has_its_path(function: Any, argument: Any) -> None:
    task = dask.delayed(function, pure=False)(argument)
    with pytest.raises(TypeError, match="cannot pickle 'generator' object") as caught:
        task.compute(scheduler="processes", num_workers=1)
    assert tells_the_path(caught.value)


def test_warnings_point_at_the_line_that_calls_dask(client: Client) -> None:
    child = Orphan(parent := Node("parent"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", safepickle.WeakReferenceWarning)
        assert client.submit(is_orphan, child, pure=False).result(timeout=60)
        assert dask.delayed(is_orphan, pure=False)(child).compute()
        assert dask.delayed(is_orphan, pure=False)(child).compute(scheduler="processes", num_workers=1)
        client.scatter(child, hash=False)
    assert lines(caught) == {
        "assert client.submit(is_orphan, child, pure=False).result(timeout=60)",
        "assert dask.delayed(is_orphan, pure=False)(child).compute()",
        'assert dask.delayed(is_orphan, pure=False)(child).compute(scheduler="processes", num_workers=1)',
        "client.scatter(child, hash=False)",
    }
    assert child.parent() is parent


def test_dask_warns_once_of_what_a_loop_submits(client: Client) -> None:
    child = Orphan(parent := Node("parent"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", safepickle.WeakReferenceWarning)
        for _ in range(3):
            assert client.submit(is_orphan, child, pure=False).result(timeout=60)
    assert len([entry for entry in caught if entry.category is safepickle.WeakReferenceWarning]) == 1
    assert child.parent() is parent


@pytest.mark.usefixtures("cluster")
def test_arrays_and_tensors_are_frames_of_their_own_and_stay_writable() -> None:
    node: Any = Node("node")
    node.array = np.arange(1000)
    node.frozen = np.arange(500)
    node.frozen.flags.writeable = False
    node.tensor = torch.arange(2000)
    node.view = node.tensor[:10]
    header, frames = serialize(node, serializers=["safepickle"])
    assert header["serializer"] == "safepickle"
    assert sorted(frame.nbytes for frame in frames[1:]) == [4000, 8000, 16000]
    assert np.shares_memory(np.frombuffer(frames[1], np.int64), node.array)
    copied = deserialize(header, [bytes(frame) for frame in frames])
    copied.array[0], copied.view[0] = -1, -1
    assert copied.tensor[0] == -1
    assert not copied.frozen.flags.writeable


def test_a_map_takes_what_is_linked_weakly(client: Client) -> None:
    futures = client.map(there_and_back, [tree(), tree()])
    assert all(was_whole and is_whole(copied) for was_whole, copied in client.gather(futures))


def test_equal_pickles_have_equal_tokens(client: Client) -> None:
    roots = [Node("root"), Node("root"), Node("renamed")]
    for root in roots:
        Node("leaf", root)
    first, second, other = (tokenize(root, ensure_deterministic=True) for root in roots)
    assert first == second != other


def test_a_token_warns_of_nothing(client: Client) -> None:
    outside = Node("outside")
    child: Any = Node("child")
    child.reference = weakref.ref(outside)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenize(child, ensure_deterministic=True)


class Random:
    def __init__(self) -> None:
        self.own = weakref.ref(self)

    def __reduce__(self) -> Any:
        return Node, (str(uuid.uuid4()),)


@pytest.mark.parametrize("make", [Random, unpicklable])
def test_what_has_no_constant_pickle_has_no_token(client: Client, make: Any) -> None:
    with pytest.raises(TokenizationError, match="determin"):
        tokenize(make(), ensure_deterministic=True)


def test_undo_leaves_dask_as_it_was() -> None:
    known = dict(normalize_token._lookup)
    pickle_family, table = families["pickle"], dict(copyreg.dispatch_table)
    patched = [families["error"], distributed.client.serialize, dask.multiprocessing._dumps]
    preloads = dask.config.get("distributed.worker.preload")
    undo = register()
    assert serialize(torch.nn.Linear(1, 1))[0]["serializer"] == "pickle"
    undo()
    assert families["pickle"] is pickle_family
    assert patched == [families["error"], distributed.client.serialize, dask.multiprocessing._dumps]
    assert sys.modules["distributed.protocol.serialize"].serialize is patched[1]
    assert serialize(torch.nn.Linear(1, 1))[0]["serializer"] == "dask"
    assert copyreg.dispatch_table == table
    assert {cls: normalize_token._lookup[cls] for cls in known} == known
    assert dask.config.get("distributed.worker.preload") == preloads
