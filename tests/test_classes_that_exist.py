"""Classes that travel by value, loaded where they are already: what is the same is left, what differs is renewed."""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import gc
import subprocess
import sys
import textwrap
import threading
import typing
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import safepickle

FACTOR = 2


def make_node(default: Any = 1, closed: Any = "closed") -> Any:
    """Make a class that no import finds, with an attribute of each kind."""

    class Base:
        def base(self) -> Any:
            return closed

    class Node(Base):
        instances: typing.ClassVar[Any] = weakref.WeakSet()
        by_name: typing.ClassVar[Any] = weakref.WeakValueDictionary()
        lock = threading.Lock()
        missing = object()
        numbers = [1, {"a": (2, 3)}]  # noqa: RUF012
        helper = Base()
        getter = staticmethod(len)

        def __init__(self) -> None:
            super().__init__()
            Node.instances.add(self)
            Node.by_name["node"] = self

        def method(self, value: Any = default, *, other: Any = default) -> Any:
            return value, other, closed, FACTOR

        def itself(self) -> Any:
            return Node.itself

        @classmethod
        def of_class(cls) -> Any:
            return cls

        @staticmethod
        def of_nobody(value: int = 3) -> int:
            return value

        @property
        def computed(self) -> Any:
            return self.method()

        @functools.cached_property
        def cached(self) -> int:
            return 1

        @functools.lru_cache(5)  # noqa: B019
        def remembered(self) -> int:
            return 1

        partial = functools.partialmethod(method, 4)

    return Node


def load_again(obj: Any) -> Any:
    copy = safepickle.loads(safepickle.dumps(obj))
    gc.collect()
    return copy


def renewed(cls: type, before: dict[str, Any]) -> list[str]:
    return [name for name, value in before.items() if vars(cls)[name] is not value]


ROOTS: dict[str, Callable[[Any, Any], Any]] = {
    "instance": lambda cls, node: node,
    "class": lambda cls, node: [cls, node],
    "bound method": lambda cls, node: node.method,
    "bound method that names its class": lambda cls, node: [node.itself, node],
    "function": lambda cls, node: cls.method,
    "function that names its class": lambda cls, node: [cls.itself, node],
    "weak method": lambda cls, node: [weakref.WeakMethod(node.method), node],
    "base": lambda cls, node: [cls.__bases__[0], node],
}


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_what_is_the_same_is_left(root: Any) -> None:
    cls = make_node()
    node = cls()
    for _ in range(100):
        # The interpreter specializes the bytecode of what runs often.
        node.method()
    watch, called = weakref.WeakMethod(node.method), weakref.WeakMethod(node.base)
    before, base = dict(vars(cls)), dict(vars(cls.__bases__[0]))
    load_again(root(cls, node))
    assert renewed(cls, before) == []
    assert renewed(cls.__bases__[0], base) == []
    assert watch()() == (1, 1, "closed", 2)  # type: ignore[misc]
    assert called() is not None
    assert list(cls.instances) == [node]
    assert dict(cls.by_name) == {"node": node}


def test_weak_methods_and_methods_of_the_copy_live_on() -> None:
    cls = make_node()
    node = cls()
    node.watch, node.callback = weakref.WeakMethod(node.method), node.method
    copy = load_again(node)
    assert type(copy) is cls
    assert copy.watch().__self__ is copy
    assert copy.watch() == copy.method == copy.callback
    watch = copy.watch
    del copy
    gc.collect()
    assert watch() is None


def test_what_differs_is_renewed() -> None:
    cls = make_node()
    data = safepickle.dumps(cls)
    method, base = cls.method, cls.base
    cls.numbers = [2]
    cls.method.__defaults__ = (9,)
    cls.of_nobody = staticmethod(lambda value=5: value)
    del cls.computed
    safepickle.loads(data)
    assert cls.numbers == [1, {"a": (2, 3)}]
    assert cls.method is not method
    assert cls().method() == (1, 1, "closed", 2)
    assert cls.of_nobody() == 3
    assert cls().computed == (1, 1, "closed", 2)
    assert cls.base is base


@pytest.mark.parametrize("part", ["code", "default", "keyword default", "closure", "attribute"])
def test_function_that_differs_in_any_part_is_renewed(part: str) -> None:
    cls = make_node()
    data = safepickle.dumps(cls)
    other = make_node(default=7, closed="other")
    method = cls.method
    if part == "code":
        method.__code__ = other.method.__code__.replace(co_consts=(None, 1))
    elif part == "default":
        method.__defaults__ = None
    elif part == "keyword default":
        method.__kwdefaults__["other"] = 5
    elif part == "closure":
        method.__closure__[0].cell_contents = "changed"
    else:
        method.mark = 1
    safepickle.loads(data)
    assert cls.method is not method
    assert cls().method() == (1, 1, "closed", 2)


def test_a_reference_to_what_was_not_pickled_does_not_replace_a_live_one() -> None:
    cls = make_node()
    held = make_node()()
    cls.current, cls.proxy = reference, proxy = weakref.ref(held), weakref.proxy(held)
    with pytest.warns(safepickle.WeakReferenceWarning, match="2 weak references will load dead"):
        data = safepickle.dumps(cls)
    safepickle.loads(data)
    assert cls.current is reference
    assert vars(cls)["proxy"] is proxy


def make_kinds() -> list[Any]:
    @dataclasses.dataclass
    class Data:
        number: int = 1
        items: list[int] = dataclasses.field(default_factory=list)

        def method(self) -> int:
            return self.number

    class Colour(enum.Enum):
        RED = 1

        def method(self) -> int:
            return self.value

    class Abstract(abc.ABC):
        @abc.abstractmethod
        def method(self) -> int: ...

    class Pair(typing.NamedTuple):
        first: int
        second: str = "second"

        def method(self) -> int:
            return self.first

    class Slotted:
        __slots__ = ("__weakref__", "value")

        def method(self) -> int:
            return 1

    item = typing.TypeVar("item")

    class Box(typing.Generic[item]):
        def method(self) -> int:
            return 1

    class Meta(type):
        def method(cls) -> int:
            return 1

    class OfMeta(metaclass=Meta):
        def method(self) -> int:
            return 1

    return [Data, Colour, Abstract, Pair, Slotted, Box, Meta, OfMeta]


@pytest.mark.parametrize("position", range(8))
def test_kinds_of_classes_are_left(position: int) -> None:
    cls = make_kinds()[position]
    before = dict(vars(cls))
    assert load_again(cls) is cls
    assert renewed(cls, before) == []


def test_classes_are_made_once_and_registered_once() -> None:
    class Meta(type):
        made: typing.ClassVar[list[str]] = []
        kinds: typing.ClassVar[Any] = weakref.WeakSet()

        def __init__(cls, *args: Any) -> None:
            Meta.made.append(args[0])
            Meta.kinds.add(cls)

    class Base(metaclass=Meta):
        kinds: typing.ClassVar[Any] = weakref.WeakValueDictionary()

        def __init_subclass__(cls) -> None:
            Base.kinds[cls.__name__] = cls

    class Kind(Base):
        pass

    class Colour(enum.Enum):
        RED = 1

    assert type(load_again(Kind())) is Kind
    assert load_again(Colour.RED) is Colour.RED
    assert Meta.made == ["Base", "Kind"]
    assert dict(Base.kinds) == {"Kind": Kind}
    assert set(Meta.kinds) == {Base, Kind}


def test_registries_of_classes_come_along() -> None:
    """A base class and a metaclass lead back to the class that is made from them."""
    program = """
        import sys, weakref
        import safepickle

        class Meta(type):
            kinds = weakref.WeakSet()

        class Base(metaclass=Meta):
            kinds = weakref.WeakValueDictionary()

        class Kind(Base):
            pass

        Base.kinds["Kind"] = Kind
        Meta.kinds.update([Kind, Base])
        sys.stdout.buffer.write(safepickle.dumps([Kind(), Kind, Base, Meta]))
        """
    load = """
        import sys, safepickle
        node, Kind, Base, Meta = safepickle.loads(sys.stdin.buffer.read())
        assert type(node) is Kind and Kind.__bases__ == (Base,) and type(Base) is Meta
        assert dict(Base.kinds) == {"Kind": Kind} and set(Meta.kinds) == {Kind, Base}
        """
    written = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)], check=True, stdout=subprocess.PIPE
    )
    subprocess.run([sys.executable, "-c", textwrap.dedent(load)], input=written.stdout, check=True)


def test_script_keeps_its_weak_methods_and_its_registry() -> None:
    """Classes of `__main__` are found by an id, and their functions have the globals of the script."""
    program = """
        import gc, weakref
        import safepickle

        COUNT = [0]

        class Node:
            nodes = weakref.WeakSet()

            def __init__(self):
                self.nodes.add(self)

            def notify(self):
                COUNT[0] += 1
                return COUNT[0]

        node = Node()
        watch, nodes = weakref.WeakMethod(node.notify), Node.nodes
        data = safepickle.dumps([node, node.notify, weakref.WeakMethod(node.notify)])
        node.notify()
        copy, method, copied_watch = safepickle.loads(data)
        gc.collect()
        assert watch() is not None and copied_watch()() == 2
        assert Node.nodes is nodes and node in nodes
        assert type(copy) is Node and method == copy.notify
        """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(program)], check=True)


def test_worker_that_had_the_class_by_pickle_gets_the_globals_of_today() -> None:
    program = """
        import sys, types
        import safepickle

        FACTOR = 3

        class Scaler:
            def scale(self, number):
                return FACTOR * number

        before = safepickle.dumps(Scaler)
        FACTOR = 4
        after = safepickle.dumps(Scaler)
        sys.stdout.buffer.write(safepickle.dumps([before, before, after]))
        """
    load = """
        import sys, safepickle
        before, again, after = safepickle.loads(sys.stdin.buffer.read())
        cls = safepickle.loads(before)
        scale = cls.scale
        assert safepickle.loads(again) is cls and cls.scale is scale and cls().scale(2) == 6
        assert safepickle.loads(after) is cls and cls().scale(2) == 8
        """
    data = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=True).stdout
    subprocess.run([sys.executable, "-c", textwrap.dedent(load)], input=data, check=True)
