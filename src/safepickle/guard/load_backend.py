"""The backend of the load: what the rules agree to is imported, called and set."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from safepickle import rebuild
from safepickle.guard.allow_list import AllowList
from safepickle.guard.constructors import users_arguments
from safepickle.guard.guarded import Guarded
from safepickle.guard.limits import Malformed, Refusal, told
from safepickle.guard.machine import Machine
from safepickle.guard.names import Renaming, import_name, renamed
from safepickle.guard.rules import BUILT_IN, Grant, ValueInfo
from safepickle.guard.source import Source
from safepickle.guard.storage_claims import StorageClaims
from safepickle.guard.torch_storages import describe_storage, hold_storage, is_torchs
from safepickle.guard.users_state import StateSetters, is_plain
from safepickle.options import LoadOptions

__all__ = ["LoadBackend", "LoadStorage"]

LoadStorage: TypeAlias = "Callable[[bytes, AllowList], tuple[Any, ValueInfo]]"

_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONSTRUCTORS: Final = (weakref.ref.__new__, weakref.KeyedRef.__new__)


class LoadBackend(Guarded):
    """The backend of the load: what the rules agree to is imported, called and set.

    Args:
        allowed: What the user allows beside the built-in list.
        options: Of them `fix_imports` and `buffers`, as for `pickle.load`.
        find_class: The `find_class` of a subclass of the unpickler, or None.
        names: What has moved, or None.
        storages: What the torch file around the pickle has of storages, and what was claimed of it.
        load_storage: Loads the storage in a torch file that lies inside the pickle, and says what it is.
    """

    def __init__(
        self,
        allowed: AllowList,
        options: LoadOptions,
        *,
        find_class: Callable[[str, str], Any] | None = None,
        names: Renaming | None = None,
        storages: StorageClaims | None = None,
        load_storage: LoadStorage,
    ) -> None:
        super().__init__(allowed, fix_imports=options.fix_imports)
        self._load_storage = load_storage
        self._find_class = find_class
        self._names = names
        self._persistent_load: Callable[[Any], Any] | None = None
        self.storages = StorageClaims() if storages is None else storages
        self._buffers = None if options.buffers is None else iter(options.buffers)
        self._given: dict[int, Any] = {}
        self._state_setters = StateSetters()
        self._nested_storage: Any = None

    def attach(self, machine: Machine, persistent_load: Callable[[Any], Any] | None = None) -> None:
        """Take a machine, and what gives the objects of its persistent ids."""
        super().attach(machine)
        self._persistent_load = persistent_load

    def plain_target(self, module: str, name: str) -> Any:
        """Decide on a name and return its object, for the base class of a subclass's `find_class`."""
        module, name = renamed(module, name) if self._machine_is_old() else (module, name)
        if self._names is not None:
            module, name = self._names.rename(module, name)
        grant = self._grants.get((module, name)) or self._decide(module, name)
        if grant.listed == "user":
            return self._resolve(grant)
        return import_name(module, name)

    def find_plain(self, module: str, name: str, protocol: int) -> type | None:
        """Return what a name of the stream stands for, if it needs no rule: `weakref.ref`, or a plain class.

        Nothing is decided by this: for any other name `find` says what is wrong with it, if anything is.
        """
        pair = self._of_today(module, name, protocol)
        if pair in BUILT_IN:
            return weakref.ref if BUILT_IN[pair] is BUILT_IN["weakref", "ref"] else None
        if pair not in self._allowed:
            return None
        target = self._allowed.resolve(pair)
        known = self._by_id.get(id(target))
        # It may be on the built-in list by another name, which an earlier pickle used.
        return target if is_plain(target) and (known is None or known.listed == "user") else None

    def _resolve(self, grant: Grant) -> Any:
        """Return the object of a name that the user allows, or a placeholder for what is nowhere."""
        try:
            return self._allowed.resolve((grant.module, grant.name))
        except Malformed:
            stub = None if self._names is None else self._names.stub(grant.module, grant.name)
            if stub is None:
                raise
            return stub

    def _find_again(self, module: str, name: str) -> Any:
        """Return the object of a name, or its placeholder class again where it is still nowhere."""
        try:
            return super()._find_again(module, name)
        except Malformed:
            pair = (module, name) if self._names is None else self._names.rename(module, name)
            grant = self._decide(*pair)
            if grant.listed != "user":
                raise
            self._grants[pair] = grant
            grant.target = rebuild.stub_class(*pair)
            self._by_id.setdefault(id(grant.target), grant)
            self.subject = ""
            return grant.target

    def extend(self, obj: Any, items: list[Any]) -> None:
        if self._is_placeholder(obj):
            obj.extend(items)
        else:
            super().extend(obj, items)

    def update(self, obj: Any, pairs: list[Any]) -> None:
        if self._is_placeholder(obj):
            obj.__stub__.pairs.extend(zip(pairs[::2], pairs[1::2], strict=True))
        else:
            super().update(obj, pairs)

    def _is_placeholder(self, obj: object) -> bool:
        """Tell whether an object is an instance of an allowed class that is nowhere: it notes what it is given."""
        return issubclass(type(obj), rebuild.Stub) and self.kind(obj) is not None

    def _machine_is_old(self) -> bool:
        return self._fix_imports and (self._machine is None or self._machine.protocol < 3)

    def _target(self, grant: Grant, written: tuple[str, str]) -> Any:
        if grant.listed == "user":
            if self._find_class is None:
                return self._resolve(grant)
        elif "." in grant.name:
            return grant.rule.make
        if self._find_class is not None:
            return self._find_class(*written)
        return import_name(grant.module, grant.name)

    def _call_users(self, grant: Grant, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        target = grant.target
        enum = sys.modules.get("enum")
        if enum is not None and isinstance(target, enum.EnumMeta):
            if new or keywords or len(arguments) != 1:
                raise Refusal("a member of an enumeration is its class called with one value")
            _hold_enum_value(target, arguments[0])
        elif isinstance(target, type):
            arguments = users_arguments(self, target, arguments, keywords, new)
        if len(arguments) > 1 and arguments[1] is not None and _takes_callback(target):
            raise Refusal("a callback of a weak reference is code that runs later")
        if new and not isinstance(target, type):
            raise Refusal("NEWOBJ is for classes, and this is a function")
        try:
            if new:
                return target.__new__(target, *arguments, **keywords or {})
            return target(*arguments, **keywords or {})
        except Exception as error:
            raise Malformed(f"calling it failed with {told(error)}") from error

    def _make(self, grant: Grant, arguments: tuple[Any, ...], new: bool, info: ValueInfo | None) -> Any:
        if grant.name == "_load_from_bytes":
            storage, self._nested_storage = self._nested_storage, None
            return storage
        make = grant.rule.make
        if make is not None:
            return make(*arguments)
        if new and isinstance(grant.target, type) and not grant.rule.plain:
            return grant.target.__new__(grant.target, *arguments)
        return grant.target(*arguments)

    def _nested(self, payload: Any) -> ValueInfo:
        self._nested_storage, info = self._load_storage(bytes(payload), self._allowed)
        return info

    def _set_users_state(self, grant: Grant, obj: object, state: object) -> None:
        self._state_setters[type(obj)](obj, state)

    def _set_built_in_state(self, grant: Grant, obj: object, state: object, setter: Callable[[Any, Any], None]) -> None:
        setter(obj, state)

    def persistent(self, identifier: object) -> Any:
        if self._persistent_load is None:
            raise Refusal("it refers to objects by persistent id, and nothing here knows them")
        storage = None
        if is_torchs(self._persistent_load):
            if type(identifier) is tuple and len(identifier) == 4 and identifier[0] in ("module", b"module"):
                return self._module_class(identifier[1])
            storage = describe_storage(self, identifier)
            self._entitle(self.storages.claim(identifier, storage, self._stream_length()))
        value = self._persistent_load(identifier)
        if storage is not None:
            hold_storage(value, storage)
            self._remember(value, storage)
        return value

    def _module_class(self, cls: object) -> Any:
        """Return the class of a layer, which older files write with its source code; torch would compare that."""
        if self.grant(cls) is None or not isinstance(cls, type):
            raise Refusal("a persistent id of a torch file is that of a storage or of an allowed class")
        return cls

    def buffer(self) -> Any:
        if self._buffers is None:
            raise Malformed("it needs out-of-band buffers: pass buffers=")
        try:
            buffer = next(self._buffers)
        except StopIteration:
            raise Malformed("it needs more out-of-band buffers than buffers= has") from None
        if id(buffer) not in self._given:
            self._given[id(buffer)] = buffer
            self._entitle(memoryview(buffer).nbytes)
        return buffer

    def length(self, value: Any) -> int | None:
        if id(value) in self._given:
            return memoryview(value).nbytes
        return super().length(value)

    def read_only(self, buffer: Any) -> Any:
        view = memoryview(buffer)
        return buffer if view.readonly else view.toreadonly()

    def payload(self, source: Source, position: int, length: int, mutable: bool) -> tuple[Any, int]:
        return source.take_mutable(position, length) if mutable else source.take(position, length)


def _hold_enum_value(cls: Any, value: Any) -> None:
    """Hold that an enumeration would not have to print a value, which may be large beyond all bounds."""
    if type(value) in _SCALARS or any(member._value_ is value or member._value_ == value for member in cls):
        return
    raise Malformed("the value is that of no member of the enumeration")


def _takes_callback(target: object) -> bool:
    """Tell whether a class is a weak reference whose second argument, as in `weakref.ref` itself, is its callback."""
    return isinstance(target, type) and issubclass(target, weakref.ref) and target.__new__ in _CONSTRUCTORS
