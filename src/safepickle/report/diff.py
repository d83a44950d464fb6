"""What changed between two files, as far as it shows without running either of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from safepickle.rebuild.records import record
from safepickle.report.document import Document, Table, document_as_text, left_out, readable_path
from safepickle.report.inspect import inspect
from safepickle.report.inspection import Inspection, is_empty_reference
from safepickle.report.units import counted, human_bytes

__all__ = ["Change", "Difference", "diff", "difference_document"]


@record
@dataclass(frozen=True, slots=True)
class Change:
    """Something that differs.

    Attributes:
        kind: ``"file"``, ``"tensor"``, ``"entry"`` (of the top levels), ``"tombstone"``, ``"strong copy"``,
            ``"recipe"`` or ``"global"``.
        where: Its path, its name, or which fact about the file.
        before: What it was; None where there was nothing.
        after: What it is; None where there is nothing now.
        bytes: How many bytes more it takes; negative for less.
    """

    kind: str
    where: str
    before: str | None
    after: str | None
    bytes: int

    @property
    def verb(self) -> str:
        """``"added"``, ``"removed"`` or ``"changed"``."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


@record
@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two files.

    Attributes:
        before: Name of the first file.
        after: Name of the second.
        changes: What differs, sorted by kind and then by path.
        bytes: How many bytes longer the second file is.
        complete: Whether both files could be read to their ends.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    bytes: int
    complete: bool

    @property
    def same(self) -> bool:
        """Whether nothing that shows from outside differs."""
        return not self.changes

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers, ready for JSON."""
        plain = asdict(self)
        plain["changes"] = [asdict(change) | {"verb": change.verb} for change in self.changes]
        return plain | {"same": self.same}

    def __str__(self) -> str:
        return document_as_text(difference_document(self))


def diff(before: Any, after: Any) -> Difference:
    """Compare two files by what `safepickle.inspect` finds in them.

    Args:
        before: A path, or an open binary file.
        after: The same.

    Returns:
        What was added, removed and changed: entries, tensors by shape, dtype and size, tombstones, strong copies,
        recipes and the names that a load would import. Values are not compared.
    """
    return compare(inspect(before), inspect(after))


def compare(before: Inspection, after: Inspection) -> Difference:
    """Compare two inspections. See `diff`."""
    changes: list[Change] = []
    for name in ("format", "compression", "protocol", "verdict", "buffers"):
        one, other = getattr(before, name), getattr(after, name)
        if one != other:
            changes.append(Change("file", name, str(one), str(other), 0))
    changes += _compare("tensor", _tensors(before), _tensors(after))
    # A tensor is said more of as a tensor than as an entry.
    tensors = {entry.path for entry in (*before.tensors, *after.tensors)}
    changes += _compare("entry", _entries(before, tensors), _entries(after, tensors))
    changes += _compare("tombstone", _tombstones(before), _tombstones(after))
    changes += _compare("strong copy", _typed(before.strong_copies), _typed(after.strong_copies))
    recipes = [{entry.path: (entry.factory, 0) for entry in inspection.recipes} for inspection in (before, after)]
    changes += _compare("recipe", *recipes)
    names = [{use.name: (use.status, 0) for use in inspection.globals} for inspection in (before, after)]
    changes += _compare("global", *names)
    return Difference(
        before=before.file,
        after=after.file,
        changes=tuple(changes),
        bytes=after.file_bytes - before.file_bytes,
        complete=before.complete and after.complete,
    )


def _tensors(inspection: Inspection) -> dict[str, tuple[str, int]]:
    return {
        entry.path: (f"{entry.dtype}[{', '.join(map(str, entry.shape))}]", entry.nbytes) for entry in inspection.tensors
    }


def _entries(inspection: Inspection, tensors: set[str]) -> dict[str, tuple[str, int]]:
    return {
        node.path: (node.type if not node.entries else f"{node.type} of {node.entries:,}", node.nbytes)
        for node in inspection.tree
        if node.path not in tensors and not is_empty_reference(node)
    }


def _tombstones(inspection: Inspection) -> dict[str, tuple[str, int]]:
    return {
        entry.path: (f"{entry.reason}, was {entry.referent_type or 'of unknown type'}", 0)
        for entry in inspection.tombstones
    }


def _typed(entries: Iterable[Any]) -> dict[str, tuple[str, int]]:
    return {entry.path: (entry.referent_type, 0) for entry in entries}


def _compare(kind: str, before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]) -> list[Change]:
    """Compare descriptions and sizes by path, in the order of the files."""
    nothing = (None, 0)
    changes = []
    for where in dict.fromkeys((*before, *after)):
        one, one_size = before.get(where, nothing)
        other, other_size = after.get(where, nothing)
        if one != other or one_size != other_size:
            changes.append(Change(kind, where, one, other, other_size - one_size))
    return changes


def difference_document(difference: Difference, rows: int = 40) -> Document:
    """Lay out what changed between two files.

    Args:
        difference: What `diff` found.
        rows: How many rows a table may have.
    """
    sign = "+" if difference.bytes >= 0 else "-"
    headline = f"{difference.before or 'bytes'} -> {difference.after or 'bytes'}: "
    if difference.same:
        headline += "nothing changed but, perhaps, values"
    else:
        headline += f"{counted(len(difference.changes), 'change')}, {sign}{human_bytes(abs(difference.bytes))}"
    lines = [headline]
    if not difference.complete:
        lines.append("At least one of the files could not be read to its end; safepickle inspect says why.")
    tables = []
    for kind in dict.fromkeys(change.kind for change in difference.changes):
        changes = [change for change in difference.changes if change.kind == kind]
        tables.append(
            Table(
                f"Changed: {counted(len(changes), *_NOUNS[kind])}",
                ("", "where", "before", "after", "bytes"),
                [
                    (
                        {"added": "+", "removed": "-", "changed": "~"}[change.verb],
                        readable_path(change.where),
                        change.before or "",
                        change.after or "",
                        f"{'+' if change.bytes > 0 else '-'}{human_bytes(abs(change.bytes))}" if change.bytes else "",
                    )
                    for change in changes[:rows]
                ],
                left_out(len(changes), rows),
                right=(4,),
            )
        )
    return Document(tuple(lines), tables, "")


_NOUNS: Final = {
    "file": ("fact about the file", "facts about the file"),
    "tensor": ("tensor", "tensors"),
    "entry": ("entry", "entries"),
    "tombstone": ("tombstone", "tombstones"),
    "strong copy": ("strong copy", "strong copies"),
    "recipe": ("recipe", "recipes"),
    "global": ("name that a load imports", "names that a load imports"),
}
