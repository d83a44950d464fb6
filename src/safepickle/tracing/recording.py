"""A `Dump` that decides nothing: it lets the reducers speak, and takes down what they ask.

Asked about a weak reference, it answers that the referent is outside, so that the reduce value which comes back holds
what the reference owns and nothing that it merely points to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from safepickle.reducers.decisions import OUTSIDE, Dump
from safepickle.tracing.reducing import ReducingPickler

__all__ = ["Question", "Recorder", "recording"]


class Question(NamedTuple):
    """What a reducer asked: what becomes of `reference`, which points to `referent`?

    Attributes:
        reference: The weak reference, or the container that holds it.
        referent: Its live referent.
        dependents: What is pickled only if the referent is kept.
    """

    reference: Any
    referent: Any
    dependents: tuple[Any, ...]


class Recorder(Dump):
    """Takes down what the reducers ask, with the same answer for all."""

    def __init__(self, pickler: ReducingPickler) -> None:
        super().__init__(pickler, "relink", pickler.proto, pickler.has_persistent_id, pickler.dump_options.finalizers)
        self._questions: list[Question] = []

    def decide(self, reference: object, referent: object, *dependents: object) -> str:
        """Take down the question, and answer ``"outside"``."""
        held = tuple(dependent for dependent in dependents if dependent is not None)
        self._questions.append(Question(reference, referent, held))
        return OUTSIDE

    def take(self) -> list[Question]:
        """Return what has been asked since the last call."""
        questions, self._questions = self._questions, []
        return questions


@contextmanager
def recording(pickler: ReducingPickler) -> Iterator[Recorder]:
    """Have the reducers of `pickler` ask a `Recorder` for as long as the context lasts."""
    recorder = Recorder(pickler)
    with pickler.asking(recorder):
        yield recorder
