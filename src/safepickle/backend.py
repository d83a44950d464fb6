"""backend(**options): a module-shaped object with options bound, for ``pickle_module=``."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from safepickle.dumping import pickler
from safepickle.guard.allowing import allow_list
from safepickle.loading import unpickler
from safepickle.loading.aliases import names
from safepickle.options import check_finalizers, check_unpicklable, check_weakrefs
from safepickle.public import public

__all__ = ["Backend", "backend"]

_DUMP_OPTIONS = ("protocol", "weakrefs", "finalizers", "unpicklable")
_LOAD_OPTIONS = ("allow", "aliases", "missing")


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
        known = (*_DUMP_OPTIONS, *_LOAD_OPTIONS)
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise TypeError(f"backend() got unknown options: {', '.join(unknown)}. Known: {', '.join(known)}")
        check_weakrefs(options.get("weakrefs", "relink"))
        check_finalizers(options.get("finalizers", "dead"))
        check_unpicklable(options.get("unpicklable", "raise"))
        self.__name__ = "safepickle"
        self._options = options
        dumping = {name: value for name, value in options.items() if name in _DUMP_OPTIONS}
        loading = {name: value for name, value in options.items() if name in _LOAD_OPTIONS}
        allow = options.get("allow")
        allow_list(allow)
        renaming = names(options.get("aliases"), options.get("missing"))
        self.Pickler = type("Pickler", (pickler.Pickler,), {"_bound_options": dumping, "__module__": "safepickle"})
        bound = {"_bound_allow": allow, "_bound_names": renaming, "__module__": "safepickle"}
        self.Unpickler: Any = type("Unpickler", (unpickler.Unpickler,), bound)
        self.dump = functools.partial(pickler.dump, **dumping)
        self.dumps = functools.partial(pickler.dumps, **dumping)
        self.load = functools.partial(unpickler.load, **loading)
        self.loads = functools.partial(unpickler.loads, **loading)

    def __reduce__(self) -> Any:
        return functools.partial(backend, **self._options), ()

    def __repr__(self) -> str:
        return f"safepickle.backend({', '.join(f'{name}={value!r}' for name, value in self._options.items())})"


@public
def backend(**options: Any) -> Backend:
    """Return a module-shaped object with options bound.

    ``torch.save(model, f, pickle_module=safepickle.backend(weakrefs="strong"))``

    Args:
        **options: ``protocol``, ``weakrefs``, ``finalizers`` and ``unpicklable`` as for `dumps`, ``allow``,
            ``aliases`` and ``missing`` as for `loads`.

    Raises:
        TypeError: There is no such option.
        ValueError: An option has no such value.
    """
    return Backend(**options)
