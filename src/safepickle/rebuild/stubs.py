"""Placeholders for classes and functions that no longer exist, and how they are pickled again."""

from __future__ import annotations

import copyreg
import importlib
import weakref
from collections.abc import Iterable
from typing import Any

from safepickle.messages import dotted_name
from safepickle.rebuild.mark import file_format
from safepickle.reduce_value import ReduceTuple

__all__ = [
    "Stub",
    "StubRecord",
    "rebuild_global",
    "rebuild_stub_of_builtin",
    "reduce_stub_class",
    "stub_class",
]


class _StubClass(type):
    """The class of placeholder classes: whatever is looked up in one of them is a placeholder as well."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"the placeholder class {cls.__qualname__} has no attribute {name!r}")
        return stub_class(cls.__module__, f"{cls.__qualname__}.{name}")

    def __repr__(cls) -> str:
        return f"<safepickle.Stub of {dotted_name(cls)}, which is missing>"


@file_format
class StubRecord:
    """What a pickle did with a placeholder, for it to be done again to the real class.

    Attributes:
        arguments: What the instance was made from.
        keywords: The same, by name.
        called: Whether the class (or the function) was called, rather than its ``__new__`` alone.
        base: The builtin base class that the instance was made by, or None, and its value (protocols 0 and 1).
        state: What was given to ``__setstate__``, if it was no dict: that has become the attributes.
        slots: Names of the attributes that were in slots, or None.
        items: What was appended.
        pairs: Keys and values that were set.
    """

    __slots__ = ("arguments", "base", "called", "items", "keywords", "pairs", "slots", "state")

    def __init__(self, arguments: tuple[object, ...] = (), keywords: dict[str, object] | None = None) -> None:
        self.arguments = arguments
        self.keywords = keywords or {}
        self.called = False
        self.base: tuple[type, Any] | None = None
        self.state: Any = None
        self.slots: tuple[str, ...] | None = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


@file_format
class Stub(metaclass=_StubClass):
    """An instance of a class that no longer exists, or what a function that no longer exists returned.

    Its attributes are those that the pickle holds; ``__stub__`` is the rest of what the pickle did with it. safepickle
    pickles it again so that it loads as an instance of the real class where there is one.
    """

    __slots__ = ("__dict__", "__stub__", "__weakref__")

    __stub__: StubRecord

    def __new__(cls, /, *args: object, **kwargs: object) -> Stub:
        stub = object.__new__(cls)
        stub.__stub__ = StubRecord(args, kwargs)
        return stub

    def __init__(self, /, *args: object, **kwargs: object) -> None:
        self.__stub__.called = True

    def __repr__(self) -> str:
        cls = type(self)
        attributes = ", ".join(map(str, vars(self))) or "no attributes"
        return f"<safepickle.Stub of {dotted_name(cls)}: {attributes}>"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
            return
        if isinstance(state, tuple) and len(state) == 2 and all(isinstance(part, (dict, type(None))) for part in state):
            attributes, slots = state
            self.__dict__.update(attributes or {})
            self.__dict__.update(slots or {})
            self.__stub__.slots = tuple(slots or {})
            return
        self.__stub__.state = state

    def append(self, item: object) -> None:
        """Take one item, as a list would."""
        self.__stub__.items.append(item)

    def extend(self, items: Iterable[object]) -> None:
        """Take items, as a list would."""
        self.__stub__.items.extend(items)

    def __setitem__(self, key: object, value: object) -> None:
        self.__stub__.pairs.append((key, value))

    def __reduce_ex__(self, protocol: object) -> ReduceTuple:
        cls, record = type(self), self.__stub__
        made: tuple[Any, tuple[Any, ...]]
        if record.base is not None:
            made = rebuild_stub_of_builtin, (cls, *record.base)
        elif record.called and not record.keywords:
            made = cls, record.arguments
        elif record.keywords:
            made = copyreg.__newobj_ex__, (cls, record.arguments, record.keywords)  # type: ignore[attr-defined]
        else:
            made = copyreg.__newobj__, (cls, *record.arguments)  # type: ignore[attr-defined]
        state: Any = self.__dict__ or None
        if record.slots is not None:
            slots = {name: value for name, value in self.__dict__.items() if name in record.slots}
            state = ({name: value for name, value in self.__dict__.items() if name not in slots} or None, slots)
        elif record.state is not None:
            state = record.state
        return *made, state, iter(record.items), iter(record.pairs)


_STUB_CLASSES: weakref.WeakValueDictionary[tuple[str, str], type[Stub]] = weakref.WeakValueDictionary()


def stub_class(module: str, name: str) -> type[Stub]:
    """Return the placeholder class for a name; there is one for each."""
    cls = _STUB_CLASSES.get((module, name))
    if cls is None:
        namespace = {"__module__": module, "__qualname__": name, "__slots__": ()}
        made: Any = _StubClass(name.rpartition(".")[2], (Stub,), namespace)
        cls = _STUB_CLASSES.setdefault((module, name), made)
    return cls


def reduce_stub_class(cls: type[Stub]) -> tuple[Any, ...]:
    """Return the reduce value of a placeholder class."""
    return rebuild_global, (cls.__module__, cls.__qualname__)


@file_format
def rebuild_global(module: str, name: str) -> Any:
    """Find the object of a name, or a placeholder class: how a placeholder class is pickled again.

    safepickle's `Unpickler` gives its own function instead, with its aliases and whatever else it was asked for.
    """
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (AttributeError, ImportError):
        return stub_class(module, name)
    return found


@file_format
def rebuild_stub_of_builtin(cls: type, base: type, value: object) -> Any:
    """Do what ``copyreg._reconstructor`` does, which protocols 0 and 1 name, also for a placeholder class."""
    if not issubclass(cls, Stub):
        return copyreg._reconstructor(cls, base, value)  # type: ignore[attr-defined]
    stub = cls.__new__(cls)
    if base is not object:
        stub.__stub__.base = (base, value)
    return stub
