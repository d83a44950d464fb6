"""StrongRef owns its referent and lets go of it without harm."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref

from nodes import Node
from safepickle import StrongRef


def note(reference: object) -> None:
    """A callback that can be pickled."""


def test_last_owner_of_a_referent_with_other_references_dies_without_harm() -> None:
    # In a process of its own: CPython 3.11 and 3.12 crash when a dying reference without a callback is in the list.
    program = (
        "import weakref, safepickle\n"
        "class Node: pass\n"
        "node = Node()\n"
        "strong = safepickle.StrongRef(node)\n"
        "other = weakref.ref(node, print)\n"
        "del node, strong\n"
        "assert other() is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<weakref at")


def test_it_owns_its_referent_and_lets_it_go() -> None:
    strong = StrongRef(Node())
    gc.collect()
    seen = weakref.ref(strong())
    assert isinstance(seen(), Node)
    del strong
    assert seen() is None


def test_cycle_through_it_is_collected() -> None:
    node = Node()
    node.reference = StrongRef(node)
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert seen() is None


def test_callback_is_shown_and_pickled_again() -> None:
    assert StrongRef(Node()).__callback__ is None
    strong = pickle.loads(pickle.dumps(StrongRef(Node(), note)))
    assert strong.__callback__ is note
    assert isinstance(strong(), Node)
    assert repr(strong) == "<safepickle.StrongRef to Node>"
