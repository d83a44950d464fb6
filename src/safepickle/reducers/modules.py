"""Reduce values of modules whose class is a subclass of `types.ModuleType`: namespaces, settings, lazy modules.

`torch.backends.cudnn` is one. Most stand in `sys.modules`, and go by name as every module does.
"""

from __future__ import annotations

import sys
import types

from cloudpickle.cloudpickle import _should_pickle_by_reference, subimport

from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.classes import new_object
from safepickle.reducers.decisions import Dump

__all__ = ["reduce_module"]


def reduce_module(module: types.ModuleType, dump: Dump) -> ReduceValue:
    """Reduce a module to its name, to its place in the module around it, or else to what is in it.

    Args:
        module: Of a subclass that does not say itself how it is pickled.
        dump: Whose own dispatch table goes first.
    """
    cls = type(module)
    if cls in dump.pickler.own_dispatch_table:
        return NOT_REDUCED
    # Through no `__getattr__` of the class, which may make up whatever it is asked for.
    content = types.ModuleType.__getattribute__(module, "__dict__")
    name = content.get("__name__")
    if type(name) is str:
        if _should_pickle_by_reference(module):
            return subimport, (name,)
        around, _, attribute = name.rpartition(".")
        owner = sys.modules.get(around)
        # One that stands in sys.modules all the same has been registered to go by value.
        if name not in sys.modules and isinstance(owner, types.ModuleType) and vars(owner).get(attribute) is module:
            return getattr, (owner, attribute)
    return new_object, (cls,), {key: value for key, value in content.items() if key != "__builtins__"}
