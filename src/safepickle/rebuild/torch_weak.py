"""torch's own weak types, and the handles by which its hooks are removed."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from safepickle.rebuild.containers import fill_weak_container
from safepickle.rebuild.mark import file_format
from safepickle.rebuild.weak import Owner, StrongRef

__all__ = [
    "rebuild_torch_owning_handle",
    "rebuild_torch_weak_dictionary",
    "rebuild_torch_weak_entries",
    "rebuild_torch_weak_reference",
]


@file_format
def rebuild_torch_weak_reference(cls: Any, referent: Any, callback: Any = None, owned: bool = False) -> Any:
    """Build a reference that torch hashes by its referent, of a subclass or one that owns; state follows."""
    from torch.utils.weak import WeakIdRef, _WeakHashRef

    if owned:
        callback = Owner(referent, callback)
    reference = weakref.ref.__new__(cls, referent, callback)
    base: Any = WeakIdRef if issubclass(cls, WeakIdRef) else _WeakHashRef
    base.__init__(reference, referent, callback)
    return reference


@file_format
def rebuild_torch_weak_dictionary(cls: Any, ref_type: object) -> Any:
    """Build an empty `torch.utils.weak.WeakIdKeyDictionary` or an instance of a subclass; state follows."""
    from torch.utils.weak import WeakIdKeyDictionary

    container = cls.__new__(cls)
    WeakIdKeyDictionary.__init__(container, None, ref_type)
    return container


@file_format
def rebuild_torch_weak_entries(container: object, state: tuple[object, Iterable[object], tuple[object, ...]]) -> None:
    """Fill what `rebuild_torch_weak_dictionary` has built, as `rebuild_weak_entries` does."""
    fill_weak_container(container, *state)


@file_format
def rebuild_torch_owning_handle(handle: Any, state: tuple[Any, int, tuple[Any, ...]]) -> None:
    """Fill a `torch.utils.hooks.RemovableHandle` that owns its dictionaries."""
    handle.__setstate__(state)
    hooks, _, others = state
    if hooks is not None:
        handle.hooks_dict_ref = StrongRef(hooks)
    handle.extra_dict_ref = tuple(StrongRef(other) for other in others)
