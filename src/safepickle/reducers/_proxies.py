"""Look behind a weak proxy, which hides all there is to know about itself.

Apart from `weak`, because it needs ctypes, which takes long to import and which most dumps never need.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["look_behind"]

# The layout of PyWeakReference, the same for references and proxies: the object's head, then these two pointers.
# Source: Include/cpython/weakrefobject.h in CPython 3.11, 3.12 and 3.13.
_REFERENT_OFFSET = object.__basicsize__
_CALLBACK_OFFSET = _REFERENT_OFFSET + ctypes.sizeof(ctypes.c_void_p)


def look_behind(proxy: Any) -> tuple[Any, Callable[[Any], object] | None]:
    """Return the referent of a proxy, or None when it is dead, and the proxy's callback."""
    return _referent(proxy), _read_pointer(proxy, _CALLBACK_OFFSET) if _layout_is_known else None


def _read_pointer(reference: Any, offset: int) -> Any:
    """Read one object pointer of a weak reference; None stands for a null pointer, too.

    Reading `value` takes a reference within a single C call, so no other thread can free the object in between;
    the borrowed result of ``PyWeakref_GetObject`` would leave such a gap.
    """
    try:
        return ctypes.py_object.from_address(id(reference) + offset).value
    except ValueError:
        return None


def _check_layout() -> bool:
    def callback(_: Any) -> None: ...

    reference = weakref.ref(callback, callback)
    return (
        _read_pointer(reference, _REFERENT_OFFSET) is callback
        and _read_pointer(reference, _CALLBACK_OFFSET) is callback
    )


_layout_is_known = _check_layout()

if sys.version_info >= (3, 13):
    _get_ref = ctypes.pythonapi.PyWeakref_GetRef
    # By address: ctypes asks what it takes for a py_object for its __class__, which a dead proxy cannot tell.
    _get_ref.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    _get_ref.restype = ctypes.c_int

    def _referent(proxy: Any) -> Any:
        holder = ctypes.py_object()
        if _get_ref(id(proxy), ctypes.addressof(holder)) <= 0:
            return None
        referent = holder.value
        # PyWeakref_GetRef handed over a reference of its own, which nobody else gives back.
        ctypes.pythonapi.Py_DecRef(holder)
        return referent
else:

    def _referent(proxy: Any) -> Any:
        if not _layout_is_known:
            raise TypeError("cannot look behind a weak proxy: this interpreter is not a CPython that safepickle knows")
        return _read_pointer(proxy, _REFERENT_OFFSET)
