"""Load a state dict all or nothing, or as far as it fits, and say what became of every key.

torch's own machinery does the loading, with the hooks and overrides of every module. This decides which keys to hand
it, and makes sure that a load which fails has touched nothing.
"""

from __future__ import annotations

import difflib
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from safepickle.errors import StateDictError
from safepickle.integrations.torch.extra_state import EXTRA_STATE_SUFFIX, tracked_names
from safepickle.integrations.torch.proxies import owned_modules, resolved_proxies
from safepickle.integrations.torch.report import LoadReport, Mismatch
from safepickle.messages import dotted_name

__all__ = ["WRAPPER_PREFIXES", "load_state_dict"]

WRAPPER_PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "model.")
"""What `DataParallel` and `DistributedDataParallel`, `torch.compile`, Lightning's strategies and a `LightningModule`
that holds its network as ``self.model`` put before the names of what they wrap."""


def load_state_dict(
    module: nn.Module,
    state: Mapping[str, Any],
    *,
    strict: bool = True,
    prefixes: Sequence[str] = WRAPPER_PREFIXES,
    assign: bool = False,
) -> LoadReport:
    """Load `state` into `module`.

    Keys that carry a wrapper's prefix on one side only are matched without it, wherever in the key it stands. A
    missing extra state is no error: a checkpoint from before it existed leaves the module's as it is. No other thread
    may use the module meanwhile.

    Args:
        module: Any module. Buffers held through a `weakref.proxy` are loaded into their tensors.
        state: A state dict, as `state_dict` or `torch.load` returns it. It is not changed.
        strict: True loads everything or nothing. False loads what fits, and leaves the rest as it is.
        prefixes: Wrapper prefixes to strip or add, each with its final dot.
        assign: As in `torch.nn.Module.load_state_dict`: take the tensors themselves, instead of copying their values.

    Returns:
        What was loaded, renamed, and left at its initial value. Prints as a table.

    Raises:
        StateDictError: `strict`, and some keys are missing, unexpected or of another shape; or the module's own
            loading code failed. It lists everything at once, and the module is as it was.

    Examples:
        >>> from torch import nn
        >>> from safepickle.integrations.torch import load_state_dict
        >>> saved = {f"module.{key}": value for key, value in nn.Linear(2, 2, bias=False).state_dict().items()}
        >>> print(load_state_dict(nn.Linear(2, 2), saved, strict=False))
        1 of 2 keys loaded
        what     key            detail
        missing  bias
        renamed  module.weight  loaded as 'weight'
    """
    with resolved_proxies(module):
        expected = module.state_dict(keep_vars=True)
        # A tracked tensor may be None, or of another shape, until the state dict says otherwise.
        tracked = {prefix + name for prefix, owned in owned_modules(module) for name in tracked_names(owned)}
        fitted, renamed = _fit_keys(state, {*expected, *tracked}, prefixes)
        mismatched = tuple(found for found in _mismatches(fitted, expected) if found.key not in tracked)
        for found in mismatched:
            del fitted[found.key]

        def report(outcome: _Outcome) -> LoadReport:
            return _report(outcome, fitted, expected, renamed, mismatched)

        if strict and _is_stock(module):
            with _without_effect(module):
                outcome = _load(module, _without_values(fitted), assign=False)
            _refuse_incomplete(module, report(outcome), outcome)
            outcome = _load(module, fitted, assign=assign)
        elif strict:
            with _rollback(module):
                outcome = _load(module, fitted, assign=assign)
                _refuse_incomplete(module, report(outcome), outcome)
        else:
            outcome = _load(module, fitted, assign=assign)
        if outcome.errors:
            raise StateDictError(_message(module, report(outcome), outcome, "The rest was loaded."), report(outcome))
        return report(outcome)


class _Outcome:
    """What torch answered: the keys it missed, those it could not place, and what it said of the rest."""

    def __init__(self, missing: Sequence[str], unexpected: Sequence[str], errors: str | None) -> None:
        self.missing = missing
        self.unexpected = unexpected
        self.errors = errors


def _load(module: nn.Module, state: Mapping[str, Any], *, assign: bool) -> _Outcome:
    keywords = {"assign": True} if assign else {}
    try:
        answer = module.load_state_dict(state, strict=False, **keywords)
    except RuntimeError as error:
        # Everything that fits has been loaded by now: torch collects what did not, and raises at the very end.
        text = str(error)
        if not text.startswith("Error(s) in loading state_dict"):
            raise
        return _Outcome((), (), text)
    return _Outcome(answer.missing_keys, answer.unexpected_keys, None)


def _fit_keys(
    state: Mapping[str, Any], expected: Collection[str], prefixes: Sequence[str]
) -> tuple[OrderedDict[str, Any], dict[str, str]]:
    """Give each key of `state` the name that is expected, where only wrapper prefixes differ and one name fits."""
    wanted: dict[str, str | None] = {}
    for key in expected:
        bare = _bare(key, prefixes)
        wanted[bare] = None if bare in wanted else key
    claims = Counter(_bare(key, prefixes) for key in state if key not in expected)
    renamed: dict[str, str] = {}
    fitted: OrderedDict[str, Any] = OrderedDict()
    for key, value in state.items():
        if key not in expected:
            bare = _bare(key, prefixes)
            target = wanted.get(bare)
            if target is not None and target not in state and claims[bare] == 1:
                renamed[key] = target
        fitted[renamed.get(key, key)] = value
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        fitted._metadata = _fit_metadata(metadata, renamed)  # type: ignore[attr-defined]
    return fitted, renamed


def _fit_metadata(metadata: Mapping[str, Any], renamed: Mapping[str, str]) -> OrderedDict[str, Any]:
    """Follow the renamed keys with the versions that torch keeps for the modules they belong to.

    The inner dictionaries are copied: with ``assign=True`` torch writes into them.
    """
    moved: dict[str, str] = {}
    for old, new in renamed.items():
        old_path, new_path = old.split(".")[:-1], new.split(".")[:-1]
        while old_path and new_path and old_path[-1] == new_path[-1]:
            moved[".".join(old_path)] = ".".join(new_path)
            old_path.pop()
            new_path.pop()
        moved[".".join(old_path)] = ".".join(new_path)
    return OrderedDict((moved.get(path, path), dict(versions)) for path, versions in metadata.items())


def _bare(key: str, prefixes: Sequence[str]) -> str:
    """Return `key` without any of the prefixes, at the start or after a dot."""
    bare = "." + key
    for prefix in prefixes:
        while "." + prefix in bare:
            bare = bare.replace("." + prefix, ".")
    return bare[1:]


def _mismatches(fitted: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Mismatch]:
    for key, value in fitted.items():
        current: Any = expected.get(key)
        if not issubclass(type(current), torch.Tensor) or torch.nn.parameter.is_lazy(current):
            continue
        if not torch.overrides.is_tensor_like(value):
            yield Mismatch(key, _shape(current), type(value).__qualname__)
        elif value.shape != current.shape and not (current.dim() == 0 and value.shape == (1,)):
            # torch takes a vector of one element for a scalar: it had no scalars before 0.4.
            yield Mismatch(key, _shape(current), _shape(value))


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _report(
    outcome: _Outcome,
    fitted: Mapping[str, Any],
    expected: Mapping[str, Any],
    renamed: Mapping[str, str],
    mismatched: tuple[Mismatch, ...],
) -> LoadReport:
    misfits = {mismatch.key for mismatch in mismatched}
    extra = [key for key in (*expected, *outcome.missing) if key.endswith(EXTRA_STATE_SUFFIX) and key not in fitted]
    missing = tuple(key for key in outcome.missing if key not in misfits and key not in extra)
    unexpected = tuple(outcome.unexpected)
    given = {new: old for old, new in renamed.items()}
    return LoadReport(
        loaded=tuple(key for key in fitted if key not in unexpected),
        missing=missing,
        unexpected=tuple(given.get(key, key) for key in unexpected),
        mismatched=mismatched,
        renamed={old: new for old, new in renamed.items() if new not in unexpected},
        initial=tuple(dict.fromkeys((*missing, *(mismatch.key for mismatch in mismatched), *extra))),
        likely=_likely_renames(missing, unexpected, fitted, expected),
    )


def _likely_renames(
    missing: Sequence[str], unexpected: Sequence[str], fitted: Mapping[str, Any], expected: Mapping[str, Any]
) -> dict[str, str]:
    """Pair missing keys with the unexpected keys of the same shape whose names are closest."""
    candidates: dict[Any, list[str]] = {}
    for key in unexpected:
        candidates.setdefault(_comparable(fitted.get(key)), []).append(key)
    likely: dict[str, str] = {}
    for key in missing:
        same_shape = candidates.get(_comparable(expected.get(key)), [])
        close = difflib.get_close_matches(key, same_shape, n=1, cutoff=0.5)
        if close:
            likely[key] = close[0]
            same_shape.remove(close[0])
    return likely


def _comparable(value: Any) -> Any:
    """Return the shape of a tensor; None stands for what has none, or none yet."""
    is_lazy = torch.nn.parameter.is_lazy(value)
    return None if is_lazy else getattr(value, "shape", None)


def _refuse_incomplete(module: nn.Module, report: LoadReport, outcome: _Outcome) -> None:
    if outcome.errors or not report.complete:
        remedy = "Nothing was loaded. Rename or drop the keys below, or pass strict=False to load what fits."
        raise StateDictError(_message(module, report, outcome, remedy), report)


def _message(module: nn.Module, report: LoadReport, outcome: _Outcome, remedy: str) -> str:
    groups = (("missing", report.missing), ("unexpected", report.unexpected), ("mismatched", report.mismatched))
    counts = ", ".join(f"{len(keys)} {what}" for what, keys in groups if keys)
    cause = f"keys that do not fit ({counts})" if counts else "the module's own loading code failed"
    head = f"cannot load the state dict into {dotted_name(type(module))}: {cause}. {remedy}"
    return "\n".join(part for part in (head, report.table(), outcome.errors) if part)


def _is_stock(module: nn.Module) -> bool:
    """Whether only torch's code and ours runs while `module` loads, so that a dry run without data tells all."""
    for _, owned in owned_modules(module):
        if not all(issubclass(type(owned.__dict__.get(kind)), dict) for kind in _REGISTRIES):
            return False  # a scripted module keeps its tensors elsewhere
        if not all(map(_is_writable, (*owned._parameters.values(), *owned._buffers.values()))):
            return False
        cls = type(owned)
        code = [getattr(cls, name, None) for name in ("load_state_dict", "_load_from_state_dict", "set_extra_state")]
        hooks = (*owned._load_state_dict_pre_hooks.values(), *owned._load_state_dict_post_hooks.values())
        code += [getattr(hook, "hook", hook) for hook in hooks]
        if not all(
            (getattr(part, "__module__", None) or "").partition(".")[0] in ("torch", "safepickle") for part in code
        ):
            return False
    return True


def _is_writable(tensor: torch.Tensor | None) -> bool:
    """Whether torch can surely copy into `tensor`: not where elements overlap, nor what inference mode has made."""
    if tensor is None or torch.nn.parameter.is_lazy(tensor):
        return True
    return not tensor.is_inference() and (tensor.layout is not torch.strided or 0 not in tensor.stride())


@contextmanager
def _without_effect(module: nn.Module) -> Iterator[None]:
    """Let `module` be loaded without effect: its tensors are stood in for by tensors without data."""
    restore = _remember_attributes(module)
    stand_ins: dict[int, Any] = {}
    try:
        for _, owned in owned_modules(module):
            for kind in ("_parameters", "_buffers"):
                if id(owned.__dict__[kind]) not in stand_ins:
                    stand_in = {name: _without_data(tensor) for name, tensor in owned.__dict__[kind].items()}
                    owned.__dict__[kind] = stand_ins[id(stand_in)] = stand_in
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        restore()


def _without_data(value: Any) -> Any:
    if not issubclass(type(value), torch.Tensor):
        return value
    if torch.nn.parameter.is_lazy(value):
        return type(value)(device="meta", dtype=value.dtype)
    bare = torch.empty_like(value.detach(), device="meta")
    return nn.Parameter(bare, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else bare


def _without_values(state: OrderedDict[str, Any]) -> OrderedDict[str, Any]:
    """Return `state` with tensors that have no data, and with its metadata."""
    bare = OrderedDict((key, _without_data(value)) for key, value in state.items())
    if hasattr(state, "_metadata"):
        bare._metadata = state._metadata  # type: ignore[attr-defined]
    return bare


@contextmanager
def _rollback(module: nn.Module) -> Iterator[None]:
    """Undo what was loaded when the block raises: for modules with loading code that no dry run can foresee."""
    tensors = {
        id(tensor): (tensor, tensor.detach().clone())
        for _, owned in owned_modules(module)
        for tensor in (*owned._parameters.values(), *owned._buffers.values())
        if tensor is not None and not torch.nn.parameter.is_lazy(tensor)
    }
    restore = _remember_attributes(module)
    try:
        yield
    except BaseException:
        restore()
        with torch.no_grad():
            for tensor, before in tensors.values():
                # One that torch could not write to, such as an expanded one, cannot be written back either.
                if not torch.equal(tensor, before):
                    tensor.copy_(before)
        raise


def _remember_attributes(module: nn.Module) -> Callable[[], None]:
    """Return what gives every module its attributes back, the registered tensors and submodules among them."""
    remembered = []
    for _, owned in owned_modules(module):
        held = [owned.__dict__[kind] for kind in _REGISTRIES if issubclass(type(owned.__dict__.get(kind)), dict)]
        remembered.append((owned, dict(owned.__dict__), [(registry, dict(registry)) for registry in held]))

    def restore() -> None:
        for owned, attributes, registries in remembered:
            for registry, entries in (*registries, (owned.__dict__, attributes)):
                _put_back(registry, entries)

    return restore


def _put_back(mapping: dict[str, Any], entries: Mapping[str, Any]) -> None:
    """Give `mapping` its entries back in their order, or leave it alone if it has them."""
    now = [(key, id(value)) for key, value in mapping.items()]
    if now != [(key, id(value)) for key, value in entries.items()]:
        mapping.clear()
        mapping.update(entries)


_REGISTRIES = ("_parameters", "_buffers", "_modules")
