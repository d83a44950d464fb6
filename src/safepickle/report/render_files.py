"""Words for what files hold: tables of an inspection and of a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safepickle.report.diff import is_empty_reference
from safepickle.report.render import Document, Table, left_out, readable_path
from safepickle.report.units import counted, human_bytes

if TYPE_CHECKING:
    from safepickle.report.diff import Difference
    from safepickle.report.inspection import Inspection

__all__ = ["difference_document", "inspection_document"]

_VERDICTS = {
    "safe": "loads with allow=(): nothing in it is foreign",
    "needs_allow": "loads with the names below in allow=, if you trust them",
    "refused": "no allow= makes it load",
    "damaged": "is not whole, or no pickle",
}


def inspection_document(inspection: Inspection, rows: int = 12) -> Document:
    """Lay out what a file holds.

    Args:
        inspection: What `safepickle.inspect` found.
        rows: How many rows a table may have.
    """
    kind = [inspection.format, *([inspection.compression] if inspection.compression else [])]
    if inspection.protocol is not None:
        kind.append(f"protocol {inspection.protocol}")
    name = inspection.file or "bytes"
    headline = f"{name}: {', '.join(kind)}, {human_bytes(inspection.file_bytes)}"
    verdict = f"verdict {inspection.verdict}: {_VERDICTS[inspection.verdict]}"
    tables = []
    wrong = [problem for problem in inspection.problems if problem.verdict != "needs_allow"]
    if wrong:
        lines = [
            ("" if found.offset is None else f"{found.offset:,}", found.name or found.member, found.reason)
            for found in wrong[:rows]
        ]
        tables.append(Table("What is wrong", ("byte", "name", "reason"), lines, left_out(len(wrong), rows), right=(0,)))
    if inspection.tensors:
        largest = sorted(inspection.tensors, key=lambda entry: -entry.nbytes)[:rows]
        tables.append(
            Table(
                f"{counted(len(inspection.tensors), 'tensor')}, {human_bytes(inspection.tensor_bytes)}",
                ("bytes", "path", "dtype", "shape"),
                [
                    (human_bytes(entry.nbytes), readable_path(entry.path), entry.dtype, str(list(entry.shape)))
                    for entry in largest
                ],
                left_out(len(inspection.tensors), rows),
                right=(0,),
            )
        )
    tree = [node for node in inspection.tree if not is_empty_reference(node)]
    if len(tree) > 1:
        tables.append(
            Table(
                "The top levels",
                ("bytes", "entries", "path", "type"),
                [
                    (human_bytes(node.nbytes), f"{node.entries:,}", readable_path(node.path), node.type)
                    for node in tree[:rows]
                ],
                left_out(len(tree), rows),
                right=(0, 1),
            )
        )
    for title, columns, found in (
        (
            "Tombstones",
            ("path", "reason", "was a weak reference to"),
            [(entry.path, entry.reason, entry.referent_type or "unknown") for entry in inspection.tombstones],
        ),
        ("Strong copies", ("path", "type"), [(entry.path, entry.referent_type) for entry in inspection.strong_copies]),
        ("Recipes", ("path", "built by"), [(entry.path, entry.factory) for entry in inspection.recipes]),
    ):
        if found:
            shown = [(readable_path(path), *rest) for path, *rest in found[:rows]]
            tables.append(Table(f"{title}: {len(found):,}", columns, shown, left_out(len(found), rows)))
    if inspection.globals:
        order = {"refused": 0, "needs_allow": 1}
        uses = sorted(inspection.globals, key=lambda use: order.get(use.status, 2))
        tables.append(
            Table(
                f"A load imports {counted(len(uses), 'name')}",
                ("name", "status", "uses", "first at"),
                [
                    (use.name, use.status, f"{use.count:,}", readable_path(use.paths[0]) if use.paths else "")
                    for use in uses[:rows]
                ],
                left_out(len(uses), rows),
                right=(2,),
            )
        )
    closing = ""
    if inspection.buffers:
        closing = f"A load has to be given {counted(inspection.buffers, 'out-of-band buffer')}."
    return Document((headline, verdict), tables, closing)


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


_NOUNS = {
    "file": ("fact about the file", "facts about the file"),
    "tensor": ("tensor", "tensors"),
    "entry": ("entry", "entries"),
    "tombstone": ("tombstone", "tombstones"),
    "strong copy": ("strong copy", "strong copies"),
    "recipe": ("recipe", "recipes"),
    "global": ("name that a load imports", "names that a load imports"),
}
