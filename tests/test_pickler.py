"""The pickler as a pickler: what pickle promises, kept under one, two and more walks."""

import copyreg
import gc
import io
import os
import pickle
import subprocess
import sys
import weakref
from argparse import Namespace

import pytest

import safepickle
from nodes import Node

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def forward_graph(count=3):
    """Make a graph that takes two walks: every reference comes before its referent."""
    nodes = [Node(index=index) for index in range(count)]
    return {"refs": [weakref.ref(node) for node in nodes], "nodes": nodes}


def assert_linked(graph):
    assert all(reference() is node for reference, node in zip(graph["refs"], graph["nodes"], strict=True))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_pickle_can_do_is_done(protocol):
    obj = [
        1,
        2.5,
        1j,
        "text",
        b"bytes",
        bytearray(b"x"),
        (1, (2,)),
        {1: {2}},
        frozenset({3}),
        None,
        True,
        range(3),
        ...,
    ]
    obj.append({"shared": obj[9], "again": obj[9]})
    assert pickle.loads(safepickle.dumps(obj, protocol)) == obj
    assert safepickle.loads(pickle.dumps(obj, protocol)) == obj


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_functions_and_classes_of_main_travel_by_value(protocol, tmp_path):
    program = (
        "import safepickle, sys, weakref\n"
        "class Main:\n"
        "    def double(self): return 2 * self.n\n"
        "offset = 5\n"
        "m = Main(); m.n = 4; m.me = weakref.ref(m)\n"
        "safepickle.dump([m, lambda x: x + offset], sys.argv[1], int(sys.argv[2]))\n"
    )
    path = tmp_path / "by_value.pickle"
    subprocess.run([sys.executable, "-c", program, path, str(protocol)], check=True)
    loaded, function = safepickle.load(path)
    assert loaded.double() == 8
    assert loaded.me() is loaded
    assert function(1) == 6


def test_protocol_none_and_negative_are_the_highest():
    assert safepickle.dumps(1)[1] == safepickle.dumps(1, -1)[1] == pickle.HIGHEST_PROTOCOL
    with pytest.raises(ValueError, match="pickle protocol must be"):
        safepickle.dumps(1, pickle.HIGHEST_PROTOCOL + 1)


def test_source_objects_are_untouched():
    graph = forward_graph()
    node = graph["nodes"][0]
    node.cache = weakref.WeakValueDictionary(node=node)
    node.proxy = weakref.proxy(node)
    before = [(dict(each.__dict__), weakref.getweakrefcount(each)) for each in graph["nodes"]]
    safepickle.dumps(graph)
    assert [(dict(each.__dict__), weakref.getweakrefcount(each)) for each in graph["nodes"]] == before


@pytest.mark.parametrize("weakrefs", ["strong", "tombstone", lambda referent: "tombstone"])
def test_nothing_is_kept_alive(weakrefs):
    graph = forward_graph()
    outside = Node()
    graph["nodes"][0].outside = weakref.proxy(outside)
    watches = [weakref.ref(node) for node in (*graph["nodes"], outside)]
    gc.collect()
    gc.disable()
    try:
        safepickle.dumps(graph, weakrefs=weakrefs)
        del graph, outside
        assert [watch() for watch in watches] == [None] * len(watches)
    finally:
        gc.enable()


def test_a_class_met_in_a_dump_can_go():
    local = type("Local", (), {})
    watch = weakref.ref(local)
    safepickle.dumps(local())
    del local
    gc.collect()
    assert watch() is None


def test_several_dumps_share_their_memo():
    for graph in (forward_graph(), [1, 2]):
        file = io.BytesIO()
        pickler = safepickle.Pickler(file)
        shared = Node(name="shared")
        pickler.dump(shared)
        pickler.dump([weakref.ref(shared), shared, graph])
        end = file.tell()
        pickler.dump(graph)
        assert file.tell() - end < 30
        file.seek(0)
        unpickler = safepickle.Unpickler(file)
        first, (reference, again, copy), last = unpickler.load(), unpickler.load(), unpickler.load()
        assert reference() is again is first
        assert last is copy


def test_a_dump_that_fails_leaves_memo_and_file_as_they_were():
    file = io.BytesIO()
    pickler = safepickle.Pickler(file)
    shared = Node(name="shared")
    pickler.dump(shared)
    before = file.getvalue()
    lost = Node(name="lost")
    with pytest.raises(TypeError, match="cannot pickle"):
        pickler.dump([shared, lost, forward_graph(), (value for value in "")])
    assert file.getvalue() == before
    pickler.dump([shared, lost])
    file.seek(0)
    unpickler = safepickle.Unpickler(file)
    first = unpickler.load()
    again, found = unpickler.load()
    assert again is first
    assert found.name == "lost"


def test_clear_memo_forgets():
    file = io.BytesIO()
    pickler = safepickle.Pickler(file)
    graph = forward_graph()
    pickler.dump(graph)
    size = file.tell()
    pickler.clear_memo()
    pickler.dump(graph)
    assert file.tell() == 2 * size
    assert_linked(safepickle.loads(file.getvalue()[size:]))


def test_middle_of_a_file_is_overwritten_only_after_success(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"." * 100_000)
    with open(path, "r+b") as file:
        file.seek(10)
        with pytest.raises(TypeError, match="cannot pickle"):
            safepickle.dump([b"x" * 80_000, (value for value in "")], file)
        assert file.tell() == 10
        safepickle.dump(forward_graph(), file)
        file.seek(10)
        assert_linked(safepickle.load(file))
    assert path.stat().st_size == 100_000


def test_unseekable_file_receives_nothing_before_success():
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader:
        with open(write_end, "wb") as writer:
            with pytest.raises(TypeError, match="cannot pickle"):
                safepickle.dump([b"x" * 100, (value for value in "")], writer)
            safepickle.dump(forward_graph(), writer)
        data = reader.read()
    assert data[:1] == b"\x80"
    assert_linked(safepickle.loads(data))


def test_file_without_write_is_refused():
    with pytest.raises(TypeError, match="must have a 'write' attribute"):
        safepickle.dump(1, object())  # type: ignore[arg-type]


class Buffered:
    """Pickles its bytes out of band."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Buffered, (pickle.PickleBuffer(self.data),)


@pytest.mark.parametrize("in_band", [{}, {0}, {1}, {0, 2}, {0, 1, 2, 3}])
@pytest.mark.parametrize("kept", [True, False])
def test_each_buffer_is_handed_over_once_and_in_order(in_band, kept):
    late = Buffered(bytearray(b"late"))
    outside = Node()
    reference = weakref.ref(late if kept else outside)
    graph = [Buffered(bytearray(b"first")), reference, Buffered(bytearray(b"second")), late, Buffered(bytearray(b"z"))]
    # A forward reference is written where it stands, and with it the buffer of its referent.
    expected = [b"first", b"late", b"second", b"z"] if kept else [b"first", b"second", b"late", b"z"]
    seen, out_of_band = [], []

    def callback(buffer):
        seen.append(bytes(buffer.raw()))
        if len(seen) - 1 in in_band:
            return True
        out_of_band.append(buffer)
        return False

    data = safepickle.dumps(graph, buffer_callback=callback, weakrefs=lambda referent: "tombstone")
    assert seen == expected
    loaded = safepickle.loads(data, buffers=out_of_band)
    assert [bytes(each.data) for each in loaded if isinstance(each, Buffered)] == [b"first", b"second", b"late", b"z"]
    assert (loaded[1]() is loaded[3]) == kept


def test_buffer_callback_needs_protocol_5():
    with pytest.raises(ValueError, match="buffer_callback needs protocol >= 5"):
        safepickle.dumps(1, 4, buffer_callback=print)


class Asking:
    """Asks the pickler that is pickling it for another dump, as it is pickled."""

    def __init__(self, pickler):
        self.pickler = pickler

    def __reduce__(self):
        self.pickler.dump("inner")
        return list, ()


def test_a_dump_within_a_dump_of_the_same_pickler_is_an_error_that_leaves_it_usable():
    file = io.BytesIO(b"before")
    file.seek(0, io.SEEK_END)
    pickler = safepickle.Pickler(file)
    with pytest.raises(RuntimeError, match="in the middle of a dump"):
        pickler.dump([Asking(pickler)])
    assert file.getvalue() == b"before"
    pickler.dump("outer")
    assert safepickle.loads(file.getvalue()[len(b"before") :]) == "outer"


def test_proxies_never_reach_a_subclass_persistent_id():
    class Storing(safepickle.Pickler):
        def persistent_id(self, obj):
            return "stored" if isinstance(obj, Node) and obj.name == "stored" else None

    class Fetching(safepickle.Unpickler):
        def persistent_load(self, pid):
            return stored

    stored, other = Node(name="stored"), Node(name="other")
    file = io.BytesIO()
    graph = [weakref.proxy(Node(name="dead")), weakref.proxy(other), other, weakref.ref(stored), stored]
    Storing(file).dump(graph)
    file.seek(0)
    loaded = Fetching(file).load()
    assert loaded[1].name == "other"
    # What persistent_id stores is kept, though it never enters the memo.
    assert loaded[3]() is loaded[4] is stored


def test_dispatch_table_of_a_subclass_and_of_an_instance_are_honoured():
    reduce_node = lambda node: (Namespace, ())  # noqa: E731

    class WithTable(safepickle.Pickler):
        dispatch_table = {**copyreg.dispatch_table, Node: reduce_node}  # noqa: RUF012

    for make in (WithTable, safepickle.Pickler):
        file = io.BytesIO()
        pickler = make(file)
        if make is safepickle.Pickler:
            pickler.dispatch_table = WithTable.dispatch_table
        node = Node()
        pickler.dump([weakref.ref(node), node])
        loaded = safepickle.loads(file.getvalue())
        assert type(loaded[1]) is Namespace
        assert loaded[0]() is loaded[1]


def test_registered_reducer_serves_a_class_and_its_subclasses():
    class Base:
        pass

    class Derived(Base):
        pass

    safepickle.register(Base, lambda obj: (str, (type(obj).__name__,)))
    assert safepickle.loads(safepickle.dumps([Base(), Derived()])) == ["Base", "Derived"]
    with pytest.raises(TypeError, match="takes a class and a reducer"):
        safepickle.register(Base(), str)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not callable"):
        safepickle.register(Base, "reducer")  # type: ignore[arg-type]


def test_reducer_registered_between_two_dumps_of_a_pickler_serves_the_second():
    class Late:
        pass

    file = io.BytesIO()
    pickler = safepickle.Pickler(file)
    pickler.dump(Late())
    safepickle.register(Late, lambda obj: (str, ("registered",)))
    pickler.dump(Late())
    file.seek(0)
    unpickler = safepickle.Unpickler(file)
    assert type(unpickler.load()) is Late
    assert unpickler.load() == "registered"


def test_fast_mode_makes_tombstones_rather_than_dead_references():
    file = io.BytesIO()
    pickler = safepickle.Pickler(file, weakrefs=lambda referent: "tombstone")
    pickler.fast = True
    node = Node()
    pickler.dump([node, weakref.ref(node)])
    assert safepickle.loads(file.getvalue())[1].reason == "outside"


def test_weak_reference_under_a_user_persistent_id_costs_no_second_copy(tmp_path):
    """A walk shows nothing to `persistent_id` that the final pickle does not name."""
    shown = []

    class Showing(safepickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Node):
                shown.append(obj)
            return

    kept, outside = Node(), Node()
    kept.inner, outside.inner = Node(), Node()
    Showing(io.BytesIO(), weakrefs="tombstone").dump([weakref.ref(outside), kept])
    Showing(io.BytesIO(), weakrefs=lambda referent: "tombstone").dump([weakref.ref(outside), weakref.ref(kept), kept])
    assert outside.inner not in shown
    assert outside not in shown


def test_import_loads_no_framework():
    program = (
        "import sys, safepickle;"
        "print([name for name in ('torch', 'dill', 'keras', 'numpy', 'rich', 'tqdm', 'ctypes') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert result.stdout.strip() == "[]"
