"""How many bytes each object takes in the pickle, once it is known what becomes of its weak references.

A traversal has every weak reference reduced as if its referent stayed outside. What another fate makes of one is
reduced once more here.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from safepickle.dumping.base_pickler import BasePickler
from safepickle.reducers.decisions import OUTSIDE
from safepickle.report.dry_run import Fates
from safepickle.tracing.expand import ENVELOPE, Expansion, fetch_size
from safepickle.tracing.recording import Recorder
from safepickle.tracing.traversal import Traversal

__all__ = ["weigh"]


def weigh(
    traversal: Traversal,
    pickler: BasePickler,
    fates: Fates,
    sizes: Mapping[int, int],
    led_to: Mapping[int, Sequence[int]],
) -> array[int]:
    """Return the bytes that each object takes, what it leads to not counted.

    Args:
        traversal: It has come to its end.
        pickler: Whose reducers it has asked.
        fates: What becomes of the weak references.
        sizes: Bytes of each object as the traversal has expanded it, by number.
        led_to: The numbers of what it led to then.
    """
    return _Scales(traversal, fates, led_to).weigh(pickler, sizes)


class _Scales:
    def __init__(self, traversal: Traversal, fates: Fates, led_to: Mapping[int, Sequence[int]]) -> None:
        self._walk = traversal.walk
        self._fates = fates
        self._led_to = led_to
        self._places = _places(led_to, len(self._walk.objects))
        # Objects expanded with a reference outside that is not. In an endless graph they stay as they are.
        self._decided = {
            number
            for number, question in traversal.questions
            if traversal.complete
            if fates.of(question.reference, question.referent) not in (None, OUTSIDE)
        }
        self._reached = {
            child for number, children in led_to.items() if number not in self._decided for child in children
        }
        # What no walk has met, such as the names of what rebuilds a reference.
        self._made: dict[int, object] = {}

    def weigh(self, pickler: BasePickler, sizes: Mapping[int, int]) -> array[int]:
        weights = array("q", [0]) * len(self._places)
        for number, size in sizes.items():
            weights[number] = size + sum(self._fetched(number, child) for child in self._led_to[number])
        weights[0] += ENVELOPE
        with pickler.asking(_Answering(pickler, self._fates)):
            for number in sorted(self._decided):
                expansion = self._walk.expand(self._walk.objects[number])
                if expansion.error is None:
                    weights[number] = self._weigh_again(number, expansion)
        for number in self._decided:
            for child in self._led_to[number]:
                if child not in self._reached and not self._led_to.get(child):
                    # A name that only a tombstone would have had written.
                    weights[child] = 0
        return weights

    def _weigh_again(self, number: int, expansion: Expansion) -> int:
        weight, waiting = 0, [expansion]
        while waiting:
            expansion = waiting.pop()
            weight += expansion.size + expansion.buffers
            for _, child in expansion.children[expansion.shortcuts :]:
                known = self._walk.numbers.get(id(child))
                if known is not None:
                    self._reached.add(known)
                    weight += self._fetched(number, known)
                elif id(child) in self._made:
                    weight += fetch_size(len(self._places))
                else:
                    self._made[id(child)] = child
                    waiting.append(self._walk.expand(child))
        return weight

    def _fetched(self, number: int, child: int) -> int:
        """Return the size of the opcode that fetches what is met again from the memo."""
        return 0 if self._walk.parents[child] == number else fetch_size(self._places[child])


class _Answering(Recorder):
    """Answers what a dump has decided."""

    def __init__(self, pickler: BasePickler, fates: Fates) -> None:
        super().__init__(pickler)
        self._settled = fates

    def decide(self, reference: object, referent: object, *dependents: object) -> str:
        return self._settled.of(reference, referent) or OUTSIDE


def _places(led_to: Mapping[int, Sequence[int]], count: int) -> list[int]:
    """Number the objects in the order in which the pickler, who walks depth first, puts them into its memo."""
    places = [count] * count
    stack, place = [0], 0
    while stack:
        number = stack.pop()
        if places[number] == count:
            places[number] = place
            place += 1
            stack.extend(reversed(led_to.get(number, ())))
    return places
