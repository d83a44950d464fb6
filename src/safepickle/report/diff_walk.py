"""Two values side by side, from their roots on: what was added, removed and changed, and where.

Breadth first, so that the first path to a tensor is its shortest one. One tensor of each is in memory at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from safepickle.guard.blob import Blob
from safepickle.guard.torch_inspect import Run
from safepickle.messages import shorten
from safepickle.report.changes import Change
from safepickle.report.diff_values import PLAIN, Child, Sight, fingerprint, look_at_value
from safepickle.report.elements import BLOCK, ElementChanges, compare_elements, value_of
from safepickle.report.tensor_views import TensorView, view_of_numbers
from safepickle.storage.contents import CannotListError
from safepickle.tracing.naming import NEAREST, Edge
from safepickle.tracing.path_table import PathTable

__all__ = ["Comparison"]

_MOST_PAIRS: Final = 1 << 20
_MOST_CHANGES: Final = 10_000
_SHORT_LIST: Final = 8
"""Numbers in a list of more than so many are compared as those of an array are."""

_DICTS: Final = frozenset({"dict", "OrderedDict", "collections.OrderedDict"})


class _Pair(NamedTuple):
    before: Any
    after: Any
    number: int
    code: str | None


class Comparison:
    """What differs between two values.

    Args:
        before: The run that the first value comes from, or None for one that is no pickle.
        after: The same for the second.
        same_format: Whether both files have one format, so that the types of their containers mean something.
        most_elements: Of tensors that are read. Views may show the same bytes again and again.

    Attributes:
        changes: What differs.
        equal_tensors: How many tensors are the same.
        complete: Whether all was compared.
    """

    def __init__(self, before: Run | None, after: Run | None, *, same_format: bool, most_elements: int) -> None:
        self._runs = before, after
        self._same_format = same_format
        self._elements_left = most_elements
        self.changes: list[Change] = []
        self.equal_tensors = 0
        self.complete = True
        self._paths = PathTable()
        self._waiting: deque[_Pair] = deque()
        self._in_code: deque[_Pair] = deque()
        self._unordered: deque[tuple[list[Any], list[Any], int]] = deque()
        # Pairs and lone values that were looked at. They are held, so that no other gets their ids.
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._partners: dict[int, int] = {}
        self._tensors: set[Hashable] = set()
        # Storages whose bytes were counted, paths of code that was noted, and where types of another name were.
        self._weighed: set[tuple[int, Hashable]] = set()
        self._code: set[str] = set()
        self._grouped: dict[tuple[str, str], int] = {}

    def compare(self, before: Any, after: Any) -> None:
        """Compare two values and all that lies in them."""
        self._waiting.append(_Pair(before, after, self._paths.add(-1, NEAREST), None))
        while self._waiting or self._unordered or self._in_code:
            if self._waiting:
                self._visit(self._waiting.popleft())
            elif self._unordered:
                # What else a member of a set belongs to is known by now.
                self._match(*self._unordered.popleft())
            else:
                # What is only told as code here may have a path of its own elsewhere.
                self._visit(self._in_code.popleft())
            if len(self._seen) > _MOST_PAIRS:
                self.complete = False
                break

    def _visit(self, pair: _Pair) -> None:
        one, other, number, code = pair
        if (id(one), id(other)) in self._seen:
            return
        before, after = look_at_value(one, self._runs[0]), look_at_value(other, self._runs[1])
        if before.text is None and after.text is None:
            # Not numbers and texts: Python shares equal ones.
            self._seen[id(one), id(other)] = one, other
            self._partners.setdefault(id(one), id(other))
        if before.is_code or after.is_code:
            code = code or self._paths.path(number)
        if before.view is not None and after.view is not None:
            self._compare_tensors(before.view, after.view, number, code)
            self._pair_up(before.children or [], after.children or [], number, code)
        elif before.text is not None or after.text is not None or (before.view or after.view) is not None:
            self._compare_values(before, after, number, code)
        elif not self._compare_numbers(one, other, number, code):
            if before.label != after.label:
                self._note_type(before.label, after.label, number, code)
            if before.unordered is not None and after.unordered is not None:
                self._unordered.append((before.unordered, after.unordered, number))
            else:
                self._pair_up(before.children or [], after.children or [], number, code)

    def _pair_up(self, before: list[Child], after: list[Child], number: int, code: str | None) -> None:
        """Go on to what lies in both, and note what lies in one alone."""
        others = {child.key: child.value for child in after}
        for key, edge, one in before:
            if key not in others:
                self._note_alone(one, 0, number, edge, code)
                continue
            other = others.pop(key)
            if not _is_equal_and_plain(one, other):
                waiting = self._waiting if code is None else self._in_code
                waiting.append(_Pair(one, other, self._paths.add(number, edge), code))
        for key, edge, other in after:
            if key in others:
                self._note_alone(other, 1, number, edge, code)

    def _match(self, before: list[Any], after: list[Any], number: int) -> None:
        """Pair the members of what has no order: with what they belong to elsewhere, or else by what they are."""
        here = {id(value): value for value in after}
        rest = []
        for value in before:
            partner = self._partners.get(id(value))
            if partner is None or here.pop(partner, None) is None:
                rest.append(value)
        self._pair_up(_by_fingerprint(rest), _by_fingerprint(here.values()), number, None)

    # Notes.

    def _note(self, change: Change, code: str | None) -> None:
        if code is not None:
            # Of code is told that it differs: its parts say nothing to a person.
            if code in self._code:
                return
            self._code.add(code)
            change = Change("code", code, "one version", "another", 0)
        if len(self.changes) < _MOST_CHANGES:
            self.changes.append(change)
        else:
            self.complete = False

    def _note_alone(self, value: Any, side: int, number: int, edge: Edge, code: str | None) -> None:
        """Note a value that only one of the two has."""
        sight = look_at_value(value, self._runs[side])
        path = shorten(self._paths.path(number, edge))
        text, size = _describe(sight), self._weigh(value, sight, side)
        change = Change(sight.kind, path, None, text, size) if side else Change(sight.kind, path, text, None, -size)
        self._note(change, code)

    def _note_type(self, before: str, after: str, number: int, code: str | None) -> None:
        if {before, after} <= _DICTS and not self._same_format:
            return
        place = self._grouped.get((before, after))
        if place is not None:
            change = self.changes[place]
            self.changes[place] = replace(change, places=change.places + 1)
            return
        if code is None and len(self.changes) < _MOST_CHANGES:
            self._grouped[before, after] = len(self.changes)
        self._note(Change("entry", self._path(number), before, after, 0), code)

    def _path(self, number: int) -> str:
        return shorten(self._paths.path(number))

    # Comparisons.

    def _compare_tensors(self, before: TensorView, after: TensorView, number: int, code: str | None) -> None:
        same = before.identity, after.identity
        if same in self._tensors:
            return
        self._tensors.add(same)
        elements = None
        self._elements_left -= before.count
        if self._elements_left < 0:
            elements = ElementChanges(before.count, None, reason="not compared: tensors show the same bytes too often")
            self.complete = False
        elif before.shape == after.shape:
            try:
                elements = compare_elements(before, after)
            except (OSError, CannotListError) as error:
                elements = ElementChanges(before.count, None, reason=f"cannot be read: {error}")
                self.complete = False
        if elements is None and str(before) == str(after):
            self.equal_tensors += 1
        else:
            single = before.count == after.count == 1
            one, other = map(_describe_view if single else str, (before, after))
            self._note(Change("tensor", self._path(number), one, other, after.nbytes - before.nbytes, elements), code)
        if before.requires_grad is not None and after.requires_grad is not None:
            flags = str(bool(before.requires_grad)), str(bool(after.requires_grad))
            if flags[0] != flags[1]:
                self._note(Change("value", shorten(self._paths.path(number, ".requires_grad")), *flags, 0), code)

    def _compare_values(self, before: Sight, after: Sight, number: int, code: str | None) -> None:
        if before.label == after.label and before.text == after.text and _same_token(before.token, after.token):
            return
        texts = [sight.label if sight.text is None else sight.text for sight in (before, after)]
        if texts[0] == texts[1]:
            # Their types are what differs, or what is not shown of them.
            same_type = before.label == after.label
            texts = (
                [texts[0], f"{texts[1]}, others"]
                if same_type
                else [f"{text} ({sight.label})" for text, sight in zip(texts, (before, after), strict=True)]
            )
        kind = "tensor" if "tensor" in (before.kind, after.kind) else before.kind
        kind = after.kind if kind == "entry" else kind
        self._note(Change(kind, self._path(number), texts[0], texts[1], 0), code)

    def _compare_numbers(self, one: Any, other: Any, number: int, code: str | None) -> bool:
        """Compare two long lists of numbers as arrays are, and tell whether that is what they are."""
        if type(one) is not type(other) or type(one) not in (list, tuple) or max(len(one), len(other)) <= _SHORT_LIST:
            return False
        if not all(type(item) is float or type(item) is int for items in (one, other) for item in items):
            return False
        elements = _compare_lists(one, other)
        if elements is not None or len(one) != len(other):
            texts = f"{len(one):,} numbers", f"{len(other):,} numbers"
            self._note(Change("value", self._path(number), *texts, 8 * (len(other) - len(one)), elements), code)
        return True

    def _weigh(self, value: Any, sight: Sight, side: int) -> int:
        """Count the bytes of a value and of all that lies in it and was not counted before."""
        if sight.text is None and (side, id(value)) in self._seen:
            return 0
        self._seen[side, id(value)] = value, None
        total, waiting = 0, [(value, sight)]
        while waiting:
            value, sight = waiting.pop()
            if sight.view is not None:
                if (side, sight.view.storage) not in self._weighed:
                    self._weighed.add((side, sight.view.storage))
                    total += sight.view.nbytes
            elif sight.text is not None:
                total += len(value) if type(value) in (str, bytes, bytearray, Blob) else 8
            for child in (*(child.value for child in sight.children or ()), *(sight.unordered or ())):
                if type(child) in PLAIN:
                    total += len(child) if type(child) is str else 8
                elif (side, id(child)) not in self._seen:
                    self._seen[side, id(child)] = child, None
                    waiting.append((child, look_at_value(child, self._runs[side])))
        return total


def _is_equal_and_plain(one: Any, other: Any) -> bool:
    """Tell whether two values are the same number or text, or hold the same ones alone, as most do in most files."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in PLAIN:
        return _same(one, other)
    if kind not in (list, tuple, dict) or len(one) != len(other):
        return False
    if kind is dict:
        return _is_equal_and_plain([*one, *one.values()], [*other, *other.values()])
    types = list(map(type, one))
    return PLAIN.issuperset(types) and types == list(map(type, other)) and bool(one == other)


def _describe(sight: Sight) -> str:
    """Write what only one of the two has."""
    if sight.view is not None:
        return _describe_view(sight.view)
    if sight.text is not None:
        return sight.text
    entries = len(sight.children if sight.children is not None else sight.unordered or ())
    return f"{sight.label} of {entries:,}" if entries else sight.label


def _describe_view(view: TensorView) -> str:
    only = value_of(view)
    return str(view) if only is None else f"{view} {only}"


def _by_fingerprint(values: Iterable[Any]) -> list[Child]:
    twins: dict[str, int] = {}
    children = []
    for value in values:
        name = fingerprint(value)
        twins[name] = number = twins.get(name, 0) + 1
        children.append(Child((name, number), NEAREST, value))
    return children


def _same_token(one: Any, other: Any) -> bool:
    if type(one) is Blob or type(other) is Blob:
        return _same_bytes(one, other)
    if type(one) is not type(other):
        return {type(one), type(other)} <= {bytes, bytearray} and one == other
    return _same(one, other)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, or both NaN."""
    return bool(one == other or (one != one and other != other))


def _same_bytes(one: Any, other: Any) -> bool:
    """Compare two payloads, of which one or both were passed over, part by part."""
    if not {type(one), type(other)} <= {bytes, bytearray, Blob} or len(one) != len(other):
        return False
    for start in range(0, len(one), BLOCK):
        parts = [
            value[start : start + BLOCK] if type(value) is not Blob else value.read and value.read(start, BLOCK)
            for value in (one, other)
        ]
        if parts[0] is None or parts[0] != parts[1]:
            return False
    return True


def _compare_lists(one: Any, other: Any) -> ElementChanges | None:
    """Compare the numbers that two lists have in common places."""
    count = min(len(one), len(other))
    changed = sum(
        before != after and (before == before or after == after) for before, after in zip(one, other, strict=False)
    )
    if not changed:
        return None
    try:
        figures = compare_elements(view_of_numbers(one[:count]), view_of_numbers(other[:count]))
    except OverflowError:
        figures = None
    if figures is None or figures.changed is None:
        return ElementChanges(count, changed)
    return replace(figures, changed=changed)
