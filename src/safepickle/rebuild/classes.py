"""Classes that came by value, and the methods of their instances, where this process may have the class already.

cloudpickle finds such a class again, by an id that travels with it, but makes another one first, and sets all its
attributes anew. That takes away the functions that the weak methods of its instances refer to, and the registry of the
instances that live here. So what is the same is left as it is.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from typing import Any, Final

from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_ID, _class_setstate, _extract_code_globals

from safepickle.rebuild.mark import file_format
from safepickle.weak_types import PROXIES, find_weak_type, look_behind

__all__ = ["rebuild_class", "rebuild_class_attributes", "rebuild_method"]

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_ABSENT: Final = object()
_PLAIN: Final = frozenset({int, float, complex, bool, str, bytes, range, type(None), type(Ellipsis), types.CodeType})
# What the function that they wrap says of itself depends on how they were made.
_WRAPPERS: Final[dict[type, Any]] = {
    classmethod: lambda method: method.__func__,
    staticmethod: lambda method: method.__func__,
    functools._lru_cache_wrapper: lambda cached: (cached.__wrapped__, cached.cache_parameters()),
}
_BY_IDENTITY: Final = (type, types.ModuleType)


@file_format
def rebuild_class(*arguments: Any) -> type:
    """Find a class that is here already, or make it with no attributes.

    cloudpickle makes one each time, and throws it away where it finds the class: its metaclass and the
    ``__init_subclass__`` of its bases would be told of it, and a registry would hold it in the place of the class.

    Args:
        *arguments: Those of the function of cloudpickle's that makes it, of which the last but one is the id that
            travels with the class; then the function.
    """
    *own, make = arguments
    known: type | None = _DYNAMIC_CLASS_TRACKER_BY_ID.get(own[-2])
    made: type = make(*own) if known is None else known
    return made


@file_format
def rebuild_class_attributes(cls: type, state: tuple[dict[str, object], dict[str, object]]) -> None:
    """Set the attributes of a class, except those that it has already.

    Functions are the same when their code, their defaults and what they close over are; of one that was itself loaded
    from a pickle, the globals count as well. A weak container registers what lives in this process, and a reference
    whose referent was not in the pickle says nothing of the one that is here: both are left alone.

    Args:
        cls: What cloudpickle has found, or made with no attributes.
        state: As cloudpickle takes it.
    """
    attributes, slots = state
    own = type.__dict__["__dict__"].__get__(cls)
    renewed = {
        name: value
        for name, value in attributes.items()
        if name == "_abc_impl" or not _is_same(own.get(name, _ABSENT), value)
    }
    if "__module__" in renewed and "__firstlineno__" in attributes:
        # Setting the module deletes it.
        renewed["__firstlineno__"] = attributes["__firstlineno__"]
    _class_setstate(cls, (renewed, slots))


@file_format
def rebuild_method(function: types.FunctionType, owner: object, name: str) -> types.MethodType:
    """Bind a method: the function that the class has, if it is the same, so that a weak method does not die with it.

    Args:
        function: As it was pickled.
        owner: What it is bound to.
        name: Its name in the class of `owner`.
    """
    for base in type(owner).__mro__:
        found = vars(base).get(name)
        if found is not None:
            is_same = type(found) is types.FunctionType and found.__code__ == function.__code__
            return types.MethodType(found if is_same else function, owner)
    return types.MethodType(function, owner)


def _is_same(old: object, new: object) -> bool:
    """Tell whether an attribute can be left as it is."""
    try:
        return _Comparison().is_same(old, new)
    except Exception:
        # Nobody knows whether they are the same if they cannot be compared.
        return False


class _Comparison:
    """Compares two objects part by part, as one graph with another: equality of users' classes is not asked for."""

    def __init__(self) -> None:
        # Pairs that are being compared, or were: whoever met them first finds out whether they differ.
        self._met: set[tuple[int, int]] = set()
        # What a comparison makes, so that ids stay its own.
        self._held: list[Any] = []

    def is_same(self, old: object, new: Any) -> bool:
        """Tell whether two objects are of the same class and have the same parts."""
        cls = type(new)
        if old is new:
            return True
        if cls in PROXIES or type(old) in PROXIES:
            return type(old) is cls and look_behind(new)[0] in (None, look_behind(old)[0])
        if issubclass(cls, weakref.ref) and issubclass(type(old), weakref.ref):
            referent = weakref.ref.__call__(new)
            return referent is None or (type(old) is cls and weakref.ref.__call__(old) is referent)
        if type(old) is not cls or issubclass(cls, _BY_IDENTITY):
            return False
        if cls in _PLAIN:
            return bool(old == new)
        key = id(old), id(new)
        if key in self._met:
            return True
        self._met.add(key)
        self._held += (old, new)
        weak = find_weak_type(cls)
        if weak is not None and weak.is_container:
            return True
        if cls is types.FunctionType:
            return self._is_same_function(old, new)
        if cls is types.CellType:
            return self._is_same_cell(old, new)
        parts = _WRAPPERS.get(cls)
        if parts is not None:
            return self.is_same(parts(old), parts(new))
        if issubclass(cls, (list, tuple, dict, set, frozenset)) and not self._has_same_content(old, new):
            return False
        return self._has_same_attributes(old, new)

    def _is_same_function(self, old: Any, new: Any) -> bool:
        if old.__code__ != new.__code__:
            return False
        cells = list(zip(old.__closure__ or (), new.__closure__ or (), strict=True))
        names = _extract_code_globals(new.__code__)
        here, there = old.__globals__, new.__globals__
        if any(name in here and name not in there for name in names) or any(map(_is_unfinished, cells)):
            # It is under construction, and gets all that could be compared when what leads to its class is built.
            return True
        if not self._is_defined_here(old):
            cells += [(here.get(name, _ABSENT), there.get(name, _ABSENT)) for name in names]
        parts = ("__defaults__", "__kwdefaults__", "__dict__")
        return all(self.is_same(getattr(old, name), getattr(new, name)) for name in parts) and all(
            self.is_same(*pair) for pair in cells
        )

    @staticmethod
    def _is_defined_here(function: Any) -> bool:
        """Tell whether a function was made by running its module, so that its globals are what they are here."""
        module = sys.modules.get(function.__globals__.get("__name__"))
        return module is not None and vars(module) is function.__globals__

    def _is_same_cell(self, old: Any, new: Any) -> bool:
        if _is_empty(old) or _is_empty(new):
            return _is_empty(new)
        return self.is_same(old.cell_contents, new.cell_contents)

    def _has_same_content(self, old: Any, new: Any) -> bool:
        if isinstance(new, dict):
            return dict.keys(old) == dict.keys(new) and all(
                self.is_same(dict.__getitem__(old, key), value) for key, value in dict.items(new)
            )
        if isinstance(new, set | frozenset):
            return set(old) == set(new)
        items = list if isinstance(new, list) else tuple
        olds, news = items(old), items(new)
        return len(olds) == len(news) and all(map(self.is_same, olds, news))

    def _has_same_attributes(self, old: object, new: object) -> bool:
        """Compare what the instance dictionary and the slots hold, and what a class written in C hides."""
        hides = False
        for base in type(new).__mro__:
            hides = hides or (base is not object and not base.__flags__ & _HEAP_TYPE)
            for descriptor in vars(base).values():
                if type(descriptor) is types.MemberDescriptorType and not self.is_same(
                    _member(descriptor, old), _member(descriptor, new)
                ):
                    return False
        dicts = [getattr(obj, "__dict__", None) if type(obj).__dictoffset__ else None for obj in (old, new)]
        if not self.is_same(*dicts):
            return False
        if not hides or isinstance(new, list | tuple | dict | set | frozenset):
            return True
        return self._hides_the_same(old, new)

    def _hides_the_same(self, old: object, new: object) -> bool:
        cls: Any = type(new)
        if cls.__eq__ is not object.__eq__:
            return bool(old == new)
        try:
            parts = [obj.__reduce_ex__(4) for obj in (old, new)]
        except TypeError:
            # A lock, or something else of this process alone, which has no content.
            return True
        return self.is_same(*parts)


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is _ABSENT
    except ValueError:
        return True


def _is_unfinished(cells: tuple[types.CellType, types.CellType]) -> bool:
    return _is_empty(cells[1]) and not _is_empty(cells[0])


def _member(descriptor: Any, obj: Any) -> Any:
    try:
        return descriptor.__get__(obj)
    except AttributeError:
        return _ABSENT
