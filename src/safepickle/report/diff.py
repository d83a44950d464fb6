"""diff: what changed between two files or objects, values included, running nothing of either.

A pickle is run by the guard's own machine with symbols, as for `safepickle.inspect`; a live object is pickled first,
with its buffers left where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from safepickle.guard.limits import told
from safepickle.load_errors import NotAllowedError
from safepickle.public import public
from safepickle.report.changes import Change, Difference, in_order
from safepickle.report.diff_sides import Side, align, open_side
from safepickle.report.diff_walk import Comparison

__all__ = ["diff"]

_MOST_ELEMENTS: Final = 1 << 28
_ELEMENTS_PER_BYTE: Final = 64
"""What is compared at most, as a hostile file may show the same bytes again and again. One of ours compresses less."""


@public
def diff(before: Any, after: Any) -> Difference:
    """Say what changed between two files or objects: tensors by how much, numbers and texts from what to what.

    Nothing of a file is run or imported, so that no ``allow=`` is needed. One tensor of each side is in memory at a
    time, and of a large one a block. Two members of torch's archives with the same length and CRC-32 are the same, and
    are not read.

    Args:
        before: A path, an open binary file, the bytes of a pickle, or any other object, which is compared as it is.
            Read are pickles and torch's files, compressed ones too, safetensors, ``.keras``, npz and npy files.
        after: The same; it need not be of the same kind. A file of arrays is compared with the dictionary in the other
            one that has its names.

    Returns:
        What was added, removed and changed. ``str()`` reads as the command line does.

    Raises:
        DamagedPickleError: A file is not whole, or is of a kind that cannot be read.
        NotAllowedError: A file asks for what no load would do.
        OSError: A file cannot be opened.
        PicklingError: An object cannot be pickled. What it holds that cannot be is compared by its type.

    Examples:
        >>> found = safepickle.diff({"epoch": 3, "rate": 0.1}, {"epoch": 4, "rate": 0.1})
        >>> [(change.where, change.before, change.after) for change in found.changes]
        [("$['epoch']", '3', '4')]
    """
    with open_side(before) as one, open_side(after) as other:
        most = _MOST_ELEMENTS + _ELEMENTS_PER_BYTE * (one.size + other.size)
        comparison = Comparison(one.run, other.run, same_format=one.form == other.form, most_elements=most)
        try:
            notes = align(one, other)
            comparison.compare(one.root, other.root)
        except Exception as error:
            # Its values are real ones in part: whatever they do to the walk is the file's doing.
            reason = f"it cannot be compared ({told(error)})"
            raise NotAllowedError(f"{one.name}, {other.name}", None, "", "", reason) from error
        return Difference(
            before=one.name,
            after=other.name,
            changes=in_order([*comparison.changes, *_facts(one, other)]),
            bytes=other.size - one.size,
            complete=comparison.complete and one.complete and other.complete,
            equal_tensors=comparison.equal_tensors,
            notes=notes,
        )


def _facts(one: Side, other: Side) -> Iterator[Change]:
    """Compare what is known of two files beside what they hold."""
    if not (one.is_file and other.is_file):
        return
    facts: dict[str, tuple[Any, Any]] = {"format": (one.form, other.form)}
    facts["compression"] = one.compression, other.compression
    if one.run is not None and other.run is not None:
        facts["protocol"] = one.run.protocol, other.run.protocol
        facts["verdict"] = one.run.backend.verdict, other.run.backend.verdict
    for name, (before, after) in facts.items():
        if before != after:
            yield Change("file", name, str(before), str(after), 0)
    if one.run is None or other.run is None or one.form != other.form:
        return
    names = [
        {
            grant.key: "needs_allow" if grant.listed == "needed" else grant.listed
            for grant in run.backend.grants
            if grant.module
        }
        for run in (one.run, other.run)
    ]
    for name in dict.fromkeys((*names[0], *names[1])):
        before, after = names[0].get(name), names[1].get(name)
        if before != after:
            yield Change("global", name, before, after, 0)
