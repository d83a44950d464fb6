"""The built-in list, torch's weak types: `torch.utils.weak`, and the handles by which hooks are removed.

As with the standard library's, no callback is taken. A subclass of one of them has to be allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from safepickle.guard.limits import Malformed, Refusal
from safepickle.guard.rules.base import Rule, RuleContext, ValueInfo, allocate, hold_count, no_arguments, set_state
from safepickle.guard.rules.weak import (
    FILLED,
    KEPT,
    check_parts,
    check_reference,
    check_referent,
    container_state,
    is_a,
)

_MODULE: Final = "torch.utils.weak"
_REFERENCES: Final = ("WeakIdRef", "_WeakHashRef")
_BY_IDENTITY: Final = "by identity"
_LARGEST_HANDLE: Final = 1 << 53
"""torch counts on from the largest handle that it has loaded, for the whole process."""


def _is_users_reference(context: RuleContext, cls: object) -> bool:
    grant = context.grant(cls)
    if grant is None or grant.listed == "built-in" or grant.target is None:
        return grant is not None and grant.listed != "built-in"
    from torch.utils.weak import WeakIdRef, _WeakHashRef

    return is_a(grant, (WeakIdRef, _WeakHashRef))


def _check_reference_class(context: RuleContext, cls: object) -> None:
    grant = context.grant(cls)
    known = grant is not None and grant.module == _MODULE and grant.name in _REFERENCES
    if not known and not _is_users_reference(context, cls):
        raise Refusal("its class is neither a weak reference of torch's nor an allowed subclass of one")


def _hashed(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    """Judge ``_WeakHashRef``, which hashes its referent at once."""
    info = check_reference(context, arguments)
    context.check_keys([arguments[0]], arguments[0])
    return info


def _own_reference(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if not 2 <= len(arguments) <= 4 or any(type(owned) is not bool for owned in arguments[3:]):
        raise Refusal("it is not called as safepickle writes it")
    _check_reference_class(context, arguments[0])
    info = check_reference(context, arguments[1:3])
    if _hashes(context, arguments[0]):
        context.check_keys([arguments[1]], arguments[1])
    return info


def _hashes(context: RuleContext, cls: object) -> bool:
    """Tell whether a reference of a class is hashed as its referent is, and not by identity."""
    grant = context.grant(cls)
    return grant is not None and (grant.module, grant.name) == (_MODULE, "_WeakHashRef")


def _dead_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Allow a dead reference the hash that it had; a live one has computed its own."""
    if info is None or info.kind != "dead reference" or not info.open:
        raise Refusal("only a dead reference that was just made takes a state")
    if type(state) is not tuple or len(state) != 2 or state[0] is not None or type(state[1]) is not dict:
        raise Refusal("the state is not that of a dead reference")
    if state[1].keys() != {"_id"} or type(state[1]["_id"]) is not int:
        raise Refusal("the state is not that of a dead reference")
    if not -(1 << 63) <= state[1]["_id"] < 1 << 64:
        raise Malformed("the number of the dead reference is no address")
    info.open = False
    return _set_hash


def _set_hash(reference: Any, state: Any) -> None:
    reference._id = state[1]["_id"]


def _dictionary(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    if arguments and (len(arguments) != 2 or arguments[0] is not None):
        raise Refusal("it is not called as torch's own dictionaries are written")
    for reference_class in arguments[1:]:
        _check_reference_class(context, reference_class)
    return _facts_of_dictionary(context, arguments[1:])


def _facts_of_dictionary(context: RuleContext, reference_classes: tuple[Any, ...]) -> ValueInfo:
    """Note how a dictionary tells its keys apart: those of a user's reference are taken to be hashed."""
    by_identity = True
    for cls in reference_classes:
        grant = context.grant(cls)
        by_identity = grant is not None and (grant.module, grant.name) == (_MODULE, "WeakIdRef")
    return ValueInfo("weak dictionary", layout=_BY_IDENTITY if by_identity else "")


def _own_dictionary(context: RuleContext, arguments: tuple[Any, ...]) -> ValueInfo:
    hold_count(arguments, 2)
    _check_dictionary_class(context, arguments[0])
    _check_reference_class(context, arguments[1])
    return _facts_of_dictionary(context, arguments[1:])


def _check_dictionary_class(context: RuleContext, cls: object) -> None:
    grant = context.grant(cls)
    known = grant is not None and (grant.module, grant.name) == (_MODULE, "WeakIdKeyDictionary")
    if not known and (grant is None or grant.listed == "built-in"):
        raise Refusal("its class is neither torch's WeakIdKeyDictionary nor an allowed subclass of it")
    if grant is not None and grant.target is not None:
        from torch.utils.weak import WeakIdKeyDictionary

        if not is_a(grant, WeakIdKeyDictionary):
            raise Refusal("its class is no subclass of torch's WeakIdKeyDictionary")


def _check_keys(context: RuleContext, container: object, keys: list[Any]) -> None:
    """Charge for entries. Equal hashes count where keys are hashed, and not told apart by identity."""
    allocate(context, 256 * len(keys))
    for key in keys:
        check_referent(context, key)
    info = context.info(container)
    if keys and (info is None or info.layout != _BY_IDENTITY):
        context.check_keys(keys, container)


def _items(context: RuleContext, obj: object, keys: list[Any]) -> Any:
    _check_keys(context, obj, keys)
    return _set_item


def _set_item(container: object, key: object, value: object) -> None:
    from torch.utils.weak import WeakIdKeyDictionary

    WeakIdKeyDictionary.__setitem__(container, key, value)


def _entries(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    info = context.info(arguments[0]) if arguments else None
    if info is None or info.kind != "weak dictionary":
        raise Refusal("the object to fill is no weak dictionary of this file")
    _, entries, _ = check_parts(arguments)
    if not all(type(entry) is tuple and len(entry) == 2 for entry in entries):
        raise Refusal("the entries of the weak dictionary are not pairs")
    _check_keys(context, arguments[0], [key for key, _ in entries])


def _tensor_reference_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    """Allow a `TensorWeakRef` the reference that it wraps: one of this file, or a tombstone."""
    if type(state) is not dict or state.keys() != {"ref"}:
        raise Refusal("the state is not that of a reference to a tensor")
    inner = context.info(state["ref"])
    tombstone = context.kind(state["ref"])
    if (inner is None or inner.kind != "reference") and (tombstone is None or tombstone.name != "Tombstone"):
        raise Refusal("a reference to a tensor wraps a weak reference of this file")
    return _set_reference


def _set_reference(obj: Any, state: Any) -> None:
    obj.ref = state["ref"]


def _handle_state(context: RuleContext, obj: object, info: ValueInfo | None, state: object) -> Any:
    _check_handle(context, state)
    return set_state


def _check_handle(context: RuleContext, state: object) -> None:
    """Judge ``(hooks, id, other dictionaries)``, from which `remove` deletes by the id."""
    if type(state) is not tuple or len(state) not in (2, 3):
        raise Refusal("the state is not that of a handle")
    if type(state[1]) is not int or not 0 <= state[1] < _LARGEST_HANDLE:
        raise Malformed("the number of the handle is out of range")
    others = state[2] if len(state) == 3 and state[2] is not None else ()
    if type(others) is not tuple:
        raise Refusal("the state is not that of a handle")
    context.spend(64 * len(others))
    for hooks in (state[0], *others):
        grant = context.kind(hooks)
        users = grant is not None and grant.listed != "built-in" and is_a(grant, dict)
        if type(hooks) is not OrderedDict and not users and not (hooks is None and hooks is state[0]):
            raise Refusal("what the handle would remove its hook from is no OrderedDict")


def _owning_handle(context: RuleContext, arguments: tuple[Any, ...]) -> None:
    grant = context.kind(arguments[0]) if len(arguments) == 2 else None
    if grant is None or not (grant.listed != "built-in" or grant.name == "RemovableHandle"):
        raise Refusal("the object to fill is no handle")
    if grant.target is not None:
        from torch.utils.hooks import RemovableHandle

        if not is_a(grant, RemovableHandle):
            raise Refusal("the object to fill is no handle")
    if type(arguments[1]) is not tuple or len(arguments[1]) != 3 or arguments[1][2] is None:
        raise Refusal("the state is not that of a handle")
    _check_handle(context, arguments[1])


RULES: Final[dict[tuple[str, str], Rule]] = {
    (_MODULE, "WeakIdRef"): Rule(check_reference, reads=KEPT, data=True, state=_dead_state),
    (_MODULE, "_WeakHashRef"): Rule(_hashed, reads=KEPT, data=True, state=_dead_state),
    (_MODULE, "WeakIdKeyDictionary"): Rule(_dictionary, data=True, items=_items, state=container_state, state_reads=1),
    (_MODULE, "TensorWeakRef"): Rule(
        no_arguments, data=True, new_only=True, state=_tensor_reference_state, state_reads=1
    ),
    ("torch.utils.hooks", "RemovableHandle"): Rule(
        no_arguments, data=True, new_only=True, state=_handle_state, state_reads=0
    ),
    ("safepickle.rebuild", "rebuild_torch_weak_reference"): Rule(_own_reference, reads=KEPT, of_first=True),
    ("safepickle.rebuild", "rebuild_torch_weak_dictionary"): Rule(_own_dictionary, of_first=True),
    ("safepickle.rebuild", "rebuild_torch_weak_entries"): Rule(_entries, reads=FILLED, unfolds="filling"),
    ("safepickle.rebuild", "rebuild_torch_owning_handle"): Rule(_owning_handle, reads=KEPT),
}
