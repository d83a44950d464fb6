"""Values that are no parameters or buffers, carried in a module's state dict.

torch asks a module for one such value (`get_extra_state`), refuses every older checkpoint that lacks it, and has no
answer for a tensor that does not exist yet when the module is built. `ExtraState` and `track_extra_state` carry named
attributes instead, whatever they hold at the time.

The payload is plain dictionaries, so a state dict that holds it can be read under ``weights_only=True`` as long as the
attributes can.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeGuard

import torch
from torch import nn

import safepickle
from safepickle.integrations.torch.proxies import owned_modules

__all__ = ["EXTRA_STATE_SUFFIX", "ExtraState", "load_tracked", "save_tracked", "track_extra_state", "tracked_names"]

EXTRA_STATE_SUFFIX = "_extra_state"
"""The last component of the key under which torch keeps a module's extra state."""

_FORMAT = "safepickle_extra_state"
_TRACKED = "_safepickle_tracked"


class ExtraState:
    """Mixin: the attributes named in `extra_state` travel in the module's state dict.

    An attribute may be None in one module and a tensor in the other, in either direction and of any shape; a tensor
    arrives on the device of the module that loads it. Subclasses add names to those of their bases. A checkpoint from
    before the attributes were tracked loads as it is, also under ``strict=True``, and leaves them as the constructor
    made them.

    Attributes:
        extra_state: The names, which the subclass sets.

    Examples:
        >>> from torch import nn
        >>> from safepickle.integrations.torch import ExtraState
        >>> class Model(ExtraState, nn.Module):
        ...     extra_state = ("names",)
        ...     names = None
        >>> trained, fresh = Model(), Model()
        >>> trained.names = {"cat": 0}
        >>> fresh.load_state_dict(trained.state_dict())
        <All keys matched successfully>
        >>> fresh.names
        {'cat': 0}
    """

    extra_state: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if isinstance(cls.__dict__.get("extra_state", ()), str):
            raise TypeError(f"{cls.__qualname__}.extra_state is a string: write a tuple of names, ('name',)")
        order = cls.__mro__
        if nn.Module in order and order.index(nn.Module) < order.index(ExtraState):
            raise TypeError(
                f"{cls.__qualname__} lists nn.Module before ExtraState, so torch never asks for the extra state: "
                f"write class {cls.__name__}(ExtraState, nn.Module)"
            )

    def get_extra_state(self) -> dict[str, Any]:
        """Return the named attributes, tensors detached. torch calls this from `state_dict`.

        Returns:
            Plain dictionaries, with the attributes in them.
        """
        payload = _collect(self, _names(self))
        own = super().get_extra_state  # type: ignore[misc]
        if getattr(own, "__func__", None) is not nn.Module.get_extra_state:
            payload["inherited"] = own()
        return payload

    def set_extra_state(self, state: Any) -> None:
        """Set the attributes that `state` holds, and no others. torch calls this from `load_state_dict`.

        Args:
            state: What `get_extra_state` returned.
        """
        if not _is_payload(state):
            super().set_extra_state(state)  # type: ignore[misc]
            return
        _restore(self, _names(self), state)
        if "inherited" in state:
            super().set_extra_state(state["inherited"])  # type: ignore[misc]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *others: Any,
    ) -> None:
        key = prefix + EXTRA_STATE_SUFFIX
        _make_room(self, _names(self), state_dict, prefix, state_dict.get(key))
        super()._load_from_state_dict(  # type: ignore[misc]
            state_dict, prefix, local_metadata, strict, missing_keys, *others
        )
        if key in missing_keys:
            missing_keys.remove(key)


def track_extra_state(module: nn.Module, *names: str) -> None:
    """Carry attributes of a module that one does not own in its state dict, as `ExtraState` does for one's own classes.

    The tracking is part of this instance: it survives `copy.deepcopy` and pickling of the whole module, and a module
    that is built anew has to be tracked again before it loads. Call it again to track further names.

    Args:
        module: Any module. What its class returns from a `get_extra_state` of its own keeps working beside this.
        *names: The attributes. They need not exist yet.

    Raises:
        TypeError: No name is given, or one names a submodule, whose state has keys of its own.

    Examples:
        >>> from torch import nn
        >>> from safepickle.integrations.torch import track_extra_state
        >>> layer = nn.Linear(2, 2)
        >>> track_extra_state(layer, "names")
        >>> list(layer.state_dict())
        ['weight', 'bias', '_extra_state']
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "track_extra_state needs the names of the attributes, as strings: track_extra_state(module, 'p')"
        )
    for name in names:
        _refuse_submodule(module, name)
    tracked: tuple[str, ...] = module.__dict__.get(_TRACKED, ())
    if not tracked:
        module._register_state_dict_hook(save_tracked)
        module._register_load_state_dict_pre_hook(load_tracked, with_module=True)
    module.__dict__[_TRACKED] = tuple(dict.fromkeys((*tracked, *names)))


# These two are named in pickles of whole modules that are tracked: keep their names, places and arguments.


def save_tracked(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    """State-dict hook of `track_extra_state`: add the payload to what torch has collected. torch calls it.

    Args:
        module: A tracked module.
        state_dict: What torch has collected.
        prefix: What stands before the module's keys.
        local_metadata: As torch has it.
    """
    key = prefix + EXTRA_STATE_SUFFIX
    payload = _collect(module, module.__dict__[_TRACKED])
    if key in state_dict:
        payload["inherited"] = state_dict[key]
    state_dict[key] = payload


def load_tracked(module: nn.Module, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
    """Load hook of `track_extra_state`: take the payload out again before torch can call it unexpected. torch calls it.

    Args:
        module: A tracked module.
        state_dict: What is to be loaded.
        prefix: What stands before the module's keys.
        *others: As torch has them.
    """
    key = prefix + EXTRA_STATE_SUFFIX
    names = module.__dict__[_TRACKED]
    payload = state_dict.get(key)
    _make_room(module, names, state_dict, prefix, payload)
    if _is_payload(payload):
        _restore(module, names, payload)
        del state_dict[key]
        if "inherited" in payload:
            state_dict[key] = payload["inherited"]


for _named in (ExtraState, track_extra_state, save_tracked, load_tracked):
    _named.__module__ = "safepickle.integrations.torch"


def tracked_names(module: nn.Module) -> tuple[str, ...]:
    """Return the attributes of `module` that travel in its state dict, by either way."""
    by_class = _names(module) if isinstance(module, ExtraState) else ()
    return (*by_class, *module.__dict__.get(_TRACKED, ()))


def _names(module: ExtraState) -> tuple[str, ...]:
    """Return the names that the classes of `module` list, base classes first."""
    listed = (cls.__dict__.get("extra_state", ()) for cls in reversed(type(module).__mro__))
    return tuple(dict.fromkeys(name for names in listed for name in names))


class _Payload(OrderedDict[str, Any]):
    """What the state dict holds: pickled as a plain `OrderedDict`, and copied with the weak references inside relinked.

    A stock `copy.deepcopy`, such as that of an asynchronous checkpoint, would leave them pointing at the originals.
    """

    __deepcopy__ = safepickle.deepcopy

    def __reduce__(self) -> Any:
        return OrderedDict, (), None, None, iter(self.items())


def _is_payload(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and _FORMAT in value


def _registered(module: Any, name: str) -> str | None:
    """Return what the attribute is registered as, where that gives it a key of its own in the state dict, else None."""
    if name in module._parameters:
        parameter = module._parameters[name]
        return "parameter" if parameter is None or parameter.requires_grad else "frozen parameter"
    if name in module._buffers and name not in module._non_persistent_buffers_set:
        return "buffer"
    return None


def _refuse_submodule(module: Any, name: str) -> None:
    if name in module._modules:
        raise TypeError(
            f"{name!r} is a submodule of {type(module).__qualname__}, and its state has keys of its own: "
            "leave it out of the extra state"
        )


def _collect(module: Any, names: Iterable[str]) -> dict[str, Any]:
    """Make the payload. Of a parameter or buffer only the kind is noted: torch writes its value under its own key."""
    attributes: dict[str, Any] = {}
    registered: dict[str, str] = {}
    for name in names:
        _refuse_submodule(module, name)
        try:
            value = getattr(module, name)
        except AttributeError:
            continue
        kind = _registered(module, name)
        if kind is None or value is None:
            attributes[name] = _map_tensors(value, torch.Tensor.detach)
        else:
            registered[name] = kind
    return _Payload({_FORMAT: 1, "attributes": attributes, "registered": registered})


def _make_room(module: Any, names: Iterable[str], state_dict: dict[str, Any], prefix: str, payload: Any) -> None:
    """Bring tracked parameters and buffers into being, or to nothing, as the state dict has them, before torch copies.

    torch calls a key unexpected when the module's entry is None, and missing when the state dict's is.
    """
    noted = payload if _is_payload(payload) else {"attributes": {}, "registered": {}}
    for name in names:
        value = state_dict.get(prefix + name)
        current = getattr(module, name, None)
        if _is_tensor(value):
            kind = noted["registered"].get(name) or _registered(module, name) or "buffer"
            if not (_is_tensor(current) and current.shape == value.shape and _registered(module, name)):
                _register(module, name, kind, torch.empty_like(value, device=_device(module, current) or value.device))
        elif _registered(module, name) and current is not None and name in noted["attributes"]:
            if noted["attributes"][name] is None:
                setattr(module, name, None)
            else:
                state_dict[prefix + name] = current


def _register(module: Any, name: str, kind: str, tensor: torch.Tensor) -> None:
    for holder in (module.__dict__, module._parameters, module._buffers):
        holder.pop(name, None)
    if kind == "buffer":
        module.register_buffer(name, tensor)
        return
    differentiable = tensor.is_floating_point() or tensor.is_complex()
    module.register_parameter(name, nn.Parameter(tensor, requires_grad=differentiable and kind == "parameter"))


def _restore(module: Any, names: Iterable[str], payload: dict[str, Any]) -> None:
    """Set the attributes of the payload that are still tracked; tensors are copied to where the module is."""
    for name in names:
        if name not in payload["attributes"]:
            continue
        value = payload["attributes"][name]
        current = getattr(module, name, None)
        device = _device(module, current)

        def place(tensor: torch.Tensor, device: torch.device | None = device) -> torch.Tensor:
            return tensor.detach().to(device=device or tensor.device, copy=True)

        value = _map_tensors(value, place)
        if name in module._parameters and _is_tensor(value):
            value = nn.Parameter(value, requires_grad=current is None or current.requires_grad)
        elif value is not None and not _is_tensor(value) and (name in module._parameters or name in module._buffers):
            delattr(module, name)
        setattr(module, name, value)


def _device(module: Any, current: object) -> torch.device | None:
    """Return where a tensor of `module` belongs: where the attribute's tensor is now, else where its parameters are."""
    if _is_tensor(current):
        return current.device
    for _, owned in owned_modules(module):
        for tensor in (*owned._parameters.values(), *owned._buffers.values()):
            if type(tensor) in (nn.Parameter, torch.Tensor) and tensor.device.type != "meta":
                return tensor.device
    return None


def _map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor], made: dict[int, Any] | None = None) -> Any:
    """Apply `change` to a tensor, and to those in plain lists, tuples and dictionaries, which are made anew."""
    made = {} if made is None else made
    if id(value) in made:
        return made[id(value)]
    if type(value) is list:
        items: list[Any] = []
        made[id(value)] = items
        items.extend(_map_tensors(item, change, made) for item in value)
        return items
    if type(value) is dict:
        entries: dict[Any, Any] = {}
        made[id(value)] = entries
        entries.update((key, _map_tensors(item, change, made)) for key, item in value.items())
        return entries
    if type(value) is tuple:
        return tuple(_map_tensors(item, change, made) for item in value)
    if _is_tensor(value):
        made[id(value)] = changed = change(value)
        return changed
    return value


def _is_tensor(value: Any) -> TypeGuard[torch.Tensor]:
    """Ask the type: `isinstance` asks the referent of a weak proxy, or raises when that is gone."""
    return issubclass(type(value), torch.Tensor)
