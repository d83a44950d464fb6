"""What the machine asks of a backend. `LoadBackend` makes what the stream names; `InspectBackend` only describes it."""

from __future__ import annotations

from typing import Any, Protocol

from safepickle.guard.source import Source


class Backend(Protocol):
    """What the machine leaves to others: names, calls and state."""

    def find(self, module: str, name: str, protocol: int) -> Any:
        """Return what a name stands for, once it is decided that it may stand there."""

    def call(self, function: object, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        """Call what `find` has returned, or with `new` make an instance without ``__init__``."""

    def set_state(self, obj: object, state: object) -> Any:
        """Give `obj` its state, and return it."""

    def extend(self, obj: object, items: list[Any]) -> None:
        """Append to something that is no exact builtin container."""

    def update(self, obj: object, pairs: list[Any]) -> None:
        """Charge for the keys and set items (keys and values in turn) of what is no exact builtin container."""

    def persistent(self, identifier: object) -> Any:
        """Return what a persistent id stands for."""

    def buffer(self) -> Any:
        """Return the next out-of-band buffer."""

    def read_only(self, buffer: object) -> Any:
        """Return a read-only view of a buffer."""

    def payload(self, source: Source, position: int, length: int, mutable: bool) -> tuple[Any, int]:
        """Return the bytes at `position` of the window, and the position behind them."""
