"""The persistent ids of a torch file: what the id of a storage claims, held against what torch makes of it."""

from __future__ import annotations

from typing import Any

from safepickle.guard.limits import Malformed, Refusal
from safepickle.guard.rules import RuleContext, ValueInfo
from safepickle.guard.rules.tensors import DEVICE, TYPED


def is_torchs(persistent_load: object) -> bool:
    """Tell whether a `persistent_load` is that of ``torch.load``."""
    return getattr(persistent_load, "__module__", None) == "torch.serialization"


def describe_storage(context: RuleContext, identifier: object) -> ValueInfo:
    """Judge the persistent id of a torch storage: ``("storage", type, key, location, elements[, view])``."""
    if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] not in ("storage", b"storage"):
        raise Refusal("a persistent id of a torch file is that of a storage, and nothing else")
    _, cls, key, location, count = identifier[:5]
    kind = context.info(cls)
    if kind is None or kind.kind != "storage type":
        raise Refusal("the type of a storage is not one of torch's")
    if type(key) is not str or type(location) not in (str, bytes) or type(count) is not int or not 0 <= count < 1 << 50:
        raise Malformed("the persistent id of a storage is malformed")
    if DEVICE.fullmatch(location if type(location) is str else location.decode("ascii", "replace")) is None:
        raise Malformed("the location of a storage is no device that torch writes")
    grant = context.grant(cls)
    if len(identifier) == 6 and grant is not None and grant.name == "UntypedStorage":
        raise Malformed("torch does not read storages without a type in its older format")
    view = identifier[5] if len(identifier) == 6 else None
    if view is not None:
        if type(view) is not tuple or len(view) != 3 or not all(type(part) is int and part >= 0 for part in view[1:]):
            raise Malformed("the persistent id of a storage is malformed")
        if view[1] + view[2] > count:
            raise Malformed("the view of a storage lies outside it")
        count = view[2]
    return ValueInfo("storage", kind.dtype, kind.itemsize, count * kind.itemsize, layout=TYPED)


def hold_storage(storage: Any, info: ValueInfo) -> None:
    """Hold the storage that torch gave against what its id said; go by what is really there."""
    untyped = getattr(storage, "_untyped_storage", storage)
    nbytes = untyped.nbytes()
    if info.nbytes is not None and nbytes < info.nbytes:
        info.nbytes = nbytes
    info.filled = not getattr(untyped, "_torch_load_uninitialized", False)
