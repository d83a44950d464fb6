"""joblib: `register()` lets its process workers, loky's, exchange objects through safepickle."""

from __future__ import annotations

from collections.abc import Callable

from joblib.externals.loky import set_loky_pickler
from joblib.externals.loky.backend.reduction import get_loky_pickler_name

__all__ = ["register"]


def register() -> Callable[[], None]:
    """Make loky pickle calls and results with safepickle, here and in its workers.

    It is loky's own switch, the one that the environment variable ``LOKY_PICKLER=safepickle`` sets as well. joblib
    goes on memory-mapping large arrays, and its other reducers stay in force. `joblib.dump` and `joblib.Memory` have
    picklers of their own and are not concerned.

    Returns:
        A function that puts back the pickler that was set before.
    """
    before = get_loky_pickler_name()
    set_loky_pickler("safepickle")
    return lambda: set_loky_pickler(before)
