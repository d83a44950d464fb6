"""Recomputed: any pickler writes the recipe alone, and a weak reference to its value comes back through it."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import dill
import pytest

import safepickle
from nodes import round_trip
from safepickle import Recomputed
from safepickle.rebuild.recomputed import recipe_of

PICKLERS = [pickle, cloudpickle, dill, safepickle]
built: list[tuple[Any, ...]] = []


@pytest.fixture(autouse=True)
def _nothing_built() -> None:
    built.clear()


class Table:
    """Large data that supports weak references."""

    def __init__(self, rows: int) -> None:
        self.rows = list(range(rows))


def make_table(rows: int = 1000, *, scale: int = 1) -> Table:
    built.append((rows, scale))
    return Table(rows * scale)


def make_list(length: int) -> list[int]:
    built.append((length,))
    return list(range(length))


def make_nothing() -> None:
    built.append(())


class Layer:
    """Holds a weak reference to what it does not own."""

    def __init__(self, table: Table | None = None) -> None:
        self.large_data_ref = None if table is None else weakref.ref(table)


def test_value_is_built_on_first_use_and_kept() -> None:
    table = Recomputed(make_table, 3, scale=2)
    assert built == []
    assert not table.is_built
    assert table.value is table.value
    assert table.is_built
    assert built == [(3, 2)]


def test_none_is_a_value_like_any_other() -> None:
    nothing = Recomputed(make_nothing)
    assert nothing.value is None
    assert nothing.value is None
    assert built == [()]


def test_factory_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a factory that can be called, got list"):
        Recomputed([1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize("pickler", PICKLERS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_every_pickler_writes_the_recipe_alone(pickler: Any, used: bool) -> None:
    table = Recomputed(make_table, 5000, scale=2)
    if used:
        assert len(table.value.rows) == 10000
    data = pickler.dumps(table)
    assert len(data) < 300
    copied = pickler.loads(data)
    assert not copied.is_built
    assert copied.value.rows == list(range(10000))
    assert copied.value is copied.value


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies_have_a_value_of_their_own(copier: Callable[[Any], Any]) -> None:
    table = Recomputed(make_table, 3)
    copied = copier(table)
    assert copied.value is not table.value
    assert copied.value.rows == table.value.rows


def test_local_function_and_lambda_travel_under_safepickle() -> None:
    def build(size: int) -> list[int]:
        return [size] * offset

    offset = 3
    by_function, by_lambda = round_trip((Recomputed(build, 2), Recomputed(lambda: offset + 1)))
    assert by_function.value == [2, 2, 2]
    assert by_lambda.value == 4


def test_lambda_is_refused_by_plain_pickle_as_ever() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(Recomputed(lambda: 1))


def test_many_threads_build_a_loaded_value_once() -> None:
    started = threading.Barrier(8)
    counted: list[int] = []
    counting = threading.Event()

    def build() -> Table:
        counted.append(1)
        counting.wait(0.05)
        return Table(3)

    table = Recomputed(build)
    values: list[Table] = []

    def use() -> None:
        started.wait()
        values.append(table.value)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == [1]
    assert len({id(value) for value in values}) == 1
    assert len(values) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_builds_builds_the_value_itself() -> None:
    begun, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def build() -> Table:
        if os.getpid() == parent:
            begun.set()
            assert go_on.wait(120)
        return Table(3)

    table = Recomputed(build)
    other = threading.Thread(target=lambda: table.value)
    other.start()
    assert begun.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # rather than hang
        os._exit(table.value.rows != [0, 1, 2])
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        go_on.set()
        other.join()
    assert table.value.rows == [0, 1, 2]


def test_references_in_one_pickle_share_one_value() -> None:
    table = Recomputed(make_table, 3)
    first, (second, third) = round_trip((table, [table, table]))
    assert first is second is third
    assert first.value is third.value
    assert built == [(3, 1)]


def test_refresh_drops_the_value() -> None:
    table = Recomputed(make_table, 3)
    before = table.value
    table.refresh()
    assert not table.is_built
    assert recipe_of(before) is None
    assert table.value is not before
    assert built == [(3, 1), (3, 1)]


def test_error_names_the_recipe_and_the_next_use_tries_again() -> None:
    attempts: list[int] = []

    def flaky() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise FileNotFoundError("table.npy")
        return "built"

    table = Recomputed(flaky)
    with pytest.raises(FileNotFoundError, match=r"table\.npy") as caught:
        _ = table.value
    assert "flaky" in caught.value.__notes__[0]
    assert "tries again" in caught.value.__notes__[0]
    assert table.value == "built"


def test_factory_that_asks_for_its_own_value_is_told_so() -> None:
    holder: list[Recomputed[Any]] = []
    holder.append(Recomputed(lambda: holder[0].value))
    with pytest.raises(RuntimeError, match="its factory asks for the value that it is building"):
        _ = holder[0].value


def test_repr_names_the_factory_and_no_argument() -> None:
    table = Recomputed(make_table, scale=7)
    assert repr(table) == f"<Recomputed({__name__}.make_table), not built>"
    _ = table.value
    assert repr(table).endswith(", built>")


class Model:
    """Its table is made by a method of its own."""

    def __init__(self) -> None:
        self.size = 4
        self.table = Recomputed(self.make)

    def make(self) -> Table:
        return Table(self.size)


@pytest.mark.parametrize("pickler", PICKLERS, ids=lambda module: module.__name__)
def test_factory_may_be_a_method_of_the_holder(pickler: Any) -> None:
    model = pickler.loads(pickler.dumps(Model()))
    assert model.table.factory.__self__ is model
    assert model.table.value.rows == [0, 1, 2, 3]
    table = pickler.loads(pickler.dumps(Model().table))
    assert table.factory.__self__.table is table


class Named(Recomputed[Any]):
    """A subclass that carries no more than its class."""


def test_subclass_keeps_its_class() -> None:
    copied = pickle.loads(pickle.dumps(Named(make_table, 2)))
    assert type(copied) is Named
    assert copied.value.rows == [0, 1]


def test_weak_reference_to_an_outside_value_is_restored_through_the_recipe() -> None:
    table = Recomputed(make_table, 100_000)
    data = safepickle.dumps(Layer(table.value))
    assert len(data) < 500
    built.clear()
    layer = safepickle.loads(data)
    assert built == []
    gc.collect()
    assert len(layer.large_data_ref().rows) == 100_000
    assert layer.large_data_ref() is layer.large_data_ref()
    assert built == [(100_000, 1)]
    assert isinstance(layer.large_data_ref, weakref.ref)


@pytest.mark.parametrize("policy", ["relink", "strong", "strict", lambda referent: "tombstone"])
def test_recipe_serves_under_every_policy_that_restores(policy: Any) -> None:
    table = Recomputed(make_table, 2)
    layer = round_trip(Layer(table.value), weakrefs=policy)
    assert type(layer.large_data_ref) is safepickle.rebuild.RecipeRef
    assert layer.large_data_ref().rows == [0, 1]


def test_tombstone_policy_leaves_a_tombstone() -> None:
    table = Recomputed(make_table, 2)
    layer = round_trip(Layer(table.value), weakrefs="tombstone")
    assert layer.large_data_ref() is None


def test_value_that_is_in_the_pickle_is_relinked() -> None:
    table = Recomputed(make_table, 2)
    layer, rows = round_trip((Layer(table.value), table.value))
    assert type(layer.large_data_ref) is weakref.ref
    assert layer.large_data_ref() is rows


def test_reference_shares_the_recipe_that_is_in_the_pickle() -> None:
    table = Recomputed(make_table, 2)
    first, second, copied = round_trip((Layer(table.value), Layer(table.value), table))
    built.clear()
    assert first.large_data_ref() is second.large_data_ref() is copied.value
    assert built == [(2, 1)]


def test_restored_reference_pickles_again_with_any_pickler() -> None:
    table = Recomputed(make_table, 2)
    reference = round_trip(weakref.ref(table.value))
    for pickler in PICKLERS:
        again = pickler.loads(pickler.dumps(reference))
        assert type(again) is safepickle.rebuild.RecipeRef
        assert again().rows == [0, 1]
    assert "RecipeRef to the value of" in repr(reference)


def test_weak_references_in_the_arguments_of_a_recipe_follow_the_policy() -> None:
    source = Table(2)
    holder = Recomputed(_table_from, source, weakref.ref(source))
    layer = round_trip(Layer(holder.value))
    assert layer.large_data_ref().rows == [0, 1]


def _table_from(source: Table, reference: weakref.ref[Table]) -> Table:
    assert reference() is source
    return Table(len(source.rows))


def test_reference_whose_recipe_is_gone_becomes_a_tombstone() -> None:
    value = Recomputed(make_table, 2).value
    gc.collect()
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"1 weak reference will load dead"):
        layer = round_trip(Layer(value))
    assert layer.large_data_ref() is None


def test_value_without_weak_references_is_held_by_the_recomputed_itself() -> None:
    numbers = Recomputed(make_list, 3)
    assert recipe_of(numbers.value) is None
    with pytest.raises(TypeError, match="cannot create weak reference to 'list' object"):
        weakref.ref(numbers.value)
    assert round_trip({"numbers": numbers})["numbers"].value == [0, 1, 2]


def test_recipe_keeps_neither_its_value_nor_itself_alive() -> None:
    table = Recomputed(make_table, 2)
    value, recipe = weakref.ref(table.value), weakref.ref(table)
    safepickle.dumps(Layer(table.value))
    del table
    gc.collect()
    assert value() is None
    assert recipe() is None


class DatasetProxy:
    """A user's own stand-in for data: it drops the data on the way out and makes it again on the way in."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.data = self._read()

    def _read(self) -> list[str]:
        return self.source.split()

    def __getstate__(self) -> dict[str, str]:
        return {"source": self.source}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.source = state["source"]
        self.data = self._read()


def test_users_own_proxy_goes_through_untouched() -> None:
    proxy = DatasetProxy("a b c")
    assert safepickle.dumps(proxy) == cloudpickle.dumps(proxy)
    assert round_trip(proxy).data == ["a", "b", "c"]


def test_recipe_and_reference_work_in_a_process_that_never_saw_the_factory(tmp_path: Any) -> None:
    writer = """
        import sys, weakref, safepickle

        class Rows(list):
            pass

        def generate_data(n):
            return Rows(range(n))

        class Layer:
            def __init__(self, data):
                self.large_data_ref = weakref.ref(data)

        table = safepickle.Recomputed(generate_data, 50_000)
        safepickle.dump([Layer(table.value), table], sys.argv[1])
    """
    reader = """
        import sys, safepickle

        layer, table = safepickle.load(sys.argv[1])
        assert not table.is_built
        assert len(layer.large_data_ref()) == 50_000
        assert layer.large_data_ref() is table.value
    """
    for program in (writer, reader):
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(tmp_path / "layer.pkl")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "layer.pkl").stat().st_size < 2000
