"""Dump all that can be pickled: what nothing can pickle is replaced by a tombstone, and the rest is saved.

An ordinary dump comes first, so that a graph with nothing unpicklable costs nothing more. When it fails, every object
of the graph is pickled alone, by the walk that finds paths for errors, and the dump is repeated with a substitute for
each object over which the pickler raised. What such an object was needed to build may then fail as well when it is
loaded, so it is written to become a tombstone in that case.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Final

from safepickle import rebuild
from safepickle.dumping.base_pickler import BasePickler
from safepickle.errors import UnpicklableWarning, WeakReferenceError
from safepickle.messages import dotted_name
from safepickle.options import OutsideFate
from safepickle.reduce_value import ReduceTuple, ReduceValue, in_full
from safepickle.tracing.error_paths import is_about_an_object
from safepickle.tracing.traversal import Traversal
from safepickle.tracing.walk import Walk

__all__ = ["dump_partially"]

_EXACT_BUILTINS: Final = frozenset({dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool})
"""The C pickler never shows these to ``reducer_override``, so nothing can be put in their place."""

_BY_NAME: Final = (type, types.FunctionType, types.ModuleType)
"""Never built from something unpicklable, or for cloudpickle to build."""

_UNKNOWN_PATH: Final = "a place that its owner makes up when it is pickled"

_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})


def dump_partially(pickler: BasePickler, obj: object) -> None:
    """Dump `obj`, and replace what cannot be pickled, as the pickler's option ``unpicklable`` says.

    Raises:
        Exception: What the dump raises, if its cause is not a single object, or if the root itself would have to go.

    Warns:
        UnpicklableWarning: Objects were replaced by tombstones.
    """
    try:
        pickler.dump_whole(obj)
        return
    except Exception as error:
        if not _is_about_an_object(error, pickler):
            raise
        failure = error
    partial = _PartialDump(pickler, obj)
    pickler.in_front = partial.reduce
    pickler.substitutes = partial.substitutes
    try:
        while True:
            if not partial.find_unpicklable():
                raise failure
            if pickler._relay is not None:
                pickler._relay.begin_walk()
            try:
                pickler.dump_whole(obj, partial.warning)
                return
            except Exception as error:
                if not _is_about_an_object(error, pickler):
                    raise
                failure = error
    finally:
        del pickler.in_front, pickler.substitutes


def _is_about_an_object(error: Exception, pickler: BasePickler) -> bool:
    return is_about_an_object(error, pickler) and not isinstance(error, (WeakReferenceError, RecursionError))


class _PartialDump:
    """What is known of the unpicklable objects of one graph, attempt after attempt.

    Attributes:
        substitutes: What is pickled in the place of objects, by their ids.
    """

    def __init__(self, pickler: BasePickler, root: object) -> None:
        self._pickler = pickler
        self._root = root
        self._reduce = pickler.reducer_override
        # All by the id of an object, which a walk holds, so that its id stays its own.
        self.substitutes: dict[int, ReduceTuple] = {}
        self._lost: dict[int, tuple[str, str, str]] = {}
        self._failed: dict[int, _Failed] = {}
        self._guarded_paths: dict[int, str] = {}
        self._known_ids: dict[int, int] = {}
        self._is_walking = False
        self._met: set[int] = set()

    @property
    def warning(self) -> UnpicklableWarning | None:
        """The warning that lists the tombstones, or None when a callable has replaced everything."""
        return UnpicklableWarning(list(self._lost.values())) if self._lost else None

    def reduce(self, obj: object) -> ReduceValue:
        """Go before the pickler's ``reducer_override``."""
        key = id(obj)
        substitute = self.substitutes.get(key)
        if substitute is not None:
            self._met.add(key)
            known = self._pickler._dump
            if known is not None and known.tracking:
                known.enter(obj)
            return substitute
        path = self._guarded_paths.get(key)
        if path is None and (self._is_walking or key in self._known_ids):
            return self._reduce(obj)
        value = self._reduce(obj)
        if value is NotImplemented and not isinstance(obj, _BY_NAME):
            value = self._pickler.reduce_value(obj)
        # A reducer may make new objects each time, which no walk has met.
        if type(value) is not tuple or (path is None and not self._uses_tombstone(obj, value)):
            return value
        return _guarded(obj, value, path or _UNKNOWN_PATH)

    def find_unpicklable(self) -> bool:
        """Find what to replace next; return whether there was anything."""
        failures: list[_Failed] = []
        uses: list[tuple[int, list[int]]] = []
        self._guarded_paths.clear()
        self._is_walking = True
        traversal = Traversal(self._root, self._pickler, self._fate)
        walk = traversal.walk
        for number, expansion in traversal:
            obj = walk.objects[number]
            if expansion.error is not None:
                failures.append(_Failed(walk, number, _described(expansion.error)))
            elif type(expansion.value) is tuple and id(obj) not in self.substitutes:
                uses.append((number, [id(used) for used in _within(_what_is_used(obj, expansion.value))]))
        try:
            found = self._give_up_on_temporaries()
        except _NothingLeftError:
            return False
        for failed in failures:
            found |= self._replace_nearest(failed)
        self._find_dependents(walk, uses)
        self._known_ids = walk.numbers
        self._is_walking = False
        return found

    def _fate(self, referent: object) -> OutsideFate:
        weakrefs = self._pickler.dump_options.weakrefs
        if callable(weakrefs):
            return weakrefs(referent)
        return "strong" if weakrefs == "strong" else "tombstone"

    def _replace_nearest(self, failed: _Failed) -> bool:
        """Replace what has failed, or else the nearest of its owners that can be replaced."""
        walk, number = failed.walk, failed.number
        if self._is_gone(failed):
            return False
        while number >= 0:
            obj = walk.objects[number]
            if number == 0 and (failed.number != 0 or failed.is_owner):
                # Nothing would be left.
                return False
            if type(obj) not in _EXACT_BUILTINS and id(obj) not in self.substitutes:
                self._replace(obj, walk.path(number), failed.cause)
                failed.number = number
                self._failed[id(obj)] = failed
                return True
            number = walk.parents[number]
        return False

    def _is_gone(self, failed: _Failed) -> bool:
        """Tell whether something has been put in the place of an owner, so that the pickler will not come there."""
        number = failed.walk.parents[failed.number]
        while number >= 0:
            if id(failed.walk.objects[number]) in self.substitutes:
                return True
            number = failed.walk.parents[number]
        return False

    def _replace(self, obj: object, path: str, cause: str) -> None:
        wanted: Any = self._pickler.dump_options.unpicklable
        if callable(wanted):
            wanted = wanted(obj)
            if type(wanted) is not str or wanted not in ("raise", "tombstone"):
                self.substitutes[id(obj)] = (rebuild.rebuild_replacement, (wanted,))
                return
        lost = (dotted_name(type(obj)), path, cause)
        if wanted == "raise":
            raise TypeError(f"cannot pickle the object of type {lost[0]} at {path}: {cause}")
        self._lost[id(obj)] = lost
        self.substitutes[id(obj)] = (rebuild.UnpicklableTombstone, lost)

    def _give_up_on_temporaries(self) -> bool:
        """Replace the owners of objects that were not met again, because a reducer makes new ones each time.

        Raises:
            _NothingLeftError: The owner is the root.
        """
        temporary = [key for key in self.substitutes if key not in self._met]
        for key in temporary:
            del self.substitutes[key]
            self._lost.pop(key, None)
        for key in temporary:
            failed = self._failed.pop(key)
            failed.number = failed.walk.parents[failed.number]
            failed.is_owner = True
            if not self._is_gone(failed) and not self._replace_nearest(failed):
                raise _NothingLeftError
        return bool(temporary)

    def _find_dependents(self, walk: Walk, uses: list[tuple[int, list[int]]]) -> None:
        """Find what is built from a tombstone, or from what may become one."""
        doubtful = set(self._lost)
        more = True
        while more:
            more = False
            for number, used in uses:
                key = id(walk.objects[number])
                if key not in doubtful and not doubtful.isdisjoint(used):
                    doubtful.add(key)
                    self._guarded_paths[key] = walk.path(number)
                    more = True

    def _uses_tombstone(self, obj: object, value: ReduceTuple, depth: int = 0) -> bool:
        for used in _within(_what_is_used(obj, value)):
            key = id(used)
            if key in self._lost or key in self._guarded_paths:
                return True
            if key in self._known_ids or type(used) in _EXACT_BUILTINS or isinstance(used, _BY_NAME) or depth > 10:
                continue
            try:
                inner = self._pickler.reduce_value(used)
            except Exception:
                # It is reported when the pickler comes to it.
                continue
            if type(inner) is tuple and self._uses_tombstone(used, inner, depth + 1):
                return True
        return False


def _guarded(obj: object, value: ReduceTuple, path: str) -> ReduceTuple:
    """Make a reduce value that gives a tombstone if the object cannot be built."""
    function, arguments, state, items, pairs, setter = in_full(value)
    contents = (state, None if items is None else list(items), None if pairs is None else list(pairs), setter)
    guarded = (rebuild.rebuild_salvaged, (function, arguments, dotted_name(type(obj)), path))
    if contents == (None, None, None, None):
        return guarded
    return (*guarded, contents, None, None, rebuild.rebuild_salvaged_contents)


class _NothingLeftError(Exception):
    """The root itself would have to be replaced, over an object that it makes."""


class _Failed:
    """An object over which the pickler raised, or the owner that goes in its place, in the walk that found it."""

    def __init__(self, walk: Walk, number: int, cause: str) -> None:
        self.walk = walk
        self.number = number
        self.cause = cause
        self.is_owner = False


def _what_is_used(obj: object, value: ReduceTuple) -> tuple[object, ...]:
    """Return what code of the object's class will see at load: arguments, and the state that it sets itself."""
    arguments = value[1] if len(value) > 1 else ()
    state = value[2] if len(value) > 2 else None
    if state is not None and ((len(value) > 5 and value[5] is not None) or hasattr(type(obj), "__setstate__")):
        return arguments, state
    return (arguments,)


def _within(container: Any) -> Iterator[Any]:
    """Iterate over all objects in a container and in the exact builtins inside it."""
    waiting = [container]
    entered: set[int] = set()
    while waiting:
        item = waiting.pop()
        if type(item) not in _CONTAINERS:
            yield item
        elif id(item) not in entered:
            entered.add(id(item))
            waiting.extend(item)
            if type(item) is dict:
                waiting.extend(item.values())


def _described(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
