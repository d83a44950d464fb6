"""What a dump and the reducers ask of the pickler that walks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from safepickle.speedups import Core

__all__ = ["Walker"]


class Walker(Protocol):
    """What a dump and the reducers ask of the pickler."""

    memo: Any
    fast: Any
    core: Core

    @property
    def own_dispatch_table(self) -> Mapping[type, Any]:
        """The reducers by exact type that the caller or a subclass has set, or none."""

    def look_ahead(self) -> Any:
        """Return the ids of what the root of this walk certainly leads to, or None where nobody can tell."""

    def may_hide(self, classes: Iterable[type]) -> bool:
        """Tell whether instances of these classes may be in the memo though a walk that tracks was not shown them."""

    def is_built_first(self, cls: type) -> bool:
        """Tell whether an instance of `cls` may be under construction while other parts of it are written."""

    def may_reduce_to_a_global(self, cls: type) -> bool:
        """Tell whether an instance of `cls` might be pickled as a name that the other side imports."""

    def reduces_to_a_global(self, obj: Any) -> bool:
        """Tell whether `obj`, whose class may do so, is pickled as a name that the other side imports."""
