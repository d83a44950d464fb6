"""Names: Python 2's become Python 3's, and what was decided on is imported."""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, Protocol

from safepickle.guard.limits import Malformed


class Renaming(Protocol):
    """What the guard asks of who knows the names that have moved."""

    def rename(self, module: str, name: str) -> tuple[str, str]:
        """Return the module and the name of today."""

    def stub(self, module: str, name: str) -> Any:
        """Return the placeholder class for a name that does not exist, or None when an error is wanted."""


def renamed(module: str, name: str) -> tuple[str, str]:
    """Turn a name of Python 2 into that of Python 3."""
    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def import_name(module: str, name: str) -> Any:
    """Import a name that was decided on.

    Raises:
        Malformed: It cannot be imported here.
    """
    try:
        __import__(module)
        return getattr(sys.modules[module], name)
    except (ImportError, AttributeError) as error:
        raise Malformed(f"it cannot be imported here ({error})") from error
