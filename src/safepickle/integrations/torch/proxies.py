"""Modules that hold tensors or other modules through a `weakref.proxy`, seen as torch needs them.

A proxy passes torch's `isinstance` checks, so `register_buffer`, and an assignment of a parameter or a module, put it
into the module's registries; there it raises `ReferenceError` when its referent is gone, and sends `state_dict` round
in circles when it is a parent pointer.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from safepickle.rebuild.records import record
from safepickle.weak_types import look_behind

__all__ = ["LeftOut", "owned_modules", "resolved_proxies"]


@record
class LeftOut(NamedTuple):
    """One entry of a module that has no place in its state dict."""

    key: str
    reason: str


def owned_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield `module` and all modules below it, each with the prefix of its keys, entering no weak proxy.

    A module that is registered in several places comes once for each.
    """
    yield from _owned_modules(module, "", ())


def _owned_modules(module: nn.Module, prefix: str, above: tuple[nn.Module, ...]) -> Iterator[tuple[str, nn.Module]]:
    yield prefix, module
    above = (*above, module)
    for name, child in module._modules.items():
        if type(child) in weakref.ProxyTypes or child is None or any(child is one for one in above):
            continue
        yield from _owned_modules(child, f"{prefix}{name}.", above)


@contextmanager
def resolved_proxies(module: nn.Module) -> Iterator[list[LeftOut]]:
    """For the length of the block, let registries hold the tensors themselves where they hold proxies to them.

    Dead proxies, and proxies to modules, are not there at all during the block. Afterwards every registry is the one
    that it was, with the changes that the block made to other entries.

    Yields:
        What is not there and whose state nothing else in the tree brings along.
    """
    left_out: list[LeftOut] = []
    swapped: list[_Swap] = []
    owned = list(owned_modules(module))
    ids = {id(one) for _, one in owned}
    try:
        for prefix, one in owned:
            for kind in ("_parameters", "_buffers", "_modules"):
                registry = one.__dict__.get(kind, {})
                if any(type(value) in weakref.ProxyTypes for value in registry.values()):
                    swap = _Swap(one, kind)
                    swapped.append(swap)
                    left_out += (LeftOut(prefix + name, reason) for name, reason in swap.absent(ids))
        yield left_out
    finally:
        for swap in swapped:
            swap.undo()


class _Swap:
    """One registry of one module, with what stands in for it during the block."""

    def __init__(self, module: nn.Module, kind: str) -> None:
        self._module = module
        self._kind = kind
        self._registry: dict[str, Any] = module.__dict__[kind]
        self._referents = {
            name: look_behind(value)[0] for name, value in self._registry.items() if type(value) in weakref.ProxyTypes
        }
        stand_in = type(self._registry)()
        for name, value in self._registry.items():
            if name not in self._referents:
                stand_in[name] = value
            elif kind != "_modules" and self._referents[name] is not None:
                stand_in[name] = self._referents[name]
        self._stand_in = module.__dict__[kind] = stand_in

    def absent(self, owned: set[int]) -> Iterator[tuple[str, str]]:
        """Yield name and reason of each entry that the stand-in lacks, unless its referent is one of the `owned`."""
        persistent = set(self._registry) - (
            self._module._non_persistent_buffers_set if self._kind == "_buffers" else set()
        )
        for name, referent in self._referents.items():
            if name in self._stand_in or name not in persistent or id(referent) in owned:
                continue
            yield name, "its referent is gone" if referent is None else "it belongs to a module elsewhere"

    def undo(self) -> None:
        for name in [name for name in self._registry if name not in self._referents and name not in self._stand_in]:
            del self._registry[name]
        for name, value in self._stand_in.items():
            if value is not self._referents.get(name, self._registry.get(name)):
                self._registry[name] = value
        self._module.__dict__[self._kind] = self._registry
