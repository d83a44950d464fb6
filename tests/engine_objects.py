"""What the tests of engines send there and back: importable, as it must be in the workers."""

from __future__ import annotations

import linecache
import traceback
import weakref
from typing import Any

import safepickle


class Node:
    """A tree with parent pointers of every kind."""

    parts: list[Any]

    def __init__(self, name: str, parent: Node | None = None) -> None:
        self.name = name
        self.children: list[Node] = []
        self.weak_children: weakref.WeakSet[Node] = weakref.WeakSet()
        self.notes: weakref.WeakKeyDictionary[Node, str] = weakref.WeakKeyDictionary()
        self.by_name: weakref.WeakValueDictionary[str, Node] = weakref.WeakValueDictionary()
        if parent is not None:
            self.parent = weakref.ref(parent)
            self.proxy = weakref.proxy(parent)
            parent.children.append(self)
            parent.weak_children.add(self)
            parent.notes[self] = name
            parent.by_name[name] = self


def tree() -> Node:
    root = Node("root")
    for number in range(3):
        Node(f"leaf {number}", Node(f"branch {number}", root))
    return root


def is_whole(root: Any) -> bool:
    """Whether every weak reference in a tree leads to its very own parent or child."""
    return type(root) is Node and all(
        child.parent() is root
        and child.proxy.name == root.name
        and child in root.weak_children
        and root.notes[child] == child.name
        and root.by_name[child.name] is child
        and is_whole(child)
        for child in root.children
    )


def there_and_back(root: Any) -> tuple[bool, Any]:
    """What was seen in the worker, and the object itself."""
    return is_whole(root) and len(root.children) == 3, root


def fail_with_a_path(_: Any = None) -> None:
    """Raise what a dump raises that is not allowed to leave a tombstone."""
    lonely = Node("child", Node("parent"))
    holder = Node("outside")
    lonely.parent = weakref.ref(holder)
    safepickle.dumps({"nodes": [lonely]}, weakrefs="strict")


def fail_on_a_generator(_: Any = None) -> None:
    """Raise what a dump raises that meets something that nothing can pickle: the path is in an attribute and a note."""
    safepickle.dumps({"trainer": [tree(), (each for each in "")]})


class Orphan:
    """Its parent stays behind."""

    def __init__(self, parent: Node) -> None:
        self.parent = weakref.ref(parent)


def is_orphan(child: Orphan) -> bool:
    return child.parent() is None


def unpicklable(_: Any = None) -> Any:
    """Return an object that holds, at ``.parts[0]``, what nothing can pickle."""
    node = Node("unpicklable")
    node.parts = [(each for each in "")]
    return node


def lines(caught: Any) -> set[str]:
    """Return the lines that warnings about lost references point at."""
    lost = [entry for entry in caught if issubclass(entry.category, safepickle.WeakReferenceWarning)]
    assert all("outside the pickle, at $" in str(entry.message) for entry in lost)
    return {linecache.getline(entry.filename, entry.lineno).strip() for entry in lost}


def tells_the_path(error: BaseException) -> bool:
    """Whether an error says, in an attribute and in its text, where the generator of `unpicklable` is."""
    path = str(getattr(error, "pickle_path", ""))
    return path.endswith(".parts[0]") and path in "".join(traceback.format_exception_only(error))


def tells_where(error: BaseException) -> bool:
    """Whether the error of `fail_on_a_generator` has come back with its path."""
    path = "$['trainer'][1]"
    return getattr(error, "pickle_path", None) == path and any(path in note for note in error.__notes__)
