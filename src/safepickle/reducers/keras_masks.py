"""Tensors of JAX and TensorFlow that Keras has given a mask.

A layer that masks its inputs notes the mask beside the tensor that it returns: as an attribute where the tensor can
have one, else in a table by the tensor's ``id()``. Neither is in the tensor's own reduce value. Tensors of torch need
nothing: their attributes are.
"""

from __future__ import annotations

import sys
from typing import Any

from safepickle import rebuild
from safepickle.reduce_value import NOT_REDUCED, ReduceValue
from safepickle.reducers.decisions import Dump
from safepickle.reducers.table import Reducer

__all__ = ["find_reducer", "reduce_masked"]


def find_reducer(cls: type) -> Reducer | None:
    """Return the reducer for computed tensors.

    Args:
        cls: A class of jaxlib or of TensorFlow.
    """
    return reduce_masked if cls.__name__ in ("ArrayImpl", "EagerTensor") else None


def reduce_masked(tensor: Any, dump: Dump) -> ReduceValue:
    """Reduce a tensor that has a mask to itself and the mask.

    Args:
        tensor: Computed, not symbolic.
        dump: What this dump knows: the protocol.

    Returns:
        A reduce value, or NotImplemented for a tensor without a mask.
    """
    if "keras" not in sys.modules:
        return NOT_REDUCED
    try:
        from keras.src.backend.common.masking import get_keras_mask
    except ImportError:
        return NOT_REDUCED
    mask = get_keras_mask(tensor)
    if mask is None:
        return NOT_REDUCED
    function, arguments = tensor.__reduce_ex__(dump.protocol)[:2]
    return rebuild.rebuild_keras_masked, (function, arguments, mask)
