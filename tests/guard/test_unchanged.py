"""What was checked cannot change: the stream goes on writing to what it has handed over, and nothing comes of it."""

from __future__ import annotations

import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import safepickle
from guard.assembler import PROTO4, STOP, Raw, build, call, get, name, pickled, text, value
from guard.costly_calls import RECONSTRUCTED, dtype, put
from guard.targets import Labelled, Measured, PlainList, View, remake


def load(program: bytes, *allow: Any) -> Any:
    assert safepickle.inspect(program).verdict == ("needs_allow" if allow else "safe")
    return safepickle.loads(program, allow=allow)


@pytest.mark.parametrize("later", [("O8", 0), ("f8", 1 << 30), ("f8", -8), ("V999999999", 0)])
def test_fields_of_a_dtype_are_those_that_were_checked(later: tuple[str, int]):
    fields = Raw(value({"a": (dtype("f8"), 0)}) + put(0))
    made = dtype("V8", 3, "|", None, ("a",), fields, 8, 1, 16)
    changed = get(0) + text("a") + value((dtype(later[0]), later[1])) + b"s0"
    array = call(name("numpy._core.numeric", "_frombuffer"), np.float64(1.5).tobytes(), get(1), (1,), "C")
    loaded = load(PROTO4 + made + put(1) + b"0" + changed + array + STOP)
    assert loaded["a"].tolist() == [1.5]
    assert loaded.dtype.fields["a"] == (np.dtype("f8"), 0)


def test_metadata_of_a_dtype_is_what_was_checked():
    extra = Raw(b"}" + put(0))
    made = dtype("M8", 4, "<", None, None, None, -1, -1, 0, (extra, (b"s", 1, 1, 1)))
    assert not load(PROTO4 + made + get(0) + text("a") + b"Ns0" + STOP).metadata


def test_notes_of_an_exception_are_those_that_were_checked():
    noted = build(call(name("builtins", "ValueError")), {"__notes__": Raw(value(["kept"]) + put(0))})
    assert load(PROTO4 + noted + get(0) + b"K\x01a0" + STOP).__notes__ == ["kept"]


def test_keywords_of_a_recipe_are_those_that_were_checked():
    keywords = Raw(value({"size": 2}) + put(0))
    recipe = build(
        call(name("safepickle.rebuild", "rebuild_recomputed")), (name("guard.targets", "make_table"), (), keywords)
    )
    loaded = safepickle.loads(PROTO4 + recipe + get(0) + b"K\x01K\x02s0" + STOP, allow=["guard.targets:make_table"])
    assert loaded.kwargs == {"size": 2}


def test_a_list_of_arguments_is_taken_as_it_stood():
    for cls, taken in (("deque", [1]), ("OrderedDict", {1: 2}), ("Counter", {1: 2})):
        given = {"deque": [1], "OrderedDict": [(1, 2)], "Counter": {1: 2}}[cls]
        made = call(name("collections", cls), Raw(value(given) + put(0)))
        more = b"K\x07K\x07s0" if cls == "Counter" else b"K\x07a0"
        loaded = load(PROTO4 + made + get(0) + more + STOP)
        assert (dict(loaded) if cls != "deque" else list(loaded)) == taken


def test_what_is_only_kept_stays_the_same_object():
    """A list among the arguments of an exception may lead back to it, and a set may be what a reference refers to."""
    error = ValueError([])
    error.args[0].append(error)
    loaded = safepickle.loads(pickle.dumps(error), allow=())
    assert loaded.args[0][0] is loaded
    members = {1}
    owner, reference = safepickle.loads(safepickle.dumps([members, weakref.ref(members)]), allow=())
    assert reference() is owner


def test_state_that_holds_its_object_keeps_its_parts():
    error = ValueError()
    shared: list[Any] = [error]
    error.parts = shared  # type: ignore[attr-defined]
    loaded, again = safepickle.loads(pickle.dumps((error, shared)), allow=())
    assert loaded.parts is again


@pytest.mark.parametrize("attribute", ["__contains__", "add", "data", "_remove", "__class__", "update", "keys"])
def test_attributes_of_a_weak_container_hide_nothing(attribute: str):
    container = call(name("safepickle.rebuild", "rebuild_weak_container"), name("weakref", "WeakSet"))
    for program in (
        pickled(call(name("safepickle.rebuild", "rebuild_weak_entries"), container, ({attribute: 1}, [], ()))),
        pickled(build(container, {attribute: 1})),
        pickled(build(container, (None, {attribute: 1}))),
    ):
        assert safepickle.inspect(program).verdict == "refused"
        with pytest.raises(safepickle.NotAllowedError, match=r"replace|which Python gives a meaning"):
            safepickle.loads(program, allow=())


def test_attributes_of_a_weak_container_run_no_property():
    class_name = name("guard.targets", "Trapped")
    container = call(name("safepickle.rebuild", "rebuild_weak_container"), class_name)
    program = pickled(
        call(name("safepickle.rebuild", "rebuild_weak_entries"), container, ((None, {"trap": "/nowhere/x"}), [], ()))
    )
    with pytest.raises(safepickle.NotAllowedError, match="which is no slot of the class"):
        safepickle.loads(program, allow=["guard.targets:Trapped"])


SYMBOL = RECONSTRUCTED
STATES = [
    SYMBOL,
    (SYMBOL, (1,), dtype("f8"), False, bytes(8)),
    (1, SYMBOL, dtype("f8"), False, bytes(8)),
    (1, (SYMBOL,), dtype("f8"), False, bytes(8)),
    (1, (1,), SYMBOL, False, bytes(8)),
    (1, (1,), dtype("f8"), SYMBOL, bytes(8)),
    (1, (1,), dtype("f8"), False, SYMBOL),
    (1, (1,), dtype("O8"), False, SYMBOL),
]


@pytest.mark.parametrize("number", range(len(STATES)))
def test_any_part_of_a_state_may_be_a_symbol(number: int):
    program = pickled(build(RECONSTRUCTED, STATES[number]))
    assert safepickle.inspect(program).verdict in ("refused", "damaged")
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged"):
        safepickle.loads(program, allow=())


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        ("OSError", (11, "x", call(name("guard.targets", "Indexed")))),
        ("BlockingIOError", (11, "x", call(name("guard.targets", "Indexed")))),
        ("SyntaxError", ("x", call(name("guard.targets", "PlainList")))),
        ("IndentationError", ("x", (1, 2, 3, call(name("guard.targets", "PlainList"))))),
    ],
)
def test_exceptions_ask_no_object_to_be_a_number_or_a_sequence(cls: str, arguments: tuple[Any, ...]):
    program = pickled(call(name("builtins", cls), *arguments))
    assert safepickle.inspect(program).verdict == "refused"
    with pytest.raises(safepickle.NotAllowedError, match=r"argument 3|the place of the error"):
        safepickle.loads(program, allow=["guard.targets:Indexed", PlainList])


def test_array_of_a_users_class_is_held_against_its_bytes():
    made = call(name("numpy._core.multiarray", "_reconstruct"), name("guard.targets", "Table"), (0,), b"b")
    good, bad = ((1, (2,), dtype("f8"), False, bytes(size)) for size in (16, 8))
    loaded = safepickle.loads(pickled(build(made, good)), allow=["guard.targets:Table"])
    assert (type(loaded).__name__, loaded.tolist()) == ("Table", [0, 0])
    with pytest.raises(safepickle.DamagedPickleError, match="do not fill its shape"):
        safepickle.loads(pickled(build(made, bad)), allow=["guard.targets:Table"])
    assert safepickle.inspect(pickled(build(made, bad))).verdict != "safe"


OBJECTS: tuple[Any, ...] = (1, (1 << 20,), call(name("numpy", "dtype"), "O8", False, True), False, [])
"""The state of an array of more objects than it has: numpy reads on behind the list."""


def test_the_constructor_of_an_array_s_class_is_no_way_to_a_state_that_numpy_reads():
    made = call(name("guard.targets", "View"), [1, 2])
    assert safepickle.loads(pickled(made), allow=[View]).tolist() == [1, 2]
    for state in (OBJECTS, OBJECTS[1:]):
        with pytest.raises(safepickle.NotAllowedError, match="only an array that was just made takes a state"):
            safepickle.loads(pickled(build(made, state)), allow=[View])


@pytest.mark.parametrize(
    ("cls", "attribute", "state"), [(Labelled, "label", (*OBJECTS, "x")), (Measured, "unit", (OBJECTS, {}))]
)
def test_what_a_class_hands_on_to_numpy_is_held_to_the_same(cls: type, attribute: str, state: Any):
    written: Any = np.arange(3.0).view(cls)
    setattr(written, attribute, "metre")
    loaded = safepickle.loads(safepickle.dumps(written, weakrefs="strict"), allow=[cls])
    assert (type(loaded), loaded.tolist(), getattr(loaded, attribute)) == (cls, [0, 1, 2], "metre")
    made = call(name("numpy._core.multiarray", "_reconstruct"), name("guard.targets", cls.__name__), (0,), b"b")
    for crafted in (made, call(name("guard.targets", "remake"), name("guard.targets", cls.__name__))):
        with pytest.raises(safepickle.DamagedPickleError, match="does not hold as many as its shape says"):
            safepickle.loads(pickled(build(crafted, state)), allow=[cls, remake])
