"""Pickle object graphs that hold weak references: models, trainers, trees with parent pointers, caches.

A drop-in for `pickle` and `cloudpickle`, and a ``pickle_module`` for ``torch.save``::

    torch.save(obj, f, pickle_module=safepickle)
    safepickle.dumps(model)

A weak reference whose referent is in the pickle comes back as a weak reference to that copy; any other comes back
dead, as a `Tombstone` that says what it was, or owning a copy, when you ask for it.
"""

from pickle import (
    HIGHEST_PROTOCOL,
    PickleBuffer,
    PickleError,
    PicklingError,
    UnpicklingError,
)
from typing import TYPE_CHECKING

from safepickle.backend import backend
from safepickle.dumping.pickler import Pickler, dump, dumps
from safepickle.errors import (
    CallbackWarning,
    KerasFallbackWarning,
    NestingError,
    StateDictError,
    StateDictWarning,
    UnpicklableWarning,
    WeakReferenceError,
    WeakReferenceWarning,
)
from safepickle.guard.allowing import allowing
from safepickle.load_errors import (
    ChecksumError,
    DamagedPickleError,
    EmptyFileError,
    GuardedLoadError,
    KerasVersionWarning,
    LoadLimitError,
    MissingGlobalError,
    MissingModuleError,
    NotAllowedError,
    NotAPickleError,
    UnpicklableError,
    UnpicklableStateWarning,
)
from safepickle.loading.unpickler import Unpickler, load, loads
from safepickle.rebuild import StrongRef, Tombstone
from safepickle.rebuild.recomputed import Recomputed
from safepickle.reducers.table import register
from safepickle.speedups import COMPILED

if TYPE_CHECKING:
    from types import ModuleType

    from safepickle.copying.deepcopy import deepcopy
    from safepickle.copying.scope import deepcopying
    from safepickle.report.attributes import compare_attributes
    from safepickle.report.diff import diff
    from safepickle.report.explain import explain
    from safepickle.report.inspect import inspect

    def register_pickle_by_value(module: ModuleType) -> None: ...
    def unregister_pickle_by_value(module: ModuleType) -> None: ...

else:
    from cloudpickle import register_pickle_by_value, unregister_pickle_by_value

__version__ = "0.1.0"

DEFAULT_PROTOCOL = HIGHEST_PROTOCOL
"""What ``protocol=None`` means, as with cloudpickle."""

__all__ = [
    "COMPILED",
    "DEFAULT_PROTOCOL",
    "HIGHEST_PROTOCOL",
    "CallbackWarning",
    "ChecksumError",
    "DamagedPickleError",
    "EmptyFileError",
    "GuardedLoadError",
    "KerasFallbackWarning",
    "KerasVersionWarning",
    "LoadLimitError",
    "MissingGlobalError",
    "MissingModuleError",
    "NestingError",
    "NotAPickleError",
    "NotAllowedError",
    "PickleBuffer",
    "PickleError",
    "Pickler",
    "PicklingError",
    "Recomputed",
    "StateDictError",
    "StateDictWarning",
    "StrongRef",
    "Tombstone",
    "UnpicklableError",
    "UnpicklableStateWarning",
    "UnpicklableWarning",
    "Unpickler",
    "UnpicklingError",
    "WeakReferenceError",
    "WeakReferenceWarning",
    "allowing",
    "backend",
    "compare_attributes",
    "deepcopy",
    "deepcopying",
    "diff",
    "dump",
    "dumps",
    "explain",
    "inspect",
    "load",
    "loads",
    "register",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]

_LATE = {
    "compare_attributes": "safepickle.report.attributes",
    "deepcopy": "safepickle.copying.deepcopy",
    "deepcopying": "safepickle.copying.scope",
    "diff": "safepickle.report.diff",
    "explain": "safepickle.report.explain",
    "inspect": "safepickle.report.inspect",
}


def __dir__() -> list[str]:
    """List what is not imported yet, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import what is not pickle's own when it is first asked for: whoever only pickles does not pay for it."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found: object = getattr(importlib.import_module(_LATE[name]), name)
    globals()[name] = found
    return found
