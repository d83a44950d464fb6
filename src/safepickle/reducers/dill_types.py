"""Reduce values of single objects from dill's registered functions, and never dill's pickler.

Such a function calls ``pickler.save_reduce(...)``, which is given a recorder here; the C pickler then goes on with what
was recorded. Importing this module imports dill, and undoes what that does to other picklers.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from typing import Any

from safepickle.reduce_value import NOT_REDUCED, ReduceValue

__all__ = ["reduce_class", "reduce_object"]


def reduce_class(cls: type) -> ReduceValue:
    """Return the reduce value of a class that dill knows by a name of its own, or NotImplemented."""
    name = _dill._typemap.get(cls)
    return NOT_REDUCED if name is None else (_dill._load_type, (name,))


def reduce_object(obj: object) -> ReduceValue:
    """Return the reduce value that dill knows for `obj`.

    Returns:
        NotImplemented when dill knows none, or none that a reduce value can express.
    """
    save = _dill.Pickler.dispatch.get(type(obj))
    if save is None:
        return NOT_REDUCED
    recorder = _Recorder(obj)
    try:
        save(recorder, obj)
    except _NoReduceValueError:
        return NOT_REDUCED
    value = recorder.value
    if isinstance(value, tuple):
        value = value[: max(place for place, part in enumerate(value, 1) if part is not None)]
    reduced: ReduceValue = value
    return reduced


class _NoReduceValueError(Exception):
    """A function of dill's has done more than one call of ``save_reduce`` says."""


class _Recorder:
    """Stands in for the pickler that dill's functions are given.

    It belongs to no module of dill's and is not a subclass of its pickler, so none of them takes it for a dill session.
    """

    # dill traces nothing to a pickler without depth; else it would format every object.
    _trace_depth = None

    def __init__(self, obj: object) -> None:
        self._obj = obj
        self.value: Any = NotImplemented

    def save_reduce(
        self,
        func: object,
        args: object,
        state: object = None,
        listitems: object = None,
        dictitems: object = None,
        state_setter: object = None,
        *,
        obj: object = None,
    ) -> None:
        self._record((func, args, state, listitems, dictitems, state_setter))

    def save_global(self, obj: Any, name: str | None = None) -> None:
        self._record(name or obj.__qualname__)

    def write(self, data: bytes) -> None:
        """Take a global written as an opcode, the only one that dill's functions write in whole."""
        opcode, module, name = data[:1], *data[1:].decode().split("\n")[:2]
        if opcode != pickle.GLOBAL or getattr(sys.modules.get(module), name, None) is not self._obj:
            raise _NoReduceValueError
        self._record((getattr, (sys.modules[module], name), None, None, None, None))

    def save(self, obj: object) -> None:
        raise _NoReduceValueError

    def _record(self, value: object) -> None:
        if self.value is not NotImplemented:
            raise _NoReduceValueError
        self.value = value


def _import_dill() -> Any:
    """Import dill without what it does to others.

    dill adds its functions to the table of the pure-Python pickler, so that ``pickle._Pickler``, and every library
    that subclasses it, pickles otherwise from then on. It also sets the signatures of functions that every user of
    `ctypes.pythonapi` shares. A caller who has imported dill has asked for that, and keeps it.
    """
    if "dill" in sys.modules:
        import dill._dill

        return dill._dill
    pure_python: Any = pickle._Pickler
    table = pure_python.dispatch
    shared = {name: value for name, value in vars(ctypes.pythonapi).items() if name.startswith("PyCapsule_")}
    for name in shared:
        delattr(ctypes.pythonapi, name)
    pure_python.dispatch = table.copy()
    try:
        import dill._dill
    finally:
        pure_python.dispatch = table
        for name in [name for name in vars(ctypes.pythonapi) if name.startswith("PyCapsule_")]:
            delattr(ctypes.pythonapi, name)
        vars(ctypes.pythonapi).update(shared)
    return dill._dill


_dill = _import_dill()
