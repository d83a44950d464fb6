"""What `allow=` takes, what it refuses and why, and where a list holds."""

from __future__ import annotations

import functools
import io
import os
import pickle
import threading
import weakref
from typing import Any

import cloudpickle
import pytest

import safepickle
from guard.assembler import build, call, name, new, pickled
from guard.targets import Color, PlainDict, Stateful, Victim

NEVER = [
    (eval, "runs code"), (exec, "runs code"), (getattr, "attributes by name"), (map, "calls what it is given"),
    (functools.partial, "calls what it is given"), ("operator:methodcaller", "calls what it is given"),
    (os.system, "operating system"), ("subprocess:Popen", "operating system"), (open, "operating system"),
    (pickle.loads, "loads another stream"), (cloudpickle.loads, "loads another stream"), ("importlib:import_module", "imports"),
    ("builtins:__import__", "imports by name"), (weakref.finalize, "some later time"), (type, "builds code objects"),
    ("cloudpickle.cloudpickle:subimport", "for a bound method"),
    ("cloudpickle.cloudpickle:_make_function", "builds code objects"), ("dill._dill:_create_function", "builds code objects"),
    ("torch.storage:_load_from_bytes", "loads another stream"), ("sys:modules", "interpreter"), ("ctypes:CDLL", "interpreter"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "reason"), NEVER, ids=lambda item: getattr(item, "__qualname__", str(item)))
def test_name_that_can_never_be_allowed_is_refused_with_the_reason(item: Any, reason: str):
    with pytest.raises(ValueError, match=rf"allow= cannot hold .*{reason}"):
        safepickle.loads(b"N.", allow=[item])


@pytest.mark.parametrize(
    "item", [3, object(), Victim(), Victim.create, "guard.targets", "guard.targets:", ":x", "a:b c"]
)
def test_item_of_another_kind_is_refused(item: Any):
    with pytest.raises(TypeError, match="allow= takes"):
        safepickle.loads(b"N.", allow=[item])


@pytest.mark.parametrize("allow", ["guard.targets:Victim", Victim, 3])
def test_list_has_to_be_a_collection(allow: Any):
    with pytest.raises(TypeError, match="allow= takes a collection"):
        safepickle.loads(b"N.", allow=allow)


def test_another_name_for_what_can_never_be_allowed_is_refused():
    data = pickled(call(name("guard.aliases", "innocent"), "true"))
    with pytest.raises(safepickle.NotAllowedError, match=r"another name for posix:system|operating system"):
        safepickle.loads(data, allow=["guard.aliases:innocent"])


def test_module_or_instance_is_no_class():
    for target in ("os", "an_instance"):
        with pytest.raises(safepickle.NotAllowedError, match="no class or function"):
            safepickle.loads(pickled(name("guard.aliases", target)), allow=[f"guard.aliases:{target}"])


def test_class_does_not_bring_its_methods():
    data = pickle.dumps(Victim.create)
    with pytest.raises(safepickle.NotAllowedError, match="attributes"):
        safepickle.loads(data, allow=[Victim])
    with pytest.raises(safepickle.NotAllowedError, match="no class or function"):
        safepickle.loads(
            b"\x80\x04\x8c\x0dguard.targets\x8c\x0dVictim.create\x93.", allow=["guard.targets:Victim.create"]
        )


def test_name_is_decided_before_its_module_is_imported(tmp_path, monkeypatch):
    (tmp_path / "never_imported.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(safepickle.NotAllowedError, match=r'never_imported:x.*allow=\["never_imported:x"\]'):
        safepickle.loads(pickled(name("never_imported", "x")), allow=[Victim])


def test_names_of_python_2_are_those_of_python_3():
    data = b"\x80\x02c__builtin__\nset\n(K\x01K\x02l\x85R."
    assert safepickle.loads(data, allow=()) == {1, 2}
    with pytest.raises(safepickle.NotAllowedError, match="__builtin__:set"):
        safepickle.loads(data, allow=(), fix_imports=False)


def test_function_that_may_only_be_called_cannot_be_kept():
    with pytest.raises(safepickle.NotAllowedError, match="not be part of what is loaded"):
        safepickle.loads(pickled([name("_codecs", "encode")]), allow=())


def test_members_of_an_enum_take_no_state():
    data = pickled(build(call(name("guard.targets", "Color"), 1), {"planted_in_a_member": 1}))
    with pytest.raises(safepickle.NotAllowedError, match="shared by the whole process"):
        safepickle.loads(data, allow=[Color])
    assert not hasattr(Color.RED, "planted_in_a_member")


def test_enum_is_called_with_one_value_alone():
    with pytest.raises(safepickle.NotAllowedError, match="one value"):
        safepickle.loads(pickled(call(name("guard.targets", "Color"), "New", {"A": 1})), allow=[Color])


@pytest.mark.parametrize("state", [{"__class__": 1}, {"__dict__": {}}, (None, {"__class__": 1}), {"__reduce_ex__": 1}])
def test_state_sets_no_dunder(state: object):
    for target, allow in (("Victim", Victim), ("Stateful", Stateful)):
        with pytest.raises(safepickle.NotAllowedError, match="Python gives a meaning"):
            safepickle.loads(pickled(build(new(name("guard.targets", target)), state)), allow=[allow])


def test_state_is_set_past_setattr():
    loaded = safepickle.loads(pickled(build(new(name("guard.targets", "Victim")), {"trap": "x"})), allow=[Victim])
    assert vars(loaded) == {"trap": "x"}


def test_error_of_a_constructor_is_an_unpickling_error():
    with pytest.raises(safepickle.DamagedPickleError, match="calling it failed with TypeError"):
        safepickle.loads(pickled(call(name("guard.targets", "Victim"), 1, 2)), allow=[Victim])


def test_errors_survive_pickling():
    with pytest.raises(safepickle.NotAllowedError, match="on no list") as caught:
        safepickle.loads(pickled(new(name("guard.targets", "Victim"))), allow=())
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.name, again.offset, again.allow) == ("guard.targets:Victim", 2, "guard.targets:Victim")


def test_errors_never_suggest_to_switch_the_guard_off():
    for data in (pickled(name("os", "system")), pickled(name("a", "b")), b"\x80"):
        with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged") as caught:
            safepickle.loads(data, allow=())
        assert "allow=None" not in str(caught.value)
        assert "unguarded" not in str(caught.value)


class TestAllowing:
    def test_guards_every_load_in_the_block(self):
        data = pickle.dumps(Victim())
        with safepickle.allowing(), pytest.raises(safepickle.NotAllowedError, match="on no list"):
            safepickle.loads(data)
        with safepickle.allowing(Victim):
            assert type(safepickle.loads(data)) is Victim
            assert type(safepickle.load(io.BytesIO(data))) is Victim
        assert type(safepickle.loads(data)) is Victim

    def test_adds_to_the_list_of_the_load_and_of_blocks_around(self):
        data = pickle.dumps([Victim(), PlainDict(), Color.RED])
        with safepickle.allowing(Victim), safepickle.allowing(PlainDict):
            assert len(safepickle.loads(data, allow=[Color])) == 3
            with pytest.raises(safepickle.NotAllowedError, match="Color"):
                safepickle.loads(data)

    def test_holds_for_its_thread_alone(self):
        results = []
        with safepickle.allowing():
            thread = threading.Thread(target=lambda: results.append(safepickle.loads(pickle.dumps(Victim()))))
            thread.start()
            thread.join()
        assert type(results[0]) is Victim

    def test_refuses_what_can_never_be_allowed(self):
        with pytest.raises(ValueError, match="allow= cannot hold"), safepickle.allowing(eval):
            pass


class TestBackend:
    def test_binds_the_list(self):
        data = pickle.dumps(Victim())
        guarded = safepickle.backend(allow=[Victim])
        assert type(guarded.loads(data)) is Victim
        assert type(guarded.Unpickler(io.BytesIO(data)).load()) is Victim
        with pytest.raises(safepickle.NotAllowedError, match="on no list"):
            safepickle.backend(allow=()).Unpickler(io.BytesIO(data)).load()
        with pytest.raises(safepickle.NotAllowedError, match="on no list"):
            safepickle.backend(allow=()).load(io.BytesIO(data))

    def test_refuses_what_can_never_be_allowed(self):
        with pytest.raises(ValueError, match="allow= cannot hold"):
            safepickle.backend(allow=[eval])
