"""The exceptions and warnings of dumps and copies. Those of loads are in `load_errors`.

Each keeps its facts as attributes and rebuilds itself from ``args``, because errors cross processes in joblib, dask
and multiprocessing. This module knows nothing of the rest of the package.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, TypeAlias

from safepickle.messages import shorten
from safepickle.public import public

__all__ = [
    "CallbackWarning",
    "KerasFallbackWarning",
    "NestingError",
    "StateDictError",
    "StateDictWarning",
    "UnpicklableWarning",
    "WeakReferenceError",
    "WeakReferenceWarning",
]


# Keys of tasks and the like. Without them the warnings of one line are the same, which Python then shows once.
_RANDOM = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}"

LostReference: TypeAlias = tuple[str, str, str, str]


@public
class WeakReferenceError(pickle.PicklingError):
    """A weak reference that the policy ``"strict"`` does not let become a tombstone.

    Raised by a dump. What to do: pickle the owner of the referent too, or choose another policy: ``weakrefs="relink"``
    leaves a tombstone, ``"strong"`` carries a copy. For a cycle, give the referent a ``__reduce__`` whose arguments do
    not lead back.

    Attributes:
        path: Where the reference is, seen from the root (``$.layers[2]._parent``), or None when it was not found.
        referent_type: Dotted name of the referent's type.
        reason: ``"outside"``: the referent is not in the pickle. ``"cycle"``: the referent is still being built when
            the reference must be made.
        referent_name: Dotted name of a referent that is a function or a class and travels by value, else None.
    """

    def __init__(
        self, path: str | None, referent_type: str, reason: str = "outside", referent_name: str | None = None
    ) -> None:
        super().__init__(path, referent_type, reason, referent_name)
        self.path = path
        self.referent_type = referent_type
        self.reason = reason
        self.referent_name = referent_name

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        if self.reason == "cycle":
            return (
                f"cannot pickle the weak reference{where}: its referent ({self.referent_type}) is built from arguments "
                "that lead back to the reference, so it does not exist yet when the reference is loaded. Move what "
                'leads back from the reduce arguments into the state, or pass weakrefs="relink" to leave a tombstone.'
            )
        if self.referent_name is not None:
            return (
                f"cannot pickle the weak reference{where}: its referent ({self.referent_name}) is not in the pickle. "
                f"{_BY_VALUE}: move it into a module that the other side imports, or pickle it too, or pass "
                'weakrefs="strong" to carry a copy, or weakrefs="relink" to leave a tombstone. safepickle.explain(obj) '
                "lists every such reference."
            )
        return (
            f"cannot pickle the weak reference{where}: its referent ({self.referent_type}) is not in the pickle. "
            'Pickle its owner too, or pass weakrefs="strong" to carry a copy, or weakrefs="relink" to leave a '
            "tombstone. safepickle.explain(obj) lists every such reference."
        )


@public
class NestingError(pickle.PicklingError, RecursionError):
    """Pickling recurses more deeply than the interpreter allows.

    It is a `RecursionError`, which plain pickle raises, and a `pickle.PicklingError`, as cloudpickle raises.

    Raised by a dump. What to do: the note names the path. Look there for a ``__reduce__`` or ``__getstate__`` that
    recurses, or that makes a new object at each call.
    """


@public
class StateDictError(RuntimeError):
    """A state dict that does not fit the module; the module is as it was. torch raises a `RuntimeError` here as well.

    Raised by `safepickle.integrations.torch.load_state_dict`. What to do: read the table in the message: it lists every
    key that does not fit. ``strict=False`` loads what fits.

    Args:
        message: What does not fit, as a table.

    Attributes:
        report: What fits and what does not: a `safepickle.integrations.torch.LoadReport`.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])


@public
class StateDictWarning(UserWarning):
    """Entries that a state dict leaves out, because nothing but a weak proxy holds them.

    Given by `safepickle.integrations.torch.state_dict`. What to do: keep a strong reference to the tensor where it is
    registered, or register the tensor itself.

    Attributes:
        module: Dotted name of the module's type.
        reasons: Why each is left out, by key.
    """

    def __init__(self, module: str, reasons: dict[str, str]) -> None:
        super().__init__(module, reasons)
        self.module = module
        self.reasons = reasons

    def __str__(self) -> str:
        listed = ", ".join(f"{key} ({reason})" for key, reason in self.reasons.items())
        return (
            f"the state dict of {self.module} leaves out what it holds through weak proxies alone: {listed}. "
            "Keep a strong reference to it where it is registered, or register the object itself."
        )


@public
class WeakReferenceWarning(UserWarning):
    """Weak references that will load dead though their referents live, or not be found; one warning for each dump.

    It points at the user's own line, and by default Python shows what is the same from one line once. The text names
    the first paths. It is data, and holds none of the objects.

    Given by a dump under ``weakrefs="relink"``. What to do: pickle the owner of the referents too, or pass
    ``weakrefs="strong"`` to carry copies, ``"strict"`` for an error, ``"tombstone"`` for silence. `explain` lists every
    such reference.

    Attributes:
        counts: How many references point outside the pickle, by the dotted name of the referent's type.
        cycles: How many point at an object that is built from arguments which lead back to the reference.
        functions: Dotted names of the functions and classes among the referents outside: they travel by value.
        identity_keys: How many integer keys are the `id` of an object in the pickle, by the dotted name of its type:
            its copy has another.
        references: For each of them, those next to the root first: its path; ``weakref.ref``, ``weakref.proxy`` or the
            dotted name of its class; the dotted name of the referent's type; and ``"outside"``, ``"cycle"`` or
            ``"identity key"``. At most 1,000 are named, of those that the 5,000 objects next to the root hold.
    """

    def __init__(
        self,
        counts: dict[str, int],
        cycles: dict[str, int] | None = None,
        functions: tuple[str, ...] = (),
        identity_keys: dict[str, int] | None = None,
        references: tuple[LostReference, ...] = (),
    ) -> None:
        super().__init__(counts, cycles, functions, identity_keys, references)
        self.counts = counts
        self.cycles = cycles or {}
        self.functions = functions
        self.identity_keys = identity_keys or {}
        self.references = references

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the references are, and the registries with such keys: ``$.layers[2]._parent``."""
        return tuple(path for path, *_ in self.references)

    def __str__(self) -> str:
        said = [self._on_dead()] if self.counts or self.cycles else []
        if self.identity_keys:
            count = sum(self.identity_keys.values())
            where = self._places(count, "identity key")
            keys = "1 integer key is" if count == 1 else f"{count} integer keys are"
            of = ", ".join(f"{count} of {name}" for name, count in self.identity_keys.items())
            said.append(
                f"{keys} the id() of an object in the pickle ({of}){where}, and its copy has another: nothing is found "
                "under the old one. Key by the object itself, in a weakref.WeakKeyDictionary if it must not be kept, "
                "or make the keys anew in __setstate__."
            )
        return " ".join([*said, "safepickle.explain(obj) lists every such reference."])

    def _on_dead(self) -> str:
        total = sum(self.counts.values()) + sum(self.cycles.values())
        reasons, advice = [], []
        if self.counts:
            reasons.append(f"{_listed(self.counts)} outside the pickle")
            advice += self._advice_on_outside()
        if self.cycles:
            reasons.append(f"{_listed(self.cycles)} built from arguments that lead back to the reference")
            advice.append(
                "What is built from such arguments does not exist yet when the reference is made: move what leads back "
                'from the reduce arguments into the state, or pass weakrefs="tombstone" to silence this, '
                'weakrefs="strict" to make it an error.'
            )
        where = self._places(total, "outside", "cycle")
        dead = f"{total} weak reference{'s' * (total != 1)} will load dead: {'; '.join(reasons)}{where}."
        return f"{dead} {' '.join(advice)}"

    def _places(self, total: int, *reasons: str) -> str:
        most = 3
        # The keys of one registry have one path.
        paths = [path for path, _, _, reason in self.references if reason in reasons]
        named = list(dict.fromkeys(paths))[:most]
        more = total - sum(path in named for path in paths)
        if not named:
            return ""
        places = ", ".join(shorten(re.sub(_RANDOM, "...", path), 150) for path in named)
        return f", at {places}" + (f" and {more:,} more place{'s' * (more != 1)}" if more else "")

    def _advice_on_outside(self) -> list[str]:
        options = (
            'pass weakrefs="strong" to carry a copy, weakrefs="tombstone" to silence this, weakrefs="strict" to make '
            "it an error."
        )
        if not self.functions:
            return [f"Pickle the owner too, or {options}"]
        most = 5
        named = ", ".join(self.functions[:most])
        if len(self.functions) > most:
            named += f" and {len(self.functions) - most} more"
        them = "it" if len(self.functions) == 1 else "them"
        advice = [
            f"{_BY_VALUE}, so no module of the other side owns {named}: move {them} into one that it imports, pickle "
            f"{them} too, or {options}"
        ]
        if sum(self.counts.values()) > len(self.functions):
            advice.append("Of other referents, pickle the owner too.")
        return advice


@public
class CallbackWarning(WeakReferenceWarning):
    """Callbacks that `deepcopy` left out: they lead to what was copied, and cannot be copied themselves.

    Given by `deepcopy`. What to do: let the callback hold what it needs by a weak reference, or give what cannot be
    copied a ``__deepcopy__``.

    Attributes:
        counts: How many references and finalizers came back without one, by the dotted name of the callback.
    """

    def __str__(self) -> str:
        total = sum(self.counts.values())
        return (
            f"{total} weak reference{'s' * (total != 1)} came back without a callback: {_listed(self.counts)}. A "
            "callback that leads to what was copied and cannot be copied itself would go on acting on the original. "
            "Let it hold what it needs by a weak reference, or give what cannot be copied a __deepcopy__."
        )


@public
class UnpicklableWarning(UserWarning):
    """Objects that nothing can pickle were replaced by tombstones; one warning for each dump.

    Given by a dump with ``unpicklable="tombstone"`` or a callable. What to do: after the load put new objects in the
    place of the tombstones. `explain` lists the objects before the dump.

    Attributes:
        lost: For each: the dotted name of its type, its path, and why it could not be pickled.
    """

    def __init__(self, lost: list[tuple[str, str, str]]) -> None:
        super().__init__(lost)
        self.lost = lost

    def __str__(self) -> str:
        most = 20
        listed = [f"{path}: {name} ({cause})" for name, path, cause in self.lost[:most]]
        if len(self.lost) > most:
            listed.append(f"and {len(self.lost) - most} more")
        count = len(self.lost)
        replaced = "object could not be pickled and is replaced by a tombstone"
        if count != 1:
            replaced = "objects could not be pickled and are replaced by tombstones"
        return f"{count} {replaced}; the rest is saved: {'; '.join(listed)}."


_BY_VALUE = "Functions and classes of __main__, and local ones, travel by value"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} to {name}" for name, count in counts.items())


@public
class KerasFallbackWarning(UserWarning):
    """A Keras object is pickled as Keras's own archive, because the inside of this Keras is not what is expected.

    Given by a dump. What to do: use a Keras that safepickle is tested with, or choose the archive with
    `safepickle.integrations.keras.use_route`.

    Attributes:
        cls: Dotted name of the object's class.
        version: Of the installed Keras.
        difference: What was not as expected.
    """

    def __init__(self, cls: str, version: str, difference: str) -> None:
        super().__init__(cls, version, difference)
        self.cls = cls
        self.version = version
        self.difference = difference

    def __str__(self) -> str:
        return (
            f"{self.cls} is pickled as a Keras archive, because the inside of Keras {self.version} is not what "
            f"safepickle expects ({self.difference}). Attributes outside the config, weak references, and layers "
            "shared with other objects in this pickle are lost. Use a Keras that safepickle is tested with, or choose "
            'the archive yourself with safepickle.integrations.keras.use_route("archive").'
        )
