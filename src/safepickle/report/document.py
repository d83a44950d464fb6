"""A report as a document: titled tables, as text that fits a terminal and as HTML for notebooks.

It knows nothing of what a report is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from safepickle.messages import shorten

__all__ = ["Document", "Table", "document_as_html", "document_as_text", "left_out", "readable"]

_LONGEST_CELL: Final = 90


class Table:
    """A titled table of strings.

    Args:
        title: What it is about.
        columns: Headings.
        rows: Cells.
        most: How many rows to show.
        right: The columns that are aligned to the right.

    Attributes:
        more: What to say below, where rows were left out.
    """

    def __init__(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], most: int, right: Iterable[int] = ()
    ) -> None:
        self.title = title
        self.columns = tuple(columns)
        self.rows = [tuple(map(_one_line, row)) for row in rows[:most]]
        self.more = left_out(len(rows), most)
        self.right = frozenset(right)


class Document:
    """A report: what to say first, those of its tables that have something to say, and what to say last.

    Args:
        lines: What to say first, the most important line first.
        tables: Tables, empty ones included.
        closing: What to say last, if anything.
    """

    def __init__(self, lines: Iterable[str], tables: Iterable[Table], closing: str = "") -> None:
        self.lines = tuple(map(_one_line, lines))
        self.tables = tuple(table for table in tables if table.rows)
        self.closing = closing


def _one_line(text: str) -> str:
    """Join the lines of what somebody else has worded, and escape what a terminal would obey."""
    if text.isprintable():
        return text
    joined = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in joined)


def document_as_text(document: Document) -> str:
    """Lay any report out as plain text."""
    parts = ["\n".join(document.lines), *map(table_as_text, document.tables)]
    return "\n\n".join([*parts, document.closing] if document.closing else parts)


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


def _html_cell(cell: str) -> str:
    return f"<code>{escape(cell)}</code>" if cell.lstrip().startswith("$") else escape(cell).replace("  ", "&emsp;")


def readable(text: str) -> str:
    """Leave out the middle of a path, or of what else no line could hold."""
    return shorten(text, _LONGEST_CELL)


def left_out(number: int, rows: int) -> str:
    """Say how many rows were left out."""
    return f"and {number - rows:,} more" if number > rows else ""


def document_as_html(document: Document) -> str:
    """Lay any report out for a notebook, which brings its own style."""
    first, *others = document.lines
    parts = [f"<div><p><strong>{escape(first)}</strong></p>", *(f"<p>{escape(line)}</p>" for line in others)]
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
