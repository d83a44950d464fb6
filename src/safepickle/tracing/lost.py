"""Where the references are that a dump has lost: what its warning says.

Nothing here runs unless a dump has something to warn about.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Generator, Mapping
from typing import Any, Final

from safepickle.errors import LostReference
from safepickle.messages import dotted_name
from safepickle.reducers.decisions import Dump
from safepickle.tracing.identity_keys import identity_keys
from safepickle.tracing.naming import kind_of
from safepickle.tracing.reducing import ReducingPickler
from safepickle.tracing.traversal import Traversal

__all__ = ["lost_references"]

_MOST_WALKED: Final = 5_000
"""A dump may warn each time, so that the walk takes a fraction of a second at most."""

_MOST_NAMED: Final = 1_000


def lost_references(
    root: object, pickler: ReducingPickler, known: Dump, count: int, memo: Mapping[int, Any]
) -> tuple[LostReference, ...]:
    """Find what a dump warns about.

    Args:
        root: What was dumped.
        pickler: What it was dumped with, still in the dump.
        known: What the dump knows.
        count: How many there are.
        memo: Where to look for what has a key that is its `id`.

    Returns:
        The nearest of them: fewer where there are very many, or where the walk would be long.
    """
    found = _find(root, pickler, known, memo)
    try:
        return tuple(lost for _, lost in zip(range(min(count, _MOST_NAMED)), found, strict=False))
    except Exception:
        # A reducer that did not fail before: the warning itself matters more.
        return ()
    finally:
        found.close()


def _find(root: object, pickler: ReducingPickler, known: Dump, memo: Mapping[int, Any]) -> Generator[LostReference]:
    # Under protocol 5 a large array shows its buffer, and is not copied once more.
    traversal = Traversal(root, pickler, is_stored=known.is_persisted, protocol=pickle.HIGHEST_PROTOCOL)
    taken = 0
    with contextlib.closing(iter(traversal)) as visits:
        for number, _ in visits:
            for asked_over, question in traversal.questions[taken:]:
                reason = known.reason_for_loss(question.reference, question.referent)
                if reason is not None:
                    kind, of = kind_of(question.reference), dotted_name(type(question.referent))
                    yield traversal.path(asked_over, question), kind, of, reason
            taken = len(traversal.questions)
            if memo:
                obj = traversal.walk.objects[number]
                for key in identity_keys(obj, memo):
                    of = dotted_name(type(memo[key][1]))
                    yield traversal.walk.path(number), kind_of(obj), of, "identity key"
            if number >= _MOST_WALKED:
                return
