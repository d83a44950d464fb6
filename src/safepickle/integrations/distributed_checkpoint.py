"""Planners for `torch.distributed.checkpoint` whose non-tensor values go through safepickle.

Tensors are sharded, deduplicated and resharded by torch's own engine. What is no tensor is pickled value by value,
and a weak reference is kept if its referent is in the same value. An extra state is such a value as a whole, where
torch would take it apart into one value for each key. It needs torch 2.9.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import WriteItemType
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

import safepickle
from safepickle.options import Finalizers, Unpicklable, WeakReferencePolicy

__all__ = ["SafePickleLoadPlanner", "SafePickleSavePlanner", "SafePickleStager"]

_EXTRA_STATE = "_extra_state"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class _Whole:
    """A value that is pickled in one piece. Being no container, it is not taken apart when a state dict is
    flattened."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> _Whole:
        return self


class _Pickled(_Whole):
    """A value that has been pickled already; `value` is its bytes."""


class SafePickleSavePlanner(DefaultSavePlanner):  # type: ignore[misc]
    """The planner for `torch.distributed.checkpoint.save` and `async_save`.

    Args:
        weakrefs: What becomes of weak references to what is not in the same value, as in `safepickle.dumps`.
        finalizers: What becomes of finalizers, as in `safepickle.dumps`.
        unpicklable: What becomes of what nothing can pickle, as in `safepickle.dumps`.
        whole: Keys, beside those of extra states, whose values are saved in one piece, whatever they hold. Tensors
            inside are not sharded then. The planner that loads needs the same keys.
        **options: Those of torch's `DefaultSavePlanner`.

    Examples:
        >>> import torch.distributed.checkpoint as dcp
        >>> from safepickle.integrations.distributed_checkpoint import SafePickleLoadPlanner, SafePickleSavePlanner
        >>> state = {"names": {"cat": 0}}
        >>> metadata = dcp.save(state, checkpoint_id="sharded", planner=SafePickleSavePlanner(), no_dist=True)
        >>> fresh = {"names": {"cat": 1}}
        >>> dcp.load(fresh, checkpoint_id="sharded", planner=SafePickleLoadPlanner(), no_dist=True)
        >>> fresh
        {'names': {'cat': 0}}
    """

    def __init__(
        self,
        *,
        weakrefs: WeakReferencePolicy = "relink",
        finalizers: Finalizers = "dead",
        unpicklable: Unpicklable = "raise",
        whole: Collection[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._backend = safepickle.backend(weakrefs=weakrefs, finalizers=finalizers, unpicklable=unpicklable)
        self._whole = frozenset(whole)

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        """Take the state dict that is to be saved, and mark what is to stay in one piece. torch calls it.

        Args:
            state_dict: What is to be saved.
            storage_meta: As torch has it.
            is_coordinator: Whether this process plans for the others.
        """
        super().set_up_planner(_mark(state_dict, self._whole), storage_meta, is_coordinator)

    def transform_object(self, write_item: Any, object: Any) -> Any:
        """Pickle a value that is no tensor. torch calls it.

        Args:
            write_item: What torch plans to write.
            object: The value.

        Returns:
            The value to write: bytes in an `io.BytesIO`, or a tensor.
        """
        if write_item.type == WriteItemType.BYTE_IO:
            return io.BytesIO(_pickled(object, self._backend))
        return super().transform_object(write_item, object)


class SafePickleLoadPlanner(DefaultLoadPlanner):  # type: ignore[misc]
    """The planner for `torch.distributed.checkpoint.load`.

    ``dcp.load(state, checkpoint_id=path, planner=SafePickleLoadPlanner())``

    Values that are no tensors are unpickled, as by torch's own planner: load only checkpoints that you trust.

    Args:
        whole: As for `SafePickleSavePlanner`.
        **options: Those of torch's `DefaultLoadPlanner`.

    Examples:
        >>> import torch.distributed.checkpoint as dcp
        >>> from safepickle.integrations.distributed_checkpoint import SafePickleLoadPlanner, SafePickleSavePlanner
        >>> planner = SafePickleSavePlanner(whole=["callbacks"])
        >>> metadata = dcp.save({"callbacks": [1, 2]}, checkpoint_id="whole", planner=planner, no_dist=True)
        >>> fresh = {"callbacks": []}
        >>> dcp.load(fresh, checkpoint_id="whole", planner=SafePickleLoadPlanner(whole=["callbacks"]), no_dist=True)
        >>> fresh
        {'callbacks': [1, 2]}
    """

    def __init__(self, *, whole: Collection[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self._whole = frozenset(whole)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Take the state dict that is to be filled, and mark what was saved in one piece. torch calls it.

        Args:
            state_dict: What is to be filled.
            metadata: That of the checkpoint.
            is_coordinator: Whether this process plans for the others.
        """
        # In place for a moment: torch replaces tensors on the meta device in the very dictionaries that it is given.
        replaced = list(_wholes(state_dict, self._whole))
        try:
            for holder, key, value in replaced:
                holder[key] = _Whole(value)
            super().set_up_planner(state_dict, metadata, is_coordinator)
        finally:
            for holder, key, value in replaced:
                holder[key] = value

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        """Unpickle a value and put it into the state dict. torch calls it.

        Args:
            read_item: What torch plans to read.
            value: The pickle.
        """
        location = None if torch.accelerator.is_available() else "cpu"
        loaded = torch.load(value, map_location=location, pickle_module=safepickle, weights_only=False)
        key = read_item.dest_index.fqn
        if not self.flatten_state_dict:
            self.original_state_dict[key] = loaded
            return
        *path, last = self.mappings[key]
        holder: Any = self.original_state_dict
        for step in path:
            holder = holder[step]
        holder[last] = loaded


class SafePickleStager(DefaultStager):  # type: ignore[misc]
    """The stager for `torch.distributed.checkpoint.async_save`: values that are no tensors are pickled when they are
    staged.

    torch's own stager copies values, and leaves the weak references of the copies pointing at the originals. Extra
    states from `safepickle.integrations.torch` copy well without it.

    Args:
        options: Where and how tensors are staged: torch's `StagingOptions`; by default to ordinary memory, before
            `stage` returns.
        weakrefs: As for `SafePickleSavePlanner`.
        finalizers: As for `SafePickleSavePlanner`.
        unpicklable: As for `SafePickleSavePlanner`.
        whole: As for `SafePickleSavePlanner`.

    Examples:
        >>> import torch.distributed.checkpoint as dcp
        >>> from safepickle.integrations.distributed_checkpoint import SafePickleSavePlanner, SafePickleStager
        >>> options = {"planner": SafePickleSavePlanner(), "async_stager": SafePickleStager()}
        >>> # dcp.async_save(state, checkpoint_id="checkpoint", **options), in a process group
    """

    def __init__(
        self,
        options: StagingOptions | None = None,
        *,
        weakrefs: WeakReferencePolicy = "relink",
        finalizers: Finalizers = "dead",
        unpicklable: Unpicklable = "raise",
        whole: Collection[str] = (),
    ) -> None:
        super().__init__(StagingOptions(False, False, False, False) if options is None else options)
        self._backend = safepickle.backend(weakrefs=weakrefs, finalizers=finalizers, unpicklable=unpicklable)
        self._whole = frozenset(whole)

    def stage(self, state_dict: dict[str, Any], **keywords: Any) -> Any:
        """Return a copy of the state dict that training does not change any more. torch calls it.

        Args:
            state_dict: What is to be saved.
            **keywords: Those of torch's `DefaultStager.stage`.

        Returns:
            The copy, with pickles in the place of what is no tensor.
        """
        marked = _mark(state_dict, self._whole)
        return super().stage(_pickle_values(marked, self._backend), **keywords)


def _is_whole(key: Any, value: Any, whole: frozenset[str]) -> bool:
    if issubclass(type(value), (_Whole, torch.Tensor)):
        return False
    return str(key) in whole or str(key).rpartition(".")[2] == _EXTRA_STATE


def _mark(value: Any, whole: frozenset[str]) -> Any:
    """Return a state dict with the same values, those in one piece as `_Whole`."""
    if issubclass(type(value), Mapping):
        return {key: _Whole(item) if _is_whole(key, item, whole) else _mark(item, whole) for key, item in value.items()}
    if type(value) is list:
        return [_mark(item, whole) for item in value]
    return value


def _wholes(value: Any, whole: frozenset[str]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield holder, key and value of everything in a state dict that is saved in one piece."""
    if issubclass(type(value), Mapping):
        for key, item in value.items():
            if _is_whole(key, item, whole):
                yield value, key, item
            else:
                yield from _wholes(item, whole)
    elif type(value) is list:
        for item in value:
            yield from _wholes(item, whole)


def _pickle_values(value: Any, backend: Any) -> Any:
    """Return a marked state dict with pickles in the place of all values but tensors and what a copy cannot spoil."""
    if type(value) is dict:
        return {key: _pickle_values(item, backend) for key, item in value.items()}
    if type(value) is list:
        return [_pickle_values(item, backend) for item in value]
    if type(value) in _PLAIN or issubclass(type(value), torch.Tensor) or hasattr(type(value), "local_shards"):
        return value
    return _Pickled(_pickled(value, backend))


def _pickled(value: Any, backend: Any) -> bytes:
    if type(value) is _Pickled:
        data: bytes = value.value
        return data
    file = io.BytesIO()
    torch.save(value.value if type(value) is _Whole else value, file, pickle_module=backend)
    return file.getvalue()
