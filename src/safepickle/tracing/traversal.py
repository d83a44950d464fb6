"""A walk that knows weak references: first what is kept, then what strong copies bring in, then what stays outside.

`Walk` goes where the pickler goes and stops at every weak reference. A traversal takes up what the reducers asked
there, and enters what is behind a reference once it is known on which terms.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from safepickle.options import OutsideFate
from safepickle.tracing.expand import Expander, Expansion
from safepickle.tracing.naming import Names, weak_edges
from safepickle.tracing.recording import Question, recording
from safepickle.tracing.reducing import ReducingPickler
from safepickle.tracing.walk import Walk
from safepickle.weak_types import find_weak_type

__all__ = ["MAX_OBJECTS", "Traversal", "is_container", "leave_outside"]

MAX_OBJECTS: Final = 5_000_000
"""Where a traversal gives up: an object whose reducer always makes new ones has no end."""


def leave_outside(referent: object) -> OutsideFate:
    """Answer for every outside referent that it does not belong to the pickle."""
    return "tombstone"


def is_container(reference: object) -> bool:
    """Tell whether what a dump has decided about holds several references."""
    weak = find_weak_type(type(reference))
    return weak is None or not weak.is_single


class Traversal:
    """Visits the objects of a graph, the nearest first, in up to three regions.

    Kept objects have the lowest numbers, then come those that strong copies bring in, then those that stay outside.

    Args:
        root: Where the traversal begins.
        pickler: Whose reducers say what an object leads to.
        fate: What becomes of an outside referent; what is ``"strong"`` belongs to the pickle. By default, none does.
        outside: Go on to what stays outside.
        is_stored: Tells which objects are stored elsewhere; by default the pickler's ``persistent_id`` does.
        protocol: What objects are reduced with; by default the pickler's.

    Attributes:
        walk: The objects met, by number.
        questions: What the reducers have asked, each with the number of the object over which they asked.
        copied_from: The lowest number that a strong copy has brought in.
        outside_from: The lowest number that stays outside.
        complete: Whether the traversal came to an end before `MAX_OBJECTS`, and nothing was passed over.
    """

    def __init__(
        self,
        root: object,
        pickler: ReducingPickler,
        fate: Callable[[Any], OutsideFate] = leave_outside,
        outside: bool = False,
        is_stored: Callable[[Any], Any] | None = None,
        protocol: int | None = None,
    ) -> None:
        persistent_id = is_stored or getattr(pickler, "persistent_id", None)
        self.walk = Walk(root, Expander(pickler, pickler.proto if protocol is None else protocol, persistent_id))
        self.questions: list[tuple[int, Question]] = []
        self.copied_from = self.outside_from = MAX_OBJECTS * 2  # Higher than any number, until there is one.
        self.complete = True
        self._pickler = pickler
        # Where nothing is relinked, nothing that hangs on a kept referent is pickled either.
        self._relinks = pickler.dump_options.weakrefs != "tombstone"
        self._fate = fate
        self._outside = outside
        # What a container leads to: it is asked about once for each entry.
        self._last_named: tuple[Any, Names] = (None, {})

    def __iter__(self) -> Generator[tuple[int, Expansion]]:
        """Expand each object once; the reducers' questions up to there have been taken down."""
        walk = self.walk
        with recording(self._pickler) as recorder:
            waiting: list[tuple[int, Question]] = []
            while True:
                for number, expansion in walk:
                    if asked := recorder.take():
                        entries = [(number, question) for question in asked]
                        self.questions += entries
                        waiting += entries
                    yield number, expansion
                    if len(walk.objects) > MAX_OBJECTS:
                        self.complete = False
                        return
                due = [entry for entry in waiting if self._relinks and self._is_kept(entry[1].referent)]
                if not due and self.outside_from > len(walk.objects):
                    due = [entry for entry in waiting if self._fate(entry[1].referent) == "strong"]
                    if due:
                        self.copied_from = min(self.copied_from, len(walk.objects))
                if not due and self._outside:
                    due = waiting
                    self.outside_from = min(self.outside_from, len(walk.objects))
                if not due:
                    self.complete = walk.whole
                    return
                entered = {id(question) for _, question in due}
                waiting = [entry for entry in waiting if id(entry[1]) not in entered]
                for number, question in due:
                    self._enter(number, question)

    def is_by_reference(self, referent: object) -> bool:
        """Tell whether the other side imports a referent, so that it counts as kept wherever it is met."""
        with recording(self._pickler) as recorder:
            return recorder._is_by_reference(referent)

    def path(self, number: int, question: Question) -> str:
        """Write the path to the reference that was asked about over an object, or to its entry in a container."""
        source = self.walk.numbers.get(id(question.reference), number)
        if not is_container(question.reference):
            return self.walk.path(source)
        return self.walk.path(source, self._names(question.reference).get(id(question.referent), ""))

    def _is_kept(self, referent: object) -> bool:
        return id(referent) in self.walk.numbers or self.is_by_reference(referent)

    def _names(self, reference: object) -> Names:
        if self._last_named[0] is not reference:
            self._last_named = (reference, weak_edges(reference))
        return self._last_named[1]

    def _enter(self, number: int, question: Question) -> None:
        edges = self._names(question.reference)
        parent = self.walk.numbers.get(id(question.reference), number)
        for child in (question.referent, *question.dependents):
            self.walk.enter(parent, edges.get(id(child), ""), child)
