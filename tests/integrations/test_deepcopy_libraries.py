"""Deep copies of objects of other libraries, and what these copy by `copy.deepcopy` inside `safepickle.deepcopying`."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import blinker
import pandas
import pydantic
import pytest

import safepickle
from nodes import Node


def by_deepcopying(obj: Any) -> Any:
    with safepickle.deepcopying():
        return copy.deepcopy(obj)


@pytest.fixture(params=[safepickle.deepcopy, by_deepcopying])
def duplicate(request: pytest.FixtureRequest) -> Any:
    return request.param


# pandas, whose `__deepcopy__` does not hand the memo on


def test_attributes_of_frames_and_series(duplicate: Any) -> None:
    owner = Node(frame=pandas.DataFrame({"a": [1]}), series=pandas.Series([1]))
    owner.frame.attrs.update(owner=weakref.ref(owner), nested=[(weakref.ref(owner),)])
    owner.series.attrs.update(owner=weakref.ref(owner), me=weakref.ref(owner.series))
    for copied in (duplicate(owner), duplicate([owner.frame, owner.series, owner])[2]):
        assert copied.frame.attrs["owner"]() is copied.frame.attrs["nested"][0][0]() is copied
        assert copied.series.attrs["owner"]() is copied
        assert copied.series.attrs["me"]() is copied.series
        copied.frame.loc[0, "a"] = 2
    assert owner.frame.loc[0, "a"] == 1
    assert owner.frame.attrs["owner"]() is owner


# pydantic, whose `model_copy` has no memo


@pytest.fixture(scope="module")
def family() -> Any:
    class Child(pydantic.BaseModel):
        name: str
        _parent: Any = pydantic.PrivateAttr(None)

    class Parent(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, extra="allow")
        children: list[Any]
        node: Any = None
        _first: Any = pydantic.PrivateAttr(None)

    parent = Parent(children=[Child(name="a"), Child(name="b")], more=[])
    for child in parent.children:
        child._parent = weakref.ref(parent)
    parent._first = weakref.ref(parent.children[0])
    parent.more.append(weakref.ref(parent))
    parent.node = Node(child=Node())
    parent.node.child.parent = weakref.ref(parent.node)
    return parent


def _is_whole(parent: Any) -> bool:
    return (
        all(child._parent() is parent for child in parent.children)
        and parent._first() is parent.children[0]
        and parent.more[0]() is parent
        and parent.node.child.parent() is parent.node
    )


def test_models_of_pydantic(family: Any, duplicate: Any) -> None:
    copied = duplicate([family])[0]
    assert copied is not family
    assert _is_whole(copied)


def test_deep_model_copies_of_pydantic(family: Any) -> None:
    with safepickle.deepcopying():
        first, second = family.model_copy(deep=True), family.model_copy(deep=True, update={"node": family.node})
        inner = family.children[0].model_copy(deep=True)
    assert _is_whole(first)
    assert _is_whole(second)
    assert second.node is family.node
    assert inner._parent() is family
    assert not _is_whole(family.model_copy(deep=True))
    assert _is_whole(family)


# blinker, whose callbacks close over the signal


class Receiver:
    def __init__(self) -> None:
        self.received: list[Any] = []

    def receive(self, sender: Any) -> None:
        self.received.append(sender)


def test_signal_of_blinker_forgets_nothing_when_its_copy_goes(duplicate: Any) -> None:
    app = Node(signal=blinker.Signal(), receiver=Receiver(), sender=Node())
    app.signal.connect(app.receiver.receive)
    app.signal.connect(app.receiver.receive, sender=app.sender)
    copied = duplicate(app)
    copied.signal.send(copied.sender)
    assert (copied.receiver.received, app.receiver.received) == ([copied.sender], [])
    del copied.receiver
    gc.collect()
    assert not copied.signal.receivers
    del copied
    gc.collect()
    app.signal.send(app.sender)
    assert app.receiver.received == [app.sender]


def test_signal_of_blinker_knows_the_copies_and_whoever_stays_outside(duplicate: Any) -> None:
    outside = Receiver()
    app = Node(signal=blinker.Signal(), receiver=Receiver(), sender=Node())
    app.signal.connect(app.receiver.receive, sender=app.sender)
    app.signal.connect(outside.receive, sender=app.sender)
    copied = duplicate(app)
    copied.signal.send(app.sender)
    assert (copied.receiver.received, outside.received) == ([], [])
    copied.signal.send(copied.sender)
    assert copied.receiver.received == outside.received == [copied.sender]
    assert app.receiver.received == []
