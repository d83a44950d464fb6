"""Worlds: what happens when the machine names, calls or fills something. `Building` makes it; for the other, `sketch`.

Both share every decision, which stands in `Guarded`: a world differs only in what it does after the rules have agreed.
"""

from __future__ import annotations

import sys
import weakref
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from collections.abc import Callable, Iterator
from types import MemberDescriptorType
from typing import Any, Final

from safepickle import rebuild
from safepickle.guard.allowing import AllowList
from safepickle.guard.limits import Damage, Refusal
from safepickle.guard.machine import Machine
from safepickle.guard.never import reason_against
from safepickle.guard.rules import BUILT_IN, Facts, Grant, Rule
from safepickle.guard.rules.tensors import DEVICE
from safepickle.guard.source import Source
from safepickle.moved import Names

USERS: Final = Rule(data=True)
"""The rule of every name that the user allows."""
_CONSTRUCTORS: Final = (weakref.ref.__new__, weakref.KeyedRef.__new__)


class Guarded:
    """The decisions that the load and `safepickle.inspect` share.

    Args:
        allowed: What the user allows beside the built-in list.
        fix_imports: Whether names of Python 2 become those of Python 3, below protocol 3.
    """

    def __init__(self, allowed: AllowList, *, fix_imports: bool = True) -> None:
        self._allowed = allowed
        self._fix_imports = fix_imports
        self._names: Names | None = None
        self._machine: Machine | None = None
        self._grants: dict[tuple[str, str], Grant] = {}
        self._by_id: dict[int, Grant] = {}
        self._facts: dict[int, tuple[Any, Facts, Grant | None]] = {}
        self._good_keys: set[str] = set()
        self.subject = ""

    def attach(self, machine: Machine) -> None:
        """Take the machine whose budget pays for this world's work."""
        self._machine = machine
        self.subject = ""

    # Names.

    def find(self, module: str, name: str, protocol: int) -> Any:
        """Return what stands for a name on the stack, once it is decided that it may stand there."""
        written = (module, name)
        if protocol < 3 and self._fix_imports:
            module, name = _renamed(module, name)
        if self._names is not None:
            module, name = self._names.rename(module, name)
        self.subject = f"{module}:{name}"
        grant = self._grants.get((module, name))
        if grant is None:
            grant = self._grants[module, name] = self._decide(module, name)
            self._settle(grant, written)
        self.subject = ""
        return grant if not grant.rule.data or grant.target is None else grant.target

    def _decide(self, module: str, name: str) -> Grant:
        rule = BUILT_IN.get((module, name))
        if rule is not None:
            return Grant(module, name, rule)
        if (module, name) in self._allowed:
            return Grant(module, name, USERS, "user")
        return self._unlisted(module, name)

    def _unlisted(self, module: str, name: str) -> Grant:
        reason = reason_against(module, name)
        if reason is not None:
            raise Refusal(f"it can never be allowed: {reason}")
        if "." in name:
            raise Refusal("a dotted name reads attributes, and is on no list", allow=f"{module}:{name}")
        raise Refusal("it is on no list", allow=f"{module}:{name}")

    def _settle(self, grant: Grant, written: tuple[str, str]) -> None:
        """Find the object of a name that was granted, and remember by it what it may do."""
        grant.target = self._target(grant, written)
        if grant.target is not None and grant.rule.data:
            self._by_id.setdefault(id(grant.target), grant)

    def _target(self, grant: Grant, written: tuple[str, str]) -> Any:
        raise NotImplementedError

    # Calls.

    def call(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        """Call what a name stands for, if its rule agrees."""
        grant = self.grant(function)
        if grant is None:
            raise Refusal(f"a {type(function).__qualname__} is called, which no name of the stream stands for")
        self.subject = grant.key
        rule = grant.rule
        if rule.unfolds:
            unfolded = self._unfold(rule.unfolds, arguments)
            if unfolded is not None:
                return unfolded[0]
        if rule is USERS:
            value = self._call_users(grant, arguments, keywords, new)
        else:
            if keywords:
                raise Refusal("it is called with keyword arguments")
            if rule.new_only and not new:
                raise Refusal("its constructor is called, where a pickle makes an instance without it")
            facts = rule.check(self, arguments)
            value = self._make(grant, arguments, new, facts)
            if facts is not None:
                made = self.grant(arguments[0]) if rule.of_first else grant
                self._remember(value, facts, made)
        if issubclass(type(value), tuple) and self._machine is not None:
            self._machine.enter_tuple(value)
        self.subject = ""
        return value

    def _unfold(self, what: str, arguments: tuple[Any, ...]) -> tuple[Any] | None:
        """Carry out a call that stands for another operation; None where its own rule decides."""
        if what == "newobj" and arguments:
            return (self.call(arguments[0], arguments[1:], None, True),)
        if what == "newobj_ex" and len(arguments) == 3:
            cls, positional, keywords = arguments
            if type(positional) is tuple and type(keywords) is dict and all(type(key) is str for key in keywords):
                return (self.call(cls, positional, keywords, True),)
        if what == "reconstructor" and len(arguments) == 3 and arguments[1] is object and arguments[2] is None:
            grant = self.grant(arguments[0])
            if grant is not None and grant.listed == "built-in":
                return (self.call(arguments[0], (), None, True),)
        if what == "global" and len(arguments) == 2 and all(type(part) is str for part in arguments):
            return (self._find_again(*arguments),)
        if what == "salvaged" and len(arguments) == 4:
            return (self._salvage(*arguments),)
        if what == "contents" and len(arguments) == 2:
            self._fill_salvaged(*arguments)
            return (None,)
        if what == "getattr" and len(arguments) == 2 and type(arguments[1]) is str:
            # Below protocol 4 the name "C.method" is written as getattr(C, "method").
            grant = self.grant(arguments[0])
            if grant is not None and (grant.module, f"{grant.name}.{arguments[1]}") in BUILT_IN:
                return (self.find(grant.module, f"{grant.name}.{arguments[1]}", 4),)
        return None

    def _salvage(self, function: Any, arguments: Any, referent_type: Any, path: Any) -> Any:
        """Make a call that may fail, since a tombstone is among its arguments: what it would have made is one then."""
        if type(arguments) is not tuple or type(referent_type) is not str or type(path) is not str:
            raise Refusal("it is not called as safepickle writes it")
        try:
            return self.call(function, arguments, None, False)
        except Damage as error:
            cause = f"it is built from an object that could not be pickled: {error}"
            return rebuild.UnpicklableTombstone(referent_type, path, cause)

    def _fill_salvaged(self, obj: Any, contents: Any) -> None:
        """Give what `_salvage` has made its items and its state, each as the stream could by an opcode."""
        if type(contents) is not tuple or len(contents) != 4 or self._machine is None:
            raise Refusal("it is not called as safepickle writes it")
        state, items, pairs, setter = contents
        if type(obj) is rebuild.UnpicklableTombstone:
            return
        if type(items or []) is not list or type(pairs or []) is not list:
            raise Refusal("it is not called as safepickle writes it")
        if not all(type(pair) is tuple and len(pair) == 2 for pair in pairs or ()):
            raise Refusal("it is not called as safepickle writes it")
        if items:
            self._machine.extend(obj, items)
        if pairs:
            self._machine.update(obj, [part for pair in pairs for part in pair])
        if setter is not None:
            self.call(setter, (obj, state), None, False)
        elif state is not None:
            self.set_state(obj, state)

    def _find_again(self, module: str, name: str) -> Any:
        """Return what stands for a name that was a placeholder's when it was pickled."""
        return self.find(module, name, 4)

    def _call_users(self, grant: Grant, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        raise NotImplementedError

    def _make(self, grant: Grant, arguments: tuple[Any, ...], new: bool, facts: Facts | None) -> Any:
        raise NotImplementedError

    def _remember(self, value: Any, facts: Facts, kind: Grant | None = None) -> None:
        """Keep what is known of a value; the value is held too, so that its id stays its own."""
        self._facts[id(value)] = (value, facts, kind)

    # State and items.

    def set_state(self, obj: Any, state: Any) -> Any:
        """Set the state of an instance, if the rule of its class agrees."""
        grant = self.kind(obj)
        if grant is None:
            raise Refusal(f"a state is set into a {_described(obj)}, which is no instance of an allowed class")
        self.subject = grant.key
        if grant.rule is USERS:
            self._set_users_state(grant, obj, state)
        elif grant.rule.state is None:
            raise Refusal("its instances take no state")
        else:
            setter = grant.rule.state(self, obj, self.facts(obj), state)
            self._set_built_in_state(grant, obj, state, setter)
        self.subject = ""
        return obj

    def _set_users_state(self, grant: Grant, obj: Any, state: Any) -> None:
        raise NotImplementedError

    def _set_built_in_state(self, grant: Grant, obj: Any, state: Any, setter: Callable[[Any, Any], None]) -> None:
        raise NotImplementedError

    def extend(self, obj: Any, items: list[Any]) -> None:
        """Append to an instance of an allowed subclass of list."""
        self._builtin_of(obj, list, "extend", "append")
        list.extend(obj, items)

    def update(self, obj: Any, pairs: list[Any]) -> None:
        """Set items of what a rule lets have some, or of an instance of an allowed subclass of dict."""
        grant = self.kind(obj)
        keys = pairs[::2]
        if grant is not None and grant.rule.items is not None:
            self.subject = grant.key
            set_item = grant.rule.items(self, obj, keys)
            self.subject = ""
        else:
            self._builtin_of(obj, dict, "__setitem__")
            self.check_keys(keys, obj)
            set_item = dict.__setitem__
        self._set_items(obj, pairs, set_item)

    def _set_items(self, obj: Any, pairs: list[Any], set_item: Callable[[Any, Any, Any], None]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            set_item(obj, key, value)

    def _builtin_of(self, obj: Any, base: type, *methods: str) -> None:
        """Hold that items may go into `obj` by the methods of its builtin base, which are all that is called."""
        grant = self.kind(obj)
        if grant is None or grant.rule is not USERS or not issubclass(type(obj), base):
            raise Refusal(f"items are put into a {_described(obj)}, which is no {base.__name__}")
        for method in methods:
            if not hasattr(base, method) or getattr(type(obj), method) is not getattr(base, method):
                raise Refusal(f"items are put into a {grant.key}, which has a {method} of its own")

    # What rules may ask.

    def nested(self, payload: Any) -> Facts:
        """Judge a torch file that lies inside the pickle."""
        raise NotImplementedError

    def facts(self, value: Any) -> Facts | None:
        if type(value) is Grant:
            return value.rule.facts
        grant = self._by_id.get(id(value))
        if grant is not None:
            return grant.rule.facts
        known = self._facts.get(id(value))
        return None if known is None else known[1]

    def grant(self, value: Any) -> Grant | None:
        return value if type(value) is Grant else self._by_id.get(id(value))

    def kind(self, value: Any) -> Grant | None:
        if issubclass(type(value), type):
            return None
        known = self._facts.get(id(value))
        if known is not None and known[2] is not None:
            return known[2]
        return self._by_id.get(id(type(value)))

    def spend(self, amount: int) -> None:
        if self._machine is not None:
            self._machine.budget.spend(amount)

    def check_keys(self, keys: Any, container: object) -> None:
        if self._machine is not None:
            self._machine.check_keys(keys, container)

    def length(self, value: Any) -> int | None:
        if type(value) in (bytes, bytearray):
            return len(value)
        return value.nbytes if type(value) is memoryview else -1

    def check_attributes(self, obj: Any, state: Any) -> None:
        """Hold a state's names against the rule that no dunder is set."""
        parts = state if type(state) is tuple and len(state) == 2 else (state,)
        for part in parts:
            if type(part) is not dict:
                continue
            for name in part:
                if type(name) is str and name[:2] == "__" and name[-2:] == "__":
                    raise Refusal(f"the state sets {name!r}, which Python gives a meaning")


class Building(Guarded):
    """The world of the load: what the rules agree to is imported, called and set.

    Args:
        allowed: What the user allows beside the built-in list.
        fix_imports: As for `pickle.load`.
        find_class: The `find_class` of a subclass of the unpickler, or None.
        names: What has moved, or None.
        buffers: The out-of-band buffers.
    """

    def __init__(
        self,
        allowed: AllowList,
        *,
        fix_imports: bool = True,
        find_class: Callable[[str, str], Any] | None = None,
        names: Names | None = None,
        buffers: Iterator[Any] | None = None,
    ) -> None:
        super().__init__(allowed, fix_imports=fix_imports)
        self._find_class = find_class
        self._names = names
        self._persistent_load: Callable[[Any], Any] | None = None
        self._claimed: dict[str, int] = {}
        self._buffers = buffers
        self._given: dict[int, Any] = {}
        self._state_plans: dict[type, Callable[[Any, Any], None]] = {}
        self._nested_storage: Any = None

    def attach(self, machine: Machine, persistent_load: Callable[[Any], Any] | None = None) -> None:
        """Take a machine, and what gives the objects of its persistent ids."""
        super().attach(machine)
        self._persistent_load = persistent_load

    def plain_target(self, module: str, name: str) -> Any:
        """Decide on a name and return its object, for the base class of a subclass's `find_class`."""
        module, name = _renamed(module, name) if self._machine_is_old() else (module, name)
        if self._names is not None:
            module, name = self._names.rename(module, name)
        grant = self._grants.get((module, name)) or self._decide(module, name)
        if grant.listed == "user":
            return self._resolve(grant)
        return import_name(module, name)

    def _resolve(self, grant: Grant) -> Any:
        """Return the object of a name that the user allows, or a placeholder for what is nowhere."""
        try:
            return self._allowed.resolve((grant.module, grant.name))
        except Damage:
            stub = None if self._names is None else self._names.stub(grant.module, grant.name)
            if stub is None:
                raise
            return stub

    def _find_again(self, module: str, name: str) -> Any:
        """Return the object of a name, or its placeholder class again where it is still nowhere."""
        try:
            return super()._find_again(module, name)
        except Damage:
            pair = (module, name) if self._names is None else self._names.rename(module, name)
            grant = self._grants.get(pair)
            if grant is None or grant.listed != "user":
                raise
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

    def _is_placeholder(self, obj: Any) -> bool:
        """Tell whether an object is an instance of an allowed class that is nowhere: it notes what it is given."""
        return issubclass(type(obj), rebuild.Stub) and self.kind(obj) is not None

    def _machine_is_old(self) -> bool:
        return self._fix_imports and (self._machine is None or self._machine.protocol < 3)

    def finished(self, memo: dict[int, Any]) -> None:
        """Hold that nothing which may only be called has become part of the result.

        Such a name is on the stack as its grant, an inert token. One that is still referred to, beside here, was
        stored somewhere: CPython's reference counts tell, where a walk through the whole result would be needed.
        """
        if not memo:
            self._facts.clear()
        self._forget_arguments(memo)
        kept = Counter(id(value) for value in memo.values() if type(value) is Grant)
        kept.update(id(kind) for _, _, kind in self._facts.values())
        for grant in self._grants.values():
            if not grant.rule.data and sys.getrefcount(grant) > _OWN_REFERENCES + kept[id(grant)]:
                self.subject = grant.key
                raise Refusal("it may be called by the stream, but not be part of what is loaded")

    def _forget_arguments(self, memo: dict[int, Any]) -> None:
        """Put an inert token where the memo holds a tuple of arguments with a name in it that may only be called."""
        for index, value in memo.items():
            if type(value) is tuple and Grant in map(type, value):
                forgotten = Grant("", "", Rule())
                memo[index] = self._grants.setdefault(("", ""), forgotten)

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
        if enum is not None and isinstance(target, enum.EnumMeta) and (new or keywords or len(arguments) != 1):
            raise Refusal("a member of an enumeration is its class called with one value")
        if len(arguments) > 1 and arguments[1] is not None and _takes_callback(target):
            raise Refusal("a callback of a weak reference is code that runs later")
        if new and not isinstance(target, type):
            raise Refusal("NEWOBJ is for classes, and this is a function")
        try:
            if new:
                return target.__new__(target, *arguments, **keywords or {})
            return target(*arguments, **keywords or {})
        except Exception as error:
            raise Damage(f"calling it failed with {type(error).__name__}: {error}") from error

    def _make(self, grant: Grant, arguments: tuple[Any, ...], new: bool, facts: Facts | None) -> Any:
        if grant.name == "_load_from_bytes":
            storage, self._nested_storage = self._nested_storage, None
            return storage
        make = grant.rule.make
        if make is not None:
            return make(*arguments)
        if new and isinstance(grant.target, type) and not grant.rule.plain:
            return grant.target.__new__(grant.target, *arguments)
        return grant.target(*arguments)

    def nested(self, payload: Any) -> Facts:
        from safepickle.guard.nested import load_storage

        self._nested_storage, facts = load_storage(bytes(payload), self._allowed)
        return facts

    def _set_users_state(self, grant: Grant, obj: Any, state: Any) -> None:
        cls = type(obj)
        plan = self._state_plans.get(cls)
        if plan is None:
            plan = self._state_plans[cls] = self._plan_state(cls)
        plan(obj, state)

    def _plan_state(self, cls: type) -> Callable[[Any, Any], None]:
        """Decide once for a class how its instances get their state."""
        enum = sys.modules.get("enum")
        if enum is not None and isinstance(cls, enum.EnumMeta):
            raise Refusal("members of enumerations are shared by the whole process, and take no state")
        setstate = getattr(cls, "__setstate__", None)
        if setstate is None:
            return self._set_plain_state

        def call_setstate(obj: Any, state: Any) -> None:
            self.check_attributes(obj, state)
            try:
                setstate(obj, state)
            except Exception as error:
                raise Damage(f"its __setstate__ failed with {type(error).__name__}: {error}") from error

        return call_setstate

    def _set_plain_state(self, obj: Any, state: Any) -> None:
        if type(state) is dict and state.keys() <= self._good_keys:
            obj.__dict__.update(state)
            return
        slots = None
        if type(state) is tuple and len(state) == 2:
            state, slots = state
        if state is not None:
            if type(state) is not dict:
                raise Damage("the state is not a dict of attributes")
            self._learn_keys(state)
            if state:
                obj.__dict__.update({sys.intern(name): value for name, value in state.items()})
        if slots is not None:
            if type(slots) is not dict:
                raise Damage("the state is not a dict of attributes")
            self._learn_keys(slots)
            for name, value in slots.items():
                _set_slot(obj, name, value)

    def _learn_keys(self, names: Any) -> None:
        for name in names:
            if type(name) is not str:
                raise Damage("an attribute's name is not a string")
            if name[:2] == "__" and name[-2:] == "__":
                raise Refusal(f"the state sets {name!r}, which Python gives a meaning")
        self._good_keys.update(names)

    def _set_built_in_state(self, grant: Grant, obj: Any, state: Any, setter: Callable[[Any, Any], None]) -> None:
        setter(obj, state)

    def persistent(self, identifier: Any) -> Any:
        if self._persistent_load is None:
            raise Refusal("it refers to objects by persistent id, and nothing here knows them")
        storage = None
        if _is_torchs(self._persistent_load):
            if type(identifier) is tuple and len(identifier) == 4 and identifier[0] in ("module", b"module"):
                return self._module_class(identifier[1])
            storage = describe_storage(self, identifier)
            if len(identifier) == 6:
                self._claim(identifier[2], identifier[4] * storage.itemsize)
        value = self._persistent_load(identifier)
        if storage is not None:
            _hold_storage(value, storage)
            self._remember(value, storage)
        return value

    def _module_class(self, cls: Any) -> Any:
        """Return the class of a layer, which older files write with its source code; torch would compare that."""
        if self.grant(cls) is None or not isinstance(cls, type):
            raise Refusal("a persistent id of a torch file is that of a storage or of an allowed class")
        return cls

    def _claim(self, key: str, nbytes: int) -> None:
        """Hold the storages of a legacy file, which torch makes before it has read them, against what is left of it."""
        self._claimed[key] = nbytes
        source = self._machine.source if self._machine is not None else None
        left = source.left(source.position) if source is not None else None
        if left is not None and sum(self._claimed.values()) > left:
            raise Damage("its storages claim more bytes than are left")

    def buffer(self) -> Any:
        if self._buffers is None:
            raise Damage("it needs out-of-band buffers: pass buffers=")
        try:
            buffer = next(self._buffers)
        except StopIteration:
            raise Damage("it needs more out-of-band buffers than buffers= has") from None
        self._given[id(buffer)] = buffer
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


def _renamed(module: str, name: str) -> tuple[str, str]:
    """Turn a name of Python 2 into that of Python 3."""
    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def import_name(module: str, name: str) -> Any:
    """Import a name that was decided on.

    Raises:
        Damage: It cannot be imported here.
    """
    try:
        __import__(module)
        return getattr(sys.modules[module], name)
    except (ImportError, AttributeError) as error:
        raise Damage(f"it cannot be imported here ({error})") from error


def _takes_callback(target: Any) -> bool:
    """Tell whether a class is a weak reference whose second argument, as in `weakref.ref` itself, is its callback."""
    return isinstance(target, type) and issubclass(target, weakref.ref) and target.__new__ in _CONSTRUCTORS


def _set_slot(obj: Any, name: str, value: Any) -> None:
    """Set a slot, or else an attribute of the instance; never what runs code, such as a property."""
    descriptor = next((vars(cls)[name] for cls in type(obj).__mro__ if name in vars(cls)), None)
    if type(descriptor) is MemberDescriptorType:
        descriptor.__set__(obj, value)
    elif descriptor is None and hasattr(obj, "__dict__"):
        obj.__dict__[name] = value
    else:
        raise Refusal(f"the state sets {name!r}, which is no slot of the class")


def _described(obj: Any) -> str:
    if issubclass(type(obj), type) or type(obj) is Grant:
        return "class or function"
    return type(obj).__qualname__


def _is_torchs(persistent_load: Any) -> bool:
    return getattr(persistent_load, "__module__", None) == "torch.serialization"


def describe_storage(world: Guarded, identifier: Any) -> Facts:
    """Judge the persistent id of a torch storage: ``("storage", type, key, location, elements[, view])``."""
    if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] not in ("storage", b"storage"):
        raise Refusal("a persistent id of a torch file is that of a storage, and nothing else")
    _, cls, key, location, count = identifier[:5]
    kind = world.facts(cls)
    if kind is None or kind.kind != "storage type":
        raise Refusal("the type of a storage is none of torch's")
    if type(key) is not str or type(location) not in (str, bytes) or type(count) is not int or not 0 <= count < 1 << 50:
        raise Damage("the persistent id of a storage is malformed")
    if DEVICE.fullmatch(location if type(location) is str else location.decode("ascii", "replace")) is None:
        raise Damage("the location of a storage is no device that torch writes")
    view = identifier[5] if len(identifier) == 6 else None
    if view is not None:
        if type(view) is not tuple or len(view) != 3 or not all(type(part) is int and part >= 0 for part in view[1:]):
            raise Damage("the persistent id of a storage is malformed")
        if view[1] + view[2] > count:
            raise Damage("the view of a storage lies outside it")
        count = view[2]
    return Facts("storage", kind.dtype, kind.itemsize, count * kind.itemsize)


def _hold_storage(storage: Any, facts: Facts) -> None:
    """Hold the storage that torch gave against what its id said; go by what is really there."""
    untyped = getattr(storage, "_untyped_storage", storage)
    nbytes = untyped.nbytes()
    if facts.nbytes is not None and nbytes < facts.nbytes:
        facts.nbytes = nbytes
    facts.filled = not getattr(untyped, "_torch_load_uninitialized", False)


def _own_references() -> int:
    """Count the references to a grant that nothing but its table holds, as `Building.finished` sees them."""
    grants = {"": Grant("", "", USERS)}
    for grant in grants.values():
        return sys.getrefcount(grant)
    return 0


_OWN_REFERENCES: Final = _own_references()
