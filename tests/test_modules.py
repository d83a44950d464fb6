"""Modules whose class is a subclass of `types.ModuleType`: by name where they have one, else by value."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import round_trip


class Settings(types.ModuleType):
    """Makes up whatever it is asked for, as lazy modules and namespaces do."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"made up: {name}"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    module = Settings("settings_of_this_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("protocol", range(6))
def test_one_in_sys_modules_goes_by_name(settings: Settings, protocol: int) -> None:
    assert round_trip({"settings": settings}, protocol)["settings"] is settings
    assert b"made up" not in safepickle.dumps(settings, protocol)


def test_one_that_stands_in_another_module_goes_by_its_place(settings: Settings) -> None:
    inner = Settings("settings_of_this_test.inner")
    vars(settings)["inner"] = inner
    assert round_trip(inner) is inner


@pytest.mark.parametrize("protocol", range(6))
def test_one_that_has_no_place_goes_by_value(protocol: int) -> None:
    module: Any = Settings("nowhere")
    module.value = [1]
    module.itself = module
    module.watch = weakref.ref(module)
    copy = round_trip(module, protocol)
    assert type(copy) is Settings
    assert copy is not module
    assert copy.value == [1]
    assert copy.itself is copy
    assert copy.watch() is copy
    assert copy.other == "made up: other"


def test_one_that_says_itself_how_it_is_pickled_is_left_to_say_so() -> None:
    class Own(types.ModuleType):
        def __reduce__(self) -> Any:
            return "word".upper, ()

    assert round_trip(Own("own")) == "WORD"


def test_weak_reference_to_one_is_kept_wherever_it_is_met(settings: Settings) -> None:
    assert round_trip(weakref.ref(settings))() is settings


def test_function_of_a_script_that_names_one_runs_in_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "lazy_module.py").write_text(
        "import sys, types\nclass Lazy(types.ModuleType):\n    enabled = True\n"
        "sys.modules[__name__] = Lazy(__name__)\n",
        encoding="utf-8",
    )
    script = """
        import sys, safepickle, lazy_module
        def ask():
            return lazy_module.enabled
        sys.stdout.buffer.write(safepickle.dumps(ask))
        """
    path = {"PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    data = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=True, env=path)
    load = "import sys, safepickle; print(safepickle.loads(sys.stdin.buffer.read())())"
    done = subprocess.run([sys.executable, "-c", load], input=data.stdout, capture_output=True, check=True, env=path)
    assert done.stdout.strip() == b"True"
