"""Where an object is: the path to a known object, and the path to whatever made a dump fail.

Nothing here runs unless a dump has failed or somebody asks, so a dump that succeeds pays nothing for it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from safepickle.cpython import count_notes_of_pickle, drop_notes_of_pickle
from safepickle.errors import WeakReferenceError
from safepickle.messages import shorten
from safepickle.options import OutsideFate
from safepickle.tracing.expand import Expander
from safepickle.tracing.made import EndlessError
from safepickle.tracing.naming import Edge, join
from safepickle.tracing.recording import recording
from safepickle.tracing.reducing import ReducingPickler
from safepickle.tracing.traversal import MAX_OBJECTS, Traversal, leave_outside

__all__ = ["annotate", "find_path", "is_about_an_object", "locate_failure", "pass_path_on"]


def find_path(root: object, target: object, pickler: ReducingPickler) -> str | None:
    """Find the path from `root` to `target`, which is known by identity.

    Weak references are followed only if `target` is not found without.

    Args:
        root: Where the path begins: ``$``.
        target: What it leads to.
        pickler: Whose reducers say what an object contains.

    Returns:
        The shortest path, or None when `target` is not in the graph.
    """
    if root is target:
        return "$"
    traversal = Traversal(root, pickler, outside=True)
    walk = traversal.walk
    for _ in traversal:
        if id(target) in walk.numbers:
            return walk.whole_path(walk.numbers[id(target)])
    return None


def locate_failure(root: object, error: BaseException, pickler: ReducingPickler) -> str | None:
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
    return _find_failure(root, error, pickler)[0]


def _find_failure(root: object, error: BaseException, pickler: ReducingPickler) -> tuple[str | None, Exception | None]:
    """Return the path of the object over which a dump has failed, and what it raises alone, where that is known."""
    if isinstance(error, EndlessError):
        return _deepest_path(root, pickler), None
    similar: tuple[str | None, Exception | None] = (None, None)
    traversal = Traversal(root, pickler, _copy if pickler.dump_options.may_copy else leave_outside)
    for number, expansion in traversal:
        if type(expansion.error) is type(error):
            path = traversal.walk.whole_path(number)
            if str(expansion.error) == str(error):
                return path, expansion.error
            similar = similar if similar[0] else (path, expansion.error)
    if similar[0] is None and isinstance(error, RecursionError):
        return _deepest_path(root, pickler), None
    return similar


def annotate(error: BaseException, root: object, pickler: ReducingPickler) -> None:
    """Give the error of a failed dump the path of the object that caused it: a note and ``pickle_path``.

    CPython's own notes on the way there are dropped, since the path says the same; those on what happens below the
    object, say in a dump that its `__reduce__` makes, are kept.

    Does nothing when the path cannot be found, and raises nothing: the error itself matters more.
    """
    if not is_about_an_object(error, pickler):
        if isinstance(error, OSError):
            drop_notes_of_pickle(error)
        return
    try:
        if isinstance(error, WeakReferenceError):
            path = error.path or find_path(root, pickler.offender, pickler)
            error.path = path
            error.args = (path, *error.args[1:])
            if path is not None:
                drop_notes_of_pickle(error)
        else:
            path, alone = _find_failure(root, error, pickler)
            if path is not None:
                drop_notes_of_pickle(error, kept=0 if alone is None else count_notes_of_pickle(alone))
                error.add_note(f"{_NOTES.get(type(error), _NOTE).format(shorten(path))}{_ADVICE}")
        error.pickle_path = path  # type: ignore[attr-defined]
    except Exception:
        return


def pass_path_on(error: BaseException | None, outer: BaseException) -> None:
    """Give the error that an engine raises in place of a dump's what that one says about the path.

    Args:
        error: What the dump has raised, annotated.
        outer: What the engine raises.
    """
    path = getattr(error, "pickle_path", None)
    if path is None or hasattr(outer, "pickle_path"):
        return
    outer.pickle_path = path  # type: ignore[attr-defined]
    for note in getattr(error, "__notes__", None) or [str(error)]:
        outer.add_note(note)


_NOTE: Final = "The object that cannot be pickled is at {}"
_NOTES: Final[dict[type[BaseException], str]] = {
    RecursionError: "Pickling recurses too deeply at {}",
    EndlessError: "Pickling has no end at {}",
}
_ADVICE: Final = "\nsafepickle.explain(obj) lists everything that cannot be pickled, and where it is."


def is_about_an_object(error: BaseException, pickler: ReducingPickler) -> bool:
    """Tell whether the error of a dump can come from an object."""
    return isinstance(error, Exception) and not isinstance(error, Warning | MemoryError) and not pickler.file_failed


def _deepest_path(root: object, pickler: ReducingPickler) -> str:
    """Walk as the pickler does, depth first, and return the path at which objects are nested deepest."""
    deepest: list[Edge] = []
    with recording(pickler):
        expander = Expander(pickler, pickler.proto, getattr(pickler, "persistent_id", None))
        seen: dict[int, Any] = {id(root): root}
        stack = [iter(expander.expand(root).children)]
        edges: list[Edge] = []
        while stack and len(edges) < sys.getrecursionlimit() and len(seen) < MAX_OBJECTS:
            edge, child = next(stack[-1], (None, stack))
            if child is stack:
                stack.pop()
                del edges[-1:]
                continue
            if id(child) in seen:
                continue
            seen[id(child)] = child
            stack.append(iter(expander.expand(child).children))
            edges.append(edge)
            if len(edges) > len(deepest):
                deepest = edges.copy()
        return join(deepest)


def _copy(referent: object) -> OutsideFate:
    return "strong"
