"""What `safepickle.inspect` returns: data about a file, with a compact text and a dict for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from safepickle.rebuild.records import record
from safepickle.report.document import Document, Table, left_out, readable_path
from safepickle.report.units import counted, human_bytes

__all__ = [
    "GlobalUse",
    "Inspection",
    "Node",
    "Problem",
    "Recipe",
    "StrongCopy",
    "TensorEntry",
    "TombstoneEntry",
    "Verdict",
    "inspection_document",
    "is_empty_reference",
]

_VERDICTS: Final = {
    "safe": "loads with allow=(): nothing in it is foreign",
    "needs_allow": "loads with the names below in allow=, if you trust them",
    "refused": "no allow= makes it load",
    "damaged": "is not whole, or no pickle",
}

_SHOWN: Final = 10
"""Entries of each kind that the text shows; the data has all."""

Verdict = Literal["safe", "needs_allow", "refused", "damaged"]


@record
@dataclass(frozen=True, slots=True)
class Problem:
    """Why a guarded load with ``allow=()`` would stop.

    Attributes:
        verdict: What it makes of the file: ``"needs_allow"``, ``"refused"`` or ``"damaged"``.
        member: The member of the archive, or ``""``.
        offset: The byte of the pickle, or None where it is the container's.
        name: The name in question as ``"module:name"``, or ``""``.
        reason: What is wrong.
    """

    verdict: Verdict
    member: str
    offset: int | None
    name: str
    reason: str


@record
@dataclass(frozen=True, slots=True)
class GlobalUse:
    """A name that a load would import.

    Attributes:
        name: As ``"module:name"``.
        status: ``"built-in"``, ``"needs_allow"`` or ``"refused"``.
        offset: The byte that names it first.
        paths: Where its instances or results are; at most a few.
        count: How many there are.
    """

    name: str
    status: str
    offset: int
    paths: tuple[str, ...]
    count: int


@record
@dataclass(frozen=True, slots=True)
class TombstoneEntry:
    """A weak reference that was left dead: where, what it pointed at, and why."""

    path: str
    referent_type: str | None
    reason: str


@record
@dataclass(frozen=True, slots=True)
class StrongCopy:
    """A weak reference that owns a copy of its referent: where, and of what type."""

    path: str
    referent_type: str


@record
@dataclass(frozen=True, slots=True)
class Recipe:
    """A value that is pickled as the recipe that builds it: where, and by which factory."""

    path: str
    factory: str


@record
@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A torch tensor or numpy array: where, of which elements, how long in each dimension, and how many bytes."""

    path: str
    library: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@record
@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree of the top levels: path, type, number of entries, and bytes of what lies below."""

    path: str
    type: str
    entries: int
    nbytes: int


@record
@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file holds and would import, found without running any of it.

    Attributes:
        file: Its name, or ``""``.
        format: ``"pickle"``, ``"torch zip"``, ``"torch legacy"``, or what else it was recognised as.
        compression: ``"gzip"``, ``"bzip2"``, ``"xz"``, ``"lzma"``, ``"zlib"``, ``"zstd"``, ``"lz4"``, or None.
        protocol: Of the pickle, or None.
        verdict: ``"safe"``: loads with ``allow=()``. ``"needs_allow"``: loads with `allow`, if you trust what that
            names. ``"refused"``: no list makes it load. ``"damaged"``: it is not whole, or no pickle.
        allow: What to paste into ``allow=`` after a review.
        problems: Why it is not safe, in the order of the bytes.
        globals: The names that it uses.
        tombstones, strong_copies, recipes: What safepickle wrote for weak references and recomputed values.
        tensors: Tensors and arrays.
        buffers: Out-of-band buffers that a load has to be given.
        tree: The top levels.
        file_bytes, pickle_bytes, tensor_bytes: Sizes.
        complete: Whether the pickle was read to its end and the whole object was walked.
    """

    file: str
    format: str
    compression: str | None
    protocol: int | None
    verdict: Verdict
    allow: tuple[str, ...]
    problems: tuple[Problem, ...]
    globals: tuple[GlobalUse, ...]
    tombstones: tuple[TombstoneEntry, ...]
    strong_copies: tuple[StrongCopy, ...]
    recipes: tuple[Recipe, ...]
    tensors: tuple[TensorEntry, ...]
    buffers: int
    tree: tuple[Node, ...]
    file_bytes: int
    pickle_bytes: int
    tensor_bytes: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def __str__(self) -> str:
        packed = f", {self.compression}" if self.compression else ""
        protocol = "" if self.protocol is None else f", protocol {self.protocol}"
        lines = [
            f"{self.file or 'bytes'}: {self.format}{packed}{protocol}, {human_bytes(self.file_bytes)}",
            f"verdict: {self.verdict}",
        ]
        if self.allow:
            lines.append(f"  allow=[{', '.join(map(repr, self.allow))}]")
        against = [_problem_line(problem) for problem in self.problems if problem.verdict != "needs_allow"]
        uses = sorted(self.globals, key=lambda use: (use.status == "built-in", use.name))
        largest = sorted(self.tensors, key=lambda tensor: -tensor.nbytes)
        lines += _section("problems", against)
        lines += _section("globals", [_use_line(use) for use in uses])
        lines += _section(f"tensors, {human_bytes(self.tensor_bytes)}", [_tensor_line(tensor) for tensor in largest])
        lines += _section("tombstones", [_tombstone_line(entry) for entry in self.tombstones])
        lines += _section("strong copies", [f"{entry.path} of {entry.referent_type}" for entry in self.strong_copies])
        lines += _section("recipes", [f"{entry.path} by {entry.factory}" for entry in self.recipes])
        if self.buffers:
            lines.append(f"out-of-band buffers: {self.buffers}")
        return "\n".join(lines)


def _section(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    shown = [f"  {entry}" for entry in entries[:_SHOWN]]
    rest = [f"  and {len(entries) - _SHOWN:,} more"] if len(entries) > _SHOWN else []
    return [f"{title}: {len(entries):,}", *shown, *rest]


def _problem_line(problem: Problem) -> str:
    where = "" if problem.offset is None else f"byte {problem.offset:,}: "
    name = f"{problem.name}: " if problem.name else ""
    return f"{problem.verdict}: {where}{name}{problem.reason}"


def _use_line(use: GlobalUse) -> str:
    at = f", at {use.paths[0]}" if use.paths else ""
    return f"{use.name} ({use.status}){at}"


def _tensor_line(tensor: TensorEntry) -> str:
    return f"{tensor.path} {tensor.dtype} {list(tensor.shape)} {human_bytes(tensor.nbytes)}"


def _tombstone_line(entry: TombstoneEntry) -> str:
    return f"{entry.path} was {entry.referent_type or 'of an unknown type'}, {entry.reason}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


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


def is_empty_reference(node: Node) -> bool:
    """Tell whether an entry is no more than the None that a tombstone leads to."""
    return node.type == "NoneType" and node.path.endswith("()")
