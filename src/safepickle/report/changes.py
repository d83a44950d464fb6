"""What `safepickle.diff` returns: what changed between two files or objects, with a text and a dict for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from safepickle.rebuild.records import record
from safepickle.report.document import Document, Table, document_as_text, readable
from safepickle.report.elements import ElementChanges
from safepickle.report.units import counted, human_bytes

__all__ = ["Change", "Difference", "difference_document", "in_order"]


@record
@dataclass(frozen=True, slots=True)
class Change:
    """Something that differs.

    Attributes:
        kind: ``"value"`` (a number, a text, bytes), ``"tensor"`` (an array, too), ``"entry"`` (a container, an object,
            or its type), ``"code"`` (of a class or function that travels by value), ``"tombstone"``,
            ``"strong copy"``, ``"recipe"``, ``"file"`` (a fact about it) or ``"global"`` (a name that a load imports).
        where: Its path, its name, or which fact about the file.
        before: What it was; None where there was nothing.
        after: What it is; None where there is nothing now.
        bytes: How many bytes more it takes; negative for less.
        elements: By how much elements of a tensor, or of a list of numbers, differ; else None.
        places: At how many paths the same changed, `where` included: for classes of another name alone.
    """

    kind: str
    where: str
    before: str | None
    after: str | None
    bytes: int
    elements: ElementChanges | None = None
    places: int = 1

    @property
    def verb(self) -> str:
        """``"added"``, ``"removed"`` or ``"changed"``."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


@record
@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two files or objects.

    Attributes:
        before: Name of the first file, or the type of the first object.
        after: The same for the second.
        changes: What differs. Values first, in the order of their paths; then tensors, those that changed most first.
        bytes: How many bytes longer the second one is.
        complete: Whether all of both was compared.
        equal_tensors: How many tensors and arrays are in both and are the same.
        notes: What else there is to say of the comparison.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    bytes: int
    complete: bool
    equal_tensors: int = 0
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.changes

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, ready for JSON.

        Returns:
            Everything as dicts, lists, strings and numbers.
        """
        plain = asdict(self) | {"same": self.same}
        for change, entry in zip(self.changes, plain["changes"], strict=True):
            entry["verb"] = change.verb
        return plain

    def __str__(self) -> str:
        return document_as_text(difference_document(self))


_ORDER: Final = ("value", "tensor", "entry", "code", "tombstone", "strong copy", "recipe", "file", "global")
_NOUNS: Final = {
    "value": ("value", "values"),
    "tensor": ("tensor", "tensors"),
    "entry": ("entry", "entries"),
    "code": ("class or function by value", "classes and functions by value"),
    "tombstone": ("tombstone", "tombstones"),
    "strong copy": ("strong copy", "strong copies"),
    "recipe": ("recipe", "recipes"),
    "file": ("fact about the file", "facts about the file"),
    "global": ("name that a load imports", "names that a load imports"),
}


def in_order(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Sort changes by kind, and tensors by how much they changed.

    Where NaN or infinities came or went stands first, then what has another dtype or shape, then the rest by the
    relative norm; what is there on one side alone stands last.
    """
    return tuple(sorted(changes, key=_rank))


def _rank(change: Change) -> tuple[float, ...]:
    kind = _ORDER.index(change.kind)
    found = change.elements
    if change.kind != "tensor":
        return (kind,)
    if change.verb != "changed":
        return kind, 3
    if found is None:
        return kind, 1
    if _not_finite(found):
        return kind, 0, -_not_finite(found)
    relative = math.inf if found.relative is None else found.relative
    return kind, 2, -relative, -(found.largest or 0)


def _not_finite(found: ElementChanges) -> int:
    return found.nan_appeared + found.nan_vanished + found.inf_appeared + found.inf_vanished


def difference_document(difference: Difference, rows: int = 40) -> Document:
    """Lay out what changed between two files or objects.

    Args:
        difference: What `diff` found.
        rows: How many rows a table may have.
    """
    headline = f"{difference.before or 'bytes'} -> {difference.after or 'bytes'}: "
    if difference.same:
        headline += "nothing changed"
    else:
        headline += counted(len(difference.changes), "change")
        if difference.bytes:
            headline += f", {_signed(difference.bytes)}"
    if difference.equal_tensors:
        headline += f"; {counted(difference.equal_tensors, 'tensor')} the same"
    lines = [headline, *difference.notes]
    if not difference.complete:
        lines.append("There was more than could be compared.")
    tables = []
    for kind in dict.fromkeys(change.kind for change in difference.changes):
        changes = [change for change in difference.changes if change.kind == kind]
        title = f"Changed: {counted(len(changes), *_NOUNS[kind])}"
        layout = _tensor_table if kind == "tensor" else _table
        tables.append(layout(title, changes, rows))
    return Document(lines, tables)


def _tensor_table(title: str, changes: Sequence[Change], most: int) -> Table:
    columns = ("", "where", "elements", "changed", "largest difference", "of the norm", "NaN and infinities")
    rows = []
    for change in changes:
        found = change.elements
        figures = ["", "", "", ""]
        if found is not None and found.changed is None:
            figures[0] = found.reason
        elif found is not None:
            figures = [
                "all" if found.changed == found.count else f"{found.changed:,} of {found.count:,}",
                "" if found.largest is None else f"{found.largest:.3g}",
                "" if found.relative is None else f"{found.relative:.2g}",
                ", ".join(found.not_finite()),
            ]
        rows.append((_sign(change), readable(change.where), _from_to(change.before, change.after), *figures))
    used = [column for column in range(len(columns)) if column < 3 or any(row[column] for row in rows[:most])]
    return Table(
        title + (", those that changed most first" if len(changes) > 1 else ""),
        [columns[column] for column in used],
        [[row[column] for column in used] for row in rows],
        most,
        right=[place for place, column in enumerate(used) if column in (3, 4, 5)],
    )


def _from_to(before: str | None, after: str | None) -> str:
    """Write what a tensor was and is: its dtype and shape once, where they are the same."""
    if before is None or after is None or before == after:
        return before or after or ""
    kind, bracket, _ = before.partition("] ")
    return f"{before} -> {after.removeprefix(kind + bracket) if bracket else after}"


def _table(title: str, changes: Sequence[Change], most: int) -> Table:
    rows = []
    for change in changes:
        after = change.after or ""
        if change.elements is not None:
            after = f"{after}: {change.elements}"
        if change.places > 1:
            after = f"{after}, and at {counted(change.places - 1, 'more place')}"
        size = _signed(change.bytes) if change.bytes else ""
        rows.append((_sign(change), readable(change.where), change.before or "", after, size))
    if changes[0].kind == "value" or not any(row[-1] for row in rows[:most]):
        return Table(title, ("", "where", "before", "after"), [row[:-1] for row in rows], most)
    return Table(title, ("", "where", "before", "after", "bytes"), rows, most, right=(4,))


def _sign(change: Change) -> str:
    return {"added": "+", "removed": "-", "changed": "~"}[change.verb]


def _signed(number: int) -> str:
    return f"{'+' if number >= 0 else '-'}{human_bytes(abs(number))}"
