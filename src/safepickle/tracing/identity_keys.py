"""Registries that are keyed by `id`: a copy has another, so after a load nothing is found under the old one.

Python gives ids no type of their own. An integer that is the id of an object in the same graph is taken for one.
"""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from safepickle.messages import dotted_name

__all__ = ["count_identity_keys", "identity_keys"]

_REGISTRIES = frozenset({dict, set, weakref.WeakValueDictionary})


def identity_keys(obj: Any, ids: Container[int]) -> Iterator[int]:
    """Yield the ids among the keys of a dictionary, the members of a set, or what is in a tuple there.

    Args:
        obj: Any object.
        ids: Those of the objects of the graph.
    """
    cls = type(obj)
    if issubclass(cls, dict):
        keys: Iterable[Any] = dict.keys(obj)
    elif issubclass(cls, set):
        keys = set.__iter__(obj)
    elif issubclass(cls, weakref.WeakValueDictionary):
        keys = obj.data.copy()
    else:
        return
    for position, key in enumerate(keys):
        if type(key) is int:
            if key in ids:
                yield key
        elif type(key) is tuple:
            yield from (part for part in key if type(part) is int and part in ids)
        elif position == 0:
            # The attributes of an object, or another mapping that knows nothing of ids.
            return


def count_identity_keys(memo: Mapping[int, tuple[int, Any]]) -> dict[str, int]:
    """Count the keys that are an id, by the dotted name of the type of the object that has it.

    Args:
        memo: The memo of a pickler: all that it has written, by id.
    """
    counts: dict[str, int] = {}
    # At a glance, since every object is looked at: nearly all dictionaries are attributes or have names for keys.
    classes = {cls for cls in {type(obj) for _, obj in memo.values()} if not _REGISTRIES.isdisjoint(cls.__mro__)}
    registries = [
        obj
        for _, obj in memo.values()
        if (cls := type(obj)) in classes and (cls is not dict or type(next(iter(obj), "")) is not str)
    ]
    for obj in registries:
        for key in identity_keys(obj, memo):
            name = dotted_name(type(memo[key][1]))
            counts[name] = counts.get(name, 0) + 1
    return counts
