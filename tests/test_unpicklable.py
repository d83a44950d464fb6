"""``unpicklable=``: what nothing can pickle becomes a tombstone, and the rest is saved."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import socket
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import safepickle
from nodes import Node
from safepickle.rebuild import UnpicklableTombstone


class Refuses:
    """Raises when it is asked for its reduce value."""

    def __reduce__(self) -> Any:
        raise RuntimeError("this object will not be pickled")


class RefusesState:
    """Raises when it is asked for its state."""

    def __getstate__(self) -> Any:
        raise ValueError("no state today")


class WrongShape:
    """Has a reduce value that is none."""

    def __reduce__(self) -> Any:
        return (1, 2)


class WrongName:
    """Says that it is a global, which does not exist."""

    def __reduce__(self) -> Any:
        return "no_such_global"


@contextlib.contextmanager
def closing(*objects: Any) -> Iterator[None]:
    """Close objects in the end."""
    try:
        yield
    finally:
        for obj in objects:
            obj.close()


def save_partially(obj: Any, **options: Any) -> tuple[Any, list[tuple[str, str, str]]]:
    """Return what comes back, and what the one warning lists."""
    with pytest.warns(safepickle.UnpicklableWarning, match="could not be pickled") as caught:
        data = safepickle.dumps(obj, unpicklable="tombstone", **options)
    assert len(caught) == 1
    warning: Any = caught[0].message
    assert caught[0].filename == __file__
    return safepickle.loads(data), warning.lost


def generator() -> Iterator[int]:
    yield 1


def test_each_unpicklable_object_becomes_a_tombstone_and_the_rest_is_saved() -> None:
    weights = list(range(1000))
    sock, connection = socket.socket(), sqlite3.connect(":memory:")
    context = ssl.create_default_context()
    running = generator()
    with closing(sock, connection, running):
        trainer = Node(
            weights=weights, again=weights, sock=sock, db=[{"main": connection}], tls=context, batches=running, step=7
        )
        restored, lost = save_partially(trainer)
    assert restored.weights == weights
    assert restored.again is restored.weights
    assert restored.step == 7
    assert {path: name for name, path, _ in lost} == {
        "$.sock": "socket.socket",
        "$.db[0]['main']": "sqlite3.Connection",
        "$.tls": "ssl.SSLContext",
        "$.batches": "builtins.generator",
    }
    tombstone = restored.db[0]["main"]
    assert (tombstone.reason, tombstone.referent_type) == ("unpicklable", "sqlite3.Connection")
    assert tombstone.path == "$.db[0]['main']"
    assert "cannot pickle 'sqlite3.Connection' object" in tombstone.cause
    assert isinstance(tombstone, safepickle.Tombstone)


def test_the_warning_lists_path_type_and_cause() -> None:
    with pytest.warns(safepickle.UnpicklableWarning, match="2 objects could not be pickled") as caught:
        safepickle.dumps({"a": Refuses(), "b": [RefusesState()]}, unpicklable="tombstone")
    assert str(caught[0].message) == (
        "2 objects could not be pickled and are replaced by tombstones; the rest is saved: "
        f"$['a']: {__name__}.Refuses (RuntimeError: this object will not be pickled); "
        f"$['b'][0]: {__name__}.RefusesState (ValueError: no state today)."
    )


@pytest.mark.parametrize("cls", [Refuses, RefusesState, WrongShape, WrongName])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_whatever_a_class_raises_costs_that_object_alone(cls: Any, protocol: int) -> None:
    shared = cls()
    restored, lost = save_partially([1, shared, {"again": shared}, 2], protocol=protocol)
    assert restored[0] == 1
    assert restored[3] == 2
    assert type(restored[1]) is UnpicklableTombstone
    assert restored[2]["again"] is restored[1]
    assert len(lost) == 1


def test_an_unpicklable_global_of_a_function_does_not_cost_the_function() -> None:
    sock = socket.socket()
    with closing(sock):

        def learn(number: int) -> Any:
            return number + 1, sock

        restored, lost = save_partially(learn)
    assert restored(1)[0] == 2
    assert type(restored(1)[1]) is UnpicklableTombstone
    assert [name for name, _, _ in lost] == ["socket.socket"]


@pytest.mark.parametrize(
    ("use", "wanted"),
    [
        (lambda tombstone: tombstone.recv(10), r"\.recv"),
        (lambda tombstone: tombstone(), r"\(\)"),
        (lambda tombstone: setattr(tombstone, "timeout", 3), r"\.timeout"),
        (lambda tombstone: tombstone["key"], r"\[\.\.\.\]"),
        (lambda tombstone: tombstone.__setitem__("key", 1), r"\[\.\.\.\]"),
        (list, r"iter\(\)"),
        (next, r"next\(\)"),
        (lambda tombstone: tombstone.__enter__(), "with"),
    ],
)
def test_touching_a_tombstone_says_what_stood_there_and_why(use: Any, wanted: str) -> None:
    sock = socket.socket()
    with closing(sock):
        restored, _ = save_partially(Node(sock=sock))
    expected = rf"^{wanted} is not available: the socket\.socket that stood at \$\.sock could not be pickled"
    with pytest.raises(safepickle.UnpicklableError, match=expected + r" \(TypeError: cannot pickle 'socket' object\)"):
        use(restored.sock)


def test_a_tombstone_can_be_held_compared_copied_and_pickled_again() -> None:
    restored, _ = save_partially({Refuses(): "as a key", "value": Refuses()})
    tombstone = restored["value"]
    assert len(restored) == 2
    assert len({tombstone, tombstone}) == 1
    assert not hasattr(tombstone, "anything")
    assert "Refuses at $['value']" in repr(tombstone)
    again: Any
    for again in (pickle.loads(pickle.dumps(tombstone)), copy.deepcopy(tombstone), copy.copy(tombstone)):
        assert (again.referent_type, again.path, again.cause) == (
            tombstone.referent_type,
            tombstone.path,
            tombstone.cause,
        )
    with pytest.raises(safepickle.UnpicklableError, match="will not be pickled") as caught:
        tombstone.work()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path, again.cause) == (str(caught.value), caught.value.path, caught.value.cause)
    assert weakref.ref(tombstone)() is tombstone


def test_a_weak_reference_to_an_unpicklable_object_leads_to_its_tombstone() -> None:
    refuses = Refuses()
    restored, _ = save_partially(Node(strong=refuses, weak=weakref.ref(refuses), early=[weakref.ref(refuses)]))
    assert restored.weak() is restored.strong
    assert restored.early[0]() is restored.strong


def test_weak_references_are_relinked_in_a_partial_dump() -> None:
    parent = Node(sock=Refuses())
    parent.children = [Node(parent=weakref.ref(parent), weak=weakref.proxy(parent)) for _ in range(3)]
    first = Node(first=weakref.ref(parent), rest=parent)
    restored, _ = save_partially(first)
    assert restored.first() is restored.rest
    assert all(child.parent() is restored.rest for child in restored.rest.children)


Point = namedtuple("Point", ["x", "y"])


class Connected:
    """Uses what it is built from."""

    def __init__(self, sock: Any) -> None:
        self.address = sock.getsockname()
        self.sock = sock

    def __reduce__(self) -> Any:
        return Connected, (self.sock,)


class Wrapper:
    """Is built from something that is built from a socket."""

    def __init__(self, connected: Any) -> None:
        self.address = connected.address

    def __reduce__(self) -> Any:
        return Wrapper, ([Connected(SOCKETS[0])],)


SOCKETS: list[Any] = []


def test_what_cannot_be_built_without_the_object_becomes_a_tombstone_at_load() -> None:
    sock = socket.socket()
    with closing(sock):
        SOCKETS[:] = [sock]
        connected = Connected(sock)
        restored, lost = save_partially([sock.recv, connected, Wrapper(connected), Point(sock, 2), "rest"])
        SOCKETS.clear()
    method, built, wrapper, point, rest = restored
    assert [name for name, _, _ in lost] == ["socket.socket"]
    assert type(method) is UnpicklableTombstone
    assert built.path == "$[1]"
    assert "it is built from an object that could not be pickled: UnpicklableError: .getsockname" in built.cause
    assert wrapper.referent_type == f"{__name__}.Wrapper"
    assert type(point) is Point
    assert point.y == 2
    assert type(point.x) is UnpicklableTombstone
    assert rest == "rest"


class Careful:
    """Uses its state when it is set."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.weights = [1, 2, 3]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.address = state["sock"].getsockname()
        self.__dict__.update(state)


class Tracker(dict[str, Any]):
    """A dict with attributes."""

    sock: Any

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def test_a_setstate_that_fails_over_a_tombstone_costs_no_state() -> None:
    sock = socket.socket()
    with closing(sock), pytest.warns(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
        data = safepickle.dumps([Careful(sock), 3], unpicklable="tombstone")
    with pytest.warns(UserWarning, match=r"the state of a .*Careful holds a tombstone, .* \(UnpicklableError"):
        restored = safepickle.loads(data)
    assert restored[0].weights == [1, 2, 3]
    assert type(restored[0].sock) is UnpicklableTombstone


def test_items_of_an_object_with_a_tombstone_in_its_state_are_kept() -> None:
    tracker = Tracker(loss=0.5)
    tracker.sock = Refuses()
    restored, _ = save_partially(tracker)
    assert type(restored) is Tracker
    assert restored["loss"] == 0.5
    assert type(restored.sock) is UnpicklableTombstone


class MakesAnother:
    """Holds nothing unpicklable, and makes it anew whenever it is pickled."""

    def __reduce__(self) -> Any:
        return Node, (), {"made": Refuses()}


def test_an_object_that_makes_unpicklable_ones_is_replaced_itself() -> None:
    restored, lost = save_partially([MakesAnother(), "rest"])
    assert type(restored[0]) is UnpicklableTombstone
    assert restored[1] == "rest"
    assert [(name, path) for name, path, _ in lost] == [(f"{__name__}.MakesAnother", "$[0]")]


def test_a_root_of_which_nothing_would_be_left_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="will not be pickled"):
        safepickle.dumps(MakesAnother(), unpicklable="tombstone")


def test_an_unpicklable_root_is_a_tombstone() -> None:
    restored, lost = save_partially(Refuses())
    assert type(restored) is UnpicklableTombstone
    assert lost[0][1] == "$"


def test_a_graph_with_nothing_unpicklable_is_written_as_ever() -> None:
    graph = Node(lock=threading.Lock(), weights=[1.0] * 10, function=lambda number: number)
    graph.parent = weakref.ref(graph)
    assert safepickle.dumps(graph, unpicklable="tombstone") == safepickle.dumps(graph)


def test_raise_is_the_default_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(RuntimeError, match="will not be pickled"):
        safepickle.dump([Refuses()], path)
    assert not path.exists()


def test_a_callable_may_give_a_replacement() -> None:
    asked: list[Any] = []

    def choose(obj: Any) -> Any:
        asked.append(type(obj))
        return {"was": type(obj).__name__}

    restored = safepickle.loads(safepickle.dumps([Refuses(), generator(), 1], unpicklable=choose))
    assert restored == [{"was": "Refuses"}, {"was": "generator"}, 1]
    assert asked == [Refuses, type(generator())]
    assert safepickle.loads(safepickle.dumps([Refuses()], unpicklable=lambda obj: None)) == [None]


def test_a_callable_may_choose_between_a_tombstone_and_an_error() -> None:
    def choose(obj: Any) -> Any:
        return "tombstone" if isinstance(obj, Refuses) else "raise"

    with pytest.warns(safepickle.UnpicklableWarning, match=r"1 object could not be pickled and is replaced"):
        restored = safepickle.loads(safepickle.dumps([Refuses()], unpicklable=choose))
    assert type(restored[0]) is UnpicklableTombstone
    with pytest.raises(TypeError, match=r"cannot pickle the object of type builtins\.generator at \$\[1\]: TypeError"):
        safepickle.dumps([Refuses(), generator()], unpicklable=choose)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValueError, match="unpicklable='drop' is not known"):
        safepickle.dumps(1, unpicklable="drop")  # type: ignore[arg-type]


def test_errors_that_are_not_about_an_object_are_raised(tmp_path: Path) -> None:
    class Full:
        def write(self, data: Any) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        safepickle.dump([1], Full(), unpicklable="tombstone")
    target = Node()
    with pytest.raises(safepickle.WeakReferenceError, match="is not in the pickle"):
        safepickle.dumps([weakref.ref(target)], unpicklable="tombstone", weakrefs="strict")


@pytest.mark.parametrize("cls", [Refuses, RefusesState])
def test_objects_deep_down_are_found(cls: Any) -> None:
    root = last = Node()
    for _ in range(3000):
        last.below = Node()
        last = last.below
    last.lost, last.weights = cls(), [1, 2]
    restored, lost = save_partially(root)
    while hasattr(restored, "below"):
        restored = restored.below
    assert restored.weights == [1, 2]
    assert type(restored.lost) is UnpicklableTombstone
    assert [name for name, _, _ in lost] == [f"{__name__}.{cls.__name__}"]


def test_a_warning_turned_into_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"before")
    with pytest.raises(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
        safepickle.dump([Refuses()], path, unpicklable="tombstone")
    assert path.read_bytes() == b"before"


def test_out_of_band_buffers_are_handed_over_once_and_in_order() -> None:
    blocks = [bytearray([number]) * 100 for number in range(4)]
    graph = [pickle.PickleBuffer(blocks[0]), Refuses(), pickle.PickleBuffer(blocks[1]), generator(), blocks[2]]
    buffers: list[Any] = []
    with pytest.warns(safepickle.UnpicklableWarning, match="2 objects could not be pickled"):
        data = safepickle.dumps(graph, buffer_callback=buffers.append, unpicklable="tombstone")
    assert [bytes(buffer) for buffer in buffers] == [bytes(blocks[0]), bytes(blocks[1])]
    restored = safepickle.loads(data, buffers=buffers)
    assert bytes(restored[0]) == bytes(blocks[0])
    assert bytes(restored[2]) == bytes(blocks[1])


def test_a_pickler_goes_on_after_a_partial_dump(tmp_path: Path) -> None:
    shared = [1, 2]
    path = tmp_path / "two"
    with open(path, "wb") as file:
        pickler = safepickle.Pickler(file, unpicklable="tombstone")
        with pytest.warns(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
            pickler.dump([shared, Refuses()])
        pickler.dump([shared, "second"])
    with open(path, "rb") as file:
        unpickler = safepickle.Unpickler(file)
        first, second = unpickler.load(), unpickler.load()
    assert type(first[1]) is UnpicklableTombstone
    assert second[0] is first[0]


def test_a_backend_dumps_partially() -> None:
    backend = safepickle.backend(unpicklable="tombstone")
    with pytest.warns(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
        assert backend.loads(backend.dumps([Refuses(), 5]))[1] == 5


def test_a_guarded_load_takes_tombstones_and_inspect_lists_them() -> None:
    with pytest.warns(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
        data = safepickle.dumps({"weights": [1, 2], "lost": Refuses()}, unpicklable="tombstone")
    restored = safepickle.loads(data, allow=())
    assert restored["weights"] == [1, 2]
    assert type(restored["lost"]) is UnpicklableTombstone
    (found,) = safepickle.inspect(data).tombstones
    assert (found.path, found.reason) == ("$['lost']", "unpicklable")


def test_the_graph_is_left_as_it_was() -> None:
    refuses = Refuses()
    watch = weakref.ref(refuses)
    graph = {"a": [refuses]}
    save_partially(graph)
    assert graph["a"][0] is refuses
    del graph, refuses
    import gc

    gc.collect()
    assert watch() is None


def test_a_partially_saved_checkpoint_loads_in_a_fresh_process(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save = """
        import socket, sys, warnings
        import safepickle

        class Trainer:
            def __init__(self):
                self.weights = [0.25] * 4
                self.monitor = socket.socket()
                self.send = self.monitor.send
                self.batches = (number for number in range(3))

        trainer = Trainer()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", safepickle.UnpicklableWarning)
            safepickle.dump(trainer, sys.argv[1], unpicklable="tombstone")
        print(caught[0].message)
        trainer.monitor.close()
        """
    load = """
        import sys
        import safepickle

        trainer = safepickle.load(sys.argv[1])
        assert trainer.weights == [0.25] * 4
        try:
            trainer.send(b"done")
        except safepickle.UnpicklableError as error:
            print(error)
        """
    first, second = (
        subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(path)],
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        ).stdout
        for program in (save, load)
    )
    assert first.startswith("2 objects could not be pickled and are replaced by tombstones")
    assert "$.monitor: socket.socket (TypeError: cannot pickle 'socket' object)" in first
    assert second.startswith("() is not available: the builtins.builtin_function_or_method that stood at $.send")


def test_a_policy_of_the_callers_decides_in_a_partial_dump_too() -> None:
    kept, left = Node(lost=generator()), Node(lost=generator())
    graph = [weakref.ref(kept), weakref.ref(left)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", safepickle.WeakReferenceWarning)
        restored, lost = save_partially(graph, weakrefs=lambda referent: "strong" if referent is kept else "tombstone")
    assert type(restored[0]().lost) is UnpicklableTombstone
    assert restored[1]() is None
    assert [path for _, path, _ in lost] == ["$[0]().lost"]


class _Doubles:
    """No pickler by itself: pickles ranges as twice as long ones."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is range:
            return range, (2 * len(obj),)
        return super().reducer_override(obj)  # type: ignore[misc]


class Doubling(_Doubles, safepickle.Pickler):
    """Takes its override from beside the picklers."""


class Tripling(Doubling):
    """Has an override over the other one."""

    def reducer_override(self, obj: Any) -> Any:
        return (
            super().reducer_override(range(3))
            if type(obj) is range and len(obj) == 1
            else super().reducer_override(obj)
        )


def test_a_partial_dump_goes_before_every_override_and_leaves_it_where_it_was() -> None:
    graph = [range(1), weakref.ref(Node), Refuses(), {"inner": RefusesState()}]
    for pickler_class, expected in ((safepickle.Pickler, 1), (Doubling, 2), (Tripling, 6)):
        file = io.BytesIO()
        pickler = pickler_class(file, unpicklable="tombstone")
        before = set(vars(pickler))
        with pytest.warns(safepickle.UnpicklableWarning, match="2 objects could not be pickled"):
            pickler.dump(graph)
        assert set(vars(pickler)) - before <= {"_dump", "_memo_is_empty", "offender"}
        span, reference, *lost, rest = safepickle.loads(file.getvalue())
        assert len(span) == expected
        assert reference() is Node
        assert [type(each) for each in (*lost, rest["inner"])] == [UnpicklableTombstone] * 2


def test_a_partial_dump_goes_before_an_override_that_was_set_on_the_pickler() -> None:
    file = io.BytesIO()
    pickler = safepickle.Pickler(file, unpicklable="tombstone")

    def override(obj: Any) -> Any:
        return (range, (5,)) if type(obj) is range else safepickle.Pickler.reducer_override(pickler, obj)

    pickler.reducer_override = override  # type: ignore[method-assign]
    with pytest.warns(safepickle.UnpicklableWarning, match="1 object could not be pickled"):
        pickler.dump([range(1), Refuses()])
    assert pickler.reducer_override is override
    span, lost = safepickle.loads(file.getvalue())
    assert len(span) == 5
    assert type(lost) is UnpicklableTombstone
    del pickler.reducer_override
    with pytest.raises(AttributeError, match="reducer_override"):
        del pickler.reducer_override


class Looks:
    """Looks, while it is pickled, at what the pickler has of its own under the name of a method."""

    pickler: Any = None
    seen: ClassVar[list[set[str]]] = []

    def __reduce__(self) -> Any:
        own = vars(Looks.pickler)
        self.seen.append({name for name in own if callable(getattr(type(Looks.pickler), name, None))})
        return Looks, ()


@pytest.mark.parametrize("pickler_class", [safepickle.Pickler, Doubling])
@pytest.mark.parametrize("unpicklable", ["raise", "tombstone"])
def test_a_dump_replaces_no_method_of_the_pickler(
    pickler_class: type[safepickle.Pickler], unpicklable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Looks, "seen", [])
    monkeypatch.setattr(Looks, "pickler", pickler_class(io.BytesIO(), unpicklable=unpicklable))
    refusal = pytest.raises(RuntimeError, match="will not be pickled")
    with refusal if unpicklable == "raise" else pytest.warns(safepickle.UnpicklableWarning, match="1 object"):
        Looks.pickler.dump([Looks(), weakref.ref(Node), Refuses()])
    assert Looks.seen
    assert not any(Looks.seen)
