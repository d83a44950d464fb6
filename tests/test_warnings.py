"""`WeakReferenceWarning` says where: in the graph, and in the user's own code."""

from __future__ import annotations

import gc
import importlib.util
import io
import itertools
import linecache
import textwrap
import uuid
import warnings
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import safepickle
from nodes import Node, OpenRef
from safepickle.callers import place_of_user, pointing_at


def warning_of(obj: Any, **options: Any) -> safepickle.WeakReferenceWarning:
    """Dump an object, and return the one warning that it gives."""
    with pytest.warns(safepickle.WeakReferenceWarning, match="safepickle.explain") as caught:
        safepickle.dumps(obj, **options)
    (found,) = (entry.message for entry in caught if entry.category is safepickle.WeakReferenceWarning)
    assert isinstance(found, safepickle.WeakReferenceWarning)
    return found


def at(path: str, root: Any) -> Any:
    return eval(path.replace("$", "root"), {"root": root})


class Built:
    """Built from arguments that lead back to it."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return type(self), self.parts


def test_paths_lead_to_the_references_and_to_the_entries_of_containers():
    lost = Node()
    root = Node(
        plain=weakref.ref(lost),
        subclass=OpenRef(lost),
        deep={"a": [Node(inner=weakref.ref(lost, print))]},
        values=weakref.WeakValueDictionary({"key": lost}),
        keys=weakref.WeakKeyDictionary({lost: "value"}),
        members=weakref.WeakSet([lost]),
        kept=Node(),
    )
    root.relinked = weakref.ref(root.kept)
    warning = warning_of(root)
    assert warning.counts == {"nodes.Node": 6}
    found = {path: (kind, of, reason) for path, kind, of, reason in warning.references}
    assert found == {
        "$.plain": ("weakref.ref", "nodes.Node", "outside"),
        "$.subclass": ("nodes.OpenRef", "nodes.Node", "outside"),
        "$.deep['a'][0].inner": ("weakref.ref", "nodes.Node", "outside"),
        "$.values['key']": ("weakref.WeakValueDictionary", "nodes.Node", "outside"),
        "list($.keys)[0]": ("weakref.WeakKeyDictionary", "nodes.Node", "outside"),
        "list($.members)[0]": ("weakref.WeakSet", "nodes.Node", "outside"),
    }
    assert warning.paths == tuple(found)
    assert at("$.deep['a'][0].inner", root) is root.deep["a"][0].inner
    assert at("list($.members)[0]", root) is at("$.values['key']", root) is lost


def test_proxies_methods_and_cycles_have_paths_and_reasons():
    lost = Node()
    root = Node(proxy=weakref.proxy(lost), method=weakref.WeakMethod(lost.method))
    root.built = Built(inner := Node())
    inner.owner = weakref.ref(root.built)
    reasons = {(path, kind, reason) for path, kind, _, reason in warning_of(root).references}
    assert ("$.proxy", "weakref.proxy", "outside") in reasons
    assert ("$.method", "weakref.WeakMethod", "outside") in reasons
    assert [entry for entry in reasons if entry[2] == "cycle"] == [("$.built.parts[0].owner", "weakref.ref", "cycle")]


def test_of_an_unpicklable_graph_and_of_a_very_deep_one_the_paths_are_named_too():
    lost = Node()
    warning = warning_of(Node(bad=iter(lambda: 1, 2), other=weakref.ref(lost)), unpicklable="tombstone")
    assert warning.paths == ("$.other",)
    head = end = Node()
    for _ in range(4_000):
        end.following = end = Node()
    end.lost = weakref.ref(lost)
    (path,) = warning_of(head).paths
    assert path.startswith("$.following.")
    assert path.endswith(".following.lost")


def test_the_text_names_the_three_nearest_and_counts_the_others():
    lost = Node()
    root: Any = [[[[weakref.ref(lost, print)]]], [[weakref.ref(lost, print)]], weakref.ref(lost), Node(), [None]]
    assert "outside the pickle, at $[2], $[1][0][0], $[0][0][0][0]. " in str(warning_of(root))
    root[3].refs = [weakref.ref(lost, print) for _ in range(5)]
    warning = warning_of(root)
    assert "at $[2], $[1][0][0], $[3].refs[0] and 5 more places. " in str(warning)
    assert len(warning.paths) == 8
    root[3].refs = [weakref.ref(lost, print)]
    assert "$[3].refs[0] and 1 more place. " in str(warning_of(root))


def test_one_reference_that_many_share_is_one_place():
    lost = Node()
    shared = weakref.ref(lost)
    warning = warning_of([Node(up=shared) for _ in range(8)])
    assert (warning.counts, warning.paths) == ({"nodes.Node": 1}, ("$[0].up",))


def test_keys_that_are_an_id_have_the_path_of_their_registry():
    root = Node(one=Node(), two=Node())
    root.registry = {id(root.one): 1, id(root.two): 2}
    root.back = weakref.ref(root.one)
    warning = warning_of(root)
    assert warning.references == (("$.registry", "builtins.dict", "nodes.Node", "identity key"),) * 2
    assert "(2 of nodes.Node), at $.registry, and its copy" in str(warning)


def test_what_is_named_and_what_is_walked_for_it_is_bounded():
    lost = Node()
    many = warning_of([weakref.ref(lost, print) for _ in range(1_500)])
    assert (many.counts, len(many.paths)) == ({"nodes.Node": 1_500}, 1_000)
    assert "at $[0], $[1], $[2] and 1,497 more places." in str(many)
    calls = itertools.count()

    class Counted:
        def __reduce__(self) -> Any:
            next(calls)
            return Node, ()

    far = warning_of([Counted() for _ in range(15_000)] + [[weakref.ref(lost)]])
    assert 15_000 < next(calls) <= 20_001
    assert far.paths == ()
    assert "1 to nodes.Node outside the pickle. Pickle the owner too" in str(far)


def test_a_warning_and_its_record_keep_nothing_alive():
    root, lost = Node(), Node()
    root.lost = weakref.ref(lost)
    alive = weakref.ref(root), weakref.ref(lost)
    warning = warning_of(root)
    del root, lost
    gc.collect()
    assert warning.paths == ("$.lost",)
    assert [reference() for reference in alive] == [None, None]


class Storing(safepickle.Pickler):
    """Stores nodes named "stored" elsewhere, under the number of the call."""

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self.asked: list[int] = []

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is Stored:
            self.asked.append(id(obj))
            return len(self.asked)
        return None


class Stored:
    pass


@pytest.mark.parametrize("action", ["ignore", "always"])
def test_naming_asks_no_persistent_id_and_changes_no_byte(action):
    lost = Node()
    root = [Stored(), Node(lost=weakref.ref(lost)), Stored()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        pickler = Storing(file := io.BytesIO())
        pickler.dump(root)
    assert pickler.asked == [id(root[0]), id(root[2])]
    assert [entry.message.paths for entry in caught] == ([] if action == "ignore" else [("$[1].lost",)])  # type: ignore[union-attr]
    silent = Storing(expected := io.BytesIO(), weakrefs=lambda referent: "tombstone")
    silent.dump(root)
    assert file.getvalue() == expected.getvalue()


def test_a_warning_that_everybody_ignores_costs_no_walk():
    lost = Node()
    calls = []

    class Counted:
        def __reduce__(self) -> Any:
            calls.append(1)
            return Node, ()

    root = [Counted(), weakref.ref(lost)]
    for action, expected in (("ignore", 1), ("always", 2)):
        calls.clear()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter(action, safepickle.WeakReferenceWarning)  # type: ignore[arg-type]
            safepickle.dumps(root)
        assert len(calls) == expected


def test_paths_are_looked_for_without_a_copy_of_large_buffers():
    lost, asked = Node(), []

    class Asked:
        def __reduce_ex__(self, protocol: Any) -> Any:
            asked.append(protocol)
            return Node, ()

    assert warning_of([Asked(), [weakref.ref(lost)]], protocol=2).paths == ("$[1][0]",)
    assert asked == [2, 5]


def test_a_reducer_that_fails_the_second_time_fails_neither_dump_nor_warning():
    lost = Node()

    class Once:
        dumps = 0

        def __reduce__(self) -> Any:
            Once.dumps += 1
            if Once.dumps > 1:
                raise ValueError("once is enough")
            return Node, ()

    lasting = Once()
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"1 to nodes\.Node outside the pickle, at \$\[1\]\. "):
        safepickle.dumps([lasting, weakref.ref(lost)])
    assert Once.dumps == 2


# Where the warning points


def installed(folder: Path, source: str) -> ModuleType:
    """Import a module as if it was installed."""
    path = folder / "site-packages" / "engine_of_this_test.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("engine_of_this_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ENGINE = """
    import contextlib, functools, threading

    def save(obj, dump):
        with contextlib.ExitStack() as stack:
            functools.partial(dump, obj)()

    class Worker(threading.Thread):
        # One that is given its work later, as an engine has it.
        def __init__(self, dump):
            super().__init__()
            self.dump, self.begin, self.done = dump, threading.Event(), threading.Event()
            self.start()

        def run(self):
            self.begin.wait()
            self.dump(self.obj)
            self.done.set()

        def save(self, obj):
            self.obj = obj
            self.begin.set()
            self.done.wait()
"""


def lines(caught: Any) -> list[str]:
    """Return the lines that warnings point at."""
    return [linecache.getline(entry.filename, entry.lineno).strip() for entry in caught]


def test_it_points_through_installed_libraries_and_pythons_own(tmp_path):
    engine = installed(tmp_path, ENGINE)
    lost = Node()
    with pytest.warns(safepickle.WeakReferenceWarning, match="outside the pickle") as caught:
        engine.save(Node(lost=weakref.ref(lost)), safepickle.dumps)
    assert lines(caught) == ["engine.save(Node(lost=weakref.ref(lost)), safepickle.dumps)"]


def test_out_of_the_thread_of_an_engine_it_points_at_the_line_that_waits_for_it(tmp_path):
    engine = installed(tmp_path, ENGINE)
    lost = Node()
    worker = engine.Worker(safepickle.dumps)
    with pytest.warns(safepickle.WeakReferenceWarning, match="outside the pickle") as caught:
        worker.save(Node(lost=weakref.ref(lost)))
    worker.join()
    assert lines(caught) == ["worker.save(Node(lost=weakref.ref(lost)))"]


def run_meanwhile(worker: Any) -> None:
    """Let a worker do its work, and never wait in its engine."""
    worker.begin.set()
    while worker.is_alive():
        pass


def test_where_nobody_waits_it_points_at_the_engine_or_at_the_place_that_was_noted(tmp_path):
    engine = installed(tmp_path, ENGINE)
    lost = Node()
    for place, expected in ((None, "self.dump(self.obj)"), (place_of_user(), "for place, expected in (")):

        def dump(obj: Any, place: Any = place) -> None:
            with pointing_at(place):
                safepickle.dumps(obj)

        worker = engine.Worker(safepickle.dumps if place is None else dump)
        worker.obj = Node(lost=weakref.ref(lost))
        with pytest.warns(safepickle.WeakReferenceWarning, match="outside the pickle") as caught:
            run_meanwhile(worker)
        (line,) = lines(caught)
        assert line.startswith(expected)


def test_python_shows_the_same_warning_from_one_line_once():
    lost = Node()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            safepickle.dumps(Node(lost=weakref.ref(lost)))
        safepickle.dumps(Node(elsewhere=weakref.ref(lost)))
    assert [entry.message.paths for entry in caught] == [("$.lost",), ("$.elsewhere",)]  # type: ignore[union-attr]


def test_keys_that_are_random_leave_the_text_the_same():
    lost = Node()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            safepickle.dumps({f"task-{uuid.uuid4()}": weakref.ref(lost), uuid.uuid4().hex: weakref.ref(lost, print)})
    (warning,) = (entry.message for entry in caught)
    assert isinstance(warning, safepickle.WeakReferenceWarning)
    assert "at $['task-...'], $['...']. " in str(warning)
    assert len(warning.paths[0]) == len("$['task-']") + 36
