"""Where an object is: the path to a known object, and the path to whatever made a dump fail.

Nothing here runs unless a dump has failed or somebody asks, so a dump that succeeds pays nothing for it.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from safepickle.errors import WeakReferenceError
from safepickle.report.naming import Edge, join, shorten, weak_edges
from safepickle.report.probe import Expansion, Probe
from safepickle.report.survey import Question, Survey, surveying
from safepickle.report.walk import Walk

if TYPE_CHECKING:
    from safepickle.pickler import Pickler

__all__ = ["annotate", "find_path", "locate_failure"]

_MAX_OBJECTS: Final = 5_000_000
"""Where a search gives up: an object whose reducer always makes new ones has no end."""


def find_path(root: Any, target: object, pickler: Pickler | None = None) -> str | None:
    """Find the path from `root` to `target`, which is known by identity.

    Weak references are followed only if `target` is not found without.

    Args:
        root: Where the path begins: ``$``.
        target: What it leads to.
        pickler: Whose reducers say what an object contains; by default, those of a new `Pickler`.

    Returns:
        The shortest path, or None when `target` is not in the graph.
    """
    if root is target:
        return "$"
    pickler = _new_pickler() if pickler is None else pickler
    with surveying(pickler) as survey:
        walk = Walk(root, _probe(pickler))
        for _ in _visits(walk, survey, everything=True):
            if id(target) in walk.numbers:
                return walk.path(walk.numbers[id(target)])
    return None


def locate_failure(root: Any, error: BaseException, pickler: Pickler | None = None) -> str | None:
    """Find the object over which a dump has failed.

    Each object is pickled again, alone, until one raises the same error.

    Args:
        root: What was dumped.
        error: What the dump raised.
        pickler: What it was dumped with.

    Returns:
        The path of the object nearest to the root that raises an exception of the same type with the same message,
        or else of the same type; None when there is none.
    """
    pickler = _new_pickler() if pickler is None else pickler
    if isinstance(error, RecursionError):
        return _deepest_path(root, pickler)
    similar: str | None = None
    with surveying(pickler) as survey:
        walk = Walk(root, _probe(pickler))
        for number, expansion in _visits(walk, survey, everything=_makes_strong_copies(pickler)):
            if type(expansion.error) is type(error):
                if str(expansion.error) == str(error):
                    return walk.path(number)
                similar = similar or walk.path(number)
    return similar


def annotate(error: BaseException, root: Any, pickler: Pickler) -> None:
    """Give the error of a failed dump the path of the object that caused it: a note and ``pickle_path``.

    Does nothing when the path cannot be found, and raises nothing: the error itself matters more.
    """
    if not _is_about_an_object(error):
        return
    try:
        if isinstance(error, WeakReferenceError):
            path = error.path or find_path(root, pickler._offender, pickler)
            error.path = path
            error.args = (path, *error.args[1:])
        else:
            path = locate_failure(root, error, pickler)
            if path is not None:
                error.add_note(f"{_NOTES.get(type(error), _NOTE).format(shorten(path))}{_ADVICE}")
        error.pickle_path = path  # type: ignore[attr-defined]
    except Exception:
        return


_NOTE: Final = "The object that cannot be pickled is at {}"
_NOTES: Final[dict[type[BaseException], str]] = {
    RecursionError: "The objects are nested too deep for pickle at {}",
}
_ADVICE: Final = "\nsafepickle.explain(obj) lists everything that cannot be pickled, and where it is."


def _is_about_an_object(error: BaseException) -> bool:
    """Tell whether an error can come from an object."""
    if not isinstance(error, Exception) or isinstance(error, Warning | MemoryError):
        return False
    traceback: types.TracebackType | None = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == "safepickle.files":
            # The file could not be written.
            return False
        traceback = traceback.tb_next
    return True


def _visits(walk: Walk, survey: Survey, everything: bool) -> Iterator[tuple[int, Expansion]]:
    """Visit what is reached without following a weak reference, then what hangs on kept referents.

    Args:
        walk: The walk.
        survey: What its reducers ask.
        everything: Follow weak references to outside referents as well, but last.
    """
    waiting: list[tuple[int, Question]] = []
    while True:
        for number, expansion in walk:
            waiting.extend((number, question) for question in survey.take())
            yield number, expansion
            if len(walk.objects) > _MAX_OBJECTS:
                return
        due = [(number, asked) for number, asked in waiting if id(asked.referent) in walk.numbers]
        if not due and everything:
            due = waiting
        if not due:
            return
        done = {id(asked) for _, asked in due}
        waiting = [entry for entry in waiting if id(entry[1]) not in done]
        for number, asked in due:
            edges = weak_edges(asked.reference)
            parent = walk.numbers.get(id(asked.reference), number)
            for child in (asked.referent, *asked.dependents):
                walk.enter(parent, edges.get(id(child), ""), child)


def _deepest_path(root: Any, pickler: Pickler) -> str:
    """Walk as the pickler does, depth first, and return the path at which objects are nested deepest."""
    deepest: list[Edge] = []
    with surveying(pickler):
        probe = _probe(pickler)
        seen: dict[int, Any] = {id(root): root}
        stack = [iter(probe.expand(root).children)]
        edges: list[Edge] = []
        while stack and len(edges) < sys.getrecursionlimit() and len(seen) < _MAX_OBJECTS:
            edge, child = next(stack[-1], (None, stack))
            if child is stack:
                stack.pop()
                del edges[-1:]
                continue
            if id(child) in seen:
                continue
            seen[id(child)] = child
            stack.append(iter(probe.expand(child).children))
            edges.append(edge)
            if len(edges) > len(deepest):
                deepest = edges.copy()
        return join(deepest)


def _makes_strong_copies(pickler: Pickler) -> bool:
    return pickler._weakrefs == "strong" or callable(pickler._weakrefs)


def _new_pickler() -> Pickler:
    import io

    from safepickle.pickler import Pickler

    return Pickler(io.BytesIO())


def _probe(pickler: Pickler) -> Probe:
    return Probe(pickler, pickler.proto, getattr(pickler, "persistent_id", None))
