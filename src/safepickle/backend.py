"""backend(**options): a module-shaped object with options bound, for ``pickle_module=``."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from safepickle import pickler, unpickler
from safepickle.policy import check_unpicklable, check_weakrefs

__all__ = ["Backend", "backend"]

_DUMP_OPTIONS = ("protocol", "weakrefs", "unpicklable")


class Backend:
    """What `backend` returns: shaped like the module `pickle`, with options bound. Picklable.

    ``Pickler`` and ``Unpickler`` are classes, to be subclassed as ``torch.save`` and ``torch.load`` do; ``dump``,
    ``dumps``, ``load`` and ``loads`` take the same arguments as safepickle's, and an argument given to them wins over
    the one that is bound.
    """

    PickleBuffer = pickle.PickleBuffer
    PickleError = pickle.PickleError
    PicklingError = pickle.PicklingError
    UnpicklingError = pickle.UnpicklingError
    HIGHEST_PROTOCOL = pickle.HIGHEST_PROTOCOL
    DEFAULT_PROTOCOL = pickle.HIGHEST_PROTOCOL

    def __init__(self, **options: Any) -> None:
        unknown = sorted(options.keys() - set(_DUMP_OPTIONS))
        if unknown:
            raise TypeError(f"backend() got unknown options: {', '.join(unknown)}. Known: {', '.join(_DUMP_OPTIONS)}")
        check_weakrefs(options.get("weakrefs", "relink"))
        check_unpicklable(options.get("unpicklable", "raise"))
        self.__name__ = "safepickle"
        self._options = options
        self.Pickler = type("Pickler", (pickler.Pickler,), {"_bound_options": options, "__module__": __name__})
        self.Unpickler = unpickler.Unpickler
        self.dump = functools.partial(pickler.dump, **options)
        self.dumps = functools.partial(pickler.dumps, **options)
        self.load = unpickler.load
        self.loads = unpickler.loads

    def __reduce__(self) -> Any:
        return _rebuild_backend, (self._options,)

    def __repr__(self) -> str:
        return f"safepickle.backend({', '.join(f'{name}={value!r}' for name, value in self._options.items())})"


def backend(**options: Any) -> Backend:
    """Return a module-shaped object with options bound.

    ``torch.save(model, f, pickle_module=safepickle.backend(weakrefs="strong"))``

    Args:
        **options: ``protocol``, ``weakrefs`` and ``unpicklable`` as for `dumps`.

    Raises:
        TypeError: There is no such option.
        ValueError: An option has no such value.
    """
    return Backend(**options)


def _rebuild_backend(options: dict[str, Any]) -> Backend:
    return Backend(**options)
