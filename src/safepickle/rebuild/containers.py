"""Weak containers, and what else is built empty first, so that its members can lead back to it."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, TypeVar

from safepickle.rebuild.mark import file_format
from safepickle.weak_types import weak_type_of

__all__ = [
    "OWNED_ATTRIBUTE",
    "fill_weak_container",
    "rebuild_root",
    "rebuild_set_members",
    "rebuild_weak_container",
    "rebuild_weak_entries",
    "set_attributes",
]

T = TypeVar("T")

OWNED_ATTRIBUTE = "_safepickle_owned"
"""The attribute by which a weak container owns what a strong copy brought in."""


@file_format
def rebuild_weak_container(cls: Any) -> Any:
    """Build an empty weak container of `cls` with the constructor of its standard base class; state follows."""
    # A constructor of its own may want arguments, `__new__` too.
    container = object.__new__(cls) if type(cls.__new__) is types.FunctionType else cls.__new__(cls)
    weak_type_of(cls).base.__init__(container)
    return container


@file_format
def rebuild_weak_entries(container: object, state: tuple[object, Iterable[object], tuple[object, ...]]) -> None:
    """Fill a weak container: its attributes first, then its entries, then what it owns.

    Entries go in through the standard base class, so that a subclass's own ``__setitem__`` or ``add``, which may check
    or count, does not run a second time.

    Args:
        container: What `rebuild_weak_container` has built.
        state: Attributes (what ``object.__getstate__`` gives, or None); entries (members, or pairs); owned referents.
    """
    fill_weak_container(container, *state)


def fill_weak_container(
    container: object, attributes: object, items: Iterable[object], owned: tuple[object, ...]
) -> None:
    """Fill a weak container of any library. See `rebuild_weak_entries`."""
    set_attributes(container, attributes)
    weak = weak_type_of(type(container))
    for item in items:
        weak.put(container, item)
    if owned:
        setattr(container, OWNED_ATTRIBUTE, owned)


@file_format
def rebuild_set_members(container: Any, state: tuple[object, Iterable[object]]) -> None:
    """Fill an instance of a `set` subclass: its attributes, then its members."""
    attributes, members = state
    set_attributes(container, attributes)
    set.update(container, members)


@file_format
def rebuild_root(steps: object, root: T) -> T:
    """Return the root of a graph that nests deeply, which has been built step by step."""
    return root


def set_attributes(obj: Any, attributes: Any) -> None:
    """Set attributes from what ``object.__getstate__`` returns: a dict, a pair of dict and slots, or None.

    A user's ``__setstate__`` comes first, as in pickle.
    """
    if attributes is None:
        return
    setstate = getattr(obj, "__setstate__", None)
    if setstate is not None:
        setstate(attributes)
        return
    slots = None
    if isinstance(attributes, tuple) and len(attributes) == 2:
        attributes, slots = attributes
    if attributes:
        obj.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        setattr(obj, name, value)
