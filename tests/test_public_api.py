"""The surface: pickle's own names and signatures, ours beside them, and exceptions that survive a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import typing
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import safepickle
from pages import ROOT
from programs import run
from safepickle import errors, load_errors

PICKLE = ["HIGHEST_PROTOCOL", "DEFAULT_PROTOCOL", "PickleBuffer", "PickleError", "PicklingError", "UnpicklingError"]
BOTH = ["Pickler", "Unpickler", "dump", "dumps", "load", "loads"]
ABOUT = ["COMPILED"]
CLOUDPICKLE = ["register_pickle_by_value", "unregister_pickle_by_value"]
OURS = [
    "Recomputed",
    "StrongRef",
    "Tombstone",
    "allowing",
    "backend",
    "compare_attributes",
    "deepcopy",
    "deepcopying",
    "diff",
    "explain",
    "inspect",
    "register",
]
ERRORS = {*errors.__all__, *load_errors.__all__}
MADE_HERE = sorted({*BOTH, *OURS, *ERRORS})

# They are the file format: every pickle that holds one names it there.
FORMAT = {"StrongRef", "Tombstone"}

EXAMPLES: list[BaseException] = [
    errors.CallbackWarning({"app.Cache.watch.<locals>.<lambda>": 2}),
    load_errors.ChecksumError("truncated", 10, 20),
    load_errors.DamagedPickleError("model.pt", 12, "REDUCE", "", "the stack is empty"),
    load_errors.EmptyFileError("model.pt", "empty", "an empty file: it was never written"),
    load_errors.GuardedLoadError("model.pt", 12, "REDUCE", "os:system", "it is not allowed"),
    errors.KerasFallbackWarning("keras.src.layers.Dense", "9.0", "Layer has no _lock"),
    load_errors.KerasVersionWarning("3.15.1", "3.16.0"),
    load_errors.LoadLimitError("model.pt", 12, "BINBYTES8", "", "it is too long"),
    load_errors.MissingGlobalError("app.nets", "Net", ("app.nets.Nets",), 12, "$.model", "app.Trainer"),
    load_errors.MissingModuleError("app.nets", "Net"),
    errors.NestingError("maximum recursion depth exceeded"),
    load_errors.NotAPickleError("model.pt", "safetensors", "a safetensors file: load it with safetensors"),
    load_errors.NotAllowedError(
        "model.pt", 12, "STACK_GLOBAL", "os:system", "it is not allowed", "allow=['os:system']"
    ),
    errors.StateDictError("2 keys are missing", {"missing": ["a", "b"]}),
    errors.StateDictWarning("app.Model", {"layer.0": "it is a proxy"}),
    load_errors.UnpicklableError(".recv", "socket.socket", "$.connection", "TypeError: cannot pickle 'socket' object"),
    load_errors.UnpicklableStateWarning("app.Model", "TypeError: no lock"),
    errors.UnpicklableWarning([("socket.socket", "$.connection", "cannot pickle 'socket' object")]),
    errors.WeakReferenceError("$.layers[2]._parent", "app.nn.Encoder"),
    errors.WeakReferenceError(None, "app.nn.Encoder", "cycle"),
    errors.WeakReferenceError("$.hook", "builtins.function", "outside", "__main__.on_save"),
    errors.WeakReferenceWarning({"app.nn.Encoder": 2}, {"app.Tree": 1}),
    errors.WeakReferenceWarning({"builtins.function": 1}, None, ("__main__.on_save",)),
    errors.WeakReferenceWarning({}, None, (), {"app.nn.Encoder": 2}),
    errors.WeakReferenceWarning({"app.Tree": 1}, None, (), None, (("$.up", "weakref.ref", "app.Tree", "outside"),)),
]


def test_every_public_name_is_accounted_for():
    assert set(safepickle.__all__) == {*PICKLE, *ABOUT, *CLOUDPICKLE, *BOTH, *OURS, *ERRORS}


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


@pytest.mark.parametrize("name", MADE_HERE)
def test_everything_is_documented(name):
    assert getattr(safepickle, name).__doc__.strip()
    for member in public_methods(name):
        assert inspect.getdoc(member)


@pytest.mark.parametrize("name", MADE_HERE)
def test_everything_is_a_member_of_the_package(name):
    assert getattr(safepickle, name).__module__ == ("safepickle.rebuild" if name in FORMAT else "safepickle")
    assert getattr(safepickle, name).__qualname__ == name


@pytest.mark.parametrize("name", MADE_HERE)
def test_every_function_is_annotated_and_its_hints_can_be_had(name):
    named = getattr(safepickle, name)
    assert typing.get_type_hints(named) is not None
    functions = [*public_methods(name), vars(named).get("__init__")] if inspect.isclass(named) else [named]
    for function in filter(inspect.isfunction, functions):
        parameters = set(inspect.signature(function).parameters) - {"self"}
        assert parameters | {"return"} == set(typing.get_type_hints(function)), function


def public_methods(name: str) -> list[Any]:
    """Return what a class defines under public names and can be called; nothing for a function."""
    named = getattr(safepickle, name)
    members = vars(named).items() if inspect.isclass(named) else ()
    return [member for key, member in members if not key.startswith("_") and inspect.isroutine(member)]


@pytest.mark.parametrize("name", MADE_HERE)
def test_everything_is_in_the_reference(name):
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert re.search(rf"^::: safepickle\.(\w+\.)?{name}$", reference, re.MULTILINE)


@pytest.mark.parametrize("name", [*PICKLE, *CLOUDPICKLE])
def test_the_reference_says_which_names_are_those_of_other_libraries(name):
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert f"`{name}`" in reference.partition("\n## ")[0]


def test_dir_lists_what_is_not_imported_yet():
    program = """
import safepickle
listed = dir(safepickle)
assert listed == sorted(set(listed))
print(*sorted(set(safepickle.__all__) - set(listed)), *sorted(set(safepickle.__all__) & set(vars(safepickle))))
"""
    printed = run(program).split()
    assert set(safepickle.__all__) - set(printed) == {
        "compare_attributes", "deepcopy", "deepcopying", "diff", "explain", "inspect",
    }  # fmt: skip


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'safepickle' has no attribute 'unheard_of'"):
        getattr(safepickle, "unheard_of")  # noqa: B009


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
    defined = [*vars(errors).values(), *vars(load_errors).values()]
    classes = {cls for cls in defined if isinstance(cls, type) and issubclass(cls, BaseException)}
    assert classes == {type(example) for example in EXAMPLES}
    assert {cls.__name__ for cls in classes} == ERRORS


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


def test_types_are_shipped():
    assert (Path(safepickle.__file__).parent / "py.typed").exists()
