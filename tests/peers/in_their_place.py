"""A pytest plugin: safepickle answers to the name of the peer that the environment variable of this module names.

The tests are the peer's, and know its names. What they take from below those names (helpers, types, settings) stays the
peer's own, and so does all that safepickle itself uses of the peer: it has been imported before.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import safepickle

VARIABLE = "SAFEPICKLE_IN_THE_PLACE_OF"


def replace_cloudpickle() -> None:
    """safepickle's own pickler is made of cloudpickle's, so that the module stays, and another takes its name."""
    import cloudpickle

    stand_in = types.ModuleType("cloudpickle")
    vars(stand_in).update(vars(cloudpickle))
    for name in ("dump", "dumps", "load", "loads", "Pickler"):
        setattr(stand_in, name, getattr(safepickle, name))
    vars(stand_in)["CloudPickler"] = safepickle.Pickler
    sys.modules["cloudpickle"] = stand_in


def replace_dill() -> None:
    """dill's functions take options of its own, such as ``byref`` and ``recurse``, which say nothing to safepickle."""
    import dill

    import safepickle.reducers.dill_types  # takes what it needs of dill

    def dumps(obj: Any, protocol: Any = None, *options: Any, **others: Any) -> bytes:
        return safepickle.dumps(obj, protocol)

    def dump(obj: Any, file: Any, protocol: Any = None, *options: Any, **others: Any) -> None:
        safepickle.dump(obj, file, protocol)

    def loads(data: Any, *options: Any, **others: Any) -> Any:
        return safepickle.loads(data)

    def load(file: Any, *options: Any, **others: Any) -> Any:
        return safepickle.load(file)

    for function in (dump, dumps, load, loads):
        # dill.copy, dill.pickles and dill.check call those of the module.
        for module in (dill, dill._dill):
            setattr(module, function.__name__, function)


REPLACEMENTS = {"cloudpickle": replace_cloudpickle, "dill": replace_dill}

if os.environ.get(VARIABLE):
    REPLACEMENTS[os.environ[VARIABLE]]()
