"""What the golden pickles of blinker's signals hold. The rule of `golden_cases` holds here, too."""

from __future__ import annotations

import weakref
from typing import Any

import blinker

from golden_cases import Case


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def hear(self, sender: Any, **said: Any) -> None:
        self.heard.append(said["word"])


class Sender:
    pass


def listen(sender: Any, **said: Any) -> str:
    return f"heard {said['word']}"


def signals() -> Any:
    signal = blinker.NamedSignal("changed", doc="A signal.")
    listener, picky, sender = Listener(), Listener(), Sender()
    signal.connect(listener.hear)
    signal.connect(picky.hear, sender=sender)
    signal.connect(listen, sender="text", weak=False)
    return {"signal": signal, "listener": listener, "picky": picky, "sender": sender, "weak": weakref.ref(signal)}


def check_signals(obj: Any) -> None:
    signal, sender = obj["signal"], obj["sender"]
    assert (type(signal), signal.name, signal.__doc__) == (blinker.NamedSignal, "changed", "A signal.")
    assert obj["weak"]() is signal
    signal.send(Sender(), word="anybody")
    signal.send(sender, word="sender")
    assert [result for _, result in signal.send("text", word="text") if result] == ["heard text"]
    assert obj["listener"].heard == ["anybody", "sender", "text"]
    assert obj["picky"].heard == ["sender"]
    del obj["listener"]
    signal.send(sender, word="again")
    assert obj["picky"].heard == ["sender", "again"]


CASES = {"blinker signals": Case(signals, check_signals)}
