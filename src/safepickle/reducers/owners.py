"""Who owns an object, where nothing but the garbage collector can tell."""

from __future__ import annotations

import gc
from collections.abc import Collection, Container
from typing import Any

__all__ = ["owned_by"]


def owned_by(owners: Container[int], objects: Collection[object]) -> set[int]:
    """Return the ids of those of `objects` that are attributes of one of `owners`.

    All live objects are gone through once or twice, however many `objects` there are.

    Args:
        owners: The ids of the owners.
        objects: Containers, which the garbage collector knows.
    """
    wanted = {id(obj) for obj in objects}
    owned: set[int] = set()
    namespaces: dict[int, tuple[dict[Any, Any], set[int]]] = {}
    for referrer in gc.get_referrers(*objects):
        if id(referrer) in owners:
            owned |= wanted.intersection(map(id, gc.get_referents(referrer)))
        elif type(referrer) is dict:
            namespaces[id(referrer)] = (referrer, wanted.intersection(map(id, referrer.values())))
    # An object shows its attributes, or its dictionary shows them.
    for referrer in gc.get_referrers(*(namespace for namespace, _ in namespaces.values())) if namespaces else ():
        if id(referrer) in owners:
            for child in gc.get_referents(referrer):
                owned |= namespaces.get(id(child), (None, set()))[1]
    return owned
