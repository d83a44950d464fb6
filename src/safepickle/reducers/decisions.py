"""What one dump knows about referents, walk after walk, and the fate it decides for each weak reference.

A dump walks the graph once, and where a weak reference points forward to a *kept* referent (one that is reached
without following any weak reference) it walks again with that knowledge. This module holds the knowledge; the
`Pickler` does the walking. It knows nothing of single weak types: a reducer asks `Dump.decide` and acts on the answer.
"""

from __future__ import annotations

import enum
import types
import weakref
from collections.abc import Callable, Container, Mapping
from typing import Any, Final

from cloudpickle.cloudpickle import _should_pickle_by_reference

from safepickle.errors import LostReference, WeakReferenceError, WeakReferenceWarning
from safepickle.messages import dotted_name
from safepickle.options import Finalizers, OutsideFate, WeakReferencePolicy, check_fate
from safepickle.rebuild.recomputed import recipe_of, recipes_exist
from safepickle.reducers.losses import Losses, name_of_function
from safepickle.reducers.owners import owned_by
from safepickle.reducers.walker import Walker
from safepickle.speedups import State

__all__ = [
    "CYCLE",
    "DEAD",
    "NOTHING_MET",
    "OUTSIDE",
    "POLICY",
    "RECIPE",
    "RELINK",
    "STRONG",
    "Dump",
    "LookedAheadError",
]

# The fates that `Dump.decide` answers with; all but the first three are a tombstone's reason.
RELINK: Final = "relink"
STRONG: Final = "strong"
RECIPE: Final = "recipe"
DEAD: Final = "dead"
OUTSIDE: Final = "outside"
CYCLE: Final = "cycle"
POLICY: Final = "policy"

_NONE: set[int] = set()


class LookedAheadError(Exception):
    """What was relinked ahead has decided which objects were met under construction."""


class Dump(State):
    """What one call of `Pickler.dump` knows.

    Attributes:
        pickler: Who walks.
        policy: What becomes of weak references.
        protocol: Of the pickle being written.
        has_persistent_id: A subclass stores some objects outside the pickle, as ``torch.save`` does.
        finalizers: What becomes of finalizers.
        tracking: A weak reference has been met, so that what the walk enters is noted.
        linkable: Ids of the referents that a reference can be made to at once: what was visited, or all that is kept
            when that is known, less what is under construction.
        visited: While it is being found out what is kept: the ids of the objects that this walk has met. Else None.
        entered: Ids of the objects met since that may be under construction while they are written.
        expected: The referent that the walk was last told to enter; meeting it a second time means that it is not in
            the memo, and so under construction.
        cyclic: Ids of referents found to be under construction when a reference to them had to be made.
        dirty: This walk met a cyclic referent that it had not known of, so its bytes are wrong.
        losses: The references of this walk that will load dead, from the first weak reference on.
        dropped: Hooks whose owner is in the pickle without them, by their ids.
        identity_keys: Keys in the pickle that are the `id` of an object in it, counted by the object's dotted type.
        may_look_ahead: Whether references may be relinked to what is certain to be met later: as long as all referents
            are objects that are in the memo before anything else of them is written.
        has_looked_ahead: Whether references were relinked to what had not been met yet, but is certain to be.
        offender: The reference that an error is about.
        scratch: What a room of reducers remembers of this walk, under a name of its own.
    """

    def __init__(
        self,
        pickler: Walker,
        policy: WeakReferencePolicy,
        protocol: int,
        has_persistent_id: bool,
        finalizers: Finalizers,
    ) -> None:
        self.pickler = pickler
        self._id_set = pickler.core.id_set
        self.policy = policy
        self.protocol = protocol
        self.has_persistent_id = has_persistent_id
        self.finalizers = finalizers
        self.tracking = False
        self.visited: set[int] | None = None
        self.linkable: set[int] = _NONE
        self.dirty = False
        self.dropped: dict[int, object] = {}
        self.identity_keys: dict[str, int] = {}
        self.offender: object = None
        self.scratch: dict[str, Any] = {}
        # Objects that a subclass's persistent_id stored, held so that their ids stay theirs.
        self.persisted: dict[int, object] = {}
        self._persisted_types: set[type] = set()
        self._kept: set[int] | None = None
        self._tombstones: dict[tuple[str, type], tuple[str, str]] = {}
        self.cyclic: set[int] = set()
        # The memo of the walk that found out what is kept, so that the ids in `_kept` stay its objects'.
        self._kept_memo: dict[int, Any] = {}
        # Types whose instances no module owns.
        self._by_value: set[type] = set()
        # What a policy callable answered, with the referent, so that its id stays its own.
        self._fates: dict[int, tuple[object, OutsideFate]] = {}
        self._has_tracked = False
        self.has_looked_ahead = False
        # Not under the other policies: which outside referent they ask about, or fail over, depends on the order.
        self.may_look_ahead = pickler.core.override is not None and policy in ("relink", "strong")

    def _begin_page(self) -> None:
        """Make what is noted of one walk, from the first weak reference on: a dump that meets none needs none of it."""
        self._has_tracked = True
        self.expected: object = None
        self.entered: set[int] = set()
        self.losses = Losses()
        # What was met before the ids in `visited`, while kept referents are being discovered.
        self._met: set[int] = self._id_set()
        # Live referents that no strong edge has led to yet, each with the first reference to it.
        self._pending: dict[int, tuple[object, object]] = {}
        # The pending hooks, one for each handle that refers to them.
        self._pending_hooks: list[object] = []
        # What hangs on a pending referent.
        self._dependents: dict[int, list[object]] = {}
        self._under_construction: set[int] = set()
        # Classes that are under construction, and are being written once more meanwhile.
        self._entered_again: set[int] = set()

    @property
    def certain(self) -> bool:
        """Whether what this walk has written so far is what the last walk will write, too."""
        return not self.awaits and not self.dirty

    def count_met(self) -> int:
        """Return how many objects are known to be in the pickle, exact builtins not counted."""
        return max(map(len, (self._kept or (), self._met, self.visited or ())))

    def lost_referents(self) -> Mapping[int, object]:
        """Return by their ids the referents that the warning is about, those of identity keys not included."""
        lost = {id(referent): referent for referent in self.losses.in_cycles.values()}
        if self.policy == "relink":
            pending = {key: referent for key, (_, referent) in self._pending.items()}
            lost.update(pending if self._kept is None else self.losses.referents)
        return lost

    def reason_for_loss(self, reference: object, referent: object) -> str | None:
        """Tell why the warning is about a reference: ``OUTSIDE`` or ``CYCLE``; None if it is not."""
        if (id(reference), id(referent)) in self.losses.in_cycles:
            return CYCLE
        outside: Container[int] = self._pending if self._kept is None else self.losses.referents
        return OUTSIDE if self.policy == "relink" and id(referent) in outside else None

    def is_persisted(self, obj: object) -> bool | None:
        """Tell whether a subclass's ``persistent_id`` has stored `obj` or its like, without asking it again."""
        return type(obj) in self._persisted_types or None

    def warning(self, references: tuple[LostReference, ...] = ()) -> WeakReferenceWarning | None:
        """Return the warning about references that load dead though nobody asked for that, or None.

        Also of keys that are an `id`, which mostly belong to weak references.

        Args:
            references: Where they are.
        """
        if not self._has_tracked:
            return None
        return self.losses.warning(self.policy == "relink", self.identity_keys, references)

    def decide(self, reference: object, referent: object, *dependents: object) -> str:
        """Decide what becomes of a weak reference.

        Args:
            reference: The reference, or the container that holds it: where an error points to.
            referent: Its live referent.
            *dependents: What goes into the pickle only if the referent is kept: a callback, the value of an ephemeron.

        Returns:
            ``RELINK``: make a weak reference to the referent. ``STRONG``: make one that owns it. ``RECIPE``, to a
            `weakref.ref` alone: make one that builds it again. Else a tombstone's reason, which may be provisional:
            the walk is then repeated.

        Raises:
            WeakReferenceError: The policy is ``"strict"`` and the reference cannot be relinked.
        """
        key = id(referent)
        if self.may_look_ahead and self.pickler.is_built_first(type(referent)):
            self._stop_looking_ahead()
        if not self.tracking and self.policy != "tombstone":
            self.track()
        if key in self.linkable:
            self.expected = referent
            return RELINK
        if self.policy == "tombstone":
            return POLICY
        if key in self._under_construction:
            if self.policy == "strict":
                raise self.error(reference, referent, CYCLE)
            self.losses.count_cycle(reference, referent)
            return CYCLE
        if self._kept is not None:
            if self._is_by_reference(referent):
                self.expected = referent
                return RELINK
            return self._decide_outside(reference, referent)
        if key in self._met or key in self.persisted:
            self.expected = referent
            return RELINK
        cls = type(referent)
        if key not in self._pending:
            if cls not in self._by_value and self._is_by_reference(referent):
                return RELINK
            if self.may_look_ahead and not self.has_looked_ahead and self._look_ahead(key):
                self.expected = referent
                return RELINK
            self._pending[key] = (reference, referent)
        if dependents:
            self._dependents.setdefault(key, []).extend(dependents)
        self.losses.count_outside(referent)
        return OUTSIDE

    def _look_ahead(self, key: int) -> bool:
        """Relink from now on what the root certainly leads to; tell whether that goes for the referent with this id."""
        reached = self.pickler.look_ahead()
        if reached is None:
            self.may_look_ahead = False
            return False
        self.has_looked_ahead = True
        # It is the same as `visited`: what will be met for certain is as good as met.
        self.linkable.update(reached)
        for each in self._under_construction:
            self.linkable.discard(each)
        return key in reached

    def _stop_looking_ahead(self) -> None:
        """Leave the order of the walk as it is: which objects are met under construction depends on it."""
        self.may_look_ahead = False
        if self.has_looked_ahead:
            raise LookedAheadError

    def decide_hooks(self, handle: object, hooks: object) -> str:
        """Decide what becomes of a handle's reference to the dictionary of hooks that it removes its own from.

        It is of use with the hooks alone. Where their owner is in the pickle and does not take them along, as it is
        with torch's tensors and optimizers, nothing is lost with the reference: it is left out under every policy.
        """
        if id(hooks) in self.dropped:
            return OUTSIDE
        fate = self.decide(handle, hooks)
        if fate == OUTSIDE and self.awaits and id(hooks) in self._pending:
            self._pending_hooks.append(hooks)
        return fate

    def track(self) -> None:
        """Begin to note what is met: a weak reference has been met, or this is not the first walk.

        In fast mode nothing is memoized, so no reference can be relinked.
        """
        self.tracking = True
        if not self._has_tracked:
            self._begin_page()
        if self.policy == "tombstone":
            # Nothing is linked, in a walk that is repeated for another reason either.
            return
        if self.pickler.fast:
            self._kept = set()
        if self._kept is None:
            self.visited = self._id_set(self.pickler.memo.copy())
            self.linkable = self.visited
        else:
            self.linkable = self._kept

    def enter(self, obj: object) -> None:
        """Note an object that may be under construction while it is written: it has a reducer, or one of its own."""
        self.entered.add(id(obj))
        if self.visited is not None:
            self.visited.add(id(obj))

    def begin_walk(self) -> None:
        """Forget what the last walk has met, but not what was learnt from it."""
        self.tracking = False
        self.visited = None
        self.linkable = _NONE
        self.dirty = False
        self.scratch.clear()
        if self._has_tracked:
            self._begin_page()

    def note_persisted(self, obj: object) -> None:
        """Note that a subclass's ``persistent_id`` stored `obj`: it is kept, though it never enters the memo."""
        self.persisted[id(obj)] = obj
        self._persisted_types.add(type(obj))
        if self.visited is not None:
            self.visited.add(id(obj))

    @property
    def awaits(self) -> bool:
        """Whether the first walk met a referent that may yet turn out to be kept, or may want a strong copy."""
        return self._has_tracked and bool(self._pending)

    def discover(self, walk: Callable[[object], None]) -> bool:
        """Find every kept referent after a first walk, and learn the fate of the others.

        What hangs on a referent that turned out to be kept (an ephemeron's value, a callback) is walked in turn,
        until nothing new is kept. Every object is walked once, so this is linear in the size of the graph.

        Args:
            walk: Walks one object on top of the memo of the first walk and discards the bytes.

        Returns:
            Whether the first walk's bytes are wrong, so that the graph has to be walked again.

        Raises:
            WeakReferenceError: The policy is ``"strict"``, or a callable says so, and a referent is outside.
        """
        self.may_look_ahead = False
        again = copies = False
        recipes = self._pending_recipes()
        restored: set[int] = set()
        while (found := self._take_kept()) or recipes:
            again = True
            for key in found:
                for dependent in self._dependents.pop(key, ()):
                    walk(dependent)
            if not found:
                # Last, since the recipe of a referent that turns out to be kept is not in the pickle.
                key, recipe = recipes.popitem()
                copies = True
                if key in self._pending:
                    restored.add(key)
                    walk(recipe)
        self._drop_hooks()
        for key, (reference, referent) in self._pending.items():
            if key in restored:
                continue
            fate = self._fate(referent)
            if fate == "strict":
                raise self.error(reference, referent, OUTSIDE)
            copies = copies or fate == "strong"
        if again or copies:
            self._kept = self._met
        if copies:
            # What only a copy leads to may hold references that this walk has not seen. To exact builtins, too, which
            # are met unseen, and only the memo has them.
            self._kept_memo = self.pickler.memo.copy()
            self._kept = self._id_set(self._kept_memo)
        if self._kept is not None:
            self._kept.update(self.persisted)
        return again or copies

    def forget_kept(self) -> None:
        """Go back to a first walk: the last one found a cycle, behind which there may be more."""
        self._kept = None

    def meet_again(self, referent: object) -> bool:
        """Tell whether `referent`, which a reference was about to enter, is under construction; note it if so."""
        self.expected = None
        key = id(referent)
        if key not in self.entered:
            return False
        if issubclass(type(referent), type) and key not in self._entered_again:
            # Its bases and its metaclass are in the memo before what they hold is written: it is built in their midst.
            self._entered_again.add(key)
            return False
        self.cyclic.add(key)
        self.dirty = True
        return True

    def open_construction(self, obj: object) -> None:
        """Note that the reduce arguments of a cyclic object are being written."""
        self._under_construction.add(id(obj))
        self.linkable.discard(id(obj))

    def close_construction(self, obj: object) -> None:
        """Note that a cyclic object is in the memo, as none is in fast mode."""
        self._under_construction.discard(id(obj))
        if not self.pickler.fast:
            self.linkable.add(id(obj))

    def error(self, reference: object, referent: object, reason: str) -> WeakReferenceError:
        """Make the error for a reference that must not become a tombstone."""
        error = WeakReferenceError(None, dotted_name(type(referent)), reason, name_of_function(referent))
        self.offender = reference
        return error

    def _take_kept(self) -> list[int]:
        """Take out the pending referents that have been met since, and return their ids."""
        newly_met = self.visited or self._id_set()
        self.visited = self.linkable = self._id_set()
        if len(self._pending) < len(newly_met):
            found = [key for key in self._pending if key in newly_met]
        else:
            found = [key for key in newly_met if key in self._pending]
        if self._met:
            self._met.update(newly_met)
        else:
            self._met = newly_met
        if not found and self.pickler.may_hide({type(referent) for _, referent in self._pending.values()}):
            # The memo has what was met unseen, but copying it is linear: it comes last.
            memo = self.pickler.memo.copy()
            found = [key for key in self._pending if key in memo]
            self._met.update(found)
        for key in found:
            # The memo holds them from now on.
            del self._pending[key]
        return found

    def _drop_hooks(self) -> None:
        """Find the pending hooks that their owners, which are kept, leave out."""
        hooks = [each for each in self._pending_hooks if id(each) in self._pending]
        owned = owned_by(self.pickler.memo.copy(), hooks) if hooks else ()
        for each in hooks:
            if id(each) in owned:
                self._pending.pop(id(each), None)
                self.dropped[id(each)] = each
                self.losses.take_back(each)

    def _pending_recipes(self) -> dict[int, object]:
        if not recipes_exist():
            return {}
        recipes = {key: recipe_of(referent) for key, (_, referent) in self._pending.items()}
        return {key: recipe for key, recipe in recipes.items() if recipe is not None}

    def _decide_outside(self, reference: object, referent: object) -> str:
        if type(reference) is weakref.ref and recipe_of(referent) is not None:
            return RECIPE
        fate = self._fate(referent)
        if fate == "strong":
            self.expected = referent
            return STRONG
        if fate == "strict":
            raise self.error(reference, referent, OUTSIDE)
        self.losses.referents[id(referent)] = referent
        self.losses.count_outside(referent)
        return OUTSIDE

    def tombstone_arguments(self, fate: str, referent: object) -> tuple[str, str]:
        """Return a tombstone's reason and the name of the referent's type, the same tuple each time.

        A pickle then holds it once, and a walk that is repeated loses little on it.
        """
        key = fate, type(referent)
        arguments = self._tombstones.get(key)
        if arguments is None:
            arguments = self._tombstones[key] = fate, dotted_name(key[1])
        return arguments

    def _fate(self, referent: object) -> OutsideFate:
        if self.policy == "strong" or self.policy == "strict":
            return self.policy
        if not callable(self.policy):
            return "tombstone"
        key = id(referent)
        if key not in self._fates:
            self._fates[key] = (referent, check_fate(self.policy(referent)))
        return self._fates[key][1]

    def _is_by_reference(self, referent: Any) -> bool:
        """Whether the other side imports `referent`, so that its module owns it there."""
        cls = type(referent)
        if issubclass(cls, (type, types.FunctionType, types.ModuleType)):
            return bool(_should_pickle_by_reference(referent))
        if issubclass(cls, enum.Enum):
            return bool(_should_pickle_by_reference(cls))
        if self.pickler.may_reduce_to_a_global(cls):
            return self.pickler.reduces_to_a_global(referent)
        self._by_value.add(cls)
        return False


class _NothingMet:
    """What is known before the first object that has a reducer: many a small dump meets none."""

    awaits = dirty = has_looked_ahead = False
    certain = True
    offender = None

    def __init__(self) -> None:
        # Quicker than attributes of the class, and asked for every object.
        self.tracking = False
        self.visited = None


NOTHING_MET: Final = _NothingMet()
