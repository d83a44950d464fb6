"""The data that `explain` returns. `render` words it.

It holds none of the objects that it is about, so that keeping a report keeps nothing else alive.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from safepickle.rebuild.records import record
from safepickle.report.graph import Graph

__all__ = ["Explanation", "Hazard", "IdentityKey", "Omission", "Subtree", "UnpicklableObject", "WeakReference"]


@record
@dataclass(frozen=True, slots=True)
class WeakReference:
    """A weak reference, or one entry of a weak container.

    Attributes:
        path: Where it is.
        kind: ``weakref.ref``, ``weakref.proxy``, or the dotted name of its class.
        state: ``"kept"``: the referent is in the pickle in its own right. ``"outside"``: it lives, and is not.
            ``"dead"``. ``"cycle"``: the referent is being built when the reference has to be made.
        referent_type: Dotted name of the referent's type; None when it is dead.
        becomes: ``"weak reference"``, ``"tombstone"``, ``"strong copy"``, ``"left out"`` (of a weak container),
            ``"dead finalizer"`` or ``"error"``.
        referent_path: Where a kept referent is, or the dotted name of one that the other side imports.
        adds: Bytes that only a strong copy brings in: those of this referent, and of all that no reference before
            this one has brought in.
    """

    path: str
    kind: str
    state: str
    referent_type: str | None
    becomes: str
    referent_path: str | None
    adds: int


@record
@dataclass(frozen=True, slots=True)
class UnpicklableObject:
    """An object that cannot be pickled.

    Attributes:
        path: Where it is.
        type: Dotted name of its type.
        error: Name of the exception's type.
        reason: What the exception says.
        outside: Only a strong copy would bring it into the pickle.
        becomes: ``"error"``, or ``"tombstone"`` or ``"replacement"`` as the option ``unpicklable`` says.
    """

    path: str
    type: str
    error: str
    reason: str
    outside: bool
    becomes: str


@record
@dataclass(frozen=True, slots=True)
class Hazard:
    """What another pickler would get wrong without a word.

    Attributes:
        path: Where it is.
        kind: As in `WeakReference`.
        peers: ``"pickle and cloudpickle"``, or ``"cloudpickle"`` where pickle raises an error.
        effect: What would be loaded.
    """

    path: str
    kind: str
    peers: str
    effect: str


@record
@dataclass(frozen=True, slots=True)
class Omission:
    """Attributes of an object that no pickler has: its own class leaves them out.

    Attributes:
        path: Where the object is.
        type: Dotted name of its type.
        attributes: Their names.
        by: The method that leaves them out.
    """

    path: str
    type: str
    attributes: tuple[str, ...]
    by: str


@record
@dataclass(frozen=True, slots=True)
class IdentityKey:
    """An integer key that is the `id` of an object in the graph. Its copy has another id.

    Attributes:
        path: Where the dictionary or the set is that holds the key.
        object_path: Where the object is.
        object_type: Dotted name of its type.
    """

    path: str
    object_path: str
    object_type: str


@record
@dataclass(frozen=True, slots=True)
class Subtree:
    """An object with all that hangs on it, every object counted once: on the shortest path from the root.

    Attributes:
        path: Where it is.
        type: Dotted name of its type.
        bytes: What it takes in the pickle.
        objects: How many objects it consists of.
        depth: How many subtrees in the same list contain it.
    """

    path: str
    type: str
    bytes: int
    objects: int
    depth: int


@record
@dataclass(frozen=True, slots=True)
class Explanation:
    """What a dump would do. It is data, and holds none of the objects.

    Attributes:
        type: Dotted name of the root's type.
        protocol: Of the pickle.
        weakrefs: The policy, or ``"callable"``.
        on_unpicklable: What becomes of unpicklable objects: ``"raise"``, ``"tombstone"`` or ``"callable"``.
        objects: How many objects are in the pickle, without numbers and short strings.
        bytes: The size of the pickle: computed object by object, so within a few per cent.
        weak_references: All of them.
        unpicklable: All objects that cannot be pickled.
        hazards: What pickle or cloudpickle would get wrong without a word.
        subtrees: Where the bytes go: the large ones, each before those that it contains.
        strong_adds_bytes: What the policy ``"strong"`` adds, or would add.
        strong_adds_objects: The same, in objects.
        complete: Whether the whole graph was seen.
        graph: The objects as numbers, names and sizes.
        omissions: What the classes of objects leave out themselves.
        identity_keys: Keys that are the `id` of an object.
    """

    type: str
    protocol: int
    weakrefs: str
    on_unpicklable: str
    objects: int
    bytes: int
    weak_references: tuple[WeakReference, ...]
    unpicklable: tuple[UnpicklableObject, ...]
    hazards: tuple[Hazard, ...]
    subtrees: tuple[Subtree, ...]
    strong_adds_bytes: int
    strong_adds_objects: int
    complete: bool
    graph: Graph
    omissions: tuple[Omission, ...] = ()
    identity_keys: tuple[IdentityKey, ...] = ()

    @property
    def picklable(self) -> bool:
        """Whether a dump with these options succeeds."""
        failing = any(found.becomes == "error" and not found.outside for found in self.unpicklable)
        return not failing and all(found.becomes != "error" for found in self.weak_references)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the graph as dicts, lists, strings and numbers, ready for JSON."""
        facts = ["type", "protocol", "weakrefs", "on_unpicklable", "picklable", "objects", "bytes"]
        facts += ["strong_adds_bytes", "strong_adds_objects", "complete"]
        plain = {name: getattr(self, name) for name in facts}
        for name in ("weak_references", "unpicklable", "hazards", "omissions", "identity_keys", "subtrees"):
            plain[name] = [asdict(entry) for entry in getattr(self, name)]
        return plain

    def picture(self, path: str | os.PathLike[str], *, max_nodes: int = 150) -> None:
        """Draw the graph to a file: ``.svg``, ``.html`` (with zoom and search) or ``.dot``.

        Args:
            path: Where to; the suffix says what.
            max_nodes: About how many boxes to draw. What is alike or small is folded until they suffice.

        Raises:
            ValueError: The suffix is none of the three.
            ModuleNotFoundError, RuntimeError: An SVG or HTML needs the Python package ``graphviz``, and its program
                ``dot``; one of them is missing.
        """
        from safepickle.report.drawing.picture import draw

        draw(self, path, max_nodes)

    def __str__(self) -> str:
        from safepickle.report.render import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from safepickle.report.render import as_html

        return as_html(self)
