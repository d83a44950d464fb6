"""What a walk loses of weak references, counted for the warning."""

from __future__ import annotations

import types
from collections import Counter

from safepickle.errors import LostReference, WeakReferenceWarning
from safepickle.messages import dotted_name

__all__ = ["Losses", "name_of_function"]


class Losses:
    """The references of one walk that will load dead.

    Attributes:
        referents: What is outside for certain, by its id.
        in_cycles: What was still under construction, by the ids of the reference and its own.
    """

    def __init__(self) -> None:
        self.referents: dict[int, object] = {}
        self.in_cycles: dict[tuple[int, int], object] = {}
        self._outside: Counter[type] = Counter()
        self._cycles: Counter[type] = Counter()
        # Names of the outside functions and classes. All of them travel by value.
        self._functions: dict[str, None] = {}

    def count_outside(self, referent: object) -> None:
        """Count a reference to what is outside, or may yet turn out to be kept."""
        self._outside[type(referent)] += 1
        name = name_of_function(referent)
        if name is not None:
            self._functions[name] = None

    def take_back(self, referent: object) -> None:
        """Count a reference that was counted no longer."""
        self._outside -= Counter({type(referent): 1})

    def count_cycle(self, reference: object, referent: object) -> None:
        """Count a reference to what is under construction."""
        self._cycles[type(referent)] += 1
        self.in_cycles[id(reference), id(referent)] = referent

    def warning(
        self, of_outside: bool, identity_keys: dict[str, int], references: tuple[LostReference, ...]
    ) -> WeakReferenceWarning | None:
        """Return the warning about the losses and about keys that are an `id`, or None where there are none.

        Args:
            of_outside: Whether what is outside was to be relinked.
            identity_keys: The keys, counted by the dotted type of the object.
            references: Where the lost ones are.
        """
        outside = self._outside if of_outside else Counter[type]()
        if not outside and not self._cycles and not identity_keys:
            return None
        functions = tuple(self._functions) if outside else ()
        counts, cycles = _by_dotted_name(outside), _by_dotted_name(self._cycles)
        return WeakReferenceWarning(counts, cycles, functions, identity_keys, references)


def name_of_function(referent: object) -> str | None:
    """Return the dotted name of a function or a class, if nothing but a module or another function has it."""
    if not issubclass(type(referent), (types.FunctionType, type)):
        return None
    module, name = getattr(referent, "__module__", None), getattr(referent, "__qualname__", None)
    owner = str(name).rpartition(".")[0]
    return f"{module}.{name}" if not owner or owner.endswith("<locals>") else None


def _by_dotted_name(counts: Counter[type]) -> dict[str, int]:
    named: Counter[str] = Counter()
    for cls, count in counts.items():
        # A function that makes a class makes another one of the same name each time.
        named[dotted_name(cls)] += count
    return dict(named)
