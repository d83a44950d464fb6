"""Signals of blinker."""

from __future__ import annotations

from safepickle.rebuild.containers import OWNED_ATTRIBUTE, set_attributes
from safepickle.rebuild.mark import file_format

__all__ = ["rebuild_blinker_connections"]


@file_format
def rebuild_blinker_connections(
    signal: object, state: tuple[dict[str, object], list[tuple[object, bool, bool, list[object]]], list[object]]
) -> None:
    """Connect receivers to a signal, and then give it its attributes, some of which listen to new connections.

    Args:
        signal: Made without its constructor.
        state: Attributes; connections, each as a receiver, whether it is held weakly, whether it hears every sender,
            and others that it hears; owned senders.
    """
    import blinker

    attributes, connections, owned = state
    blinker.Signal.__init__(signal)
    for receiver, is_weak, hears_all, senders in connections:
        # Under the first protocols, the copy of `blinker.ANY` is another.
        for sender in (blinker.ANY, *senders) if hears_all else senders:
            blinker.Signal.connect(signal, receiver, sender, is_weak)
    set_attributes(signal, attributes)
    if owned:
        setattr(signal, OWNED_ATTRIBUTE, owned)
