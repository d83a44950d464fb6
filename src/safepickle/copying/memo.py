"""What one deep copy knows. No type is named here: `strong` and `weak` say how each is copied.

A weak reference may be met before its referent (a *forward* reference). Nobody knows then whether the referent will be
copied, so the reference itself is put in its place, which is right for a referent that stays outside, and the place is
noted. When the walk has ended, the notes whose referent was copied are settled. Where the place can't be written again
(inside a tuple, an argument of a constructor, a state that a `__setstate__` consumed), the reference is *sealed*, and
if its referent turns out to be copied the whole walk is done once more, now with that knowledge.
"""

from __future__ import annotations

import operator
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

from safepickle.copying.interception import Copy, Interceptor, install, interceptor, uninstall
from safepickle.copying.stdlib_copy import ASKS_BY_CONTAINS, NOT_ASKED, asked_for
from safepickle.options import Finalizers
from safepickle.reducers.decisions import OUTSIDE, RELINK, Dump
from safepickle.speedups import PURE

__all__ = ["MISSING", "Copier", "Memo", "Pending", "Plans", "Setter", "known_copy", "set_attribute"]

Copier = Callable[[Any, "Memo"], Any]
Setter = Callable[[Any, Any, Any], None]

MISSING: Any = object()

known_copy = dict.get
"""``known_copy(memo, key, default)``: what a memo holds. Its own ``get`` may make the copy that is asked for."""


class Plans(dict[type, "Copier | None"]):
    """How each type is copied in this call; ``None`` for what is shared as it is.

    Kept for one call only: between two calls a class may gain a `__deepcopy__` or an entry in `copyreg`.
    """

    def __init__(self, known: dict[type, Copier | None], find: Callable[[type], Copier | None]) -> None:
        super().__init__(known)
        self._find = find

    def __missing__(self, cls: type) -> Copier | None:
        copier = self[cls] = self._find(cls)
        return copier


class Pending(NamedTuple):
    """A live reference whose copy waits for the end of the walk.

    Attributes:
        referent: What the original points to, held until the walk has ended.
        callback: The callback that its owner gave, or None.
        make: Called with the new referent and the new callback: the copies where there are any, else the old ones.
    """

    referent: Any
    callback: Any
    make: Callable[[Any, Any], Any]


class Memo(dict[Any, Any]):
    """The memo that `__deepcopy__` methods are given: ids of originals to copies, as in `copy.deepcopy`.

    A `__deepcopy__` usually hands its parts to `copy.deepcopy(part, memo)`, which asks the memo first: there the walk
    comes back to us, so that weak references below such methods are relinked as well. How it asks, `stdlib_copy` knows.

    Attributes:
        plans: Copier by exact type.
        alive: Originals, so that no id is used twice during the walk.
        unplaced: The pending reference that was just returned, until its holder notes where it put it. One at most.
        places: Notes ``(setter, holder, key, reference)`` of pending references.
        sealed: Pending references whose place can't be written again.
        pending: What is known of each pending reference, by its id.
        simple: For a pending `weakref.ref` without a callback there is no more to know than its referent.
        later: What must wait for the end of the walk, such as filling weak containers.
        ephemerons: ``(key, value, store)`` of entries whose value is copied only once it is known whether the key is.
        copy_apart: Copies an object in a walk of its own, whose memo it is given.
        copied_for_sure: Ids of what an earlier walk has shown to be copied. Its `alive` is kept: no id is used again.
        building: Ids of objects whose constructor's arguments are being copied, or whose `__deepcopy__` is running.
        followers: What is copied only if it leads to something that is, by its id; see `safepickle.copying.followers`.
        callbacks: The same of what weak references and finalizers call, which may be left out instead.
        leading: Those of both, and what lies between, that are known to lead there and are about to be copied.
        to_begin_with: What a repeated walk copies first: the referents of the references that can't be replaced. Copied
            where they are met, they might lead back into a `__deepcopy__` that is running.
        left_out: The callbacks that lead there and can't be copied, by their ids.
        without_callback: What was left out of each weak reference or finalizer, by the id of that.
        intercept: Takes part in calls of `copy.deepcopy` without a memo, from the first `__deepcopy__` of this walk on.
        is_undecided: A reducer asked about a referent whose fate is not known yet: the walk must be repeated.
        finalizers: What becomes of finalizers.
        known_outside: How many entries of an outer memo this one has.
        handed_out: What `copy.deepcopy` was given for the parts that a running `__deepcopy__` asked for.
    """

    __slots__ = (
        "_dump",
        "alive",
        "building",
        "callbacks",
        "copied_for_sure",
        "copy_apart",
        "ephemerons",
        "finalizers",
        "followers",
        "handed_out",
        "intercept",
        "is_undecided",
        "known_outside",
        "later",
        "leading",
        "left_out",
        "pending",
        "places",
        "plans",
        "sealed",
        "simple",
        "to_begin_with",
        "unplaced",
        "without_callback",
    )

    def __init__(self, plans: Plans, copy_apart: Copy, finalizers: Finalizers) -> None:
        self.plans = plans
        self.copy_apart = copy_apart
        self.finalizers = finalizers
        self.alive: list[Any] = []
        self.to_begin_with: list[Any] = []
        self.left_out: dict[int, Any] = {}
        self.without_callback: dict[int, Any] = {}
        self.copied_for_sure: frozenset[Any] = frozenset()
        self.known_outside = 0
        self.intercept: Interceptor | None = None
        self.keep(())
        self.forget_notes()

    def keep(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Forget all copies but these."""
        entries = list(entries)
        self.clear()
        self.update(entries)
        self[id(self)] = self.alive  # where `copy.deepcopy` looks for it

    def start_again(self, outer: dict[Any, Any]) -> None:
        """Prepare to walk once more, with what the first walk has shown.

        Tensors and arrays that hold no other object are not copied again, and what stays outside is not copied now.
        """
        self.copied_for_sure = frozenset(self)
        data = {id(original) for original in self.alive if _is_pure_data(original)}
        self.forget_notes()
        self.keep((key, copied) for key, copied in self.items() if key in data or type(key) is str or id(copied) == key)
        self.update((key, copied) for key, copied in outer.items() if copied is not self)

    def forget_notes(self) -> None:
        """Forget what a walk noted, but not what it copied."""
        self.unplaced: list[Any] = []
        self.places: list[tuple[Setter, Any, Any, Any]] = []
        self.sealed: list[Any] = []
        self.pending: dict[int, Pending] = {}
        self.simple: dict[int, Any] = {}
        self.later: list[Callable[[Memo], None]] = []
        self.ephemerons: list[tuple[Any, Any, Callable[[Any, Any], None]]] = []
        self.building: set[int] = set()
        self.followers: dict[int, Any] = {}
        self.callbacks: dict[int, Any] = {}
        self.leading: dict[int, Any] = {}
        self._dump: Dump | None = None
        self.is_undecided = False
        self.handed_out: list[Any] = []

    @property
    def dump(self) -> Dump:
        """What the reducers of a dump ask about, in each walk anew."""
        if self._dump is None:
            self._dump = _CopyDump(self)
        return self._dump

    def mark(self) -> list[int]:
        """Return how far the walk has come, for `roll_back`."""
        return [len(notes) for notes in self._notes()]

    def roll_back(self, mark: list[int]) -> None:
        """Forget what the walk copied and noted since the mark. Its originals are held, so that no id is used twice."""
        for notes, length in zip(self._notes(), mark, strict=True):
            while len(notes) > length:
                found = notes.pop() if isinstance(notes, list) else notes.popitem()
                self.alive.append(found)
        self.unplaced.clear()

    def _notes(self) -> tuple[list[Any] | dict[Any, Any], ...]:
        by_id = (self, self.pending, self.simple, self.followers, self.callbacks)
        return *by_id, self.places, self.sealed, self.later, self.ephemerons, self.handed_out

    def get(self, key: object, default: object = None) -> Any:
        """The copy of the original with this id; asked by `copy.deepcopy`, the copy is made now."""
        found = known_copy(self, key, MISSING)
        if found is not MISSING:
            return found
        original = asked_for(sys._getframe(1), key)
        if original is NOT_ASKED:
            return default
        # This is `copy_part`, written out: two frames less per level.
        copier = self.plans[type(original)]
        copied = original if copier is None else copier(original, self)
        if self.unplaced:
            self.sealed.append(self.unplaced.pop())
        self.handed_out.append(copied)
        return copied

    if ASKS_BY_CONTAINS:

        def __contains__(self, key: object) -> bool:
            return known_copy(self, key, MISSING) is not MISSING or asked_for(sys._getframe(1), key) is not NOT_ASKED

        def __missing__(self, key: object) -> Any:
            original = asked_for(sys._getframe(1), key)
            if original is NOT_ASKED:
                raise KeyError(key)
            return self.copy_part(original)

    def copy_part(self, original: object, copier: Copier | None = None) -> Any:
        """Copy a part for a running `__deepcopy__`, by ``copier`` if one is given."""
        copied = self.copy_sealed(original) if copier is None else copier(original, self)
        self.handed_out.append(copied)
        return copied

    def call_method(self, method: Callable[[Any], Any]) -> Any:
        """Call a `__deepcopy__`, and take part in what it copies without handing the memo on."""
        if self.intercept is None:
            install()
            self.intercept = self._take_part_in(interceptor.get())
        token = interceptor.set(self.intercept)
        try:
            return method(self)
        finally:
            interceptor.reset(token)

    def _take_part_in(self, outer: Interceptor | None) -> Interceptor:
        def intercept(original: object, memo: object, caller: FrameType | None) -> Copy | None:
            if memo:
                # The method's own: it says what is to be shared.
                return None if outer is None else outer(original, memo, None)
            if known_copy(self, id(original), MISSING) is MISSING:
                return lambda original, _: self.copy_part(original)
            # Who copies one object twice wants two copies.
            return self.copy_apart

        return intercept

    def stop_intercepting(self) -> None:
        """Undo what `call_method` did to `copy.deepcopy`, now that the walk is over."""
        if self.intercept is not None:
            self.intercept = None
            uninstall()

    def copy_sealed(self, original: object) -> Any:
        """Copy ``original`` for a place that can't be written again."""
        copier = self.plans[type(original)]
        if copier is None:
            return original
        copied = copier(original, self)
        if self.unplaced:
            self.sealed.append(self.unplaced.pop())
        return copied

    def place(self, setter: Setter, holder: object, key: object) -> None:
        """Note that the reference just returned went to ``holder[key]`` or ``holder.key``."""
        self.places.append((setter, holder, key, self.unplaced.pop()))

    def seal(self, places: int) -> None:
        """Distrust the notes made since there were ``places`` of them: their holders went through another's code.

        That code may have emptied a list or a dict into one of its own. An instance stays what it is, and so do the
        places among its attributes.
        """
        self.sealed.extend(ref for setter, _, _, ref in self.places[places:] if setter is operator.setitem)

    def wait(self, reference: object, pending: Pending) -> Any:
        """Leave ``reference`` as it is until the walk has ended."""
        self.pending[id(reference)] = pending
        self.alive.append(reference)
        self.unplaced.append(reference)
        return reference

    def remember(self, original: object, copied: object) -> None:
        """Record a copy. What is its own copy is not recorded, as in `copy.deepcopy`."""
        if copied is not original:
            self[id(original)] = copied
            self.alive.append(original)


class _CopyDump(Dump):
    """What the reducers ask about: a referent that is not copied stays the same object, rather than be left out."""

    def __init__(self, memo: Memo) -> None:
        super().__init__(_NoPickler(), "relink", pickle.HIGHEST_PROTOCOL, False, memo.finalizers)
        self._memo = memo

    def decide(self, reference: object, referent: object, *dependents: object) -> str:
        memo, key = self._memo, id(referent)
        if known_copy(memo, key, MISSING) is MISSING and key not in memo.copied_for_sure:
            if not memo.copied_for_sure:
                memo.is_undecided = True
                return OUTSIDE
            memo[key] = referent
            memo.alive.append(referent)
        return RELINK


class _NoPickler:
    """What stands for the pickler where reducers are asked for a copy: nothing is written, and no table goes first."""

    memo: Any = MappingProxyType({})
    fast = False
    core = PURE
    own_dispatch_table: Mapping[type, Any] = MappingProxyType({})

    def look_ahead(self) -> None:
        return None

    def may_hide(self, classes: Iterable[type]) -> bool:
        return False

    def is_built_first(self, cls: type) -> bool:
        return False

    def may_reduce_to_a_global(self, cls: type) -> bool:
        return False

    def reduces_to_a_global(self, obj: object) -> bool:
        return False


def _is_pure_data(original: object) -> bool:
    """Tell whether an object is a tensor or an array that holds no other object."""
    cls = type(original)
    library = cls.__module__.partition(".")[0]
    if library == "numpy":
        return not getattr(getattr(original, "dtype", None), "hasobject", True)
    return library == "torch" and hasattr(cls, "data_ptr") and not getattr(original, "__dict__", True)


def set_attribute(attributes: dict[str, Any], name: str, value: object) -> None:
    """The setter of what was placed among an instance's attributes; see `Memo.seal`."""
    attributes[name] = value
