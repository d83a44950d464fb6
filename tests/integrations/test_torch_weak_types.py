"""The table of weak types, for those of torch."""

from __future__ import annotations

import pytest
import torch.utils.hooks
import torch.utils.weak  # noqa: F401

from safepickle.weak_types import WEAK_TYPES
from weak_type_checks import WeakTypeChecks, name_of


@pytest.mark.parametrize("weak", [weak for weak in WEAK_TYPES if weak.module != "weakref"], ids=name_of)
class TestTorchTypes(WeakTypeChecks):
    pass
