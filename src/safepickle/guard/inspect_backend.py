"""The backend of `safepickle.inspect`: the same decisions as the load's, with symbols where the load has objects.

Nothing that the stream names is imported, called or set. Plain values of the standard library (dates, numbers, paths,
containers) are made for real, since only making them tells whether the load could.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from safepickle.guard.allow_list import AllowList
from safepickle.guard.blob import Blob
from safepickle.guard.guarded import USERS, Guarded
from safepickle.guard.limits import NESTED_LOADS, LimitExceeded, Malformed, Refusal
from safepickle.guard.names import import_name
from safepickle.guard.never import reason_against
from safepickle.guard.rules import Grant, ValueInfo
from safepickle.guard.source import Source
from safepickle.guard.storage_claims import StorageClaims
from safepickle.guard.torch_storages import describe_storage
from safepickle.guard.users_state import check_attributes
from safepickle.storage.reading import read_memory

__all__ = ["STATE_SETTERS", "InspectBackend", "Objection", "Symbol", "Verdict"]

Verdict: TypeAlias = Literal["safe", "needs_allow", "refused", "damaged", "not_a_pickle"]

_WORST_FIRST: Final[tuple[Verdict, ...]] = ("refused", "damaged", "not_a_pickle", "needs_allow")
STATE_SETTERS: Final = (
    *("_class_setstate", "_function_setstate", "rebuild_blinker_connections", "rebuild_class_attributes"),
    *("rebuild_logging_handler", "rebuild_queue_items", "rebuild_torch_attributes", "rebuild_torch_owning_handle"),
    *("rebuild_torch_parametrizations", "rebuild_torch_weak_entries", "rebuild_weak_entries"),
    *("restore_keras_attributes", "restore_keras_node", "restore_keras_object"),
    *("restore_keras_set", "restore_keras_tracker", "restore_tf_function"),
)
"""What a stream calls with an object and its state, in place of BUILD: cloudpickle's functions and safepickle's own."""

_KEEP: Final = 1 << 12
"""Payloads up to this size are read; longer ones are passed over."""


class Symbol:
    """What stands where the load would make an object.

    Attributes:
        grant: The name whose call makes it: a class or a function.
        arguments: Of the call; of a storage of torch's own files, its persistent id.
        info: What the rule says of it, or None.
        state: What it was given as state.
        items: What was appended to it.
        pairs: What was set in it, keys and values in turn.
        cls: What was called where that is refused: a class that travels by value, or a name; or None.
    """

    __slots__ = ("__weakref__", "arguments", "cls", "grant", "info", "items", "pairs", "state")

    def __init__(self, grant: Grant | None, arguments: tuple[Any, ...] = (), info: ValueInfo | None = None) -> None:
        self.grant = grant
        self.arguments = arguments
        self.info = info
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[Any] = []
        self.cls: Symbol | Grant | None = None

    def __hash__(self) -> int:
        """Return the identity, unless what would stand here could not be hashed.

        Raises:
            TypeError: It could not.
        """
        info, grant = self.info, self.grant
        own = info if grant is not None and grant.listed == "built-in" else None
        if own is not None and (own.kind in ("array", "weak dictionary") or (own.kind, own.dtype) == ("scalar", "V")):
            raise TypeError(f"unhashable type: {own.kind}")
        return id(self)


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the load would stop.

    Attributes:
        verdict: ``"needs_allow"``, ``"refused"`` or ``"damaged"``.
        offset: The byte.
        name: The name in question, or ``""``.
        reason: What is wrong.
    """

    verdict: Verdict
    offset: int
    name: str
    reason: str


class InspectBackend(Guarded):
    """The backend that makes symbols.

    Args:
        storages: What the torch file around the pickle has of storages; None outside of torch files, where persistent
            ids mean nothing.
        depth: How many files this one lies in.
        look_at_storage: Says what storage a torch file that lies inside the pickle holds.
        out_of_band: The buffers, where they are there.
    """

    def __init__(
        self,
        storages: StorageClaims | None = None,
        *,
        depth: int = 0,
        look_at_storage: Callable[[bytes, InspectBackend, int], ValueInfo],
        out_of_band: Iterable[Any] = (),
    ) -> None:
        super().__init__(AllowList())
        self._look_at_storage = look_at_storage
        self._out_of_band = iter(out_of_band)
        self.objections: list[Objection] = []
        self.buffers = 0
        self._storages = storages
        self._depth = depth
        self._anything = Grant("", "", USERS, "needed")

    @property
    def grants(self) -> list[Grant]:
        """Every name that the stream has used, in the order of its first use."""
        return list(self._grants.values())

    @property
    def verdict(self) -> Verdict:
        """The worst of the objections so far."""
        found = {objection.verdict for objection in self.objections}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), "safe")

    def object_to(self, error: Exception) -> None:
        """Note why the load would stop here."""
        verdict: Verdict = "damaged" if isinstance(error, Malformed) else "refused"
        offset = self._machine.offset if self._machine is not None else 0
        if self._machine is not None:
            offset += self._machine.source.origin
        self.objections.append(Objection(verdict, offset, self.subject, str(error)))

    def find(self, module: str, name: str, protocol: int) -> Any:
        try:
            return super().find(module, name, protocol)
        except Refusal as error:
            self.object_to(error)
            return Symbol(self._anything)

    def call(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        if type(function) is Grant and function.name in STATE_SETTERS and len(arguments) == 2:
            filled = arguments[0]
            if type(filled) is Symbol and filled.state is None:
                filled.state = arguments[1]
        try:
            return super().call(function, arguments, keywords, new)
        except Refusal as error:
            self.object_to(error)
            made = Symbol(self._anything, arguments + tuple((keywords or {}).values()))
            made.cls = function if type(function) in (Symbol, Grant) else None
            return made

    def set_state(self, obj: object, state: object) -> Any:
        try:
            return super().set_state(obj, state)
        except Refusal as error:
            self.object_to(error)
            if type(obj) is Symbol and obj.state is None:
                obj.state = state
            return obj

    def _unlisted(self, module: str, name: str) -> Grant:
        offset = self._machine.offset + self._machine.source.origin if self._machine is not None else 0
        reason = reason_against(module, name)
        if reason is not None:
            self.objections.append(
                Objection("refused", offset, f"{module}:{name}", f"it can never be allowed: {reason}")
            )
            return Grant(module, name, USERS, "refused", offset=offset)
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise Refusal("it is no name that Python could have")
        self.objections.append(Objection("needs_allow", offset, f"{module}:{name}", "it is on no list"))
        return Grant(module, name, USERS, "needed", offset=offset)

    def _target(self, grant: Grant, written: tuple[str, str]) -> Any:
        if self._machine is not None:
            grant.offset = self._machine.offset + self._machine.source.origin
        if not grant.rule.plain:
            return None
        return grant.rule.make if "." in grant.name else import_name(grant.module, grant.name)

    def _call_users(self, grant: Grant, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        return Symbol(grant, arguments + tuple((keywords or {}).values()))

    def _make(self, grant: Grant, arguments: tuple[Any, ...], new: bool, info: ValueInfo | None) -> Any:
        if grant.rule.plain:
            make = grant.rule.make or grant.target
            try:
                return make(*arguments)
            except Exception:
                if not any(type(argument) in (Symbol, Blob, Grant) for argument in arguments):
                    raise
        made = self.grant(arguments[0]) if grant.rule.of_first and arguments else grant
        return Symbol(made or grant, arguments, info)

    def _set_users_state(self, grant: Grant, obj: Any, state: Any) -> None:
        check_attributes(state)
        obj.state = state

    def _set_built_in_state(self, grant: Grant, obj: object, state: object, setter: Callable[[Any, Any], None]) -> None:
        if type(obj) is Symbol:
            obj.state = state
        else:
            setter(obj, state)

    def extend(self, obj: object, items: list[Any]) -> None:
        grant = self.kind(obj)
        if type(obj) is Symbol and grant is not None and grant.rule is USERS:
            obj.items.extend(items)
        else:
            super().extend(obj, items)

    def update(self, obj: object, pairs: list[Any]) -> None:
        grant = self.kind(obj)
        if type(obj) is Symbol and grant is not None and grant.rule is USERS:
            self.check_keys(pairs[::2], obj)
            obj.pairs.extend(pairs)
        else:
            super().update(obj, pairs)

    def _set_items(self, obj: object, pairs: list[Any], set_item: Callable[[Any, Any, Any], None]) -> None:
        if type(obj) is Symbol:
            obj.pairs.extend(pairs)
        else:
            super()._set_items(obj, pairs, set_item)

    def info(self, value: object) -> ValueInfo | None:
        return value.info if type(value) is Symbol else super().info(value)

    def kind(self, value: object) -> Grant | None:
        return value.grant if type(value) is Symbol else super().kind(value)

    def length(self, value: object) -> int | None:
        return value.length if type(value) is Blob else super().length(value)

    def persistent(self, identifier: Any) -> Any:
        if self._storages is None:
            raise Refusal("it refers to objects by persistent id, which only the program that wrote it knows")
        if type(identifier) is tuple and len(identifier) == 4 and identifier[0] in ("module", b"module"):
            if self.grant(identifier[1]) is None:
                raise Refusal("a persistent id of a torch file is that of a storage or of an allowed class")
            return identifier[1]
        info = describe_storage(self, identifier)
        if self._storages.is_legacy and len(identifier) == 5:
            raise Malformed("the persistent id of a storage has no view, as those of the older format have")
        self._entitle(self._storages.claim(identifier, info, self._stream_length()))
        info.filled = not self._storages.is_legacy
        return Symbol(None, identifier, info)

    def buffer(self) -> Any:
        if self._storages is not None:
            raise Malformed("it needs out-of-band buffers, and torch gives none")
        self.buffers += 1
        for buffer in self._out_of_band:
            blob = Blob(memoryview, memoryview(buffer).nbytes, read_memory(buffer))
            self._entitle(len(blob))
            return blob
        return Blob(memoryview, None)

    def read_only(self, buffer: object) -> Any:
        if type(buffer) not in (Blob, bytes, bytearray):
            raise Malformed("READONLY_BUFFER needs a buffer")
        return buffer

    def payload(self, source: Source, position: int, length: int, mutable: bool) -> tuple[Any, int]:
        if length <= _KEEP:
            return source.take_mutable(position, length) if mutable else source.take(position, length)
        blob = Blob(bytearray if mutable else bytes, length, source.reader(position, length))
        if self._machine is not None:
            self._machine.keys.enter_sized(blob, length)
        return blob, source.skip(position, length)

    def _nested(self, payload: Any) -> ValueInfo:
        if self._depth >= NESTED_LOADS:
            raise LimitExceeded(f"files lie in files more than {NESTED_LOADS} deep")
        if type(payload) is Blob:
            if payload.read is None:
                raise LimitExceeded("a torch file inside it is too large to be looked into")
            payload = payload.read()
        return self._look_at_storage(bytes(payload), self, self._depth + 1)
