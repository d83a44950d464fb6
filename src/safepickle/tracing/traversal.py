"""A walk that knows weak references: first what is kept, then what strong copies bring in, then what stays outside.

`Walk` goes where the pickler goes and stops at every weak reference. A traversal takes up what the reducers asked
there, and enters what is behind a reference once it is known on which terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from safepickle.options import OutsideFate
from safepickle.reducers.decisions import ReducingPickler
from safepickle.tracing.expand import Expander, Expansion
from safepickle.tracing.naming import Edge, weak_edges
from safepickle.tracing.recording import Question, recording
from safepickle.tracing.walk import Walk

__all__ = ["MAX_OBJECTS", "Traversal", "leave_outside"]

MAX_OBJECTS: Final = 5_000_000
"""Where a traversal gives up: an object whose reducer always makes new ones has no end."""


def leave_outside(referent: Any) -> OutsideFate:
    """Answer for every outside referent that it does not belong to the pickle."""
    return "tombstone"


class Traversal:
    """Visits the objects of a graph, the nearest first, in up to three regions.

    Kept objects have the lowest numbers, then come those that strong copies bring in, then those that stay outside.

    Args:
        root: Where the traversal begins.
        pickler: Whose reducers say what an object leads to.
        fate: What becomes of an outside referent; what is ``"strong"`` belongs to the pickle. By default, none does.
        outside: Go on to what stays outside.

    Attributes:
        walk: The objects met, by number.
        questions: What the reducers have asked, each with the number of the object over which they asked.
        copied_from: The lowest number that a strong copy has brought in.
        outside_from: The lowest number that stays outside.
        complete: Whether the traversal came to an end before `MAX_OBJECTS`, and nothing was passed over.
    """

    def __init__(
        self,
        root: Any,
        pickler: ReducingPickler,
        fate: Callable[[Any], OutsideFate] = leave_outside,
        outside: bool = False,
    ) -> None:
        self.walk = Walk(root, Expander(pickler, pickler.proto, getattr(pickler, "persistent_id", None)))
        self.questions: list[tuple[int, Question]] = []
        self.copied_from = self.outside_from = MAX_OBJECTS * 2  # Higher than any number, until there is one.
        self.complete = True
        self._pickler = pickler
        # Where nothing is relinked, nothing that hangs on a kept referent is pickled either.
        self._relinks = pickler.dump_options.weakrefs != "tombstone"
        self._fate = fate
        self._outside = outside

    def __iter__(self) -> Iterator[tuple[int, Expansion]]:
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

    def is_by_reference(self, referent: Any) -> bool:
        """Tell whether the other side imports a referent, so that it counts as kept wherever it is met."""
        with recording(self._pickler) as recorder:
            return recorder._is_by_reference(referent)

    def edge_to(self, question: Question) -> Edge:
        """Name the way from a reference to its referent."""
        return weak_edges(question.reference).get(id(question.referent), "")

    def _is_kept(self, referent: Any) -> bool:
        return id(referent) in self.walk.numbers or self.is_by_reference(referent)

    def _enter(self, number: int, question: Question) -> None:
        edges = weak_edges(question.reference)
        parent = self.walk.numbers.get(id(question.reference), number)
        for child in (question.referent, *question.dependents):
            self.walk.enter(parent, edges.get(id(child), ""), child)
