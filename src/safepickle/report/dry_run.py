"""A dump that writes nothing and takes down what becomes of each weak reference.

What a report says must be what a dump does. So the fates are not worked out a second time: a `Pickler` walks the
graph, as often as it takes, and this one listens.
"""

from __future__ import annotations

from typing import Any

from safepickle.dumping.base_pickler import BasePickler
from safepickle.options import Finalizers, WeakReferencePolicy
from safepickle.reducers.decisions import Dump

__all__ = ["Fates", "dry_run"]


class Fates:
    """What became of the references of one dump.

    Attributes:
        dropped: As in `Dump`.
    """

    def __init__(self) -> None:
        # With the objects, so that ids stay theirs. The last walk's answer stands.
        self._fates: dict[tuple[int, int], tuple[str, object, object]] = {}
        self.dropped: dict[int, object] = {}

    def note(self, reference: object, referent: object, fate: str) -> None:
        """Take down the fate of one reference to one referent."""
        self._fates[id(reference), id(referent)] = (fate, reference, referent)

    def of(self, reference: object, referent: object) -> str | None:
        """Return the fate of a reference, or None when the dump has not met it."""
        found = self._fates.get((id(reference), id(referent)))
        return found and found[0]


class _Listening(Dump):
    fates: Fates

    def decide(self, reference: object, referent: object, *dependents: object) -> str:
        fate = super().decide(reference, referent, *dependents)
        self.fates.note(reference, referent, fate)
        return fate


class _DryRunPickler(BasePickler):
    """Writes nothing, and passes over what cannot be pickled.

    Args:
        protocol: As for `BasePickler`.
        weakrefs: As for `BasePickler`.
        finalizers: As for `BasePickler`.
        passed_over: The ids of what cannot be pickled.
        in_band: Let buffers be copied to nowhere, too. Out of band costs nothing, but rules out a deep graph.
    """

    def __init__(
        self,
        protocol: int | None,
        weakrefs: WeakReferencePolicy,
        finalizers: Finalizers,
        passed_over: set[int],
        in_band: bool,
    ) -> None:
        has_buffers = protocol is None or protocol < 0 or protocol >= 5
        callback: Any = (lambda buffer: False) if has_buffers and not in_band else None
        super().__init__(_Nowhere(), protocol, buffer_callback=callback, weakrefs=weakrefs, finalizers=finalizers)
        self._output: Any = _Nowhere()
        self.fates = Fates()
        self.substitutes = dict.fromkeys(passed_over, (object, ()))

    def reducer_override(self, obj: Any) -> Any:
        return self.substitutes.get(id(obj)) or super().reducer_override(obj)

    def _new_dump(self) -> Dump:
        known = _Listening(self, self.dump_options.weakrefs, self.proto, False, self.dump_options.finalizers)
        known.fates = self.fates
        self.fates.dropped = known.dropped
        return known

    def dry_run(self, root: Any) -> None:
        """Dump as `dump_whole` does, but for the output and the warnings."""
        self._dump = self._new_dump()
        try:
            self._walk(root)
            self._walk_until_settled(root, {})
        except RecursionError as error:
            self._walk_deep(root, {}, error)
        finally:
            self._dump = None


class _Nowhere:
    """An output that has nothing to take back."""

    def write(self, data: Any) -> None:
        """Forget."""

    def discard(self) -> None:
        """Go on forgetting."""

    def rewind(self) -> None:
        """Begin to forget anew."""


def dry_run(
    root: Any, protocol: int | None, weakrefs: WeakReferencePolicy, finalizers: Finalizers, passed_over: set[int]
) -> tuple[Fates, Exception | None]:
    """Dump to nowhere.

    Args:
        root: What to dump.
        protocol: As for `dumps`.
        weakrefs: Any policy but ``"strict"``, which would stop at the first reference.
        finalizers: As for `dumps`.
        passed_over: The ids of what cannot be pickled.

    Returns:
        The fates, and the error that ended the dump early, if one did.
    """
    for in_band in (False, True):
        pickler = _DryRunPickler(protocol, weakrefs, finalizers, passed_over, in_band)
        try:
            pickler.dry_run(root)
        except RecursionError as error:
            failure: Exception = error
        except Exception as error:
            return pickler.fates, error
        else:
            return pickler.fates, None
    return pickler.fates, failure
