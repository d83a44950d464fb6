"""Words for an explanation: text that fits a terminal, and HTML for notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from safepickle.report.units import counted, human_bytes
from safepickle.tracing.naming import shorten

if TYPE_CHECKING:
    from safepickle.report.explanation import Explanation, Subtree, WeakReference

__all__ = [
    "Document",
    "Table",
    "as_html",
    "as_text",
    "document_as_text",
    "explanation_document",
    "headline",
    "left_out",
    "readable_path",
]

_ROWS: Final = 12
_PATH_WIDTH: Final = 60
_NUMBER: Final = re.compile(r"\d+")


class Table:
    """A titled table of strings.

    Attributes:
        title: What it is about.
        columns: Headings.
        rows: Cells.
        more: What to say below, where rows were left out.
        right: The columns that are aligned to the right.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        more: str = "",
        right: Iterable[int] = (),
    ) -> None:
        self.title = title
        self.columns = tuple(columns)
        self.rows = [tuple(map(_one_line, row)) for row in rows]
        self.more = more
        self.right = frozenset(right)


class Document:
    """A report: what to say first, tables, and what to say last.

    Attributes:
        lines: What to say first, the most important line first.
        tables: Tables.
        closing: What to say last, if anything.
    """

    def __init__(self, lines: Sequence[str], tables: Sequence[Table], closing: str) -> None:
        self.lines = tuple(lines)
        self.tables = tuple(tables)
        self.closing = closing


def _one_line(cell: str) -> str:
    """Join the lines of what somebody else has worded: a row is one line."""
    lines = cell.splitlines()
    return cell if len(lines) < 2 else " ".join(line.strip() for line in lines if line.strip())


def headline(explanation: Explanation) -> str:
    """Say in one line what would be dumped, and whether that succeeds."""
    size = f"{counted(explanation.objects, 'object')}, {human_bytes(explanation.bytes)}"
    whole = "" if explanation.complete else " at least: too large to be seen whole"
    verdict = "can be pickled" if explanation.picklable else "cannot be pickled"
    return f"{explanation.type} {verdict}: {size}{whole}"


def explanation_document(explanation: Explanation, rows: int = _ROWS) -> Document:
    """Lay out what a dump would do, in those tables alone that have something to say.

    Args:
        explanation: What to report.
        rows: How many rows a table may have.
    """
    made = []
    inside = [found for found in explanation.unpicklable if not found.outside]
    outside = [found for found in explanation.unpicklable if found.outside]
    for found, title in ((inside, "Cannot be pickled"), (outside, "A strong copy of these would fail")):
        if found:
            made.append(
                Table(
                    f"{title}: {counted(len(found), 'object')}",
                    ("path", "type", "becomes", "reason"),
                    [
                        (readable_path(entry.path), _type(entry.type), entry.becomes, f"{entry.error}: {entry.reason}")
                        for entry in found[:rows]
                    ],
                    left_out(len(found), rows),
                )
            )
    if explanation.weak_references:
        made.append(_weak_references(explanation, rows))
    if explanation.hazards:
        made.append(
            Table(
                "Others would get this wrong without a word",
                ("path", "kind", "who", "what would be loaded"),
                [
                    (readable_path(entry.path), entry.kind, entry.peers, entry.effect)
                    for entry in explanation.hazards[:rows]
                ],
                left_out(len(explanation.hazards), rows),
            )
        )
    if explanation.identity_keys:
        made.append(_identity_keys(explanation, rows))
    if explanation.omissions:
        made.append(_omissions(explanation, rows))
    if len(explanation.subtrees) > 1:
        made.append(
            Table(
                "Where the bytes go",
                ("bytes", "share", "objects", "path", "type"),
                _subtree_rows(_largest(explanation.subtrees, rows), explanation.bytes),
                right=(0, 1, 2),
            )
        )
    return Document((headline(explanation),), made, closing_line(explanation))


def as_text(explanation: Explanation) -> str:
    """Lay the report out as plain text."""
    return document_as_text(explanation_document(explanation))


def document_as_text(document: Document) -> str:
    """Lay any report out as plain text."""
    parts = ["\n".join(document.lines), *map(table_as_text, document.tables)]
    return "\n\n".join([*parts, document.closing] if document.closing else parts)


def closing_line(explanation: Explanation) -> str:
    """Say what strong copies add, where there is anything to copy."""
    if not explanation.strong_adds_objects:
        return ""
    what = f"{human_bytes(explanation.strong_adds_bytes)} ({counted(explanation.strong_adds_objects, 'object')})"
    return f'weakrefs="strong" {"adds" if explanation.weakrefs == "strong" else "would add"} {what}.'


def table_as_text(table: Table) -> str:
    """Lay a table out in columns."""
    cells = [table.columns, *table.rows]
    last = len(table.columns) - 1
    widths = [max(len(row[column]) for row in cells) for column in range(last + 1)]
    lines = [table.title]
    for row in cells:
        padded = [
            cell.rjust(widths[column])
            if column in table.right
            else cell
            if column == last
            else cell.ljust(widths[column])
            for column, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(padded)).rstrip())
    if table.more:
        lines.append(f"  {table.more}")
    return "\n".join(lines)


def as_html(explanation: Explanation) -> str:
    """Lay the report out for a notebook, which brings its own style."""
    parts = [f"<div><p><strong>{escape(headline(explanation))}</strong></p>"]
    document = explanation_document(explanation)
    for table in document.tables:
        parts.append(f"<p>{escape(table.title)}</p><table><thead><tr>")
        parts += [f"<th>{escape(column)}</th>" for column in table.columns]
        parts.append("</tr></thead><tbody>")
        for row in table.rows:
            cells = "".join(f"<td>{_html_cell(cell)}</td>" for cell in row)
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</tbody></table>")
        if table.more:
            parts.append(f"<p>{escape(table.more)}</p>")
    if document.closing:
        parts.append(f"<p>{escape(document.closing)}</p>")
    return "".join(parts) + "</div>"


def _html_cell(cell: str) -> str:
    return f"<code>{escape(cell)}</code>" if cell.lstrip().startswith("$") else escape(cell).replace("  ", "&emsp;")


def _weak_references(explanation: Explanation, rows: int) -> Table:
    """One row for all that are alike, the worst first."""
    alike: dict[tuple[str, ...], list[WeakReference]] = {}
    for entry in explanation.weak_references:
        key = (entry.becomes, entry.state, entry.kind, entry.referent_type or "")
        alike.setdefault(key, []).append(entry)
    order = ("error", "tombstone", "left out", "dead finalizer", "strong copy", "weak reference")
    groups = sorted(alike.values(), key=lambda group: (order.index(group[0].becomes), -len(group)))
    lines = []
    for group in groups[:rows]:
        first = group[0]
        path = readable_path(first.path) + (f" and {len(group) - 1:,} more" if len(group) > 1 else "")
        becomes = first.becomes
        if len(group) == 1 and first.referent_path is not None and first.becomes == "weak reference":
            becomes += f" to {readable_path(first.referent_path)}"
        lines.append((path, first.kind, first.state, _type(first.referent_type), becomes))
    counts: dict[str, int] = {}
    for entry in explanation.weak_references:
        counts[entry.state] = counts.get(entry.state, 0) + 1
    summary = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    title = f'Weak references under weakrefs="{explanation.weakrefs}": {summary}'
    if explanation.weakrefs == "callable":
        title = f"Weak references under a callable policy: {summary}"
    return Table(title, ("path", "kind", "referent", "of type", "becomes"), lines, left_out(len(groups), rows))


def _identity_keys(explanation: Explanation, rows: int) -> Table:
    """One row for all keys of a registry."""
    alike: dict[tuple[str, str], list[str]] = {}
    for entry in explanation.identity_keys:
        alike.setdefault((entry.path, entry.object_type), []).append(entry.object_path)
    lines = []
    for (path, kind), objects in list(alike.items())[:rows]:
        of = readable_path(objects[0]) + (f" and {len(objects) - 1:,} more" if len(objects) > 1 else "")
        lines.append((readable_path(path), of, _type(kind)))
    title = "Keys that are the id() of an object: its copy has another, so nothing is found under them"
    return Table(title, ("path", "id of", "of type"), lines, left_out(len(alike), rows))


def _omissions(explanation: Explanation, rows: int) -> Table:
    """One row for all objects of a class that leave out the same."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for entry in explanation.omissions:
        alike.setdefault((entry.type, entry.attributes, entry.by), []).append(entry.path)
    lines = []
    for (_, attributes, by), paths in list(alike.items())[:rows]:
        path = readable_path(paths[0]) + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")
        lines.append((path, shorten(", ".join(attributes), 90), by))
    return Table(
        "Left out by the objects' own classes, under any pickler",
        ("path", "attributes", "by"),
        lines,
        left_out(len(alike), rows),
    )


def _largest(subtrees: Sequence[Subtree], rows: int) -> list[list[Subtree]]:
    """Choose the largest subtrees, in their order; neighbours that are alike make up one row."""
    groups: list[list[Subtree]] = []
    for position, entry in enumerate(subtrees):
        following = subtrees[position + 1] if position + 1 < len(subtrees) else None
        is_leaf = following is None or following.depth <= entry.depth
        before = groups[-1][-1] if groups else None
        if before is not None and is_leaf and _alike(before, entry):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    chosen = sorted(range(len(groups)), key=lambda position: -sum(entry.bytes for entry in groups[position]))[:rows]
    return [groups[position] for position in sorted(chosen)]


def _alike(one: Subtree, other: Subtree) -> bool:
    same = (one.type, one.depth, _NUMBER.sub("", one.path)) == (other.type, other.depth, _NUMBER.sub("", other.path))
    return same and abs(one.bytes - other.bytes) <= 0.1 * one.bytes


def _subtree_rows(groups: Iterable[list[Subtree]], total: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        first, size = group[0], sum(entry.bytes for entry in group)
        alike = f" and {len(group) - 1:,} alike" if len(group) > 1 else ""
        objects = sum(entry.objects for entry in group)
        path = "  " * first.depth + readable_path(first.path) + alike
        rows.append((human_bytes(size), f"{size / max(1, total):.0%}", f"{objects:,}", path, _type(first.type)))
    return rows


def _type(name: str | None) -> str:
    return (name or "").removeprefix("builtins.")


def readable_path(path: str) -> str:
    """Cut a path that no line could hold."""
    return path if len(path) <= _PATH_WIDTH else shorten(path, 90)


def left_out(number: int, rows: int) -> str:
    """Say how many rows were left out."""
    return f"and {number - rows:,} more" if number > rows else ""
