"""Everything that safepickle writes loads guarded when its classes are allowed, or stands here with the reason.

The golden pickles of the tensors, and of torch's weak types, are held to the same in the tests of torch.
"""

from __future__ import annotations

import gc
import io
import pickle
import threading
import weakref
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import golden_cases
import safepickle
from golden_cases import Node
from guard.targets import PlainList, Victim, make_table
from safepickle import rebuild
from safepickle.guard.never import reason_against
from safepickle.guard.rules import BUILT_IN

GOLDEN = sorted((Path(__file__).parent.parent / "data" / "golden").glob("*/py*/*.pickle"))
NAMES_OF_FRAMEWORKS = ("torch", "keras", "_tf_", "blinker")

NODE = "golden_cases:Node"
DOUBLE = "golden_cases:double"
LABELLED = "golden_cases:SlottedReference"
LOADS: dict[str, set[str]] = {
    "reference to what was met before": {NODE},
    "reference to what is met later": {NODE},
    "subclass of reference": {NODE, LABELLED},
    "subclass of reference with a constructor": {NODE, "golden_cases:ConstructedReference"},
    "dead subclass of reference": {LABELLED},
    "dead weak method": set(),
    "dead finalizer": {NODE},
    "proxies": {NODE, "golden_cases:CallableNode"},
    "dead proxies": set(),
    "referent of a proxy": {NODE},
    "tombstones": set(),
    "tombstone by policy": {NODE},
    "tombstone of a cycle": {"golden_cases:rebuild_pending"},
    "subclass of reference that owns": {NODE, LABELLED},
    "weak containers": {NODE},
    "weak containers that own": {NODE},
    "set whose members point back": {NODE, "golden_cases:Members"},
    "recipes": {NODE, DOUBLE},
    "deep graph": {NODE},
    "salvaged": {NODE, "golden_cases:Wrapper"},
    "replaced": {NODE},
    "placeholders of vanished classes": {"vanished_module:Vanished", "vanished_module:VanishedList"},
    "plain objects": {NODE, DOUBLE},
    "checksum": {NODE, DOUBLE},
}
"""What has to be allowed for each golden pickle, and no more."""

CODE = {
    "reference with a callback": "callback",
    "keyed reference": "callback",
    "strong references": "callback",
    "weak method": "subimport",  # A bound method: allowing a class brings none of its methods.
    "weak method that owns": "subimport",
    "subclass of weak method": "subimport",
    "subclass of weak method that owns": "subimport",
    "dead finalizers of other classes": "its class is not weakref.finalize",
    "class by value": "code objects and functions",
    "class with registry": "code objects and functions",
    "finalizers": "runs later",
    "finalizer that owns": "at some later time",
    "finalizer with a keyword": "at some later time",
    "loggers and handlers": "at some later time|on no list|not allowed",
    "leaves": "rebuild_thread.*at some later time",
    "open file": "rebuild_file.*operating system",
    "records": "rebuild_record.*imports by name",
}
"""Golden pickles that no list lets through, since they carry code or reach outside, each with the reason given."""

CODE_NAMES = {
    "Owner": "the callback of what owns; no pickle names it",
    "OwningFinalize": "an armed finalizer; no pickle names it",
    "OwningWeakMethod": "holds a bound method",
    "Stub": "the base of placeholders; no pickle names it",
    "StubRecord": "part of a placeholder; no pickle names it",
    "rebuild_class": "makes a class by a function that the stream names",
    "rebuild_class_attributes": "fills a class with functions",
    "rebuild_descriptor": "reads attributes by name",
    "rebuild_file": "opens files",
    "rebuild_finalize": "arms a finalizer",
    "rebuild_logging_handler": "is called again when the process ends",
    "rebuild_method": "binds a function",
    "rebuild_owning_finalize": "arms a finalizer",
    "rebuild_record": "imports the class of a report",
    "rebuild_shareable_list": "attaches to memory of other processes",
    "rebuild_shared_memory": "attaches to memory of other processes",
    "rebuild_thread": "makes a thread, which is to run something",
}


def title_of(path: Path) -> str:
    return path.stem.replace("_", " ")


def id_of(path: Path) -> str:
    return f"{path.parts[-2]}/{path.stem}"


def paths_of(titles: dict[str, Any]) -> list[Path]:
    return [path for path in GOLDEN if title_of(path) in titles]


def test_every_golden_pickle_is_in_one_table() -> None:
    assert LOADS.keys() | CODE.keys() == golden_cases.CASES.keys()
    assert not LOADS.keys() & CODE.keys()


@pytest.mark.parametrize("path", paths_of(LOADS), ids=id_of)
def test_golden_pickle_loads_with_its_classes_allowed(path: Path) -> None:
    title = title_of(path)
    golden_cases.CASES[title].check(safepickle.load(path, allow=LOADS[title]))
    found = safepickle.inspect(path)
    assert (found.verdict, set(found.allow)) == ("needs_allow" if LOADS[title] else "safe", LOADS[title])


@pytest.mark.parametrize("path", paths_of(CODE), ids=id_of)
def test_golden_pickle_that_carries_code_is_refused(path: Path) -> None:
    everything = {NODE, DOUBLE, LABELLED, "golden_cases:note_death", "golden_cases:note_finalized"}
    everything |= {"golden_cases:ConstructedMethod", "golden_cases:LabelledFinalizer"}
    with pytest.raises(safepickle.NotAllowedError, match=CODE[title_of(path)]):
        safepickle.load(path, allow=everything)


def names_in(data: bytes) -> set[str]:
    """Return what a pickle imports from the file format."""
    named = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "safepickle.rebuild":
                named.add(name)
            return super().find_class(module, name)

    Noting(io.BytesIO(data)).load()
    return named


def leaves() -> list[Any]:
    items: SimpleQueue[int] = SimpleQueue()
    items.put(1)
    items.put(2)
    return [
        threading.Lock(),
        threading.RLock(),
        items,
        memoryview(bytes(6)).cast("B", (2, 3)),
        lru_cache(5)(make_table),
    ]


def constructed_while_dead() -> list[Any]:
    """A subclass with a constructor of its own, which owns its referent."""
    return [golden_cases.ConstructedReference(golden_cases.held(Node("owned")), "label")]


SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "leaves": (leaves, {}),
    "strong reference": (lambda: weakref.ref(golden_cases.held(Node("owned"))), {"weakrefs": "strong"}),
    "owning subclass": (constructed_while_dead, {"weakrefs": "strong"}),
    "recipe": (lambda: weakref.ref(golden_cases.held(safepickle.Recomputed(Node, "built")).value), {}),
    "dead finalizer": (lambda: weakref.finalize(Node("gone"), print), {}),
}
SAMPLES_ALLOW: list[Any] = [Node, make_table, golden_cases.ConstructedReference]


@pytest.mark.parametrize("title", SAMPLES)
def test_what_has_no_golden_pickle_of_its_own_loads(title: str) -> None:
    make, options = SAMPLES[title]
    data = safepickle.dumps(make(), **options)
    loaded = safepickle.loads(data, allow=SAMPLES_ALLOW)
    assert type(loaded) is type(safepickle.loads(data))
    assert safepickle.inspect(data).verdict in ("safe", "needs_allow")


def test_every_name_of_the_format_loads_or_has_its_reason() -> None:
    loading: set[str] = set()
    for path in paths_of(LOADS):
        loading |= names_in(path.read_bytes())
    for make, options in SAMPLES.values():
        loading |= names_in(safepickle.dumps(make(), **options))
    of_frameworks = {name for name in rebuild.__all__ if any(part in name.lower() for part in NAMES_OF_FRAMEWORKS)}
    assert set(rebuild.__all__) - of_frameworks - loading == CODE_NAMES.keys()


def test_names_without_a_rule_can_never_be_allowed_or_make_nothing() -> None:
    for name in rebuild.__all__:
        ruled = ("safepickle.rebuild", name) in BUILT_IN
        harmless = name in ("KerasRuntime", "Stub", "StubRecord")
        assert ruled or harmless or reason_against("safepickle.rebuild", name), name


class TestLeaves:
    def test_are_fresh_and_whole(self) -> None:
        lock, _, items, view, cached = safepickle.loads(safepickle.dumps(leaves()), allow=[make_table])
        assert lock.acquire(blocking=False)
        assert [items.get(), items.get()] == [1, 2]
        assert view.shape == (2, 3)
        assert cached(2) == [0, 1]

    @pytest.mark.parametrize(
        "arguments", [(b"abc", "B", (4,), True), (b"abc", "B", (-1,), True), ([1], "B", (1,), True)]
    )
    def test_view_that_does_not_fit_is_refused(self, arguments: Any) -> None:
        with pytest.raises(safepickle.GuardedLoadError, match=r"damaged|not allowed"):
            safepickle.loads(pickle.dumps(Call(rebuild.rebuild_memoryview, *arguments)), allow=())

    def test_views_that_hash_the_same_bytes_again_and_again_are_charged(self) -> None:
        payload = bytes(1_000_000)
        views = {Call(rebuild.rebuild_memoryview, payload, "B", (1_000_000,), True): 1 for _ in range(500)}
        with pytest.raises(safepickle.LoadLimitError, match="costs far more"):
            safepickle.loads(pickle.dumps(views), allow=())

    def test_cache_around_what_is_not_allowed_is_refused(self) -> None:
        for function in (make_table, len):
            with pytest.raises(safepickle.NotAllowedError, match=r"on no list|never be allowed|not allowed"):
                safepickle.loads(pickle.dumps(Call(rebuild.rebuild_lru_cache, function, 1, False)), allow=[Node])


class Call:
    """An object that is pickled as a call, and state that is set by one."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None, setter: Any = None) -> None:
        self.value = (function, arguments, state, None, None, setter) if state is not None else (function, arguments)

    def __reduce__(self) -> Any:
        return self.value


class TestPlaceholders:
    STATEFUL = b"\x80\x02cvanished_module\nVanished\n)\x81}X\x04\x00\x00\x00nameX\x04\x00\x00\x00keptsb."
    FILLED = b"\x80\x02cvanished_module\nVanished\n)\x81(K\x01K\x02e(K\x03K\x04u."
    ALLOW = ("vanished_module:Vanished",)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("data", [STATEFUL, FILLED], ids=["state", "items"])
    def test_load_again_when_their_name_is_allowed(self, data: bytes, protocol: int) -> None:
        first = safepickle.loads(data, missing="stub")
        again = safepickle.loads(safepickle.dumps(first, protocol), allow=self.ALLOW)
        assert type(again) is type(first)
        assert vars(again) == vars(first)
        assert (again.__stub__.items, again.__stub__.pairs) == (first.__stub__.items, first.__stub__.pairs)

    @pytest.mark.parametrize("data", [STATEFUL, FILLED], ids=["state", "items"])
    def test_are_made_by_a_guarded_load(self, data: bytes) -> None:
        stub = safepickle.loads(data, missing="stub", allow=self.ALLOW)
        assert isinstance(stub, rebuild.Stub)
        assert (stub.__stub__.items, stub.__stub__.pairs) == (([1, 2], [(3, 4)]) if data is self.FILLED else ([], []))

    def test_that_are_not_allowed_are_refused_with_the_name_to_allow(self) -> None:
        data = safepickle.dumps(safepickle.loads(self.STATEFUL, missing="stub"))
        with pytest.raises(safepickle.NotAllowedError, match=r'allow=\["vanished_module:Vanished"\]'):
            safepickle.loads(data, allow=())

    def test_names_of_placeholders_are_decided_on_as_any_name(self) -> None:
        for module, name in (("os", "system"), ("guard.targets", "Victim"), ("builtins", "eval")):
            data = pickle.dumps(Call(rebuild.rebuild_global, module, name))
            with pytest.raises(safepickle.NotAllowedError, match=f"{module}:{name}"):
                safepickle.loads(data, allow=())
        assert (
            safepickle.loads(pickle.dumps(Call(rebuild.rebuild_global, "guard.targets", "Victim")), allow=[Victim])
            is Victim
        )

    def test_class_that_is_back_is_taken(self) -> None:
        data = pickle.dumps(Call(rebuild.rebuild_stub_of_builtin, golden_cases.Members, set, {1}))
        loaded = safepickle.loads(data, allow=[golden_cases.Members])
        assert (type(loaded), loaded) == (golden_cases.Members, {1})


class TestSalvaged:
    def test_call_of_what_is_not_allowed_is_refused(self) -> None:
        for function in (print, make_table):
            call = Call(rebuild.rebuild_salvaged, function, (3,), "a.B", "$")
            with pytest.raises(safepickle.NotAllowedError, match="not allowed"):
                safepickle.loads(pickle.dumps(call), allow=[Node])

    def test_contents_are_held_to_the_rules_of_the_opcodes(self) -> None:
        for contents in (({"__class__": 1}, None, None, None), (None, [1], None, None), (None, None, [(1, 2)], None)):
            call = Call(Node, "x", state=contents, setter=rebuild.rebuild_salvaged_contents)
            with pytest.raises(safepickle.NotAllowedError, match="not allowed"):
                safepickle.loads(pickle.dumps(call), allow=[Node])
        call = Call(list, state=(None, [1, 2], None, None), setter=rebuild.rebuild_salvaged_contents)
        with pytest.raises(safepickle.NotAllowedError, match="mentioned, but not called"):
            safepickle.loads(pickle.dumps(call), allow=())

    def test_contents_that_come_again_and_again_are_charged(self) -> None:
        items = list(range(100_000))
        target = Call(PlainList, state=(None, items, None, None), setter=rebuild.rebuild_salvaged_contents)
        data = bytearray(pickle.dumps([items, target]))
        assert len(safepickle.loads(bytes(data), allow=[PlainList])[1]) == 100_000
        again = Again(items, 1_000)
        with pytest.raises(safepickle.LoadLimitError, match="costs far more"):
            safepickle.loads(pickle.dumps(again), allow=[PlainList])

    def test_error_behind_one_that_failed_does_not_name_it(self) -> None:
        call = Call(rebuild.rebuild_salvaged, Victim, (1, 2), "a.B", "$")
        data = pickle.dumps([call, 1])
        assert type(safepickle.loads(data, allow=[Victim])[0]) is rebuild.UnpicklableTombstone
        with pytest.raises(safepickle.DamagedPickleError, match=r"^(?!.*Victim)(?!.*salvaged)"):
            safepickle.loads(data[:-1], allow=[Victim])


class Again:
    """A list to which the same items are appended again and again, a few bytes a time."""

    def __init__(self, items: list[int], times: int) -> None:
        self.items, self.times = items, times

    def __reduce__(self) -> Any:
        target = Call(PlainList)
        contents = (None, self.items, None, None)
        return rebuild.rebuild_root, (
            [Call(rebuild.rebuild_salvaged_contents, target, contents) for _ in range(self.times)],
            target,
        )


class TestWeak:
    def test_keyed_reference_without_a_callback_loads(self) -> None:
        owner = [Node("kept")]
        reference, owner = safepickle.loads(
            safepickle.dumps([weakref.KeyedRef(owner[0], None, "key"), owner]),  # type: ignore[arg-type]
            allow=[Node],
        )
        assert (reference.key, reference()) == ("key", owner[0])

    @pytest.mark.parametrize("cls", [golden_cases.SlottedReference, weakref.KeyedRef])
    def test_subclass_takes_no_callback(self, cls: Any) -> None:
        owner = [Node("kept")]
        more = (golden_cases.note_death,) if cls is golden_cases.SlottedReference else (golden_cases.note_death, "key")
        data = safepickle.dumps([cls(owner[0], *more), owner])
        with pytest.raises(safepickle.NotAllowedError, match="callback of a weak reference is code"):
            safepickle.loads(data, allow=[Node, golden_cases.SlottedReference, golden_cases.note_death])

    @pytest.mark.parametrize("name", ["_remove", "data", "_iterating"])
    def test_weak_container_keeps_its_workings(self, name: str) -> None:
        state: tuple[Any, ...] = ({name: make_table}, [], ())
        for cls in (weakref.WeakSet, weakref.WeakValueDictionary, weakref.WeakKeyDictionary):
            call = Call(rebuild.rebuild_weak_container, cls, state=state, setter=rebuild.rebuild_weak_entries)
            with pytest.raises(safepickle.NotAllowedError, match="what the weak container works with"):
                safepickle.loads(pickle.dumps(call), allow=[make_table])

    def test_finalizer_that_is_armed_by_the_stream_is_refused(self) -> None:
        data = pickle.dumps(Call(weakref.finalize, Node("kept"), golden_cases.note_finalized, "x"))
        with pytest.raises(safepickle.NotAllowedError, match="runs later"):
            safepickle.loads(data, allow=[Node, golden_cases.note_finalized])
        gc.collect()
        assert safepickle.inspect(data).verdict == "refused"


def test_a_name_that_cannot_be_imported_is_asked_for_again_by_the_same_unpickler():
    gone = b"\x80\x04cvanished_module\nVanished\n."
    unpickler = safepickle.Unpickler(io.BytesIO(gone * 2), allow=("vanished_module:Vanished",))
    for _ in range(2):
        with pytest.raises(safepickle.DamagedPickleError, match="it cannot be imported here"):
            unpickler.load()
