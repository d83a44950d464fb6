"""Random graphs keep their shape through `torch.save` and `torch.load`, too."""

from __future__ import annotations

import gc
import io
import warnings
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import safepickle
from weak_graphs import build, check, kept, plans, reached_through_weak

relaxed = settings(deadline=None, max_examples=60)


@pytest.fixture(autouse=True, scope="module")
def _thaw() -> Iterator[None]:
    """Let what `build` froze be collected again."""
    yield
    gc.unfreeze()


@relaxed
@given(plans(), st.integers(2, 5), st.booleans(), st.sampled_from(["relink", "strong", "tombstone"]))
def test_torch_save_keeps_the_graph(plan, protocol, zipped, policy):
    graph = build(plan)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", safepickle.WeakReferenceWarning)
        torch.save(
            {"root": graph.root, "tensor": torch.ones(2)},
            file,
            pickle_module=safepickle.backend(weakrefs=policy, finalizers="rearm"),
            pickle_protocol=max(protocol, 4) if "set" in plan.kinds else protocol,
            _use_new_zipfile_serialization=zipped,
        )
    file.seek(0)
    root = torch.load(file, weights_only=False)["root"]
    match policy:
        case "relink":
            alive = expected = kept(plan)
        case "strong":
            alive, expected = plan.alive, reached_through_weak(plan)
        case "tombstone":
            alive, expected = set(), kept(plan, follow_hanging=False)
    nodes = check(root, plan, alive)
    assert set(nodes) == expected
    watchers = [weakref.ref(node) for node in nodes.values()]
    del root
    nodes.clear()
    gc.collect()
    assert [watcher() for watcher in watchers] == [None] * len(watchers)


@pytest.mark.parametrize("order", ["referent first", "reference first"])
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
# torch cannot load an untyped storage from a file of the old format.
@pytest.mark.parametrize(("kind", "zipped"), [("typed", True), ("typed", False), ("untyped", True)])
def test_reference_to_a_storage_which_torch_stores_itself_is_relinked(order, kind, zipped):
    tensor = torch.arange(4, dtype=torch.uint8)
    storage = tensor.storage() if kind == "typed" else tensor.untyped_storage()
    parts = {"storage": storage, "reference": weakref.ref(storage)}
    file = io.BytesIO()
    obj = parts if order == "referent first" else dict(reversed(parts.items()))
    torch.save(obj, file, pickle_module=safepickle, _use_new_zipfile_serialization=zipped)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert loaded["reference"]() is loaded["storage"]
    assert loaded["storage"].tolist() == [0, 1, 2, 3]
