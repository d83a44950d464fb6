"""backend(...): a module-shaped object with options bound, for ``pickle_module=``."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from safepickle.dumping import pickler
from safepickle.guard.allowing import allow_list
from safepickle.loading import unpickler
from safepickle.loading.aliases import names
from safepickle.options import (
    DEFAULTS,
    UNBOUND,
    Aliases,
    AllowItem,
    DumpOptions,
    Finalizers,
    LoadOptions,
    Missing,
    Unpicklable,
    WeakReferencePolicy,
)
from safepickle.public import public
from safepickle.reduce_value import ReduceTuple

__all__ = ["Backend", "backend"]


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

    # For type checkers; each instance has its own.
    dump = staticmethod(pickler.dump)
    dumps = staticmethod(pickler.dumps)
    load = staticmethod(unpickler.load)
    loads = staticmethod(unpickler.loads)
    Pickler = pickler.Pickler
    Unpickler = unpickler.Unpickler

    def __init__(self, dumping: DumpOptions, loading: LoadOptions) -> None:
        self.__name__ = "safepickle"
        # What is wrong with them is to be said here, and an iterator gives them only once.
        if isinstance(loading.allow, Iterator):
            loading = loading._replace(allow=tuple(loading.allow))
        allow_list(loading.allow)
        names(loading)
        dump_keywords = _other_than(DEFAULTS, dumping._asdict())
        load_keywords = _other_than(UNBOUND, loading._asdict())
        self._options = {**dump_keywords, **load_keywords}
        own: dict[str, Any] = {
            "Pickler": type("Pickler", (pickler.Pickler,), {"dump_options": dumping, "__module__": "safepickle"}),
            "Unpickler": type(
                "Unpickler", (unpickler.Unpickler,), {"load_options": loading, "__module__": "safepickle"}
            ),
            "dump": functools.partial(pickler.dump, **dump_keywords),
            "dumps": functools.partial(pickler.dumps, **dump_keywords),
            "load": functools.partial(unpickler.load, **load_keywords),
            "loads": functools.partial(unpickler.loads, **load_keywords),
        }
        self.__dict__.update(own)

    def __reduce__(self) -> ReduceTuple:
        return functools.partial(backend, **self._options), ()

    def __repr__(self) -> str:
        return f"safepickle.backend({', '.join(f'{name}={value!r}' for name, value in self._options.items())})"


@public
def backend(
    *,
    protocol: int | None = None,
    weakrefs: WeakReferencePolicy = "relink",
    finalizers: Finalizers = "dead",
    unpicklable: Unpicklable = "raise",
    allow: Iterable[AllowItem] | None = None,
    aliases: Aliases | None = None,
    missing: Missing | None = None,
) -> Backend:
    """Return a module-shaped object with options bound, for ``pickle_module=``.

    Args:
        protocol: As for `dumps`.
        weakrefs: As for `dumps`.
        finalizers: As for `dumps`.
        unpicklable: As for `dumps`.
        allow: As for `loads`.
        aliases: As for `loads`.
        missing: As for `loads`.

    Returns:
        An object with the names of the module `pickle`.

    Raises:
        TypeError: An item of `allow` or `aliases` is of the wrong kind.
        ValueError: An option has no such value.

    Examples:
        >>> strict = safepickle.backend(weakrefs="strict", allow=())
        >>> strict.loads(strict.dumps({"epoch": 3}))
        {'epoch': 3}

        With torch: ``torch.save(model, path, pickle_module=safepickle.backend(weakrefs="strong"))``.
    """
    return Backend(
        DumpOptions(protocol, weakrefs, finalizers, unpicklable).checked(),
        LoadOptions(allow=allow, aliases=aliases, missing=missing),
    )


def _other_than(defaults: DumpOptions | LoadOptions, options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value != getattr(defaults, name)}
