"""backend(**options): shaped like a module, picklable, and good as a pickle_module."""

import io
import pickle
import weakref
from typing import Any

import pytest

import safepickle
from nodes import Node

OUTSIDE = Node()


def test_options_are_bound_to_every_way_of_dumping():
    strong = safepickle.backend(weakrefs="strong")
    assert strong.__name__ == "safepickle"
    reference = weakref.ref(OUTSIDE)
    file, other = io.BytesIO(), io.BytesIO()
    strong.dump(reference, file)
    strong.Pickler(other, 2).dump(reference)
    for data in (strong.dumps(reference), file.getvalue(), other.getvalue()):
        assert isinstance(strong.loads(data)(), Node)
    file.seek(0)
    assert isinstance(strong.load(file), safepickle.StrongRef)
    assert strong.Unpickler is not None


def test_its_pickler_can_be_subclassed_as_torch_does():
    pickler: Any = safepickle.backend(weakrefs="strong").Pickler

    class Derived(pickler):
        def persistent_id(self, obj):
            return None

    file = io.BytesIO()
    Derived(file, protocol=2).dump(weakref.ref(OUTSIDE))
    assert isinstance(safepickle.loads(file.getvalue()), safepickle.StrongRef)


def test_an_argument_wins_over_a_bound_option():
    tombstone = safepickle.backend(weakrefs="strong").dumps(weakref.ref(OUTSIDE), weakrefs="tombstone")
    assert isinstance(safepickle.loads(tombstone), safepickle.Tombstone)


def test_an_argument_wins_over_a_bound_option_of_a_load_and_the_others_stay_bound():
    data = pickle.dumps(Node()).replace(b"\x05nodes", b"\x05sedon")
    bound = safepickle.backend(aliases={"sedon": "elsewhere"}, missing="stub")
    for load in (bound.loads, lambda data, **given: bound.Unpickler(io.BytesIO(data), **given).load()):
        assert type(load(data)).__module__ == "elsewhere"
        assert type(load(data, aliases={"sedon": "nodes"})) is Node
        assert type(load(data, aliases={"sedon": "nowhere"})).__module__ == "nowhere"
        with pytest.raises(safepickle.MissingModuleError, match="elsewhere"):
            load(data, missing="raise")
    guarded = safepickle.backend(allow=[Node])
    with pytest.raises(safepickle.NotAllowedError, match="on no list"):
        guarded.Unpickler(io.BytesIO(pickle.dumps(Node())), allow=()).load()
    assert type(guarded.Unpickler(io.BytesIO(pickle.dumps(Node()))).load()) is Node


def test_an_iterator_of_what_is_allowed_serves_every_load():
    guarded = safepickle.backend(allow=iter([Node]))
    for module in (guarded, guarded, pickle.loads(pickle.dumps(guarded))):
        assert type(module.loads(pickle.dumps(Node()))) is Node


@pytest.mark.parametrize("pickler", [pickle, safepickle])
def test_it_survives_pickling(pickler):
    strong = pickler.loads(pickler.dumps(safepickle.backend(weakrefs="strong")))
    assert isinstance(strong.loads(strong.dumps(weakref.ref(OUTSIDE))), safepickle.StrongRef)
    assert repr(strong) == "safepickle.backend(weakrefs='strong')"


def test_unknown_options_and_values_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'weakref'"):
        safepickle.backend(weakref="strong")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="is not a weak-reference policy"):
        safepickle.backend(weakrefs="weak")  # type: ignore[arg-type]


def test_a_bound_protocol_gives_way_to_a_positional_one():
    assert safepickle.backend(weakrefs="strong").dumps([], 2)[:2] == b"\x80\x02"
    assert safepickle.backend(protocol=3).dumps([])[:2] == b"\x80\x03"
    file = io.BytesIO()
    safepickle.backend(protocol=3).Pickler(file).dump([])
    assert file.getvalue()[:2] == b"\x80\x03"
