"""What a torch file's pickle claims of its storages, held against what the file has: by the load and by inspect alike.

torch caches a storage by its key, and makes those of the older format before it has read them. So each key stands for
one storage of one type and length, wherever the pickle mentions it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from safepickle.guard.limits import Malformed
from safepickle.guard.rules import ValueInfo

__all__ = ["StorageClaims", "follow_file"]

_awaited: ContextVar[tuple[Callable[[], Any], StorageClaims] | None] = ContextVar("safepickle_claims", default=None)
"""The older file whose list of storages comes next, and what its pickle has claimed."""


class StorageClaims:
    """The storages that a pickle has claimed so far.

    Args:
        sizes: Bytes of each storage that a zip archive holds; None for the older format, where they come later.

    Attributes:
        come_later: Whether a claim was of the older format, also where torch itself has opened the file.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        self._sizes = sizes
        self._whole: dict[str, tuple[str, int, int]] = {}
        self._views: dict[str, tuple[str, int, int]] = {}
        self._total = 0
        self.come_later = False

    @property
    def is_legacy(self) -> bool:
        """Whether the storages come behind the pickle."""
        return self._sizes is None

    @property
    def is_claimed(self) -> bool:
        """Whether the pickle has claimed any."""
        return bool(self._whole)

    def claim(self, identifier: Any, info: ValueInfo, length: int | None) -> int:
        """Take the claim of a persistent id.

        Args:
            identifier: The id, well-formed.
            info: What it says of the storage.
            length: Bytes of the file, or None where only reading would tell.

        Returns:
            Bytes of the storage, the first time; then 0. They are input, and entitle to work as the pickle's own do.

        Raises:
            Malformed: It contradicts the file, or an earlier claim.
        """
        key, nbytes = identifier[2], identifier[4] * info.itemsize
        view = identifier[5] if len(identifier) == 6 else None
        if self._sizes is not None:
            if len(identifier) == 6:
                raise Malformed("the persistent id of a storage has a view, as those of the older format alone have")
            _hold_against_archive(self._sizes, key, nbytes)
        known, claimed = self._whole.get(key), (info.dtype, info.itemsize, nbytes)
        if known is None:
            if key in self._views:
                raise Malformed(f"storage {key!r} is claimed as a view as well")
            self._whole[key] = claimed
            self._total += nbytes
        elif known != claimed:
            raise Malformed(f"storage {key!r} is claimed with two sizes or two types")
        if view is not None and self._views.setdefault(view[0], (key, *view[1:])) != (key, *view[1:]):
            raise Malformed(f"the view {view[0]!r} is claimed with two sizes")
        if view is not None and view[0] in self._whole:
            raise Malformed(f"storage {view[0]!r} is claimed as a view as well")
        if self.is_legacy and length is not None and self._total > length:
            raise Malformed("its storages claim more bytes than the file has")
        self.come_later = self.come_later or len(identifier) == 6
        return nbytes if known is None else 0

    def size(self, key: str) -> tuple[int, int]:
        """Return the bytes of one element, and of all, that were claimed for a key.

        Raises:
            Malformed: Nothing claimed it.
        """
        if key not in self._whole:
            raise Malformed(f"storage {key!r} is not used")
        return self._whole[key][1:]

    def hold_keys(self, keys: object) -> None:
        """Hold the list of storages that an older file has behind its pickle against what was claimed.

        torch fills exactly those of the list: any other would stay as the memory was before.

        Raises:
            Malformed: They differ.
        """
        if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
            raise Malformed("the list of storages is malformed")
        for key in keys:
            self.size(key)
        if len(keys) != len(self._whole):
            raise Malformed("a storage that the file uses is not in its list of storages")


def _hold_against_archive(sizes: Mapping[str, int], key: str, nbytes: int) -> None:
    if key not in sizes:
        raise Malformed(f"the archive has no storage {key!r}")
    if sizes[key] != nbytes:
        raise Malformed(f"storage {key!r} claims {nbytes:,} bytes, and the archive holds {sizes[key]:,}")


def follow_file(file: object, loaded: object, claims: StorageClaims) -> None:
    """Hold the list of storages that comes behind the pickle of an older file, for a ``torch.load`` of the user's own.

    Args:
        file: What torch reads one pickle after the other from.
        loaded: The object of the pickle that was just read.
        claims: What that pickle has claimed.

    Raises:
        Malformed: The pickle before this one was such a file's, and this is not the list of its storages.
    """
    awaited = _awaited.get()
    if claims.come_later:
        _awaited.set((_reference(file), claims))
    elif awaited is not None and awaited[0]() is file:
        _awaited.set(None)
        awaited[1].hold_keys(loaded)


def _reference(file: object) -> Callable[[], Any]:
    try:
        return weakref.ref(file)
    except TypeError:
        return lambda: file
