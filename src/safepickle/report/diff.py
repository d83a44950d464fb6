"""What changed between two files, as far as it shows without running either of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safepickle.rebuild.records import record

if TYPE_CHECKING:
    from safepickle.report.inspection import Inspection, Node

__all__ = ["Change", "Difference", "diff"]


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
        from safepickle.report.render import document_as_text
        from safepickle.report.render_files import difference_document

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
    from safepickle.report.inspect import inspect

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


def is_empty_reference(node: Node) -> bool:
    """Tell whether an entry is no more than the None that a tombstone leads to."""
    return node.type == "NoneType" and node.path.endswith("()")


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
