"""What `explain` returns: data, and how it reads.

It holds none of the objects that it is about, so that keeping a report keeps nothing else alive.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from safepickle.rebuild.records import record
from safepickle.report.document import Document, Table, document_as_html, document_as_text, readable
from safepickle.report.graph import Graph
from safepickle.report.units import counted, human_bytes

__all__ = [
    "Explanation",
    "Hazard",
    "IdentityKey",
    "Omission",
    "Subtree",
    "UnpicklableObject",
    "WeakReference",
    "explanation_document",
]

_ROWS: Final = 12
_NUMBER: Final = re.compile(r"\d+")
_Entry = TypeVar("_Entry")


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
        places: How many places in the graph hold this very object.
    """

    path: str
    kind: str
    state: str
    referent_type: str | None
    becomes: str
    referent_path: str | None
    adds: int
    places: int = 1


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
        """Return the report as plain data, ready for JSON.

        Returns:
            Everything but the graph, as dicts, lists, strings and numbers.
        """
        facts = ["type", "protocol", "weakrefs", "on_unpicklable", "picklable", "objects", "bytes"]
        facts += ["strong_adds_bytes", "strong_adds_objects", "complete"]
        plain = {name: getattr(self, name) for name in facts}
        for name in ("weak_references", "unpicklable", "hazards", "omissions", "identity_keys", "subtrees"):
            plain[name] = [asdict(entry) for entry in getattr(self, name)]
        return plain

    def picture(self, path: str | os.PathLike[str], *, max_nodes: int = 150) -> None:
        """Draw the graph to a file.

        Args:
            path: Where to; the suffix says what. ``.html`` is a page to look around in, which needs nothing but a
                browser; ``.svg``, ``.png`` and ``.pdf`` are laid out by graphviz; ``.dot`` is for graphviz to read.
            max_nodes: About how many boxes to draw. What is alike or small is folded until they suffice.

        Raises:
            ValueError: The suffix is none of these.
            ModuleNotFoundError, RuntimeError: The Python package ``graphviz``, or its program ``dot``, is missing, and
                the suffix asks for it.
        """
        from safepickle.report.drawing.picture import draw

        reasons = {entry.path: f"{entry.error}: {entry.reason}" for entry in self.unpicklable}
        draw(self.graph, path, max_nodes, title=headline(self), reasons=reasons)

    def __str__(self) -> str:
        return document_as_text(explanation_document(self))

    def _repr_html_(self) -> str:
        return document_as_html(explanation_document(self))


def headline(explanation: Explanation) -> str:
    """Say in one line what would be dumped, and whether that succeeds."""
    size = f"{counted(explanation.objects, 'object')}, {human_bytes(explanation.bytes)}"
    whole = "" if explanation.complete else " at least: too large to be seen whole"
    verdict = "can be pickled" if explanation.picklable else "cannot be pickled"
    return f"{explanation.type} {verdict}: {size}{whole}"


def explanation_document(explanation: Explanation, rows: int = _ROWS) -> Document:
    """Lay out what a dump would do.

    Args:
        explanation: What to report.
        rows: How many rows a table may have.
    """
    tables = [
        _unpicklable("Cannot be pickled", [found for found in explanation.unpicklable if not found.outside], rows),
        _unpicklable(
            "A strong copy of these would fail", [found for found in explanation.unpicklable if found.outside], rows
        ),
        _weak_references(explanation, rows),
        Table(
            "Others would get this wrong without a word",
            ("path", "kind", "who", "what would be loaded"),
            [(readable(entry.path), entry.kind, entry.peers, entry.effect) for entry in explanation.hazards],
            rows,
        ),
        _identity_keys(explanation, rows),
        _omissions(explanation, rows),
        Table(
            "Where the bytes go",
            ("bytes", "share", "objects", "path", "type"),
            _subtree_rows(explanation, rows) if len(explanation.subtrees) > 1 else (),
            rows,
            right=(0, 1, 2),
        ),
    ]
    return Document([headline(explanation)], tables, _closing_line(explanation))


def _closing_line(explanation: Explanation) -> str:
    """Say what strong copies add, where there is anything to copy."""
    if not explanation.strong_adds_objects:
        return ""
    what = f"{human_bytes(explanation.strong_adds_bytes)} ({counted(explanation.strong_adds_objects, 'object')})"
    return f'weakrefs="strong" {"adds" if explanation.weakrefs == "strong" else "would add"} {what}.'


def _unpicklable(title: str, found: Sequence[UnpicklableObject], rows: int) -> Table:
    return Table(
        f"{title}: {counted(len(found), 'object')}",
        ("path", "type", "becomes", "reason"),
        [(readable(entry.path), _type(entry.type), entry.becomes, f"{entry.error}: {entry.reason}") for entry in found],
        rows,
    )


def _weak_references(explanation: Explanation, rows: int) -> Table:
    """One row for all that are alike, the worst first."""
    order = ("error", "tombstone", "left out", "dead finalizer", "strong copy", "weak reference")
    groups = _alike(
        explanation.weak_references, lambda entry: (entry.becomes, entry.state, entry.kind, entry.referent_type)
    )
    groups.sort(key=lambda group: (order.index(group[0].becomes), -len(group)))
    lines = []
    for first, *others in groups:
        path = _and_more(first.path, 1 + len(others), first.places + sum(entry.places for entry in others))
        becomes = first.becomes
        if not others and first.referent_path is not None and becomes == "weak reference":
            becomes += f" to {readable(first.referent_path)}"
        lines.append((path, first.kind, first.state, _type(first.referent_type), becomes))
    counts = Counter(entry.state for entry in explanation.weak_references)
    policy = "a callable policy" if explanation.weakrefs == "callable" else f'weakrefs="{explanation.weakrefs}"'
    title = f"Weak references under {policy}: {', '.join(f'{count:,} {state}' for state, count in counts.items())}"
    return Table(title, ("path", "kind", "referent", "of type", "becomes"), lines, rows)


def _identity_keys(explanation: Explanation, rows: int) -> Table:
    """One row for all registries that their owners call the same, and objects of one type."""
    groups = _alike(
        explanation.identity_keys,
        lambda entry: (_NUMBER.sub("", entry.path.rpartition(".")[2]), entry.object_type),
    )
    return Table(
        "Keys that are the id() of an object: its copy has another, so nothing is found under them",
        ("path", "id of", "of type"),
        [
            (
                _and_more(group[0].path, 1, len({entry.path for entry in group})),
                _and_more(group[0].object_path, len(group)),
                _type(group[0].object_type),
            )
            for group in groups
        ],
        rows,
    )


def _omissions(explanation: Explanation, rows: int) -> Table:
    """One row for all objects of a class that leave out the same."""
    return Table(
        "Left out by the objects' own classes, under any pickler",
        ("path", "attributes", "by"),
        [
            (_and_more(first.path, 1 + len(others)), readable(", ".join(first.attributes)), first.by)
            for first, *others in _alike(explanation.omissions, lambda entry: (entry.type, entry.attributes, entry.by))
        ],
        rows,
    )


def _alike(entries: Iterable[_Entry], key: Callable[[_Entry], Hashable]) -> list[list[_Entry]]:
    """Group what has the same key, in the order of the first ones."""
    groups: dict[Hashable, list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return list(groups.values())


def _and_more(path: str, count: int, places: int = 0) -> str:
    """Write the path to the first of several things, each of which may be in several places."""
    more = f" and {count - 1:,} more" if count > 1 else ""
    if places > count:
        more = f"{more}, in {places:,} places" if more else f" and {counted(places - 1, 'more place')}"
    return readable(path) + more


def _largest(subtrees: Sequence[Subtree], rows: int) -> list[list[Subtree]]:
    """Choose the largest subtrees, in their order; neighbours that are alike make up one row."""
    groups: list[list[Subtree]] = []
    for position, entry in enumerate(subtrees):
        following = subtrees[position + 1] if position + 1 < len(subtrees) else None
        is_leaf = following is None or following.depth <= entry.depth
        before = groups[-1][-1] if groups else None
        if before is not None and is_leaf and _are_alike(before, entry):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    chosen = sorted(range(len(groups)), key=lambda position: -sum(entry.bytes for entry in groups[position]))[:rows]
    return [groups[position] for position in sorted(chosen)]


def _are_alike(one: Subtree, other: Subtree) -> bool:
    same = (one.type, one.depth, _NUMBER.sub("", one.path)) == (other.type, other.depth, _NUMBER.sub("", other.path))
    return same and abs(one.bytes - other.bytes) <= 0.1 * one.bytes


def _subtree_rows(explanation: Explanation, most: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for group in _largest(explanation.subtrees, most):
        first, size = group[0], sum(entry.bytes for entry in group)
        alike = f" and {len(group) - 1:,} alike" if len(group) > 1 else ""
        objects = sum(entry.objects for entry in group)
        path = "  " * first.depth + readable(first.path) + alike
        rows.append(
            (human_bytes(size), f"{size / max(1, explanation.bytes):.0%}", f"{objects:,}", path, _type(first.type))
        )
    return rows


def _type(name: str | None) -> str:
    return (name or "").removeprefix("builtins.")
