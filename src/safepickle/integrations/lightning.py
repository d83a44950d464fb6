"""Lightning checkpoints that may hold weak references, and hyper-parameters that `torch.save` refuses.

It works with both packages, ``lightning`` and ``pytorch_lightning``.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec.core
import torch
from fsspec.implementations.local import LocalFileSystem

import safepickle
from safepickle.options import Finalizers, Unpicklable, WeakReferencePolicy
from safepickle.rebuild import StrongRef, Tombstone
from safepickle.reducers.decisions import Dump
from safepickle.storage.atomic import replacing

__all__ = ["SafePickleIO"]

_PACKAGES = ("lightning.fabric", "lightning_fabric")


def _checkpoint_io_classes() -> tuple[type, ...]:
    """Return the `CheckpointIO` of the Lightning that the program uses, or of each that is installed if it uses none
    yet.

    The two packages are copies of each other, and a trainer of one takes no plugin of the other.
    """
    used = [package for package in _PACKAGES if package in sys.modules]
    found = []
    for package in used or _PACKAGES:
        try:
            found.append(importlib.import_module(f"{package}.plugins.io.checkpoint_io").CheckpointIO)
        except ModuleNotFoundError as error:
            if error.name is None or not package.startswith(error.name):
                raise
    if not found:
        raise ModuleNotFoundError(
            "safepickle.integrations.lightning needs Lightning: pip install lightning (or pytorch-lightning)",
            name="lightning",
        )
    return tuple(found)


class SafePickleIO(*_checkpoint_io_classes()):  # type: ignore[misc]
    """A checkpoint plugin that saves with safepickle, and patches Lightning's test of hyper-parameters in this process.

    It warns of the same objects at the first checkpoint that loses them, and not again.

    Weak references between what is in the checkpoint come back as they were. Local files are replaced as a whole: a
    save that fails leaves the last checkpoint standing.

    When a run begins, Lightning deletes every hyper-parameter that plain pickle refuses. As long as a `SafePickleIO`
    exists, Lightning's test (`is_picklable` in its ``utilities.parsing``, which the constructor replaces for the whole
    process) asks safepickle as well, so that those are kept and saved.

    Args:
        weakrefs: What becomes of weak references, as in `safepickle.dumps`.
        finalizers: What becomes of finalizers, as in `safepickle.dumps`.
        unpicklable: What becomes of what nothing can pickle, as in `safepickle.dumps`.
        weights_only: Whether to load nothing but tensors and plain data, where the trainer does not say.
            Hyper-parameters and callbacks may be anything, so the default is False: load only checkpoints that you
            trust.

    Examples:
        >>> import lightning.pytorch
        >>> from safepickle.integrations.lightning import SafePickleIO
        >>> plugin = SafePickleIO(weakrefs="tombstone")
        >>> trainer = lightning.pytorch.Trainer(plugins=[plugin], logger=False, accelerator="cpu")
        >>> trainer.strategy.checkpoint_io is plugin
        True
    """

    def __init__(
        self,
        *,
        weakrefs: WeakReferencePolicy = "relink",
        finalizers: Finalizers = "dead",
        unpicklable: Unpicklable = "raise",
        weights_only: bool = False,
    ) -> None:
        self._backend = safepickle.backend(weakrefs=weakrefs, finalizers=finalizers, unpicklable=unpicklable)
        self._unpicklable: Unpicklable = unpicklable
        self._weights_only = weights_only
        self._prepare()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Strategies that start their processes with spawn send the trainer there, and its plugins with it.
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        pickler: Any = type("Pickler", (_Pickler, self._backend.Pickler), {"told": {}, "told_of_keys": {}})
        self._backend.Pickler = pickler
        _plugins.add(self)
        _teach_lightning()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save a checkpoint to a path or URL.

        Args:
            checkpoint: What Lightning has gathered.
            path: Where to. A local file is replaced as a whole.
            storage_options: None.

        Raises:
            TypeError: `storage_options` is given: there are none.
            Exception: As for `safepickle.Pickler.dump`. The last checkpoint is left as it was.
        """
        if storage_options is not None:
            raise TypeError("SafePickleIO has no storage options: leave out storage_options=")
        filesystem, location = _filesystem_of(path)
        filesystem.makedirs(os.path.dirname(location), exist_ok=True)
        if isinstance(filesystem, LocalFileSystem):
            with replacing(location) as raw:
                # torch does not look at how much a write has taken, and a raw file takes 2 GB at most.
                file = io.BufferedWriter(raw)
                torch.save(checkpoint, file, pickle_module=self._backend)
                file.flush()
                file.detach()
            return
        with filesystem.transaction, filesystem.open(location, "wb") as remote:
            torch.save(checkpoint, remote, pickle_module=self._backend)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint from a path or URL.

        Args:
            path: Where from.
            map_location: Where tensors go, as for `torch.load`.
            weights_only: Whether to load nothing but tensors and plain data; None is what the plugin was made with.

        Returns:
            The checkpoint, with ``"state_dict"``, ``"hyper_parameters"`` and what else Lightning has put into it.

        Raises:
            FileNotFoundError: There is no such file.
            pickle.UnpicklingError: `weights_only` is True, and the file holds more.
        """
        filesystem, location = _filesystem_of(path)
        if weights_only is None:
            weights_only = self._weights_only
        # On leaving the block torch forgets all that the block names, also what somebody had registered before.
        known = torch.serialization.get_safe_globals()
        ours = [cls for cls in (Tombstone, StrongRef) if cls not in known]
        with filesystem.open(location, "rb") as file, torch.serialization.safe_globals(ours):
            module = None if weights_only else self._backend
            checkpoint: dict[str, Any] = torch.load(
                file, map_location=map_location, pickle_module=module, weights_only=weights_only
            )
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint, if it is there.

        Args:
            path: A path or URL.
        """
        filesystem, location = _filesystem_of(path)
        if filesystem.exists(location):
            filesystem.rm(location, recursive=True)


class _Pickler(safepickle.Pickler):
    """Warns of nothing that it has warned of before.

    Attributes:
        told: References, by their ids, to the objects outside of earlier checkpoints.
        told_of_keys: Keys that are an `id`, as in `WeakReferenceWarning`, of the last checkpoint with any.
    """

    told: ClassVar[dict[int, weakref.ref[Any]]]
    told_of_keys: ClassVar[dict[str, int]]

    def warn_of_lost(self, obj: Any, known: Dump, warning: safepickle.WeakReferenceWarning) -> None:
        told, lost = self.told, known.lost_referents()
        is_told = all(key in told and told[key]() is referent for key, referent in lost.items())
        if is_told and warning.identity_keys in ({}, self.told_of_keys):
            return
        super().warn_of_lost(obj, known, warning)
        for key in [key for key, reference in told.items() if reference() is None]:
            del told[key]
        told.update((key, weakref.ref(referent)) for key, referent in lost.items())
        self.told_of_keys.clear()
        self.told_of_keys.update(warning.identity_keys)


# Those for whose sake hyper-parameters are kept.
_plugins: weakref.WeakSet[SafePickleIO] = weakref.WeakSet()


def _teach_lightning() -> None:
    """Patch Lightning, in this process: its test for hyper-parameters passes what safepickle can pickle.

    There is nothing else to hook into: the trainer deletes them before it calls any plugin, callback or module.
    """
    for package in ("lightning.pytorch", "pytorch_lightning"):
        parsing: Any = sys.modules.get(f"{package}.utilities.parsing")
        if parsing is not None and not hasattr(parsing.is_picklable, "__wrapped__"):
            parsing.is_picklable = _asking_safepickle(parsing.is_picklable)


def _asking_safepickle(is_picklable: Callable[[object], bool]) -> Callable[[object], bool]:
    @functools.wraps(is_picklable)
    def asking(obj: object) -> bool:
        return any(_can_save(plugin, obj) for plugin in tuple(_plugins)) or is_picklable(obj)

    return asking


def _can_save(plugin: SafePickleIO, obj: object) -> bool:
    try:
        # References from one hyper-parameter to another point outside here, which the whole checkpoint will decide.
        safepickle.dumps(obj, weakrefs="tombstone", unpicklable=plugin._unpicklable)
    except Exception:
        return False
    return True


def _filesystem_of(path: str | os.PathLike[str]) -> tuple[Any, str]:
    filesystem, location = fsspec.core.url_to_fs(os.fspath(path))
    return filesystem, location
