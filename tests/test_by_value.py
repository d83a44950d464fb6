"""Functions and classes by value: cloudpickle's rules, control over them, and weak references in what they hold."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import safepickle
from nodes import round_trip

PROJECT = """
import weakref

class Model:
    pass

MODEL = Model()
CURRENT = weakref.ref(MODEL)
FACTOR = 3

def triple(number):
    return number * FACTOR

class Scaler:
    scale = FACTOR

    def __call__(self, number):
        return triple(number) + self.scale

def current():
    return CURRENT, MODEL

def only_weak():
    return CURRENT()
"""

LOAD = "import sys, safepickle; loaded = safepickle.loads(sys.stdin.buffer.read()); "


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that no other process can import."""
    (tmp_path / "project_of_this_test.py").write_text(PROJECT, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("project_of_this_test")
    yield module
    del sys.modules["project_of_this_test"]


@pytest.fixture
def by_value(project: Any) -> Iterator[Any]:
    """The same module, registered to be pickled by value."""
    safepickle.register_pickle_by_value(project)
    yield project
    safepickle.unregister_pickle_by_value(project)


def elsewhere(data: bytes, expression: str) -> str:
    """Evaluate an expression over what is loaded in a fresh process, which cannot import the project."""
    command = [sys.executable, "-W", "error", "-c", f"{LOAD}print({expression})"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode().strip()


def test_an_importable_module_goes_by_name_unless_it_is_registered(project: Any) -> None:
    assert round_trip(project.triple) is project.triple
    assert b"FACTOR" not in safepickle.dumps(project.triple)


class Secretive(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__module__":
            raise AttributeError(name)
        return super().__getattribute__(name)


class Hidden(metaclass=Secretive):
    pass


def test_a_class_that_does_not_tell_its_module_is_found_all_the_same() -> None:
    assert round_trip(Hidden) is Hidden


def test_a_registered_module_goes_where_it_cannot_be_imported(by_value: Any) -> None:
    data = safepickle.dumps([by_value.triple, by_value.Scaler(), by_value.Scaler])
    assert elsewhere(data, "loaded[0](5), loaded[1](5), type(loaded[1]) is loaded[2]") == "15 18 True"


def test_a_registered_submodule_goes_itself_and_not_by_its_place_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "local_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("def double(number):\n    return 2 * number\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    inner = importlib.import_module("local_package.inner")
    assert round_trip(inner) is inner
    safepickle.register_pickle_by_value(inner)
    try:
        data = safepickle.dumps([lambda: inner.double(4), inner])
    finally:
        safepickle.unregister_pickle_by_value(inner)
        for name in ("local_package.inner", "local_package"):
            monkeypatch.delitem(sys.modules, name)
    assert elsewhere(data, "loaded[0](), loaded[1].double(5)") == "8 10"


def test_unregistering_ends_it(project: Any) -> None:
    safepickle.register_pickle_by_value(project)
    assert b"FACTOR" in safepickle.dumps(project.triple)
    safepickle.unregister_pickle_by_value(project)
    assert b"FACTOR" not in safepickle.dumps(project.triple)
    with pytest.raises(ValueError, match="is not registered for pickle by value"):
        safepickle.unregister_pickle_by_value(project)


def test_there_is_one_registry_shared_with_cloudpickle(project: Any) -> None:
    cloudpickle.register_pickle_by_value(project)
    try:
        assert b"FACTOR" in safepickle.dumps(project.triple)
    finally:
        cloudpickle.unregister_pickle_by_value(project)
    assert safepickle.register_pickle_by_value is cloudpickle.register_pickle_by_value


def test_a_global_weak_reference_to_what_the_function_holds_is_relinked(by_value: Any) -> None:
    data = safepickle.dumps(by_value.current)
    assert elsewhere(data, "[ref() is model and model is not None for ref, model in [loaded()]]") == "[True]"


def test_the_globals_of_a_function_follow_the_policies(by_value: Any) -> None:
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"1 to project_of_this_test\.Model"):
        data = safepickle.dumps(by_value.only_weak)
    assert elsewhere(data, "loaded()") == "None"
    strong = safepickle.dumps(by_value.only_weak, weakrefs="strong")
    assert elsewhere(strong, "type(loaded()).__name__") == "Model"
    silent = safepickle.dumps(by_value.only_weak, weakrefs="tombstone")
    assert elsewhere(silent, "loaded()") == "None"
    with pytest.raises(safepickle.WeakReferenceError, match=r"project_of_this_test\.Model\) is not in the pickle"):
        safepickle.dumps(by_value.only_weak, weakrefs="strict")
    chosen = safepickle.dumps(by_value.only_weak, weakrefs=lambda referent: "strong")
    assert elsewhere(chosen, "type(loaded()).__name__") == "Model"


def test_closures_defaults_and_attributes_follow_the_policies() -> None:
    class Owner:
        pass

    owner = Owner()
    closed = weakref.ref(owner)

    def function(default: Any = weakref.ref(owner)) -> Any:  # noqa: B008
        return closed, default, function.attribute  # type: ignore[attr-defined]

    function.attribute = weakref.proxy(owner)  # type: ignore[attr-defined]
    owner.name = "the owner"  # type: ignore[attr-defined]
    restored, restored_owner = round_trip((function, owner))
    for reference in restored()[:2]:
        assert reference() is restored_owner
    assert restored()[2].name == "the owner"
    del owner.name  # type: ignore[attr-defined]
    restored_owner.name = "changed"
    assert restored()[2].name == "changed"


def test_attributes_of_a_class_by_value_follow_the_policies() -> None:
    class Registry:
        pass

    registry = Registry()
    Registry.current = weakref.ref(registry)  # type: ignore[attr-defined]
    restored = round_trip([Registry, registry])
    assert restored[0] is type(restored[1])
    assert restored[0].current() is restored[1]
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 weak reference will load dead"):
        safepickle.dumps(Registry)


def test_functions_of_a_script_and_of_a_session_go_by_value(tmp_path: Path) -> None:
    target = tmp_path / "function"
    program = """
        import sys, weakref
        import safepickle

        class Model:
            def __init__(self):
                self.layers = [1, 2]

        model = Model()
        watch = weakref.ref(model)

        def size():
            return len(model.layers), watch() is model

        safepickle.dump(size, sys.argv[1])
        """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(target)], check=True)
    assert elsewhere(target.read_bytes(), "loaded()") == "(2, True)"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are computed where the function is defined")
def test_annotations_that_only_a_type_checker_can_compute_are_left_for_later() -> None:
    namespace: dict[str, Any] = {"__name__": "elsewhere"}
    source = """
def make(captured):
    def function(first: Nowhere, /, *, second: Hidden = 2) -> "Result":
        'A docstring.'
        return function if first is None else (first, second, captured)
    class Local:
        attribute: Nowhere
        def method(self, other: Nowhere) -> Local:
            return other
    function.label = "label"
    return function, Local
"""
    exec(compile(source, "elsewhere", "exec", dont_inherit=True), namespace)
    function, cls = round_trip(namespace["make"]("captured"))
    assert function(1) == (1, 2, "captured")
    assert function(None) is function
    assert (function.label, function.__doc__, function.__module__) == ("label", "A docstring.", "elsewhere")
    assert cls().method(3) == 3
    for annotated in (function, cls, cls.method):
        with pytest.raises(NameError, match="Nowhere"):
            annotated.__annotations__  # noqa: B018 (it computes them)
    function.__globals__["Nowhere"] = function.__globals__["Hidden"] = int
    assert function.__annotations__ == {"first": int, "second": int, "return": "Result"}
