"""Shorter ways to what frameworks keep deep inside: ``$.model.encoder`` for ``$.model._modules['encoder']``.

A shortcut leads to an object that the pickler reaches as well, by a way that nobody would type. Frameworks are known
by the names of their classes: nothing is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias

from safepickle.tracing.naming import NEAREST, Edge, attribute_edge, instance_dict, key_edge

__all__ = ["MODULE_MEMBERS", "is_module_state", "member_edge", "shortcuts"]

MODULE_MEMBERS: Final = ("_modules", "_parameters", "_buffers")
"""Where a torch module keeps what its attributes find."""

_Shortcuts: TypeAlias = Iterable[tuple[Edge, Any]]
_IN_PLACE: Final = frozenset({str, bytes, int, float, bool, type(None)})


def shortcuts(obj: object, shown: list[tuple[Edge, Any]]) -> list[tuple[Edge, Any]]:
    """Return edges and objects that can be reached more shortly from `obj`.

    Args:
        obj: Any object.
        shown: What the pickler goes on to from there. What is not behind it gets no shortcut.
    """
    if not shown:
        return []
    for base in type(obj).__mro__:
        find = _FINDERS.get((str(base.__module__).partition(".")[0], base.__name__))
        if find is not None:
            return list(find(obj, {id(child) for _, child in shown}))
    return []


def is_module_state(state: dict[Any, Any]) -> bool:
    """Tell whether attributes are those of a torch module: older ones keep their members in ordered dictionaries."""
    return all(isinstance(state.get(holder), dict) for holder in MODULE_MEMBERS)


def member_edge(members: object, name: object, position: int, kinds: AbstractSet[str]) -> Edge:
    """Name a submodule, parameter or buffer as a person reaches it, or give `NEAREST` where nobody could type it.

    Args:
        members: The dictionary of the module that holds it.
        name: Its key there.
        position: Its place there.
        kinds: Names of classes that the module is an instance of.

    Source:
        ``Module.__getattr__``, ``ModuleList.__getitem__`` and ``ModuleDict.__getitem__`` in torch 2.13.
    """
    if type(name) is not str:
        return NEAREST
    if kinds & {"ModuleDict", "ParameterDict"}:
        return key_edge(members, name, position)
    if name.isdecimal():
        return int(name)
    return attribute_edge(name) if name.isidentifier() else NEAREST


def _in_module(module: object, shown: set[int]) -> _Shortcuts:
    kinds = {base.__name__ for base in type(module).__mro__ if str(base.__module__).startswith("torch.")}
    is_sequence = bool(kinds & {"Sequential", "ModuleList", "ParameterList"})
    own = instance_dict(module)
    for holder in MODULE_MEMBERS:
        members = own.get(holder)
        if type(members) is not dict:
            continue
        for position, (name, child) in enumerate(members.items()):
            # A module with a reducer of its own, such as a compiled one, may show its child alone.
            if child is None or (id(members) not in shown and id(child) not in shown):
                continue
            edge = member_edge(members, name, position, kinds)
            if edge is not NEAREST and (is_sequence or type(edge) is not int):
                yield edge, child


def _in_frame(frame: Any, shown: set[int]) -> _Shortcuts:
    labels = list(frame.columns)
    for number, label in enumerate(labels):
        if frame.dtypes.iloc[number].kind != "O":
            continue
        edge = key_edge(frame, label, number) if labels.count(label) == 1 else None
        prefix = edge if isinstance(edge, str) else None
        for row, child in _worth_naming(frame.iloc[:, number].array):
            yield (f".iloc[{row}, {number}]" if prefix is None else f"{prefix}.iloc[{row}]"), child
    yield ".index", frame.index
    yield ".columns", frame.columns


def _in_series(series: Any, shown: set[int]) -> _Shortcuts:
    if series.dtype.kind == "O":
        yield from ((f".iloc[{row}]", child) for row, child in _worth_naming(series.array))
    yield ".index", series.index


def _in_index(index: Any, shown: set[int]) -> _Shortcuts:
    if index.dtype.kind == "O" and not hasattr(index, "levels"):
        yield from _worth_naming(index.array)


def _worth_naming(values: Any) -> Iterator[tuple[int, Any]]:
    return ((row, child) for row, child in enumerate(values) if type(child) not in _IN_PLACE)


_FINDERS: Final[dict[tuple[str, str], Callable[[Any, set[int]], _Shortcuts]]] = {
    ("torch", "Module"): _in_module,
    ("pandas", "DataFrame"): _in_frame,
    ("pandas", "Series"): _in_series,
    ("pandas", "Index"): _in_index,
}
