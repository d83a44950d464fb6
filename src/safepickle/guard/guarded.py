"""The decisions that the load and `safepickle.inspect` share: which name may stand where, and what it may do there.

A backend differs from the other only in what it does after the rules have agreed: `LoadBackend` makes it,
`InspectBackend` notes it.
"""

from __future__ import annotations

import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from safepickle import rebuild
from safepickle.cpython import FROZENDICT
from safepickle.guard.allow_list import AllowList
from safepickle.guard.budget import extent, paying_from
from safepickle.guard.limits import LONGEST_NAME, NESTED_LOAD_AGAIN, NESTED_LOAD_WORK, Malformed, Refusal
from safepickle.guard.machine import Machine
from safepickle.guard.names import Renaming, renamed
from safepickle.guard.never import reason_against
from safepickle.guard.rules import BUILT_IN, Grant, Rule, ValueInfo
from safepickle.guard.rules.copies import own_arguments, own_container
from safepickle.guard.rules.users import check_users_state
from safepickle.guard.users_state import attributes_of, has_own_hash

__all__ = ["ARGUMENT", "ATTRIBUTE", "USERS", "Guarded"]

USERS: Final = Rule(data=True)
"""The rule of every name that the user allows."""

ARGUMENT: Final = 16
"""Units for handing on one argument."""

ATTRIBUTE: Final = 64
"""Units for setting one attribute of a state, whose name is looked at first."""

_SLOT: Final = 256
"""Units for setting one slot, which is looked up in every base class."""

_SIZED: Final = 256
"""Values made of more bytes than this are weighed where they are hashed or compared."""


class Guarded:
    """The decisions that the load and `safepickle.inspect` share.

    Args:
        allowed: What the user allows beside the built-in list.
        fix_imports: Whether names of Python 2 become those of Python 3, below protocol 3.
    """

    def __init__(self, allowed: AllowList, *, fix_imports: bool = True) -> None:
        self._allowed = allowed
        self._fix_imports = fix_imports
        self._names: Renaming | None = None
        self._machine: Machine | None = None
        self._grants: dict[tuple[str, str], Grant] = {}
        self._by_id: dict[int, Grant] = {}
        self._nested_payloads: dict[int, Any] = {}
        self._infos: dict[int, tuple[Any, ValueInfo, Grant | None]] = {}
        self.subject = ""

    def attach(self, machine: Machine) -> None:
        """Take the machine whose budget pays for this backend's work."""
        self._machine = machine
        self.subject = ""

    def detach(self, *, forget: bool) -> None:
        """Let go of the machine; and of the values, where no later pickle can refer to them."""
        self._machine = None
        if forget:
            self._infos.clear()

    # Names.

    def find(self, module: str, name: str, protocol: int) -> Any:
        """Return what stands for a name on the stack, once it is decided that it may stand there."""
        written = (module, name)
        module, name = self._of_today(module, name, protocol)
        self.subject = f"{module}:{name}"
        grant = self._grants.get((module, name))
        if grant is None:
            grant = self._decide(module, name)
            self._settle(grant, written)
            # Only now: where it cannot be imported, another load of the same Unpickler asks again.
            self._grants[module, name] = grant
        self.subject = ""
        return grant if not grant.rule.data or grant.target is None else grant.target

    def _of_today(self, module: str, name: str, protocol: int) -> tuple[str, str]:
        """Return what a name of the stream is called today, where it can be one."""
        if len(module) + len(name) > LONGEST_NAME:
            raise Refusal(f"a name of more than {LONGEST_NAME:,} characters")
        if protocol < 4 and "." in name:
            raise Malformed("a dotted name, which only protocol 4 and newer have")
        if protocol < 3 and self._fix_imports:
            module, name = renamed(module, name)
        return (module, name) if self._names is None else self._names.rename(module, name)

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
        if not grant.rule.data and self._machine is not None:
            self._machine.keys.enter_function(grant)
        if grant.rule is USERS and self._machine is not None and has_own_hash(grant.target):
            self._machine.keys.enter_class(grant.target)
        if grant.target is not None and grant.rule.data:
            self._by_id.setdefault(id(grant.target), grant)

    def _target(self, grant: Grant, written: tuple[str, str]) -> Any:
        raise NotImplementedError

    # Calls.

    def call(self, function: object, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        """Call what a name stands for, if its rule agrees."""
        grant = self.grant(function)
        if grant is None:
            raise Refusal(f"a {type(function).__qualname__} is called, which no name of the stream stands for")
        self.subject = grant.key
        rule = grant.rule
        if new and not rule.data:
            raise Refusal("NEWOBJ is for classes, and this is a function")
        size = self._charge_arguments(arguments, keywords) if arguments or keywords else 0
        if rule.unfolds:
            unfolded = self._unfold(rule.unfolds, arguments)
            if unfolded is not None:
                self.subject = ""
                return unfolded[0]
        info = None
        if arguments and self._machine is not None and not rule.functions:
            self._machine.keep(arguments)
        if rule is USERS:
            value = self._call_users(grant, arguments, keywords, new)
        else:
            if keywords:
                raise Refusal("it is called with keyword arguments")
            if rule.new_only and not new:
                raise Refusal("its constructor is called, where a pickle makes an instance without it")
            if rule.unfolds == "filling":
                arguments = self._attributes_first(grant, arguments)
            arguments = own_arguments(self, arguments, rule.reads)
            info = rule.check(self, arguments)
            value = self._make(grant, arguments, new, info)
            if info is not None:
                made = self.grant(arguments[0]) if rule.of_first else grant
                self._remember(value, info, made)
        if arguments or info is not None:
            self._weigh(value, arguments, size, info)
        self.subject = ""
        return value

    def _charge_arguments(self, arguments: tuple[Any, ...], keywords: dict[str, Any] | None) -> int:
        """Charge for handing arguments on, which the memo may give again and again; return their size."""
        self.spend(ARGUMENT * (len(arguments) + len(keywords or ())))
        size = extent(arguments)
        if keywords:
            size += extent(keywords.values())
        self.spend(size)
        return size

    def _weigh(self, value: Any, arguments: tuple[Any, ...], size: int, info: ValueInfo | None) -> None:
        """Note what a value costs that was made by a call: where it is hashed or compared, and when it is freed."""
        if self._machine is None:
            return
        keys, kind = self._machine.keys, type(value)
        keys.enter_parts(value, arguments)
        if info is not None:
            size = max(size, info.weight)
        if issubclass(kind, tuple):
            keys.enter(value)
        elif issubclass(kind, frozenset):
            keys.enter_frozenset(value, arguments[0] if arguments else value)
        elif kind is FROZENDICT:
            keys.enter_frozendict(value)
        elif issubclass(kind, weakref.ref):
            keys.enter_reference(value, weakref.ref.__call__(value))
        elif kind is deque:
            self.nest(value, value)
        elif kind is defaultdict:
            self.nest(value, value.values())
        elif size > _SIZED and kind.__hash__ is not None:
            keys.enter_sized(value, size)
        if info is not None and info.nests:
            self.nest(value, ())

    def _unfold(self, what: str, arguments: tuple[Any, ...]) -> tuple[Any] | None:
        """Carry out a call that stands for another operation; None where its own rule decides."""
        if what == "newobj" and arguments:
            return (self.call(arguments[0], arguments[1:], None, True),)
        if what == "newobj_ex" and len(arguments) == 3:
            cls, positional, keywords = arguments
            self.spend(extent((keywords,)))
            if type(positional) is tuple and type(keywords) is dict and all(type(key) is str for key in keywords):
                return (self.call(cls, positional, keywords, True),)
        if what == "reconstructor" and len(arguments) == 3 and arguments[1] is object and arguments[2] is None:
            grant = self.grant(arguments[0])
            if grant is not None and grant.listed == "built-in":
                return (self.call(arguments[0], (), None, True),)
        if what == "global" and len(arguments) == 2 and all(type(part) is str for part in arguments):
            return (self._find_again(*arguments),)
        if what == "partial" and len(arguments) == 4:
            return (self._build_partial(*arguments),)
        if what == "contents" and len(arguments) == 2:
            self._fill_partial(*arguments)
            return (None,)
        if what == "getattr" and len(arguments) == 2 and type(arguments[1]) is str:
            # Below protocol 4 the name "C.method" is written as getattr(C, "method").
            grant = self.grant(arguments[0])
            if grant is not None and (grant.module, f"{grant.name}.{arguments[1]}") in BUILT_IN:
                return (self.find(grant.module, f"{grant.name}.{arguments[1]}", 4),)
        return None

    def _attributes_first(self, grant: Grant, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Set the attributes of a container that is filled, as a state is set; return the arguments without them."""
        if len(arguments) != 2 or type(arguments[1]) is not tuple or not arguments[1] or arguments[1][0] is None:
            return arguments
        container, (attributes, *rest) = arguments
        self.set_state(container, attributes)
        self.subject = grant.key
        return container, (None, *rest)

    def _build_partial(self, function: object, arguments: object, referent_type: object, path: object) -> Any:
        """Make a call that may fail, since a tombstone is among its arguments: what it would have made is one then."""
        if type(arguments) is not tuple or type(referent_type) is not str or type(path) is not str:
            raise Refusal("it is not called as safepickle writes it")
        grant = self.grant(function)
        if grant is not None and grant.rule.unfolds == "partial":
            raise Refusal("it is called by itself")
        try:
            return self.call(function, arguments, None, False)
        except Malformed as error:
            cause = f"it is built from an object that could not be pickled: {error}"
            return rebuild.UnpicklableTombstone(referent_type, path, cause)

    def _fill_partial(self, obj: object, contents: object) -> None:
        """Give what `_build_partial` has made its items and its state, each as the stream could by an opcode."""
        if type(contents) is not tuple or len(contents) != 4 or self._machine is None:
            raise Refusal("it is not called as safepickle writes it")
        state, items, pairs, setter = contents
        if type(obj) is rebuild.UnpicklableTombstone:
            return
        if type(items or []) is not list or type(pairs or []) is not list:
            raise Refusal("it is not called as safepickle writes it")
        if not all(type(pair) is tuple and len(pair) == 2 for pair in pairs or ()):
            raise Refusal("it is not called as safepickle writes it")
        # Lists that the memo may hand in again and again.
        self.spend(64 * (len(items or ()) + len(pairs or ())))
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

    def _make(self, grant: Grant, arguments: tuple[Any, ...], new: bool, info: ValueInfo | None) -> Any:
        raise NotImplementedError

    def _remember(self, value: object, info: ValueInfo, kind: Grant | None = None) -> None:
        """Keep what is known of a value; the value is held too, so that its id stays its own."""
        self._infos[id(value)] = (value, info, kind)

    # State and items.

    def set_state(self, obj: object, state: object) -> Any:
        """Set the state of an instance, if the rule of its class agrees."""
        grant = self.kind(obj)
        if grant is None:
            raise Refusal(f"a state is set into a {_described(obj)}, which is no instance of an allowed class")
        self.subject = grant.key
        keys = self._machine.keys if self._machine is not None else None
        if keys is not None and keys.functions and self._machine is not None:
            self._machine.keep((state,))
        if type(state) is dict:
            self.spend(ATTRIBUTE * len(state))
        elif type(state) is tuple:
            self.spend(extent(state))
            self.spend(_SLOT * sum(len(part) for part in state if type(part) is dict))
        if keys is not None and type(obj) in keys.users:
            keys.enter_parts(obj, attributes_of(state))
        if grant.rule is USERS:
            self._set_users_state(grant, obj, check_users_state(self, obj, self.info(obj), state))
        elif grant.rule.state is None:
            raise Refusal("its instances take no state")
        else:
            state = own_container(self, state, grant.rule.state_reads)
            setter = grant.rule.state(self, obj, self.info(obj), state)
            self._set_built_in_state(grant, obj, state, setter)
        self.subject = ""
        return obj

    def _set_users_state(self, grant: Grant, obj: object, state: object) -> None:
        raise NotImplementedError

    def _set_built_in_state(self, grant: Grant, obj: object, state: object, setter: Callable[[Any, Any], None]) -> None:
        raise NotImplementedError

    def extend(self, obj: object, items: list[Any]) -> None:
        """Append to an instance of an allowed subclass of list or deque."""
        base: Any = deque if issubclass(type(obj), deque) else list
        self._builtin_of(obj, base, "extend", "append")
        base.extend(obj, items)

    def update(self, obj: object, pairs: list[Any]) -> None:
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

    def _set_items(self, obj: object, pairs: list[Any], set_item: Callable[[Any, Any, Any], None]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            set_item(obj, key, value)

    def _builtin_of(self, obj: object, base: type, *methods: str) -> None:
        """Hold that items may go into `obj` by the methods of its builtin base, which are all that is called."""
        grant = self.kind(obj)
        if grant is None or grant.rule is not USERS or not issubclass(type(obj), base):
            raise Refusal(f"items are put into a {_described(obj)}, which is no {base.__name__}")
        for method in methods:
            if not hasattr(base, method) or getattr(type(obj), method) is not getattr(base, method):
                raise Refusal(f"items are put into a {grant.key}, which has a {method} of its own")

    # What rules may ask.

    def nested(self, payload: object) -> ValueInfo:
        """Judge a torch file that lies inside the pickle; this pickle's budget pays for it."""
        if self._machine is None:
            return self._nested(payload)
        # Held, so that its id stays its own.
        self.spend(NESTED_LOAD_AGAIN if id(payload) in self._nested_payloads else NESTED_LOAD_WORK)
        self._nested_payloads[id(payload)] = payload
        with paying_from(self._machine.budget):
            return self._nested(payload)

    def _nested(self, payload: object) -> ValueInfo:
        raise NotImplementedError

    def info(self, value: object) -> ValueInfo | None:
        if type(value) is Grant:
            return value.rule.info
        grant = self._by_id.get(id(value))
        if grant is not None:
            return grant.rule.info
        known = self._infos.get(id(value))
        return None if known is None else known[1]

    def grant(self, value: object) -> Grant | None:
        return value if type(value) is Grant else self._by_id.get(id(value))

    def kind(self, value: object) -> Grant | None:
        if issubclass(type(value), type):
            return None
        known = self._infos.get(id(value))
        if known is not None and known[2] is not None:
            return known[2]
        return self._by_id.get(id(type(value)))

    def spend(self, amount: int) -> None:
        if self._machine is not None:
            self._machine.budget.spend(amount)

    def _stream_length(self) -> int | None:
        """Bytes of the stream, or None where only reading would tell."""
        source = self._machine.source if self._machine is not None else None
        return source.left(-source.base) if source is not None else None

    def _entitle(self, nbytes: int) -> None:
        """Grant work for input that lies beside the pickle: storages and buffers."""
        if self._machine is not None:
            self._machine.budget.grow(nbytes)

    def nest(self, value: object, parts: Iterable[Any]) -> None:
        if self._machine is not None:
            self._machine.costs.nesting.nest(value, parts)

    def weigh(self, value: object, units: int) -> None:
        if self._machine is not None:
            self._machine.keys.enter_sized(value, units)

    def check_keys(self, keys: Any, container: object) -> None:
        if self._machine is not None:
            self._machine.keys.check(keys, container)

    def length(self, value: Any) -> int | None:
        if type(value) in (bytes, bytearray):
            return len(value)
        return value.nbytes if type(value) is memoryview else -1


def _described(obj: object) -> str:
    if issubclass(type(obj), type) or type(obj) is Grant:
        return "class or function"
    return type(obj).__qualname__
