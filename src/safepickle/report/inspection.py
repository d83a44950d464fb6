"""What `safepickle.inspect` returns: data about a file, laid out for people and as a dict for programs."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from safepickle.guard.inspect_backend import Verdict
from safepickle.rebuild.records import record
from safepickle.report.document import (
    Document,
    Table,
    document_as_html,
    document_as_text,
    left_out,
    readable,
)
from safepickle.report.units import counted, human_bytes

__all__ = [
    "ElementCount",
    "GlobalUse",
    "Inspection",
    "Node",
    "OptimizerEntry",
    "Problem",
    "Recipe",
    "StrongCopy",
    "TensorEntry",
    "TombstoneEntry",
    "ValueEntry",
    "Verdict",
    "inspection_document",
]

_VERDICTS: Final = {
    "safe": "loads with allow=(): nothing in it is foreign",
    "needs_allow": "loads with the names below in allow=, if you trust them",
    "refused": "no allow= makes it load",
    "damaged": "is not whole, or no pickle",
    "not_a_pickle": "is another kind of file",
}

_SCALARS: Final = frozenset({"int", "float", "bool", "str", "NoneType"})
_ROWS: Final = 12
_LONGEST_TEXT: Final = 80
_SMALLEST_SHARE: Final = 0.01
_PRIVATE: Final = re.compile(r"[.']_\w*(?:'\])?$")


@record
@dataclass(frozen=True, slots=True)
class Problem:
    """Why a guarded load with ``allow=()`` would stop.

    Attributes:
        verdict: What it makes of the file, as in `Inspection`.
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
    """A tensor or an array.

    Attributes:
        path: Where it is.
        library: ``"torch"``, ``"numpy"``, ``"safetensors"`` or ``"HDF5"``.
        dtype: Of its elements, as torch and numpy call it: ``"float32"``, ``"bfloat16"``.
        shape: Length of each dimension.
        nbytes: Bytes of its elements.
        role: ``"optimizer"``: it is the state of one. ``"buffer"``: a layer's or a generator's statistics, by its name.
            ``"parameter"``: any other tensor. ``""``: an array, of which nobody could tell.
    """

    path: str
    library: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    role: str = ""


@record
@dataclass(frozen=True, slots=True)
class ElementCount:
    """How many elements of one type there are, in how many tensors and bytes."""

    dtype: str
    elements: int
    tensors: int
    nbytes: int


@record
@dataclass(frozen=True, slots=True)
class OptimizerEntry:
    """An optimizer, or its state.

    Attributes:
        path: Where it is.
        kind: Its class, such as ``"AdamW"``, where it could be told; or ``""``.
        step: How many steps it has made, where that could be read.
        tensors: How many tensors it keeps.
        nbytes: Bytes of these.
    """

    path: str
    kind: str
    step: float | None
    tensors: int
    nbytes: int


@record
@dataclass(frozen=True, slots=True)
class ValueEntry:
    """A number or a short text: where, and what."""

    path: str
    value: int | float | bool | str


@record
@dataclass(frozen=True, slots=True)
class Node:
    """A part of the top levels.

    Attributes:
        path: Where it is.
        type: Of it.
        entries: How many parts it has.
        nbytes: Bytes of all that lies below.
        depth: How many steps it is from the root.
    """

    path: str
    type: str
    entries: int
    nbytes: int
    depth: int = 0


@record
@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file holds and would import, found without running any of it.

    Attributes:
        file: Its name, or ``""``.
        format: ``"pickle"``, ``"torch zip"``, ``"torch legacy"``, or what else it was recognised as: ``"safetensors"``,
            ``"npz"``, ``".keras"``, ``"HTML or XML"``, ...
        compression: ``"gzip"``, ``"bzip2"``, ``"xz"``, ``"lzma"``, ``"zlib"``, ``"zstd"``, ``"lz4"``, or None.
        protocol: Of the pickle, or None.
        verdict: ``"safe"``: loads with ``allow=()``. ``"needs_allow"``: loads with `allow`, if you trust what that
            names. ``"refused"``: no list makes it load. ``"damaged"``: it is not whole, or no pickle.
            ``"not_a_pickle"``: it is another kind of file, which safepickle does not load; `problems` says what does.
        allow: What to paste into ``allow=`` after a review.
        problems: Why it is not safe, in the order of the bytes.
        globals: The names that it uses.
        tombstones, strong_copies, recipes: What safepickle wrote for weak references and recomputed values.
        tensors: Tensors and arrays.
        buffers: Out-of-band buffers that a load has to be given.
        tree: The top levels, each part before what lies in it, and the larger ones first.
        file_bytes, pickle_bytes, tensor_bytes: Sizes.
        complete: Whether the file was read to its end and the whole object was walked.
        values: Numbers and short texts that have a key or a name, up to 1,000, the nearest to the root first.
        progress: Those of them that say how far a training has come, such as ``epoch`` and ``global_step``.
        parameters: Elements of the tensors that are parameters, by type; what shares its memory counts once.
        optimizers: Optimizers and their states.
        facts: What the file says of itself: who wrote it, metadata.
        notes: What was not looked at, and what would run code where the file is loaded as it is meant to be.
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
    values: tuple[ValueEntry, ...] = ()
    progress: tuple[ValueEntry, ...] = ()
    parameters: tuple[ElementCount, ...] = ()
    optimizers: tuple[OptimizerEntry, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, ready for JSON.

        Returns:
            Everything as dicts, lists, strings and numbers; ``nan`` and ``inf`` as strings.
        """
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def __str__(self) -> str:
        return document_as_text(inspection_document(self))

    def _repr_html_(self) -> str:
        return document_as_html(inspection_document(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def inspection_document(inspection: Inspection, rows: int = _ROWS) -> Document:
    """Lay out what a file holds.

    Args:
        inspection: What `safepickle.inspect` found.
        rows: How many rows a table may have.
    """
    tables = [
        _problems(inspection, rows),
        Table(
            "The file says",
            ("what", "value"),
            [(readable(what), readable(value)) for what, value in inspection.facts.items()],
            rows,
        ),
        Table(
            "Numbers and short texts",
            ("path", "value"),
            [(readable(entry.path), repr(entry.value)) for entry in _settings(inspection)],
            rows,
        ),
        _tensors(inspection, rows),
        _parts(inspection, rows),
        Table(
            f"Tombstones: {len(inspection.tombstones):,}",
            ("path", "reason", "was a weak reference to"),
            [(readable(entry.path), entry.reason, entry.referent_type or "unknown") for entry in inspection.tombstones],
            rows,
        ),
        Table(
            f"Strong copies: {len(inspection.strong_copies):,}",
            ("path", "type"),
            [(readable(entry.path), entry.referent_type) for entry in inspection.strong_copies],
            rows,
        ),
        Table(
            f"Recipes: {len(inspection.recipes):,}",
            ("path", "built by"),
            [(readable(entry.path), entry.factory) for entry in inspection.recipes],
            rows,
        ),
        _imports(inspection, rows),
    ]
    closing = ""
    if inspection.buffers:
        closing = f"A load has to be given {counted(inspection.buffers, 'out-of-band buffer')}."
    return Document(_lines(inspection, rows), tables, closing)


def _lines(inspection: Inspection, rows: int) -> list[str]:
    """Say what the file is, whether it loads, and what a person asks of a checkpoint."""
    kind = [inspection.format, *([inspection.compression] if inspection.compression else [])]
    if inspection.protocol is not None:
        kind.append(f"protocol {inspection.protocol}")
    verdict = _VERDICTS[inspection.verdict]
    if inspection.verdict == "not_a_pickle" and inspection.problems:
        verdict = inspection.problems[0].reason
    lines = [
        f"{inspection.file or 'bytes'}: {', '.join(kind)}, {human_bytes(inspection.file_bytes)}",
        f"verdict {inspection.verdict}: {verdict}",
    ]
    if inspection.allow:
        more = left_out(len(inspection.allow), rows)
        lines.append(f"  allow=[{', '.join(map(repr, inspection.allow[:rows]))}]{more and f' {more}'}")
    lines += [f"note: {note}" for note in inspection.notes[:rows]]
    if inspection.parameters:
        lines.append(_parameter_line(inspection.parameters))
    for entry in inspection.optimizers[:rows]:
        step = "" if entry.step is None else f" at step {entry.step:,.0f}"
        size = f", {counted(entry.tensors, 'tensor')}, {human_bytes(entry.nbytes)}" if entry.tensors else ""
        lines.append(f"optimizer {entry.kind or 'state'}{step}: {readable(entry.path)}{size}")
    if inspection.progress:
        lines.append(", ".join(f"{readable(entry.path)} = {entry.value!r}" for entry in inspection.progress[:rows]))
    return lines


def _parameter_line(parameters: tuple[ElementCount, ...]) -> str:
    elements, tensors = sum(count.elements for count in parameters), sum(count.tensors for count in parameters)
    dtypes = [count.dtype if len(parameters) == 1 else f"{count.elements:,} {count.dtype}" for count in parameters]
    size = human_bytes(sum(count.nbytes for count in parameters))
    return f"{counted(elements, 'parameter')} in {counted(tensors, 'tensor')}: {', '.join(dtypes)}; {size}"


def _settings(inspection: Inspection) -> list[ValueEntry]:
    """The values that the first lines do not show, switches and private ones last."""
    shown = {entry.path for entry in inspection.progress}
    rest = [entry for entry in inspection.values if entry.path not in shown]
    return sorted(rest, key=lambda entry: isinstance(entry.value, bool) or _PRIVATE.search(entry.path) is not None)


def _problems(inspection: Inspection, rows: int) -> Table:
    return Table(
        "What is wrong",
        ("byte", "name", "reason"),
        [
            ("" if found.offset is None else f"{found.offset:,}", found.name or found.member, found.reason)
            for found in inspection.problems
            if found.verdict not in ("needs_allow", "not_a_pickle")
        ],
        rows,
        right=(0,),
    )


def _tensors(inspection: Inspection, rows: int) -> Table:
    """The largest tensors and arrays."""
    nouns = {"torch": "tensor", "safetensors": "tensor"}
    counts = Counter(nouns.get(entry.library, "array") for entry in inspection.tensors)
    title = " and ".join(counted(count, noun) for noun, count in counts.items())
    return Table(
        f"{title}, {human_bytes(inspection.tensor_bytes)}",
        ("bytes", "path", "dtype", "shape"),
        [
            (human_bytes(entry.nbytes), readable(entry.path), entry.dtype, str(list(entry.shape)))
            for entry in sorted(inspection.tensors, key=lambda entry: -entry.nbytes)
        ],
        rows,
        right=(0,),
    )


def _parts(inspection: Inspection, rows: int) -> Table:
    """The largest parts, in the order of the file's object; what other tables show is left out."""
    arrays = {entry.path for entry in inspection.tensors}
    total = max(1, inspection.tree[0].nbytes) if inspection.tree else 1
    nodes = [
        node
        for node in inspection.tree
        if node.nbytes >= _SMALLEST_SHARE * total
        and node.path not in arrays
        and not (node.type in _SCALARS and node.nbytes <= _LONGEST_TEXT)
    ]
    largest = sorted(nodes, key=lambda node: -node.nbytes)[:rows] if len(nodes) > 1 else ()
    shown = set(map(id, largest))
    table = Table(
        "Where the bytes go",
        ("bytes", "share", "entries", "path", "type"),
        [
            (
                human_bytes(node.nbytes),
                f"{node.nbytes / total:.0%}",
                f"{node.entries:,}",
                "  " * node.depth + readable(node.path),
                node.type,
            )
            for node in nodes
            if id(node) in shown
        ],
        rows,
        right=(0, 1, 2),
    )
    table.more = left_out(len(nodes), rows)
    return table


def _imports(inspection: Inspection, rows: int) -> Table:
    order = {"refused": 0, "needs_allow": 1}
    uses = sorted(inspection.globals, key=lambda use: order.get(use.status, 2))
    return Table(
        f"A load imports {counted(len(uses), 'name')}",
        ("name", "status", "uses", "first at"),
        [(use.name, use.status, f"{use.count:,}", readable(use.paths[0]) if use.paths else "") for use in uses],
        rows,
        right=(2,),
    )
