"""What torch users need beyond `pickle_module=safepickle`: state dicts that never fail, and where tensors go in a load.

Importing this registers weak references and tombstones with torch: ``torch.load(..., weights_only=True)`` reads them.
"""

from safepickle.errors import StateDictError, StateDictWarning
from safepickle.integrations.torch.extra_state import ExtraState, load_tracked, save_tracked, track_extra_state
from safepickle.integrations.torch.guarded import load
from safepickle.integrations.torch.load_state_dict import WRAPPER_PREFIXES, load_state_dict
from safepickle.integrations.torch.report import LoadReport, Mismatch
from safepickle.integrations.torch.safe_globals import register_safe_globals
from safepickle.integrations.torch.state_dict import state_dict
from safepickle.rebuild.tensor_storages import map_location

__all__ = [
    "WRAPPER_PREFIXES",
    "ExtraState",
    "LoadReport",
    "Mismatch",
    "StateDictError",
    "StateDictWarning",
    "load",
    "load_state_dict",
    "load_tracked",
    "map_location",
    "register_safe_globals",
    "save_tracked",
    "state_dict",
    "track_extra_state",
]

register_safe_globals()
