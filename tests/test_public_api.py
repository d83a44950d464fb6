"""The surface: pickle's own names and signatures, ours beside them, and exceptions that survive a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
import tomllib
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import safepickle
from safepickle import errors

PICKLE = ["HIGHEST_PROTOCOL", "DEFAULT_PROTOCOL", "PickleBuffer", "PickleError", "PicklingError", "UnpicklingError"]
BOTH = ["Pickler", "Unpickler", "dump", "dumps", "load", "loads"]
OURS = [
    "Recomputed",
    "StrongRef",
    "Tombstone",
    "WeakReferenceError",
    "WeakReferenceWarning",
    "backend",
    "deepcopy",
    "deepcopying",
    "explain",
    "inspect",
    "register",
]

EXAMPLES: list[BaseException] = [
    errors.CallbackWarning({"app.Cache.watch.<locals>.<lambda>": 2}),
    errors.ChecksumError("truncated", 10, 20),
    errors.DamagedPickleError("model.pt", 12, "REDUCE", "", "the stack is empty"),
    errors.GuardedLoadError("model.pt", 12, "REDUCE", "os:system", "it is not allowed"),
    errors.KerasFallbackWarning("keras.src.layers.Dense", "9.0", "Layer has no _lock"),
    errors.KerasVersionWarning("3.15.1", "3.16.0"),
    errors.LoadLimitError("model.pt", 12, "BINBYTES8", "", "it is too long"),
    errors.MissingGlobalError("app.nets", "Net", ("app.nets.Nets",), 12, "$.model", "app.Trainer"),
    errors.MissingModuleError("app.nets", "Net"),
    errors.NestingError("maximum recursion depth exceeded"),
    errors.NotAllowedError("model.pt", 12, "STACK_GLOBAL", "os:system", "it is not allowed", "allow=['os:system']"),
    errors.StateDictError("2 keys are missing", {"missing": ["a", "b"]}),
    errors.StateDictWarning("app.Model", {"layer.0": "it is a proxy"}),
    errors.UnpicklableError(".recv", "socket.socket", "$.connection", "TypeError: cannot pickle 'socket' object"),
    errors.UnpicklableStateWarning("app.Model", "TypeError: no lock"),
    errors.UnpicklableWarning([("socket.socket", "$.connection", "cannot pickle 'socket' object")]),
    errors.WeakReferenceError("$.layers[2]._parent", "app.nn.Encoder"),
    errors.WeakReferenceError(None, "app.nn.Encoder", "cycle"),
    errors.WeakReferenceError("$.hook", "builtins.function", "outside", "__main__.on_save"),
    errors.WeakReferenceWarning({"app.nn.Encoder": 2}, {"app.Tree": 1}),
    errors.WeakReferenceWarning({"builtins.function": 1}, None, ("__main__.on_save",)),
    errors.WeakReferenceWarning({}, None, (), {"app.nn.Encoder": 2}),
]


@pytest.mark.parametrize("name", [*PICKLE, *BOTH, *OURS])
def test_name_is_public(name):
    assert name in safepickle.__all__
    assert getattr(safepickle, name) is not None


@pytest.mark.parametrize("name", PICKLE)
def test_pickles_own_names_are_pickles_own_objects(name):
    expected = getattr(cloudpickle if name == "DEFAULT_PROTOCOL" else pickle, name)
    assert getattr(safepickle, name) is expected or getattr(safepickle, name) == expected


def test_all_is_sorted_and_complete():
    names = safepickle.__all__
    assert sorted(set(names)) == sorted(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    public = {
        name for name, value in vars(safepickle).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public - {"TYPE_CHECKING"} <= set(names)


@pytest.mark.parametrize("name", sorted({*BOTH, *OURS}))
def test_everything_is_documented(name):
    assert inspect.getdoc(getattr(safepickle, name))


@pytest.mark.parametrize("name", BOTH)
def test_signature_takes_all_that_pickles_own_takes(name):
    theirs = inspect.signature(getattr(pickle, name)).parameters
    ours = inspect.signature(getattr(safepickle, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for parameter in theirs.values():
        mine = ours[parameter.name]
        assert (mine.kind, mine.default) == (parameter.kind, parameter.default)
    for added in list(ours.values())[len(theirs) :]:
        assert added.kind is inspect.Parameter.KEYWORD_ONLY
        assert added.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", ["dump", "dumps", "load", "loads", "Pickler"])
def test_signature_takes_what_cloudpickles_takes(name):
    theirs = inspect.signature(getattr(cloudpickle, name)).parameters
    assert set(theirs) - {"str"} <= set(inspect.signature(getattr(safepickle, name)).parameters)


def test_every_exception_has_an_example():
    classes = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, BaseException)}
    assert classes == {type(example) for example in EXAMPLES}
    assert {cls.__name__ for cls in classes} == set(errors.__all__)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_exception_survives_pickling_and_copying(example, protocol):
    example.add_note("a note")
    copies: list[Any] = [
        pickle.loads(pickle.dumps(example, protocol)),
        safepickle.loads(safepickle.dumps(example, protocol)),
        copy.copy(example),
        copy.deepcopy(example),
    ]
    for one in copies:
        assert type(one) is type(example)
        assert (one.args, str(one), vars(one)) == (example.args, str(example), vars(example))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_exception_says_something_without_naming_a_python_object(example):
    assert len(str(example)) > 10
    assert " object at 0x" not in str(example)


def test_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    assert safepickle.__version__ == project["version"]


def test_types_are_shipped():
    assert (Path(safepickle.__file__).parent / "py.typed").exists()
