"""What pickle, cloudpickle, dill and copy.deepcopy make of each weak type, beside safepickle: ``docs/peers.md``.

Each peer runs in a process of its own, so that what importing one changes cannot help or harm another. Run:
python benchmarks/peers_table.py docs/peers.md
"""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = ("pickle", "cloudpickle", "dill", "safepickle", "copy.deepcopy", "safepickle.deepcopy")
IN_PROCESS = ("copy.deepcopy", "safepickle.deepcopy")

SITUATIONS = {
    "kept": "The referent is in the pickle, too: `[node, weak]`. Right is a weak reference to the copy of `node`.",
    "outside": "The referent is alive, but not in the pickle: `[weak]`. Right is a dead reference, a warning, and no "
    "byte of the referent in the pickle. A copy inside one process is right to point at the original.",
    "dead": "The referent is gone. Right is a dead reference.",
    "cyclic": "The referent holds the weak reference: `node.weak = weak`, and `node` is pickled. Right is a weak "
    "reference to the copy of `node`.",
}


PAYLOAD = "needle" * 1000


class Node:
    def __init__(self) -> None:
        self.name = PAYLOAD
        self.weak: Any = None

    def method(self) -> str:
        return self.name


class CallableNode(Node):
    def __call__(self) -> str:
        return self.name


class LabelledRef(weakref.ref):
    __slots__ = ("label",)
    label: str


def ignore(*_: Any) -> None:
    """Be a callback."""


def labelled(node: Node) -> LabelledRef:
    reference = LabelledRef(node)
    reference.label = "label"
    return reference


def finalizer(node: Node) -> Any:
    found = weakref.finalize(node, ignore)
    found.atexit = False
    return found


MAKERS: dict[str, Callable[[Any], Any]] = {
    "`weakref.ref`": weakref.ref,
    "`weakref.ref` with a callback": lambda node: weakref.ref(node, ignore),
    "subclass of `weakref.ref`": labelled,
    "`WeakMethod`": lambda node: weakref.WeakMethod(node.method),
    "`weakref.proxy`": weakref.proxy,
    "`weakref.proxy` of a callable": weakref.proxy,
    "`WeakSet`": lambda node: weakref.WeakSet([node]),
    "`WeakValueDictionary`": lambda node: weakref.WeakValueDictionary(key=node),
    "`WeakKeyDictionary`": lambda node: weakref.WeakKeyDictionary({node: "value"}),
    "`weakref.finalize`": finalizer,
}


def copier(peer: str) -> Callable[[Any], tuple[Any, bytes]]:
    """Return a function that sends an object through a peer and returns its copy, with the bytes in between."""
    module = importlib.import_module(peer.partition(".")[0])
    if peer in IN_PROCESS:
        return lambda obj: (module.deepcopy(obj), b"")

    def copy(obj: Any) -> tuple[Any, bytes]:
        data = module.dumps(obj)
        return module.loads(data), data

    return copy


def outcome(peer: str, kind: str, situation: str) -> str:
    """Return what becomes of one weak object in one situation, in a few words."""
    copy = copier(peer)
    node: Any = CallableNode() if "callable" in kind else Node()
    weak = MAKERS[kind](node)
    obj: Any = [weak]
    if situation == "kept":
        obj = [node, weak]
    elif situation == "cyclic":
        node.weak = weak
        obj = node
    elif situation == "dead":
        node = None
        gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded, data = copy(obj)
        except Exception as error:
            return f"refused: {named(error)}"
    copied = loaded if situation == "cyclic" else loaded[0] if situation == "kept" else None
    loaded_weak = loaded.weak if situation == "cyclic" else loaded[-1]
    del loaded
    gc.collect()
    referent, is_right_kind = referent_of(loaded_weak), is_same_kind(loaded_weak, weak)
    if type(weak) is weakref.finalize:
        return "right" if referent is None and is_right_kind else "acts for the copy, too"
    if referent is None:
        return outcome_when_dead(situation, is_right_kind, bool(caught), PAYLOAD.encode() in data)
    if referent is node:
        return "right" if situation == "outside" and peer in IN_PROCESS else "points at the original"
    if referent is copied:
        if "callback" in kind and getattr(loaded_weak.__callback__, "__name__", None) != ignore.__name__:
            return "callback lost"
        return "right" if is_right_kind else "strong reference"
    if copied is None:
        return "strong copy"
    return "a second copy" if vars(referent) else "a second, empty copy"


def named(error: Exception) -> str:
    """Return the name of an error's type, so that the page is the same on every CPython."""
    name = f"`{type(error).__name__}`"
    # What cannot be found under its name is the one up to 3.13, and the other from 3.14 on.
    alike = ("`AttributeError`", "`PicklingError`")
    return " or ".join(alike) if name in alike else name


def outcome_when_dead(situation: str, is_right_kind: bool, warned: bool, was_copied: bool) -> str:
    """Return what has become of a weak object that leads to nothing."""
    if not is_right_kind:
        return "dead, and of another kind"
    if was_copied and situation == "outside":
        return "silently dead, copied in vain"
    return "right" if situation == "dead" or (situation == "outside" and warned) else "silently dead"


def referent_of(weak: Any) -> Any:
    """Return what a weak object leads to, or None when it is dead or empty."""
    cls = type(weak)
    if cls in weakref.ProxyTypes:
        try:
            return weak.method.__self__
        except ReferenceError:
            return None
    if isinstance(weak, weakref.WeakMethod):
        method = weak()
        return None if method is None else method.__self__
    if isinstance(weak, weakref.ref):
        return weak()
    if isinstance(weak, weakref.finalize):
        peeked = weak.peek()
        return None if peeked is None else peeked[0]
    if isinstance(weak, weakref.WeakValueDictionary):
        return next(iter(weak.values()), None)
    if isinstance(weak, weakref.WeakSet | weakref.WeakKeyDictionary):
        return next(iter(weak), None)
    return weak


def is_same_kind(loaded: Any, weak: Any) -> bool:
    """Tell whether a weak object came back as what it was, with what belongs to it."""
    cls = type(weak)
    if cls in weakref.ProxyTypes:
        return type(loaded) is cls
    if not isinstance(loaded, cls):
        return False
    return getattr(loaded, "label", None) == getattr(weak, "label", None)


def measure(peer: str) -> dict[str, dict[str, str]]:
    """Return the outcomes of one peer, by situation and kind."""
    return {situation: {kind: outcome(peer, kind, situation) for kind in MAKERS} for situation in SITUATIONS}


def measure_apart(peer: str) -> dict[str, dict[str, str]]:
    """Measure one peer in a process of its own."""
    program = [sys.executable, __file__, "--peer", peer]
    run = subprocess.run(program, capture_output=True, text=True, check=True, encoding="utf-8")
    outcomes: dict[str, dict[str, str]] = json.loads(run.stdout)
    return outcomes


def page() -> str:
    """Return the whole page as Markdown."""
    outcomes = {peer: measure_apart(peer) for peer in PEERS}
    lines = [
        "# What each pickler makes of weak references",
        "",
        "Made by `python benchmarks/peers_table.py docs/peers.md`, which runs every case; the tests check that this",
        "page is what it prints. `copy.deepcopy` and `safepickle.deepcopy` copy inside one process, the others by way",
        "of bytes. The page holds on CPython 3.11 to 3.15, but for dill 0.4.1: it writes no function on 3.15, and so",
        "refuses every case there.",
        "",
        "A `weakref.finalize` is right when it comes back dead, whatever its referent: what it guards belongs to the",
        "original.",
        "",
    ]
    for situation, meaning in SITUATIONS.items():
        lines += [f"## {situation.capitalize()}", "", meaning, ""]
        lines += ["| | " + " | ".join(PEERS) + " |", "| --- |" + " --- |" * len(PEERS)]
        for kind in MAKERS:
            cells = [outcomes[peer][situation][kind] for peer in PEERS]
            lines.append(f"| {kind} | " + " | ".join("**right**" if cell == "right" else cell for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--peer", peer]:
            print(json.dumps(measure(peer)))
        case [path]:
            Path(path).write_text(page(), encoding="utf-8")
        case _:
            print(page(), end="")
