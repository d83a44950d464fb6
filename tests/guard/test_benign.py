"""What safepickle, pickle and numpy write, and what a user allows, loads."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest

import safepickle
from guard.benign import ALLOWED, BUILT_IN
from guard.comparing import image
from guard.streams import Stream
from guard.targets import Victim, make_table

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("title", BUILT_IN)
def test_built_in_list_loads(title: str, protocol: int):
    data = pickle.dumps(BUILT_IN[title], protocol)
    assert image(safepickle.loads(data, allow=())) == image(pickle.loads(data))
    assert safepickle.inspect(data).verdict == "safe"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("title", ALLOWED)
def test_what_the_user_allows_loads(title: str, protocol: int):
    make, allow = ALLOWED[title]
    if title == "slots" and protocol < 2:
        pytest.skip("pickle writes slots from protocol 2 on")
    data = safepickle.dumps(make(), protocol=protocol)
    assert image(safepickle.loads(data, allow=allow)) == image(pickle.loads(data))
    with pytest.raises(safepickle.NotAllowedError, match="not allowed"):
        safepickle.loads(data, allow=())


@pytest.mark.parametrize("title", ALLOWED)
def test_list_that_inspect_gives_makes_it_load(title: str):
    make, _ = ALLOWED[title]
    data = safepickle.dumps(make())
    found = safepickle.inspect(data)
    assert found.verdict == "needs_allow"
    safepickle.loads(data, allow=found.allow)


@pytest.mark.parametrize("title", BUILT_IN)
def test_safepickle_writes_what_a_guarded_load_takes(title: str):
    data = safepickle.dumps(BUILT_IN[title])
    assert image(safepickle.loads(data, allow=())) == image(BUILT_IN[title])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("title", ["bytes", "text", "many integers", "numpy arrays", "containers"])
def test_every_source_gives_the_same_and_stops_behind_the_pickle(title: str, protocol: int, tmp_path: Path):
    data = pickle.dumps(BUILT_IN[title], protocol)
    path = tmp_path / "two.pkl"
    path.write_bytes(data + b"rest")
    with open(path, "rb") as file:
        for source in (io.BytesIO(data + b"rest"), Stream(data + b"rest"), file):
            loaded = safepickle.Unpickler(source, allow=()).load()
            assert image(loaded) == image(pickle.loads(data))
            assert source.read(4) == b"rest"
    assert image(safepickle.loads(memoryview(data), allow=())) == image(pickle.loads(data))
    assert image(safepickle.load(path, allow=())) == image(pickle.loads(data))


def test_types_of_singletons_load():
    kinds = [type(None), type(Ellipsis), type(NotImplemented)]
    assert safepickle.loads(pickle.dumps(kinds), allow=()) == kinds


def test_weak_references_are_relinked():
    make, allow = ALLOWED["weak references"]
    parent = safepickle.loads(safepickle.dumps(make()), allow=allow)
    assert parent.child.parent() is parent
    assert parent.child.proxy.child is parent.child


def test_recipe_is_built_on_first_use():
    make, allow = ALLOWED["a recipe"]
    recipe = safepickle.loads(safepickle.dumps(make()), allow=allow)
    assert not recipe.is_built
    assert recipe.value == [0, 1, 2, 3, 4]


def test_recipe_of_a_factory_that_is_not_allowed_is_refused():
    data = safepickle.dumps(safepickle.Recomputed(make_table, 5))
    with pytest.raises(safepickle.NotAllowedError, match=r'make_table.*allow=\["guard.targets:make_table"\]'):
        safepickle.loads(data, allow=(Victim,))


def test_several_pickles_of_one_pickler_share_their_memo():
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    shared = [1]
    pickler.dump(shared)
    pickler.dump({"again": shared})
    file.seek(0)
    unpickler = safepickle.Unpickler(file, allow=())
    first = unpickler.load()
    assert unpickler.load()["again"] is first


def test_buffers_out_of_band_are_taken():
    import numpy as np

    array = np.arange(1000.0)
    buffers: list[Any] = []
    data = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    loaded = safepickle.loads(data, buffers=buffers, allow=())
    assert (loaded == array).all()
    with pytest.raises(safepickle.DamagedPickleError, match="needs more out-of-band buffers"):
        safepickle.loads(data, buffers=[], allow=())


def test_old_strings_are_decoded_as_asked():
    data = b"U\x02\xc3\xa9."
    assert safepickle.loads(data, encoding="utf-8", allow=()) == "é"
    assert safepickle.loads(data, encoding="bytes", allow=()) == b"\xc3\xa9"
    with pytest.raises(safepickle.DamagedPickleError, match="UnicodeDecodeError"):
        safepickle.loads(data, allow=())


def test_persistent_ids_go_to_the_subclass():
    class Persistent(safepickle.Unpickler):
        def persistent_load(self, identifier: Any) -> Any:
            return f"<{identifier}>"

    assert Persistent(io.BytesIO(b"\x80\x04\x8c\x02idQ."), allow=()).load() == "<id>"


def test_corpora_are_large():
    assert len(BUILT_IN) + len(ALLOWED) >= 45
