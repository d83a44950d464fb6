"""The file format: pickles of every version, made by every Python, load on every Python, for ever."""

from __future__ import annotations

import gc
import importlib
import io
import pickle
import re
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import golden_cases
import safepickle
from safepickle import rebuild
from safepickle.rebuild.records import RECORDS
from test_public_api import EXAMPLES

DATA = Path(__file__).parent / "data"
GOLDEN = sorted((DATA / "golden").glob("*/py*/*.pickle"))
HELPERS = {"__init__", "keras_internals", "mark", "tensor_storages"}
FOREIGN = sorted((DATA / "foreign").glob("py*/*.pickle"))


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """Spare the collector, which most cases call, what is there already."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def case_of(path: Path) -> golden_cases.Case | None:
    return golden_cases.CASES.get(path.stem.replace("_", " "))


def name_of(path: Path) -> str:
    return "/".join(path.relative_to(DATA).parts[1:])


def globals_of(data: bytes) -> set[tuple[str, str]]:
    """Return the module and the name of everything that a pickle imports."""
    named = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add((module, name))
            return super().find_class(module, name)

    Noting(io.BytesIO(data)).load()
    return named


@pytest.mark.parametrize("path", [path for path in GOLDEN if case_of(path)], ids=name_of)
@pytest.mark.parametrize("reader", ["safepickle", "pickle"])
def test_golden_pickles_load(path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    case = case_of(path)
    assert case is not None
    case.check(safepickle.load(path) if reader == "safepickle" else pickle.loads(path.read_bytes()))


@pytest.mark.parametrize("path", FOREIGN, ids=name_of)
def test_pickles_of_other_picklers_load(path: Path) -> None:
    golden_cases.check_plain(safepickle.load(path))


@pytest.mark.parametrize("name", golden_cases.CASES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cases_hold_today_in_every_protocol(
    name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    held: list[Any] = []
    monkeypatch.setattr(golden_cases, "HELD", held)
    case = golden_cases.CASES[name]
    obj = case.build()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        safepickle.dump(obj, tmp_path / "file", protocol, fsync=False, **case.options)
    for thing in held:
        if hasattr(thing, "close"):
            thing.close()
    del obj
    held.clear()
    case.check(safepickle.load(tmp_path / "file"))


def test_every_name_of_the_format_is_in_a_golden_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    named: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # The open file is opened, and left.
        for path in GOLDEN:
            if path.parts[-3] == safepickle.__version__ and case_of(path):
                named |= {name for module, name in globals_of(path.read_bytes()) if module == "safepickle.rebuild"}
        gc.collect()
    # Tensors, Keras objects and tables of TensorFlow have golden pickles among the tests of their frameworks; of the
    # rest, a block of shared memory lives no longer than the processes that use it, and no pickle names these classes.
    frameworks = re.compile("torch|keras|Keras|_tf_|blinker")
    expected = {name for name in rebuild.__all__ if not frameworks.search(name)} - {
        "Owner",
        "OwningFinalize",
        "Stub",
        "StubRecord",
        "rebuild_shareable_list",
        "rebuild_shared_memory",
    }
    assert expected - named == set()


def test_the_list_of_the_format_says_which_module_defines_and_marks_each_name() -> None:
    package = Path(rebuild.__file__).parent
    assert set(rebuild.FORMAT) == {path.stem for path in package.glob("*.py")} - HELPERS
    for name, listed in rebuild.FORMAT.items():
        module = importlib.import_module(f"safepickle.rebuild.{name}")
        marks = {public: getattr(getattr(module, public), "__module__", None) for public in module.__all__}
        assert {public for public, mark in marks.items() if mark == "safepickle.rebuild"} == set(listed)
        for public in listed:
            assert getattr(module, public).__qualname__ == public
            assert getattr(rebuild, public) is getattr(module, public)


def test_relinked_references_need_no_safepickle() -> None:
    relinked = ("reference_to_what_was_met_before", "reference_to_what_is_met_later", "weak_method", "proxies")
    paths = [path for path in GOLDEN if path.stem in relinked]
    assert paths
    for path in paths:
        assert not [module for module, _ in globals_of(path.read_bytes()) if module.startswith("safepickle")]


class Child:
    """Something that a report is about."""

    itself: Any


def what_safepickle_hands_out() -> list[Any]:
    """Return one of each object of safepickle's own that somebody may pickle."""
    child = Child()
    child.itself = weakref.ref(child)
    first, second = io.BytesIO(safepickle.dumps([child])), io.BytesIO(safepickle.dumps([child, child]))
    inspected = [safepickle.inspect(first), safepickle.inspect(second)]
    explained = safepickle.explain([child, weakref.ref(set()), open, lambda: child, threading.Lock()])
    return [
        *EXAMPLES,
        explained,
        *inspected,
        safepickle.diff([child, [1.0] * 9], [child, [2.0] * 9]),
        safepickle.compare_attributes(child),
        safepickle.backend(weakrefs="strong", unpicklable="tombstone", aliases={"a": "b"}),
        safepickle.Recomputed(list),
        *(getattr(safepickle, name) for name in safepickle.__all__),
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", [pickle, safepickle], ids=["pickle", "safepickle"])
def test_a_pickle_names_public_names_and_the_format_alone(module, protocol):
    for obj in what_safepickle_hands_out():
        for found_module, name in globals_of(module.dumps(obj, protocol)):
            if found_module.partition(".")[0] == "safepickle":
                public = safepickle.__all__ if found_module == "safepickle" else rebuild.__all__
                assert found_module in ("safepickle", "safepickle.rebuild"), (obj, found_module, name)
                assert name.partition(".")[0] in public


@pytest.mark.parametrize("path", GOLDEN, ids=name_of)
def test_a_golden_pickle_names_public_names_and_the_format_alone(path):
    named = set(re.findall(rb"\bsafepickle[.\w]*", path.read_bytes()))
    assert named <= {b"safepickle", b"safepickle.rebuild"}


def test_every_record_is_listed_where_it_is_defined():
    for name, module in RECORDS.items():
        if not module.startswith("integrations."):
            cls = getattr(importlib.import_module(f"safepickle.{module}"), name)
            assert (cls.__name__, cls.__module__) == (name, f"safepickle.{module}")
    for path in Path(safepickle.__file__).parent.rglob("*.py"):
        for name in re.findall(r"@record\n(?:@dataclass.*\n)?class (\w+)", path.read_text(encoding="utf-8")):
            assert name in RECORDS
