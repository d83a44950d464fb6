"""BasePickler: walk the graph, and walk it again where a weak reference pointed forward.

Orchestration only: `reducers.decisions` decides what a weak reference becomes, `reducers` how it is written,
and `storage.files` where the bytes go. It raises each error as it comes; `Pickler` says where, and saves what can be
saved.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import cloudpickle

from safepickle import rebuild, speedups
from safepickle.callers import is_ignored, warn
from safepickle.cpython import cached_property
from safepickle.dumping.buffers import BufferCallback, BufferRelay
from safepickle.dumping.overriding import wrap_override
from safepickle.errors import WeakReferenceWarning
from safepickle.options import DEFAULTS, DumpOptions, Finalizers, Unpicklable, WeakReferencePolicy
from safepickle.reduce_value import ReduceTuple, ReduceValue, in_full
from safepickle.reducers.classes import is_found_by_name, leave_to_itself, new_object
from safepickle.reducers.decisions import NOTHING_MET, Dump, LookedAheadError
from safepickle.reducers.table import TypeTable
from safepickle.storage.files import Output
from safepickle.tracing.identity_keys import count_identity_keys
from safepickle.tracing.made import EndlessError
from safepickle.weak_types import PROXIES

__all__ = ["BasePickler"]

_STANDARD_DISPATCH_TABLE = cloudpickle.Pickler.dispatch_table
# A class attribute, as cloudpickle has one, hides the C pickler's own slot, which alone it looks at while it dumps.
_C_DISPATCH_TABLE: Any = pickle.Pickler.dispatch_table
_dump_in_c = pickle.Pickler.dump
_NO_CONSTRUCTOR_CALLED = object()
_PLACEHOLDER = (object, ())
_MOST_LOOKED_AT = 10_000
"""A dump of no more objects than this looks for keys that are an `id`; `explain` does so in any graph."""
_HOW_TO_NEST_LESS = (
    "The objects nest too deeply to be pickled. Break the chain: keep them in one list, and let each know its "
    "neighbours by index or by weak reference, or write a __getstate__ that does not lead to the next one."
)


class BasePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """The walks of a dump. See `safepickle.Pickler` for the arguments."""

    has_persistent_id: ClassVar[bool] = False
    override_owner: ClassVar[type]
    _chosen_dispatch_table: Mapping[type, Any] = _STANDARD_DISPATCH_TABLE
    memo: Any  # of the C pickler

    # The usual values: `dumps` calls only the constructor of the C pickler.
    dump_options: DumpOptions = DEFAULTS
    _output: Any
    _table: TypeTable
    _relay: BufferRelay | None = None
    _dump: Any = _NO_CONSTRUCTOR_CALLED  # a Dump, NOTHING_MET, or between dumps None
    # A caller holds it, or has given it a callback: it has more to take care of than the bytes of one dump.
    _is_shared = True
    _memo_is_empty = True
    # What stands in front of `reducer_override`: in a partial dump, and in a walk that needs ask no subclass.
    in_front: Any = None
    substitutes: Mapping[int, ReduceTuple] = MappingProxyType({})
    offender: object = None
    proto = pickle.HIGHEST_PROTOCOL
    core = speedups.current

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_override(cls)
        persistent_id = cls.__dict__.get("persistent_id")
        if persistent_id is not None:
            cls.has_persistent_id = True
            cls.persistent_id = _shielded(persistent_id)

    def __init__(
        self,
        file: Any,
        protocol: int | None = None,
        fix_imports: bool = True,
        buffer_callback: BufferCallback | None = None,
        *,
        weakrefs: WeakReferencePolicy | None = None,
        finalizers: Finalizers | None = None,
        unpicklable: Unpicklable | None = None,
    ) -> None:
        if weakrefs is not None or finalizers is not None or unpicklable is not None:
            # What `backend` binds stands in its class.
            given = {"weakrefs": weakrefs, "finalizers": finalizers, "unpicklable": unpicklable}
            self.dump_options = self.dump_options.given(**given)
        if protocol is None:
            protocol = self.dump_options.protocol
        if protocol is None or protocol < 0:
            protocol = pickle.HIGHEST_PROTOCOL
        self._output = file if type(file) is Output else Output(file)
        if buffer_callback is not None:
            self._relay = BufferRelay(buffer_callback)
        # cloudpickle's own constructor cannot pass fix_imports on; the two attributes are all that it sets.
        pickle.Pickler.__init__(self, self._output, protocol, fix_imports=fix_imports, buffer_callback=self._relay)
        self.proto = int(protocol)
        self._dump = None
        self._table = TypeTable()
        self._table.own_dispatch_table = {}
        if self.dispatch_table is _STANDARD_DISPATCH_TABLE:
            # The type table knows what is in it. Without it the C pickler asks copyreg's plain dict, and an object of
            # an ordinary class is spared a look-up in a ChainMap, which is written in Python.
            _C_DISPATCH_TABLE.__delete__(self)

    @property
    def dispatch_table(self) -> Mapping[type, Any]:
        """The reducers by exact type that the caller or a subclass has set, or else cloudpickle's and copyreg's."""
        return self._chosen_dispatch_table

    @dispatch_table.setter
    def dispatch_table(self, table: Mapping[type, Any]) -> None:
        self._chosen_dispatch_table = table
        _C_DISPATCH_TABLE.__set__(self, table)

    @cached_property
    def globals_ref(self) -> dict[int, Any]:
        """The namespaces of functions that are pickled by value, for cloudpickle."""
        return {}

    @property
    def own_dispatch_table(self) -> Mapping[type, Any]:
        """The reducers by exact type that the caller or a subclass has set, or none."""
        table: Mapping[type, Any] = self.dispatch_table
        return {} if table is _STANDARD_DISPATCH_TABLE else table

    @property
    def file_failed(self) -> bool:
        """Whether the dump has failed over its file, which it has not where no constructor was called."""
        return self._dump is not _NO_CONSTRUCTOR_CALLED and bool(self._output.has_failed)

    def dump_whole(self, obj: Any, *announced: Warning | None) -> None:
        """Write the pickle of `obj`, or nothing.

        Args:
            obj: The root.
            *announced: Warnings about what is written in place of something else.
        """
        if self._dump is not None:
            raise self._misuse()
        self._dump = NOTHING_MET
        memo = self._begin() if self._is_shared else {}
        try:
            try:
                try:
                    self._walk(obj)
                    if self._dump is not NOTHING_MET or self._is_shared:
                        self._walk_until_settled(obj, memo)
                except Exception:
                    if not self._dump.has_looked_ahead:
                        raise
                    self._walk_without_look_ahead(obj, memo)
            except RecursionError as error:
                self._walk_deep(obj, memo, error)
            if self._dump is not NOTHING_MET or self._is_shared:
                self._warn(obj, *announced)
                self._output.commit()
                self._memo_is_empty = False
        except BaseException:
            self.offender = self._dump.offender
            self.memo = memo
            self._output.roll_back()
            raise
        finally:
            self._dump = None
            if self._relay is not None:
                self._relay.is_certain = None

    def _misuse(self) -> Exception:
        if self._dump is _NO_CONSTRUCTOR_CALLED:
            return pickle.PicklingError(f"Pickler.__init__() was not called by {type(self).__qualname__}.__init__()")
        # The C pickler would lose what the outer dump stands on, and end the process.
        return RuntimeError(
            "this Pickler is in the middle of a dump, and was asked for another one, by an object that it is "
            "pickling or by another thread: use a Pickler of its own for that, or safepickle.dumps()"
        )

    def _begin(self) -> dict[int, Any]:
        """Get ready for a dump, and return the memo to which a walk that is repeated goes back."""
        # Somebody may have registered a reducer since.
        self._table.clear()
        self._table.own_dispatch_table = self.own_dispatch_table
        if self._relay is not None:
            self._relay.begin_dump()
            self._relay.is_certain = self._is_certain
        self._output.begin()
        return {} if self._memo_is_empty else self.memo.copy()

    def _warn(self, obj: Any, *announced: Warning | None) -> None:
        """Warn before anything is final: a filter may turn the warning into an error."""
        for said in announced:
            if said is not None:
                warn(said)
        known = self.begun()
        if known.tracking and known.policy != "tombstone" and known.count_met() <= _MOST_LOOKED_AT:
            known.identity_keys = count_identity_keys(self.memo.copy())
        warning = known.warning()
        if warning is not None:
            self.warn_of_lost(obj, known, warning)

    def warn_of_lost(self, obj: Any, known: Dump, warning: WeakReferenceWarning) -> None:
        """Warn of what the dump of `obj` has lost, and say where it is."""
        if not is_ignored(type(warning)):
            from safepickle.tracing.lost import lost_references

            memo = self.memo.copy() if warning.identity_keys else {}
            count = sum(map(sum, (each.values() for each in (warning.counts, warning.cycles, warning.identity_keys))))
            warning = known.warning(lost_references(obj, self, known, count, memo)) or warning
        warn(warning)

    def begun(self) -> Dump:
        """Return what the dump knows, which is made when it is first asked for."""
        if self._dump is NOTHING_MET:
            self._dump = self._new_dump()
        known: Dump = self._dump
        return known

    def _new_dump(self) -> Dump:
        return Dump(self, self.dump_options.weakrefs, self.proto, self.has_persistent_id, self.dump_options.finalizers)

    @contextlib.contextmanager
    def asking(self, known: Dump) -> Iterator[None]:
        """Have the reducers ask `known`, outside a dump, for as long as the context lasts."""
        before, self._dump = self._dump, known
        try:
            yield
        finally:
            self._dump = before

    def clear_memo(self) -> None:
        """Forget the objects that earlier dumps have written."""
        super().clear_memo()
        self._memo_is_empty = True

    def reducer_override(self, obj: Any) -> ReduceValue:
        """Return the reduce value of `obj`, or NotImplemented to leave it to the C pickler.

        A subclass may override it. If none does, a walk does not call the method.
        """
        table = self._table
        table.known = self.begun()
        try:
            return table.reduce(obj)
        finally:
            table.known = None

    def reduce_value(self, obj: Any) -> ReduceTuple | str:
        """Return the reduce value that the pickler uses for `obj`, which is not an exact builtin."""
        if id(obj) in self.substitutes:
            return self.substitutes[id(obj)]
        reduce = self._table[type(obj)]
        if reduce is not None:
            value = reduce(obj, self.begun())
            if value is not NotImplemented:
                return value
        cls = type(obj)
        registered = self.own_dispatch_table.get(cls) or copyreg.dispatch_table.get(cls)
        return obj.__reduce_ex__(self.proto) if registered is None else registered(obj)

    def look_ahead(self) -> Any:
        """Return the ids of what the root of this walk certainly leads to, or None where nobody can tell.

        Only the compiled core looks. Nobody can tell where objects may be stored elsewhere, or are in the memo without
        what they lead to today; and a buffer that was handed over cannot be taken back if the look was in vain.
        """
        override = getattr(self._table, "override", None)
        if override is None or self.has_persistent_id or self._relay is not None or not self._memo_is_empty:
            return None
        return override.look_ahead()

    def may_hide(self, classes: Iterable[type]) -> bool:
        """Tell whether instances of these classes may be in the memo though a walk that tracks was not shown them.

        The C pickler writes exact sets by itself, and a subclass may keep to itself what it reduces. What is built
        first, or has a class that travels by value, may have been entered when there was no weak reference yet.
        """
        if self._is_asked_first():
            return True
        return any(self._table[cls] is not None or not is_found_by_name(cls) for cls in classes)

    def is_built_first(self, cls: type) -> bool:
        """Tell whether an instance of `cls` may be under construction while other parts of it are written."""
        return self._table[cls] is not None

    def is_replaced(self, obj: Any) -> bool:
        """Tell whether something else is pickled in the place of `obj`."""
        return id(obj) in self.substitutes

    def leaves_to_itself(self, cls: type) -> bool:
        """Tell whether a class says itself how its instances are pickled, and no reducer does."""
        reduce = self._table[cls]
        return reduce is None or (reduce is leave_to_itself and cls not in self.own_dispatch_table)

    def may_reduce_to_a_global(self, cls: type) -> bool:
        """Tell whether an instance of `cls` might be pickled as a name that the other side imports."""
        return self._table[cls] is leave_to_itself

    def reduces_to_a_global(self, obj: Any) -> bool:
        """Tell whether `obj`, whose class may do so, is pickled as a name that the other side imports."""
        reduce = self.own_dispatch_table.get(type(obj)) or copyreg.dispatch_table.get(type(obj)) or _reduce_ex
        try:
            return isinstance(reduce(obj), str)
        except Exception:
            # Whatever is wrong with it is reported if the walk comes to it.
            return False

    def _walk_until_settled(self, obj: Any, memo: dict[int, Any]) -> None:
        """Walk again for as long as the last walk was wrong about something."""
        known = self.begun()
        while self._must_walk_again(known):
            known.begin_walk()
            self._forget_walk(memo)
            known.track()
            self._walk(obj)

    def _forget_walk(self, memo: dict[int, Any]) -> None:
        """Go back to where the dump began."""
        self.memo = memo
        self._output.rewind()
        if self._relay is not None:
            self._relay.begin_walk()

    def _walk(self, obj: object) -> None:
        if self._is_shared and self._is_asked_first():
            _dump_in_c(self, obj)
            return
        # An ordinary object must cost one look-up and no more, not even that of an attribute of the pickler.
        table = self._table
        table.known = self._dump
        table.pickler = self
        make_override = self.core.override
        if make_override is None:
            table.override = None
            self.in_front = table.reduce
        else:
            table.override = override = make_override(table, obj)
            self.in_front = override.reduce
        try:
            _dump_in_c(self, obj)
        finally:
            # They lead back to the pickler, whose memo would else wait for the cycle collector.
            del self.in_front, table.known, table.override, table.pickler

    def _walk_without_look_ahead(self, obj: Any, memo: dict[int, Any]) -> None:
        """Begin anew: what goes wrong has to be what goes wrong where nobody looks ahead."""
        self._dump = self._new_dump()
        self._dump.may_look_ahead = False
        self._forget_walk(memo)
        self._walk(obj)
        self._walk_until_settled(obj, memo)

    def _is_asked_first(self) -> bool:
        """Tell whether a walk has to call more than the type table."""
        own = self.__dict__
        return self.override_owner is not BasePickler or "reducer_override" in own or "in_front" in own

    def _walk_deep(self, obj: Any, memo: dict[int, Any], error: RecursionError) -> None:
        """Walk a graph that nests more deeply than the C pickler can follow, all over again and step by step."""
        from safepickle.dumping.deep import Unrolled, UnrolledTable

        if self._relay is not None and self._relay.has_asked:
            error.add_note("Buffers have been handed out already. " + _HOW_TO_NEST_LESS)
            raise error
        self._dump = self._new_dump()
        self._forget_walk(memo)
        table = self._table
        try:
            graph = Unrolled(obj, self, table)
            self._table = UnrolledTable(graph, table)
            self._walk(graph)
            self._walk_until_settled(graph, memo)
        except EndlessError:
            raise
        except RecursionError as again:
            again.add_note(_HOW_TO_NEST_LESS)
            raise
        finally:
            self._table = table

    def _must_walk_again(self, known: Dump) -> bool:
        if known.dirty:
            if known.has_looked_ahead:
                raise LookedAheadError
            known.forget_kept()
            return True
        if known.awaits:
            self._output.discard()
            if self._relay is not None:
                self._relay.discard()
            if known.discover(self._walk):
                return True
        return self._relay is not None and not self._relay.settle()

    def reduce_cyclic(self, obj: Any, known: Dump) -> ReduceTuple | str | None:
        """Reduce an object that is, or might be, under construction when a reference to it must be made.

        Returns:
            A reduce value, or None for the usual way.
        """
        if obj is known.expected and known.meet_again(obj):
            # The bytes of this walk are lost. Something must end the recursion, and the walk goes on to find more.
            return _PLACEHOLDER
        if id(obj) not in known.cyclic:
            return None
        cls: Any = type(obj)
        if issubclass(cls, set) and cls.__reduce__ is set.__reduce__ and cls.__reduce_ex__ is object.__reduce_ex__:
            # Members as state instead of arguments: then there is no cycle.
            return new_object, (cls,), (obj.__getstate__(), list(obj)), None, None, rebuild.rebuild_set_members
        value = self.reduce_value(obj)
        if isinstance(value, str):
            return value
        if getattr(value[0], "__module__", None) in ("torch._tensor", "torch._utils"):
            from safepickle.reducers.tensors import with_attributes_apart

            value = with_attributes_apart(value)
        known.open_construction(obj)
        function, arguments, state, items, pairs, set_state = in_full(value)
        return function, arguments, state, _once_built(known, obj, items), pairs, set_state

    def _is_certain(self) -> bool:
        # Nothing is certain where an object may yet turn out to be unpicklable.
        return self._dump is not None and self._dump.certain and self.dump_options.unpicklable == "raise"


wrap_override(BasePickler)


def _shielded(persistent_id: Any) -> Callable[[Any, Any], Any]:
    """Keep proxies from a subclass's `persistent_id`, and note what it stores.

    Most begin with ``isinstance``, which asks a proxy's referent: a dead proxy raises ReferenceError there, and a
    live one passes for its referent.
    """
    ask: Callable[[Any, Any], Any] = persistent_id
    if isinstance(persistent_id, staticmethod | classmethod):

        def ask(self: BasePickler, obj: Any) -> Any:
            return persistent_id.__get__(self, type(self))(obj)

    @functools.wraps(persistent_id)
    def shielded(self: BasePickler, obj: Any) -> Any:
        if type(obj) in PROXIES:
            return None
        persistent = ask(self, obj)
        if persistent is not None and self._dump is not None:
            self.begun().note_persisted(obj)
        return persistent

    return shielded


def _once_built(known: Dump, obj: object, items: Iterator[Any] | None) -> Iterator[Any]:
    """Iterate over the list items of a cyclic object. Mostly it has none.

    The C pickler asks for the first one right after it has put the object into the memo, which nothing else tells.
    """
    known.close_construction(obj)
    if items is not None:
        yield from items


def _reduce_ex(obj: object) -> ReduceTuple | str:
    # Under protocol 5 a large array gives a buffer rather than a copy of its bytes.
    return obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
