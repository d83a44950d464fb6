"""What a dump of a live object would do: `explain` tells, and writes nothing.

What it says is found by the pickler itself: `Traversal` has every object pickled alone, and `dry_run` dumps to nowhere
and notes what becomes of each weak reference. This module puts the findings together.
"""

from __future__ import annotations

import enum
import io
import types
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from safepickle import rebuild
from safepickle.dumping.base_pickler import BasePickler
from safepickle.messages import dotted_name
from safepickle.options import DumpOptions, Finalizers, OutsideFate, Unpicklable, WeakReferencePolicy, check_fate
from safepickle.progress import watching
from safepickle.public import public
from safepickle.reducers.decisions import CYCLE, DEAD, OUTSIDE, RELINK, STRONG
from safepickle.report.dry_run import Fates, dry_run
from safepickle.report.explanation import (
    Explanation,
    Hazard,
    IdentityKey,
    Omission,
    Subtree,
    UnpicklableObject,
    WeakReference,
)
from safepickle.report.graph import Graph, WeakEdge
from safepickle.report.omissions import left_out_by, names_left_out
from safepickle.report.weighing import weigh
from safepickle.tracing.error_paths import locate_failure
from safepickle.tracing.expand import Expansion
from safepickle.tracing.identity_keys import identity_keys
from safepickle.tracing.naming import NEAREST, kind_of
from safepickle.tracing.recording import Question
from safepickle.tracing.traversal import Traversal, is_container
from safepickle.weak_types import PROXIES, find_weak_type

__all__ = ["explain"]

# What dead references are rebuilt by. None of them is named for a live one that was not asked about.
_DEAD: Final = frozenset({rebuild.rebuild_dead_reference, rebuild.rebuild_dead_weak_method, rebuild.rebuild_dead_proxy})
_LONGEST_REASON: Final = 300


@public
def explain(
    obj: Any,
    *,
    protocol: int | None = None,
    weakrefs: WeakReferencePolicy = "relink",
    finalizers: Finalizers = "dead",
    unpicklable: Unpicklable = "raise",
) -> Explanation:
    """Tell what `dumps` would do with an object, without writing anything.

    Reducers (``__reduce__``, ``__getstate__``) run as they would for a dump, a few times over. On a long walk a
    progress bar is drawn, if tqdm is installed and stderr is a terminal.

    Args:
        obj: What would be dumped.
        protocol: As for `dumps`.
        weakrefs: As for `dumps`.
        finalizers: As for `dumps`.
        unpicklable: As for `dumps`; all that cannot be pickled is listed in any case.

    Returns:
        Data. ``str()`` makes a report of it that fits a terminal.

    Raises:
        ValueError: An option has no such value.

    Examples:
        >>> report = safepickle.explain({"lines": (line for line in [])})
        >>> report.picklable
        False
        >>> report.unpicklable[0].path
        "$['lines']"
    """
    DumpOptions(protocol, weakrefs, finalizers, unpicklable).checked()
    pickler = BasePickler(io.BytesIO(), protocol, weakrefs=weakrefs, finalizers=finalizers, unpicklable="raise")
    inquiry = _Inquiry(obj, pickler, weakrefs, unpicklable)
    with watching("explain", " objects", inquiry.count):
        return inquiry.conclude()


class _Inquiry:
    """Gathers what an `Explanation` holds."""

    def __init__(
        self, root: Any, pickler: BasePickler, weakrefs: WeakReferencePolicy, unpicklable: Unpicklable
    ) -> None:
        self._root = root
        self._on_unpicklable = unpicklable
        self._pickler = pickler
        self._policy = weakrefs
        self._answers: dict[int, tuple[Any, OutsideFate]] = {}
        self._graph = Graph()
        self._traversal = Traversal(root, pickler, self._fate, outside=True)
        self._failures: list[tuple[int, Exception]] = []
        self._dead: list[int] = []
        self._finalizers: list[int] = []
        self._omissions: list[tuple[int, tuple[str, ...]]] = []

    def count(self) -> int:
        """Tell how many objects were met so far."""
        return len(self._traversal.walk.objects)

    def conclude(self) -> Explanation:
        """Walk, and put the findings together."""
        graph, traversal = self._graph, self._traversal
        sizes, led_to = self._walk()
        fates, failure = self._dry_run()
        graph.sizes = weigh(traversal, self._pickler, fates, sizes, led_to)
        totals, counts = graph.subtree_sizes(), graph.subtree_counts()
        references = self._weak_references(fates, totals)
        unpicklable = [self._unpicklable(number, error) for number, error in self._failures]
        if failure is not None:
            unpicklable.append(self._unlocated(failure))
        copied = range(min(graph.copied_from, len(graph)), len(graph))
        inside = range(min(graph.outside_from, len(graph)))
        return Explanation(
            type=dotted_name(type(self._root)),
            protocol=self._pickler.proto,
            weakrefs="callable" if callable(self._policy) else self._policy,
            on_unpicklable="callable" if callable(self._on_unpicklable) else self._on_unpicklable,
            objects=len(inside),
            bytes=sum(graph.sizes[number] for number in inside),
            weak_references=tuple(references),
            unpicklable=tuple(unpicklable),
            hazards=tuple(self._hazards(fates)),
            subtrees=tuple(_large_subtrees(graph, totals, counts)),
            strong_adds_bytes=sum(graph.sizes[number] for number in copied),
            strong_adds_objects=len(copied),
            complete=traversal.complete,
            graph=graph,
            omissions=tuple(self._omission(number, names) for number, names in self._omissions),
            identity_keys=tuple(self._identity_keys(inside)),
        )

    def _fate(self, referent: Any) -> OutsideFate:
        """Answer for an outside referent, and always the same: a callable policy is asked once."""
        if not callable(self._policy):
            return "strong" if self._policy == "strong" else "tombstone"
        if id(referent) not in self._answers:
            self._answers[id(referent)] = (referent, check_fate(self._policy(referent)))
        return self._answers[id(referent)][1]

    def _walk(self) -> tuple[dict[int, int], dict[int, list[int]]]:
        """Return the bytes of each object, and the numbers of what it leads to."""
        graph, traversal = self._graph, self._traversal
        shown: dict[int, list[int]] = {}
        sizes: dict[int, int] = {}
        for number, expansion in traversal:
            sizes[number] = expansion.size + expansion.buffers
            obj = traversal.walk.objects[number]
            shown[number] = [id(child) for _, child in expansion.children[expansion.shortcuts :]]
            self._note_omissions(number, obj, expansion)
            if expansion.error is not None:
                self._failures.append((number, expansion.error))
                graph.unpicklable.add(number)
            elif expansion.value is None and issubclass(type(obj), type | types.FunctionType):
                graph.by_name.add(number)
            elif self._is_dead_finalizer(obj, expansion):
                self._finalizers.append(number)
            elif _is_dead(obj, expansion):
                self._dead.append(number)
        walk = traversal.walk
        # Whatever was led to was visited in the end, unless the traversal was cut short.
        led_to = {
            number: [walk.numbers[child] for child in children if child in walk.numbers]
            for number, children in shown.items()
        }
        graph.types = [dotted_name(type(obj)) for obj in walk.objects]
        graph.book = walk.book
        graph.copied_from = min(traversal.copied_from, traversal.outside_from)
        graph.outside_from = traversal.outside_from
        for number, children in sorted(led_to.items()):
            for child in children:
                graph.links.extend((number, child))
        return sizes, led_to

    def _note_omissions(self, number: int, obj: Any, expansion: Expansion) -> None:
        if type(expansion.value) is not tuple or number >= self._traversal.outside_from:
            return
        if self._pickler.leaves_to_itself(type(obj)):
            names = names_left_out(obj, expansion.value)
            if names:
                self._omissions.append((number, names))

    def _omission(self, number: int, names: tuple[str, ...]) -> Omission:
        obj = self._traversal.walk.objects[number]
        return Omission(self._traversal.walk.path(number), dotted_name(type(obj)), names, left_out_by(obj))

    def _identity_keys(self, numbers: Iterable[int]) -> Iterator[IdentityKey]:
        walk = self._traversal.walk
        for number in numbers:
            for key in identity_keys(walk.objects[number], walk.numbers):
                target = walk.numbers[key]
                yield IdentityKey(walk.path(number), walk.path(target), dotted_name(type(walk.objects[target])))

    def _is_dead_finalizer(self, obj: Any, expansion: Expansion) -> bool:
        """Tell whether an object is a finalizer that comes back dead wherever its object is."""
        if type(expansion.value) is not tuple or expansion.value[0] is not rebuild.rebuild_dead_finalize:
            return False
        may_rearm = self._pickler.dump_options.finalizers == "rearm" and issubclass(type(obj), weakref.finalize)
        return not may_rearm or obj.peek() is None

    def _dry_run(self) -> tuple[Fates, Exception | None]:
        passed_over = {id(self._traversal.walk.objects[number]) for number in self._graph.unpicklable}
        policy: WeakReferencePolicy = self._policy
        if callable(policy):
            policy = self._dry_run_answer
        elif policy == "strict":
            policy = "relink"
        return dry_run(self._root, self._pickler.proto, policy, self._pickler.dump_options.finalizers, passed_over)

    def _dry_run_answer(self, referent: Any) -> OutsideFate:
        fate = self._fate(referent)
        return "tombstone" if fate == "strict" else fate

    def _weak_references(self, fates: Fates, totals: Any) -> list[WeakReference]:
        graph, walk = self._graph, self._traversal.walk
        places = Counter(target for source, target in graph.strong_links() if source < graph.outside_from)
        found: dict[tuple[int, int], WeakReference] = {}
        for number in self._dead:
            if number >= graph.outside_from:
                continue
            obj = walk.objects[number]
            found[id(obj), 0] = WeakReference(walk.path(number), kind_of(obj), "dead", None, "tombstone", None, 0)
            graph.weak.append(WeakEdge(number, -1, "tombstone"))
        for number in self._finalizers:
            if number < graph.outside_from:
                obj = walk.objects[number]
                found[id(obj), 0] = entry = self._dead_finalizer(number, obj)
                graph.weak.append(WeakEdge(number, -1, entry.becomes))
        for number, question in self._traversal.questions:
            reference, referent = question.reference, question.referent
            if number >= graph.outside_from:
                continue
            entry = self._weak_reference(number, question, fates, totals)
            source = walk.numbers.get(id(reference), number)
            graph.weak.append(WeakEdge(source, walk.numbers.get(id(referent), -1), entry.becomes))
            # A WeakMethod asks about its function and its object: what is worse decides.
            key = (id(reference), 0 if issubclass(type(reference), weakref.WeakMethod) else id(referent))
            if key not in found or found[key].state == "kept":
                found[key] = entry
        held = ((places[walk.numbers.get(key, -1)], entry) for (key, _), entry in found.items())
        return [replace(entry, places=count) if count > 1 else entry for count, entry in held]

    def _dead_finalizer(self, number: int, finalizer: Any) -> WeakReference:
        walk = self._traversal.walk
        path, kind, referent = walk.path(number), kind_of(finalizer), _watched_by(finalizer)
        if referent is None:
            return WeakReference(path, kind, "dead", None, "dead finalizer", None, 0)
        target = walk.numbers.get(id(referent), -1)
        state = "kept" if self._is_kept(target, referent) else "outside"
        referent_path = self._path_of_kept(target, referent) if state == "kept" else None
        return WeakReference(path, kind, state, dotted_name(type(referent)), "dead finalizer", referent_path, 0)

    def _path_of_kept(self, target: int, referent: Any) -> str | None:
        """Say where a kept referent is: in a module that the other side imports, or in the pickle."""
        if self._traversal.is_by_reference(referent):
            name = _imported_name(referent)
            if name is not None:
                return name
        return self._traversal.walk.path(target) if target >= 0 else None

    def _is_kept(self, target: int, referent: Any) -> bool:
        return 0 <= target < self._graph.copied_from or (target < 0 and self._traversal.is_by_reference(referent))

    def _weak_reference(self, number: int, question: Question, fates: Fates, totals: Any) -> WeakReference:
        graph, walk = self._graph, self._traversal.walk
        reference, referent = question.reference, question.referent
        target = walk.numbers.get(id(referent), -1)
        kept = self._is_kept(target, referent)
        fate = fates.of(reference, referent)
        if fate is None:
            # The dry run did not come this far.
            answer = self._fate(referent)
            fate = RELINK if kept else STRONG if answer == "strong" else OUTSIDE
        state = fate if fate == CYCLE else "kept" if kept or fate == RELINK else "outside"
        in_container = is_container(reference)
        becomes = {RELINK: "weak reference", STRONG: "strong copy"}.get(
            fate, "left out" if in_container else "tombstone"
        )
        if state != "kept" and fate != STRONG and self._is_strict(referent) and id(referent) not in fates.dropped:
            becomes = "error"
        source = walk.numbers.get(id(reference), number)
        return WeakReference(
            path=self._traversal.path(number, question),
            kind=kind_of(reference),
            state=state,
            referent_type=dotted_name(type(referent)),
            becomes=becomes,
            referent_path=self._path_of_kept(target, referent) if state == "kept" else None,
            adds=totals[target] if target >= graph.copied_from and walk.parents[target] == source else 0,
        )

    def _is_strict(self, referent: Any) -> bool:
        return self._policy == "strict" if not callable(self._policy) else self._fate(referent) == "strict"

    def _unpicklable(self, number: int, error: Exception) -> UnpicklableObject:
        obj = self._traversal.walk.objects[number]
        outside = number >= self._graph.outside_from
        path = self._traversal.walk.path(number)
        becomes = self._substitute(obj)
        return UnpicklableObject(path, dotted_name(type(obj)), type(error).__name__, _reason(error), outside, becomes)

    def _substitute(self, obj: Any) -> str:
        wanted: Any = self._on_unpicklable
        if callable(wanted):
            wanted = wanted(obj)
        if type(wanted) is not str or wanted not in ("raise", "tombstone"):
            return "replacement"
        return "error" if wanted == "raise" else wanted

    def _unlocated(self, error: Exception) -> UnpicklableObject:
        """Describe a failure that no object shows alone, such as nesting that is too deep."""
        path = locate_failure(self._root, error, self._pickler) or "$"
        kind = dotted_name(type(self._root))
        return UnpicklableObject(path, kind, type(error).__name__, _reason(error), False, "error")

    def _hazards(self, fates: Fates) -> list[Hazard]:
        hazards: dict[int, Hazard] = {}
        for number, question in self._traversal.questions:
            if number < self._graph.outside_from and id(question.reference) not in hazards:
                hazard = self._hazard(number, question, fates)
                if hazard is not None:
                    hazards[id(question.reference)] = hazard
        return [*hazards.values(), *self._shared_storages()]

    def _hazard(self, number: int, question: Question, fates: Fates) -> Hazard | None:
        """Say what others would load in place of a weak reference, unless they keep it or refuse it."""
        walk, graph = self._traversal.walk, self._graph
        reference, referent = question.reference, question.referent
        peers = "pickle and cloudpickle"
        weak = find_weak_type(type(reference))
        is_set = weak is not None and weak.kind == "set" and type(reference) is weak.base
        if type(reference) in PROXIES and not issubclass(type(referent), type | types.FunctionType):
            effect = "a second, disconnected copy of the referent in place of the proxy"
        elif type(reference) is weakref.finalize and fates.of(reference, referent) in (RELINK, STRONG):
            effect = "a finalizer that is dead: its callback never runs"
        elif is_set and (walk.numbers.get(id(referent), graph.copied_from) >= graph.copied_from):
            peers, effect = "cloudpickle", "a set without the members that nothing else in the pickle holds"
        else:
            return None
        return Hazard(walk.path(number), kind_of(reference), peers, effect)

    def _shared_storages(self) -> Iterator[Hazard]:
        """Find the storages that several tensors look at."""
        graph = self._graph
        viewers: dict[int, set[int]] = {}
        for source, target in graph.strong_links():
            if graph.types[target] == "torch.storage.UntypedStorage" and source < graph.outside_from:
                viewers.setdefault(target, set()).add(source)
        for target, sources in viewers.items():
            if len(sources) > 1:
                effect = f"{len(sources)} tensors that no longer share their memory"
                path = graph.path(graph.parents[target])
                yield Hazard(path, graph.types[graph.parents[target]], "pickle and cloudpickle", effect)


def _imported_name(obj: Any) -> str | None:
    """Return the dotted name by which a module has an object, or None when it is not told by what it says of itself."""
    if issubclass(type(obj), types.ModuleType):
        return str(obj.__name__)
    if issubclass(type(obj), enum.Enum):
        return f"{dotted_name(type(obj))}.{obj.name}"
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    return f"{module}.{name}" if type(module) is str and type(name) is str else None


def _is_dead(obj: Any, expansion: Expansion) -> bool:
    """Tell whether an object is a weak reference to nothing."""
    if type(expansion.value) is not tuple:
        return False
    function, arguments = expansion.value[:2]
    if function is rebuild.Tombstone:
        return bool(arguments[0] == DEAD or type(obj) is rebuild.Tombstone)
    return function in _DEAD and not _look_alive(obj)


def _watched_by(finalizer: Any) -> Any:
    """Return the object that a finalizer watches, or None."""
    weak = find_weak_type(type(finalizer))
    if weak is not None:
        return next((referent for referent, _ in weak.snapshot(finalizer)), None)
    # One of multiprocessing.
    return finalizer._weakref and finalizer._weakref()


def _look_alive(obj: Any) -> bool:
    weak = find_weak_type(type(obj))
    return weak is not None and bool(weak.snapshot(obj))


def _reason(error: Exception) -> str:
    try:
        reason = str(error)
    except Exception:
        return "an exception that cannot be printed"
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 3]}..."


def _large_subtrees(graph: Graph, totals: Any, counts: Any, share: float = 0.01, most: int = 100) -> list[Subtree]:
    """List the subtrees that make up the pickle, each before its parts.

    Of a chain in which each object is nearly all there is to the one before, the last that has several large parts is
    listed, or else the first.
    """
    inside = min(graph.outside_from, len(graph))
    smallest = max(1, int(totals[0] * share))
    large = [
        number
        for number in range(1, inside)
        # What has no path of its own counts as part of its owner.
        if totals[number] >= smallest and number not in graph.by_name and graph.edges[number] is not NEAREST
    ]
    parts: dict[int, list[int]] = {}
    for number in large:
        parts.setdefault(graph.parents[number], []).append(number)
    listed: list[Subtree] = []
    stack = [(0, 0)]
    while stack and len(listed) < most:
        number, depth = stack.pop()
        below = parts.get(number, [])
        only = below[0] if len(below) == 1 and totals[below[0]] > 0.98 * totals[number] else None
        if only is not None and only not in parts:
            below = []
        if number == 0 or only is None or not below:
            listed.append(Subtree(graph.path(number), graph.types[number], totals[number], counts[number], depth))
            depth += 1
        stack.extend((child, depth) for child in sorted(below, key=lambda child: (totals[child], -child)))
    return listed
