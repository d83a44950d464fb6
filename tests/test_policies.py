"""What each policy makes of each kind of referent, for `weakref.ref` and for proxies of both kinds."""

import collections
import enum
import io
import logging
import math
import pickle
import subprocess
import sys
import textwrap
import warnings
import weakref
from typing import Any

import pytest

import nodes
import safepickle
from nodes import round_trip
from safepickle.weak_types import look_behind

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Node(nodes.Node):
    def __init__(self, name="node"):
        super().__init__(name, children=[], parent=None)

    def adopt(self, child):
        self.children.append(child)
        child.parent = weakref.ref(self)
        return child


class CallableNode(Node):
    def __call__(self):
        return self.name


class Built:
    """Built from arguments, so that it does not exist while they are written."""

    def __init__(self, parts):
        self.parts = parts

    def __reduce__(self):
        return Built, (self.parts,)


class Color(enum.Enum):
    RED = 1


class Singleton:
    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton()


deaths: list[Any] = []


def on_death(reference):
    deaths.append(reference)


@pytest.fixture(autouse=True)
def _forget_deaths():
    deaths.clear()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parent_pointer_is_relinked(protocol):
    root = Node("root")
    root.adopt(Node("child"))
    loaded = round_trip(root, protocol)
    assert type(loaded.children[0].parent) is weakref.ref
    assert loaded.children[0].parent() is loaded


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_references_that_come_first_are_relinked(protocol):
    nodes = [Node(str(index)) for index in range(5)]
    loaded = round_trip({"refs": [weakref.ref(node) for node in nodes], "objs": nodes}, protocol)
    assert all(reference() is node for reference, node in zip(loaded["refs"], loaded["objs"], strict=True))


@pytest.mark.parametrize("factory", [set, frozenset, lambda: lambda: None, lambda: type("Local", (), {}), Node])
@pytest.mark.parametrize("first", ["reference", "referent"])
def test_referent_of_any_kind_is_relinked(factory, first):
    referent = factory()
    pair = [weakref.ref(referent), referent] if first == "reference" else [referent, weakref.ref(referent)]
    loaded = round_trip(pair)
    reference, copy = loaded if first == "reference" else loaded[::-1]
    assert reference() is copy


@pytest.mark.parametrize(
    "referent", [Node, test_parent_pointer_is_relinked, collections, Color.RED, SINGLETON, math.sin]
)
def test_referent_that_is_imported_is_kept_wherever_it_is_met(referent):
    reference = weakref.ref(referent)
    assert round_trip(reference)() is referent
    assert round_trip([reference], weakrefs="strict")[0]() is referent


def test_callback_travels_with_a_relinked_reference_and_fires():
    node = Node()
    pair = [weakref.ref(node, on_death), node]
    loaded = round_trip(pair)
    assert loaded[0].__callback__ is on_death
    loaded.pop()
    assert deaths == [loaded[0]]


def test_what_only_a_callback_holds_is_kept():
    """The callback of a kept referent keeps what it closes over: found in the walk after the first."""
    node, held = Node("node"), Node("held")
    graph = [weakref.ref(held), weakref.ref(node, lambda _: held), node]
    loaded = round_trip(graph)
    assert loaded[0]() is loaded[1].__callback__.__closure__[0].cell_contents


def test_child_alone_leaves_its_parent_outside():
    root = Node("root")
    root.ballast = b"x" * 10_000_000
    child = root.adopt(Node("child"))
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"1 to test_policies\.Node outside the pickle"):
        data = safepickle.dumps(child)
    assert len(data) < 10_000
    parent = safepickle.loads(data).parent
    assert isinstance(parent, safepickle.Tombstone)
    assert (parent(), parent.reason, parent.referent_type) == (None, "outside", "test_policies.Node")


def test_one_warning_counts_by_type_and_names_the_ways_out():
    outside, other = [Node(), Node()], CallableNode()
    graph = [weakref.ref(node) for node in outside] + [weakref.proxy(other)]
    with pytest.warns(safepickle.WeakReferenceWarning, match="weak reference") as caught:
        safepickle.dumps(graph)
    (warning,) = caught
    message: Any = warning.message
    assert message.counts == {"test_policies.Node": 2, "test_policies.CallableNode": 1}
    assert warning.filename == __file__
    for way_out in ("owner", 'weakrefs="strong"', 'weakrefs="tombstone"', 'weakrefs="strict"', "explain"):
        assert way_out in str(warning.message)


def test_warning_turned_into_an_error_leaves_the_file_alone():
    file = io.BytesIO(b"before")
    file.seek(0, io.SEEK_END)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(safepickle.WeakReferenceWarning, match="will load dead"):
            safepickle.dump(weakref.ref(KEPT_OUTSIDE), file)
    assert file.getvalue() == b"before"


KEPT_OUTSIDE = Node("outside")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_strong_carries_a_copy_that_the_reference_owns(protocol):
    root = Node("root")
    child = root.adopt(Node("child"))
    loaded = round_trip(child, protocol, weakrefs="strong")
    assert loaded.parent().name == "root"
    assert loaded.parent().children[0] is loaded
    assert isinstance(loaded.parent, safepickle.StrongRef)
    assert isinstance(loaded.parent, weakref.ref)
    # It stays strong when it is pickled again, by any pickler.
    for again in (round_trip(loaded), pickle.loads(pickle.dumps(loaded))):
        assert again.parent().children[0] is again


def test_strong_relinks_what_is_kept():
    root = Node("root")
    root.adopt(Node("child"))
    assert type(round_trip(root, weakrefs="strong").children[0].parent) is weakref.ref


def test_deleting_a_strong_reference_lets_the_copy_go():
    outside = Node("outside")
    reference = round_trip(weakref.ref(outside), weakrefs="strong")
    watch = weakref.ref(reference())
    del reference
    assert watch() is None


def test_tombstone_policy_relinks_nothing_and_is_silent():
    root = Node("root")
    root.adopt(Node("child"))
    parent = round_trip(root, weakrefs="tombstone").children[0].parent
    assert (parent(), parent.reason) == (None, "policy")


def test_strict_takes_what_is_kept_and_what_is_dead():
    root = Node("root")
    root.adopt(Node("child"))
    root.dead = weakref.ref(Node())
    loaded = round_trip([root.children[0], root], weakrefs="strict")
    assert loaded[0].parent() is loaded[1]
    assert loaded[1].dead.reason == "dead"


def test_strict_refuses_an_outside_referent_and_leaves_the_file_alone(tmp_path):
    root = Node("root")
    child = root.adopt(Node("child"))
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(safepickle.WeakReferenceError, match=r"test_policies\.Node") as caught:
        safepickle.dump(child, path, weakrefs="strict")
    assert isinstance(caught.value, pickle.PicklingError)
    with open(path, "ab") as file, pytest.raises(safepickle.WeakReferenceError, match="not in the pickle"):
        safepickle.dump([b"x" * 1_000_000, child], file, weakrefs="strict")
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_callable_policy_is_asked_once_for_each_outside_referent():
    asked = []

    def policy(referent):
        asked.append(referent)
        return {"a": "strong", "b": "tombstone"}[referent.name]

    a, b, kept = Node("a"), Node("b"), Node("kept")
    graph = [weakref.ref(a), weakref.ref(b), weakref.proxy(a), weakref.ref(kept), kept]
    loaded = round_trip(graph, weakrefs=policy)
    assert asked == [a, b]
    assert loaded[0]() is loaded[2]
    assert isinstance(loaded[1], safepickle.Tombstone)
    assert loaded[3]() is loaded[4]


def test_callable_policy_may_be_strict_and_must_answer_well():
    reference = weakref.ref(KEPT_OUTSIDE)
    with pytest.raises(safepickle.WeakReferenceError, match="not in the pickle"):
        safepickle.dumps(reference, weakrefs=lambda referent: "strict")
    with pytest.raises(ValueError, match="returned an object of type NoneType"):
        safepickle.dumps(reference, weakrefs=lambda referent: None)  # type: ignore[arg-type, return-value]


def test_unknown_policy_is_refused_before_anything_is_written():
    with pytest.raises(ValueError, match="weakrefs='weak' is not a weak-reference policy"):
        safepickle.dumps(1, weakrefs="weak")  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [Node, CallableNode])
@pytest.mark.parametrize("order", [1, -1])
def test_proxy_is_relinked(cls, order):
    node = cls("name")
    pair = [node, weakref.proxy(node)][::order]
    copy, proxy = round_trip(pair)[::order]
    assert type(proxy) is type(pair[::order][1])
    proxy.name = "written through the proxy"
    assert copy.name == "written through the proxy"


def test_proxy_in_a_cycle_sees_the_whole_copy():
    parent, child = Node("p"), Node("c")
    parent.child = child
    child.parent = weakref.proxy(parent)
    loaded = round_trip(parent)
    assert loaded.child.parent.name == "p"
    loaded.child.parent.name = "changed"
    assert loaded.name == "changed"


@pytest.mark.parametrize("answer", [True, False])
def test_tombstone_policy_holds_where_a_walk_is_repeated_for_the_sake_of_a_buffer(answer):
    node = Node()
    buffers = []

    def is_in_band(buffer):
        buffers.append(buffer)
        return answer

    data = safepickle.dumps(
        [pickle.PickleBuffer(bytearray(100)), node, weakref.ref(node)],
        weakrefs="tombstone",
        unpicklable="tombstone",
        buffer_callback=is_in_band,
    )
    copy = safepickle.loads(data, buffers=[] if answer else buffers)
    assert len(buffers) == 1
    assert type(copy[2]) is safepickle.Tombstone
    assert copy[2].reason == "policy"


class Operators:
    """A class whose operators must not be asked for anything when a proxy to it is dumped."""

    def _refuse(self, *others):
        raise AssertionError("an operator of the referent was called")

    __matmul__ = __rmatmul__ = __imatmul__ = __eq__ = _refuse
    __hash__ = object.__hash__


def test_looking_behind_a_proxy_runs_no_code_of_its_referent():
    operators = Operators()
    proxy, copy = round_trip([weakref.proxy(operators), operators])
    assert look_behind(proxy) == (copy, None)


def test_proxy_keeps_its_callback():
    node = Node()
    loaded = round_trip([weakref.proxy(node, on_death), node])
    loaded.pop()
    assert len(deaths) == 1


def test_proxy_to_a_class_is_relinked():
    local = type("Local", (), {"value": 3})
    loaded = round_trip([weakref.proxy(local), local])
    assert type(loaded[0]) is weakref.CallableProxyType
    assert loaded[0].value == 3


@pytest.mark.parametrize("cls", [Node, CallableNode])
def test_dead_or_outside_proxy_stays_a_dead_proxy_of_its_kind(cls):
    node = cls()
    for dead in (round_trip(weakref.proxy(node), weakrefs="tombstone"), round_trip(weakref.proxy(cls()))):
        assert type(dead) is type(weakref.proxy(node))
        with pytest.raises(ReferenceError, match="weakly-referenced object no longer exists"):
            _ = dead.name


def test_strong_proxy_is_the_copy_itself():
    node = Node("name")
    loaded = round_trip([weakref.proxy(node)], weakrefs="strong")[0]
    assert type(loaded) is Node
    assert loaded.name == "name"


def test_dead_reference_as_dict_key_survives():
    first, second = Node(), Node()
    table = {weakref.ref(first): 1, weakref.ref(second): 2}
    hashes = [hash(key) for key in table]
    del first, second
    loaded = round_trip(table)
    assert len(hashes) == len(loaded) == 2
    for key, value in loaded.items():
        assert key() is None
        assert loaded[key] == value
    assert sorted(loaded.values()) == [1, 2]


def test_dead_reference_that_was_never_hashed_survives():
    assert round_trip([weakref.ref(Node())])[0].reason == "dead"


@pytest.mark.parametrize("pickler", [pickle, safepickle])
def test_tombstone_pickles_again_with_nothing_lost(pickler):
    tombstone = safepickle.Tombstone("outside", "app.Encoder")
    again = pickler.loads(pickler.dumps(tombstone))
    assert (again(), again.reason, again.referent_type) == (None, "outside", "app.Encoder")
    assert repr(again) == "<safepickle.Tombstone: outside, was a weak reference to app.Encoder>"
    assert again != tombstone
    assert {again: 1, tombstone: 2}[again] == 1


def test_cycle_through_reduce_arguments_becomes_a_tombstone():
    kids = [Node(str(index)) for index in range(20)]
    built = Built(kids)
    for kid in kids:
        kid.parent = weakref.ref(built)
    with pytest.warns(safepickle.WeakReferenceWarning, match="built from arguments that lead back"):
        data = safepickle.dumps([built])
    assert {kid.parent.reason for kid in safepickle.loads(data)[0].parts} == {"cycle"}
    with pytest.raises(safepickle.WeakReferenceError, match="built from arguments that lead back"):
        safepickle.dumps([built], weakrefs="strict")


def test_reference_to_itself_through_reduce_arguments_ends():
    built = Built(None)
    built.parts = (weakref.ref(built), weakref.proxy(built))
    with pytest.warns(safepickle.WeakReferenceWarning, match="2 weak references will load dead"):
        data = safepickle.dumps(built)
    assert safepickle.loads(data).parts[0].reason == "cycle"


def test_what_is_built_among_its_own_arguments_is_relinked_from_there_on():
    hub, other = Node(), Node()
    built = Built(hub)
    hub.early = weakref.WeakKeyDictionary({other: built, built: other})
    hub.late = [weakref.ref(built), weakref.proxy(built)]
    hub.built, hub.other = built, other
    with pytest.warns(
        safepickle.WeakReferenceWarning, match="1 weak reference will load dead: 1 to .*Built built from"
    ):
        loaded = round_trip(built)
    assert loaded.parts.early[loaded.parts.other] is loaded.parts.late[0]() is loaded
    assert loaded.parts.late[1].parts is loaded.parts


def test_classes_of_one_name_are_counted_together():
    def make():
        class Local:
            pass

        return Local()

    lost = [make(), make()]
    with pytest.warns(safepickle.WeakReferenceWarning, match="2 weak references will load dead: 2 to .*Local outside"):
        safepickle.dumps([weakref.ref(each) for each in lost])


def test_weak_method_counts_once_where_its_class_travels_by_value():
    class Local:
        def method(self):
            """Come with the class."""

    local = Local()
    with pytest.warns(safepickle.WeakReferenceWarning, match="1 weak reference will load dead: 1 to .*Local outside"):
        safepickle.dumps(weakref.WeakMethod(local.method))
    asked = []

    def policy(referent):
        asked.append(referent)
        return "strong"

    loaded = round_trip(weakref.WeakMethod(local.method), weakrefs=policy)
    assert asked == [local]
    assert type(loaded().__self__) is Local


class TreeSet(set):
    label: str


def test_set_whose_members_point_back_is_relinked():
    tree = TreeSet()
    tree.label = "tree"
    for index in range(200):
        member = Node(str(index))
        member.parent = weakref.ref(tree)
        tree.add(member)
    for loaded in (round_trip(tree), round_trip([weakref.ref(tree), tree])[1]):
        assert loaded.label == "tree"
        assert len(loaded) == 200
        assert all(member.parent() is loaded for member in loaded)


def test_relinked_graph_loads_with_plain_pickle_and_no_safepickle(tmp_path):
    root: Any = logging.Filter("root")
    root.child = logging.Filter("child")
    root.child.parent, root.child.proxy = weakref.ref(root), weakref.proxy(root)
    root.cache = weakref.WeakValueDictionary(root=root)
    root.members = weakref.WeakSet([root.child])
    path = tmp_path / "graph.pickle"
    safepickle.dump(root, path)
    program = (
        "import pickle, sys; sys.modules['safepickle'] = None;"
        "root = pickle.load(open(sys.argv[1], 'rb'));"
        "assert root.child.parent() is root and root.child.proxy.name == 'root';"
        "assert root.cache['root'] is root and list(root.members) == [root.child]"
    )
    subprocess.run([sys.executable, "-I", "-c", program, path], check=True)


class Tree(Node):
    """Built from arguments that lead back to it."""

    parts: Any = ()

    def __reduce__(self):
        return Tree, ("tree",) if not self.parts else (self.parts,)


def warning_of(obj, **options):
    with pytest.warns(safepickle.WeakReferenceWarning, match="weak reference") as caught:
        safepickle.dumps(obj, **options)
    (warning,) = caught
    return warning.message


def test_advice_for_a_cycle_is_not_that_for_what_is_outside():
    tree = Tree("tree")
    tree.parts = [weakref.ref(tree)]
    cyclic = str(warning_of(tree))
    assert "owner" not in cyclic
    assert "from the reduce arguments into the state" in cyclic
    both = str(warning_of([tree, weakref.ref(KEPT_OUTSIDE)]))
    assert "Pickle the owner too" in both
    assert "from the reduce arguments into the state" in both


def test_advice_for_functions_by_value_names_them():
    def on_save():
        """Stand outside of the pickle."""

    class Hook:
        def method(self):
            """Belong to a class, which is the owner."""

    warning = warning_of([weakref.ref(on_save), weakref.proxy(Hook)])
    here = f"{__name__}.test_advice_for_functions_by_value_names_them.<locals>"
    assert warning.functions == (f"{here}.on_save", f"{here}.Hook")
    assert "travel by value" in str(warning)
    assert f"{here}.on_save" in str(warning)
    assert "owner" not in str(warning)
    hook = Hook()
    assert warning_of([Hook, weakref.WeakMethod(hook.method)]).functions == ()
    mixed = str(warning_of([weakref.ref(on_save), weakref.ref(KEPT_OUTSIDE)]))
    assert "pickle the owner too" in mixed
    with pytest.raises(safepickle.WeakReferenceError, match=r"on_save\) is not in the pickle. Functions and") as caught:
        safepickle.dumps([weakref.ref(on_save)], weakrefs="strict")
    assert caught.value.referent_name == f"{here}.on_save"


def test_function_of_a_script_is_named_with_the_reason():
    program = """
        import warnings, weakref, safepickle
        def on_save():
            pass
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            safepickle.dumps({"hook": weakref.ref(on_save)})
        print(caught[0].message)
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert "__main__.on_save" in said
    assert "Functions and classes of __main__, and local ones, travel by value" in said
