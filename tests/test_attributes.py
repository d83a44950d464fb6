"""What a loaded object lacks of what its class sets today, and what it has too much."""

from __future__ import annotations

import dataclasses
import sys
import types
import weakref
from typing import Any

import pytest

import safepickle
from nodes import round_trip


class Base:
    """Sets one attribute."""

    def __init__(self) -> None:
        self.registered: list[Any] = []


class Net(Base):
    """Sets attributes in all the ways there are."""

    default = 1

    def __init__(self, depth: int = 2, name: str = "net") -> None:
        super().__init__()
        self.depth = depth
        self.name, self.tags = name, ["a"]
        self.kind: str = "net"
        if depth > 1:
            self.deep = True
        self.default = 2
        self._build()

    def _build(self) -> None:
        self.built = [lambda: self.late]  # type: ignore[attr-defined]
        self._build_more()

    def _build_more(self) -> None:
        self.more = 3

    def later(self) -> None:
        self.cache = 5

    @property
    def doubled(self) -> int:
        return self.depth * 2


@dataclasses.dataclass
class Config:
    """Sets its fields."""

    rate: float = 0.5
    steps: int = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """Sets its fields in slots."""

    rate: float
    steps: int


def without(obj: Any, *names: str) -> Any:
    """Return a copy, as an older version of the class would have left it."""
    restored = round_trip(obj)
    for name in names:
        object.__delattr__(restored, name)
    return restored


def test_an_object_as_its_class_makes_it_is_not_listed() -> None:
    net = Net()
    net.later()
    assert safepickle.compare_attributes([net, Config(), Frozen(1.0, 2), 3, "text", {"a": Base()}]) == []
    assert safepickle.compare_attributes(round_trip(net)) == []


def test_attributes_that_init_sets_and_the_state_lacks_are_listed() -> None:
    net = without(Net(), "registered", "tags", "deep", "built", "more", "kind", "depth")
    (found,) = safepickle.compare_attributes({"model": [net]})
    assert found.path == "$['model'][0]"
    assert found.type == f"{__name__}.Net"
    assert set(found.lacking) == {"registered", "tags", "deep", "built", "more", "kind", "depth"}
    assert found.unknown == ()


def test_attributes_that_the_class_does_not_mention_are_listed() -> None:
    net = Net()
    net.__dict__["_old_buffers"] = 1
    (found,) = safepickle.compare_attributes(net)
    assert (found.lacking, found.unknown) == ((), ("_old_buffers",))
    assert str(found) == f"$ ({__name__}.Net) has _old_buffers, which its class does not mention"


def test_an_attribute_with_a_default_in_the_class_is_not_lacking() -> None:
    assert safepickle.compare_attributes(without(Net(), "default")) == []


def test_fields_of_dataclasses_are_known() -> None:
    config = without(Config(), "steps")
    assert safepickle.compare_attributes(config) == []  # the class has a default
    frozen = without(Frozen(1.0, 2), "steps")
    (found,) = safepickle.compare_attributes([frozen])
    assert found.lacking == ("steps",)


def test_each_object_is_listed_once_and_weak_references_do_not_matter() -> None:
    net = without(Net(), "name")
    found = safepickle.compare_attributes([net, net, weakref.ref(net)])
    assert [one.path for one in found] == ["$[0]"]


def test_a_class_with_getattr_is_asked() -> None:
    class Module:
        def __init__(self) -> None:
            self.parts = {"layer": 1}
            self.layer = 1
            del self.layer

        def __getattr__(self, name: str) -> Any:
            if name == "parts" or name not in self.parts:
                raise AttributeError(name)
            return self.parts[name]

    module = Module()
    assert safepickle.compare_attributes(module) == []
    module.parts.clear()
    (found,) = safepickle.compare_attributes(module)
    assert found.lacking == ("layer",)


def test_methods_that_call_each_other_are_each_followed_once() -> None:
    calls = "".join(f"        self.method{number}()\n" for number in range(12))
    methods = "".join(f"    def method{number}(self):\n        self.a{number} = 1\n{calls}" for number in range(12))
    made: dict[str, Any] = {"__name__": __name__}
    exec(f"class Woven:\n    def __init__(self):\n{calls}{methods}", made)
    (found,) = safepickle.compare_attributes(made["Woven"].__new__(made["Woven"]))
    assert found.lacking == tuple(f"a{number}" for number in range(12))


def test_a_class_that_changed_since_is_compared_as_it_is_today(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("project_that_changes")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class Net:\n    def __init__(self):\n        self.weights, self.bias = [1], 0\n", vars(module))
    data = safepickle.dumps(module.Net())
    exec("class Net:\n    def __init__(self):\n        self.weights, self.scale = [1], 1.0\n", vars(module))
    (found,) = safepickle.compare_attributes(safepickle.loads(data))
    assert (found.lacking, found.unknown) == (("scale",), ("bias",))
    assert str(found) == (
        "$ (project_that_changes.Net) lacks scale, which its __init__ sets "
        "and has bias, which its class does not mention"
    )
