"""The built-in list, weak references: the standard library's, and what safepickle writes for them.

A callback is code that runs later, so no rule takes one; nor is there a rule for an armed `weakref.finalize`.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

from safepickle import rebuild
from safepickle.guard.limits import LimitExceeded, Refusal
from safepickle.guard.rules.base import (
    Grant,
    Rule,
    RuleContext,
    ValueInfo,
    allocate,
    expect,
    hold_count,
    no_arguments,
    set_state,
)
from safepickle.guard.users_state import check_attributes
from safepickle.weak_types import CONTAINER_INTERNALS, STANDARD_CONTAINERS, WEAK_TYPES

_CHAIN: Final = 100
"""Most references to references: the hash of a reference is its referent's, by recursion in C."""

KEPT: Final = (0,)
"""What a reference refers to is the stream's own object, also where that is a set."""

FILLED: Final = (0, 2)
"""A container that is filled, and lists of what goes in, once and for all."""

_SOLID: Final = frozenset({"dtype", "torch dtype", "scalar", "size", "device", "layout", "qscheme", "text"})
"""Kinds of values that cannot be referred to weakly."""

_TORCHS: Final = frozenset(
    (weak.module, weak.name) for weak in WEAK_TYPES if weak.kind == "reference" and weak.module != "weakref"
)


def check_referent(context: RuleContext, referent: object) -> ValueInfo:
    """Judge what a reference may point at."""
    known = context.info(referent)
    if not type(referent).__weakrefoffset__ or _is_solid(context, referent, known):
        raise Refusal(f"a {type(referent).__qualname__} cannot be referred to weakly")
    depth = known.depth + 1 if known is not None and known.kind == "reference" else 0
    if depth > _CHAIN:
        raise LimitExceeded(f"more than {_CHAIN} references refer to one another")
    return ValueInfo("reference", depth=depth)


def _is_solid(context: RuleContext, value: object, known: ValueInfo | None) -> bool:
    """Tell whether a value is of a type that takes no weak references, though what stands for it may take them."""
    if known is None:
        return False
    kind = context.kind(value)
    torchs = kind is not None and (kind.module, kind.name) in _TORCHS
    return known.kind in _SOLID or (torchs and known.kind in ("reference", "dead reference"))


def check_reference(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if len(arguments) == 2 and arguments[1] is None:
        arguments = arguments[:1]
    if len(arguments) != 1:
        raise Refusal("a callback of a weak reference is code that runs later")
    return check_referent(context, arguments[0])


def _proxy(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    check_reference(context, arguments)


def _tombstone(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, str, (str, type(None)), least=1)


def _unpicklable_tombstone(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, str, str, str)


def _subclass(context: RuleContext, cls: object) -> None:
    """Hold that a class is a subclass of `weakref.ref` that the user allows, or one of torch's."""
    grant = context.grant(cls)
    if grant is not None and (grant.module, grant.name) in _TORCHS:
        return
    if grant is None or grant.listed == "built-in" or not is_a(grant, weakref.ref):
        raise Refusal("its class is not an allowed subclass of weakref.ref")


def is_a(grant: Grant, base: Any) -> bool:
    return grant.target is None or (isinstance(grant.target, type) and issubclass(grant.target, base))


def _of_subclass(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if not arguments:
        raise Refusal("it is called without a class")
    _subclass(context, arguments[0])
    return check_reference(context, arguments[1:])


def _dead_of_subclass(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 1)
    _subclass(context, arguments[0])
    return ValueInfo("dead reference", open=True)


def _keyed(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 3)
    return check_reference(context, arguments[:2])


def _key_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    if type(state) is not tuple or len(state) != 2 or state[0] is not None:
        raise Refusal("the state is not that of a keyed reference")
    if type(state[1]) is not dict or state[1].keys() != {"key"}:
        raise Refusal("the state is not that of a keyed reference")
    return _set_key


def _set_key(reference: Any, state: Any) -> None:
    reference.key = state[1]["key"]


def _dead_method(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) != 1 or arguments[0] is not weakref.WeakMethod:
        raise Refusal("its class is not weakref.WeakMethod")


def _method(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    raise Refusal("a bound method is code: allowing a class brings none of its methods")


def _armed(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    raise Refusal("an armed finalizer is code that runs later")


def _dead_finalizer(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    grant = context.grant(arguments[0]) if len(arguments) == 1 else None
    if grant is None or (grant.module, grant.name) != ("weakref", "finalize"):
        raise Refusal("its class is not weakref.finalize")


def _make_dead_finalizer(_: Grant) -> Any:
    return rebuild.rebuild_dead_finalize(weakref.finalize)


def _dead_proxy(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, bool)


def _itself(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    hold_count(arguments, 1)


def _root(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    hold_count(arguments, 2)


def _container(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    grant = context.grant(arguments[0]) if len(arguments) == 1 else None
    standard = grant is not None and any(arguments[0] is cls for cls in STANDARD_CONTAINERS)
    if grant is None or not (standard or grant.listed != "built-in"):
        raise Refusal("its class is no allowed weak container")
    if not is_a(grant, STANDARD_CONTAINERS):
        raise Refusal("its class is no weak container")
    return ValueInfo("weak container")


def _entries(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    container, entries, _ = check_parts(arguments)
    plain = type(container) in STANDARD_CONTAINERS
    grant = context.kind(container)
    if not plain and (
        grant is None or not (grant.listed != "built-in" or any(grant.target is cls for cls in STANDARD_CONTAINERS))
    ):
        raise Refusal("the object to fill is no allowed weak container")
    if grant is not None and not is_a(grant, STANDARD_CONTAINERS):
        raise Refusal("the object to fill is no weak container")
    pairs = type(container) is not weakref.WeakSet and plain
    if pairs and not all(type(entry) is tuple and len(entry) == 2 for entry in entries):
        raise Refusal("the entries of the weak container are not pairs")
    allocate(context, 128 * len(entries))
    if entries:
        context.check_keys([entry[0] for entry in entries] if pairs else entries, container)


def check_parts(arguments: tuple[Any, ...]) -> tuple[Any, list[Any], tuple[Any, ...]]:
    """Judge how a weak container is filled, and return it, its entries, and what it owns.

    Its attributes were set by then, as a state is.
    """
    hold_count(arguments, 2)
    container, state = arguments
    if type(state) is not tuple or len(state) != 3 or type(state[1]) is not list or type(state[2]) is not tuple:
        raise Refusal("the state of the weak container is malformed")
    return container, state[1], state[2]


def container_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    for part in state if type(state) is tuple else (state,):
        if part is not None and (type(part) is not dict or not all(type(name) is str for name in part)):
            raise Refusal("the state is not a dict of attributes")
    check_attributes(state)
    check_attributes_of_container(state)
    return _set_attributes


def check_attributes_of_container(state: object) -> None:
    """Hold the attributes of a weak container against what it works with: its table, and its methods."""
    for part in state if type(state) is tuple else (state,):
        for name in part if type(part) is dict else ():
            if type(name) is str and (
                name in CONTAINER_INTERNALS or any(hasattr(cls, name) for cls in STANDARD_CONTAINERS)
            ):
                raise Refusal(f"the state would replace {name!r}, which is what the weak container works with")


def _set_attributes(obj: object, state: object) -> None:
    for part in state if type(state) is tuple else (state,):
        obj.__dict__.update(part or {})


def _items(context: RuleContext, obj: Any, keys: list[Any]) -> Any:
    context.check_keys(keys, obj)
    return type(obj).__setitem__


def _update(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    expect(arguments, weakref.WeakSet, list)
    if arguments[1]:
        allocate(context, 128 * len(arguments[1]))
        context.check_keys(arguments[1], arguments[0])


def _set_members(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    if len(arguments) != 2 or type(arguments[1]) is not tuple or len(arguments[1]) != 2:
        raise Refusal("the state of the set is malformed")
    container, (_, members) = arguments
    grant = context.kind(container)
    if grant is None or grant.listed == "built-in" or not is_a(grant, set):
        raise Refusal("the object to fill is no instance of an allowed subclass of set")
    if type(members) is not list:
        raise Refusal("the state of the set is malformed")
    allocate(context, 64 * len(members))
    if members:
        context.check_keys(members, container)


def _recipe(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    expect(arguments)
    return ValueInfo("recipe", open=True)


def _recipe_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Allow a factory that the user allows to be called; it runs when the value is first used."""
    if info is None or info.kind != "recipe" or not info.open:
        raise Refusal("only a recipe that was just made takes a state")
    if type(state) is not tuple or len(state) != 3 or type(state[1]) is not tuple or type(state[2]) is not dict:
        raise Refusal("the recipe is not a factory and its arguments")
    if not all(type(name) is str for name in state[2]):
        raise Refusal("the recipe is not a factory and its arguments")
    grant = context.grant(state[0])
    if grant is None or grant.listed == "built-in":
        raise Refusal("the factory of the recipe is not allowed: allow= has to name it")
    info.open = False
    return set_state


def _recipe_reference(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    info = check_reference(context, arguments)
    known = context.info(arguments[0])
    if known is None or known.kind != "recipe":
        raise Refusal("it refers to no recipe of this file")
    return info


_REFERENCE: Final = Rule(check_reference, reads=KEPT, data=True, plain=True)
_CONTAINER: Final = Rule(no_arguments, data=True, plain=True, state=container_state, state_reads=1)
_TABLE: Final = Rule(no_arguments, data=True, plain=True, items=_items, state=container_state, state_reads=1)

_FORMAT: Final[dict[str, Rule]] = {
    "Tombstone": Rule(_tombstone, data=True, plain=True),
    "UnpicklableTombstone": Rule(_unpicklable_tombstone, data=True, plain=True),
    "StrongRef": Rule(check_reference, reads=KEPT, data=True, plain=True),
    "OwningWeakMethod": Rule(_method),
    "rebuild_reference": Rule(_of_subclass, reads=KEPT, of_first=True),
    "rebuild_owning_reference": Rule(_of_subclass, reads=KEPT, of_first=True),
    "rebuild_dead_reference": Rule(_dead_of_subclass, of_first=True),
    "rebuild_dead_weak_method": Rule(_dead_method, plain=True),
    "rebuild_dead_finalize": Rule(_dead_finalizer, _make_dead_finalizer, plain=True, functions=True),
    "rebuild_dead_proxy": Rule(_dead_proxy, plain=True),
    "rebuild_proxy_referent": Rule(_itself, reads=KEPT, plain=True),
    "rebuild_replacement": Rule(_itself, reads=KEPT, plain=True),
    "rebuild_weak_container": Rule(_container, of_first=True, plain=True),
    "rebuild_weak_entries": Rule(_entries, reads=FILLED, unfolds="filling", plain=True),
    "rebuild_set_members": Rule(_set_members, reads=FILLED, unfolds="filling"),
    "rebuild_root": Rule(_root, reads=KEPT, plain=True),
    "rebuild_recomputed": Rule(_recipe, state=_recipe_state, state_reads=2),
    "RecipeRef": Rule(_recipe_reference, reads=KEPT, data=True),
}

RULES: Final[dict[tuple[str, str], Rule]] = {
    ("weakref", "ref"): _REFERENCE,
    ("weakref", "ReferenceType"): _REFERENCE,
    ("_weakref", "ref"): _REFERENCE,
    ("weakref", "proxy"): Rule(_proxy, reads=KEPT, plain=True),
    ("_weakref", "proxy"): Rule(_proxy, reads=KEPT, plain=True),
    ("weakref", "finalize"): Rule(_armed),
    ("weakref", "KeyedRef"): Rule(_keyed, reads=KEPT, data=True, plain=True, state=_key_state, state_reads=2),
    ("weakref", "WeakMethod"): Rule(_method, data=True, plain=True),
    ("weakref", "WeakSet"): _CONTAINER,
    ("_weakrefset", "WeakSet"): _CONTAINER,
    ("_weakrefset", "WeakSet.update"): Rule(_update, weakref.WeakSet.update, reads=(0, 1), plain=True),
    ("weakref", "WeakValueDictionary"): _TABLE,
    ("weakref", "WeakKeyDictionary"): _TABLE,
    **{("safepickle.rebuild", name): rule for name, rule in _FORMAT.items()},
}
