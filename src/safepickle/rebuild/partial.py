"""What is written where something cannot be pickled: tombstones, replacements, and what was built from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from safepickle.callers import warn
from safepickle.load_errors import UnpicklableError, UnpicklableStateWarning
from safepickle.messages import dotted_name
from safepickle.rebuild.containers import set_attributes
from safepickle.rebuild.mark import file_format
from safepickle.rebuild.weak import Tombstone
from safepickle.reduce_value import ReduceTuple

__all__ = [
    "UnpicklableTombstone",
    "rebuild_replacement",
    "rebuild_salvaged",
    "rebuild_salvaged_contents",
]

T = TypeVar("T")


@file_format
class UnpicklableTombstone(Tombstone):
    """What stands where an object stood that nothing can pickle.

    It can be held, hashed, compared, referenced weakly and pickled again. Whatever else is asked of it raises an
    `UnpicklableError` that says what stood there, and why it could not be pickled.

    Attributes:
        reason: ``"unpicklable"``.
        referent_type: Dotted name of the type of the object.
        path: Where it stood in the graph that was dumped.
        cause: Why it could not be pickled.
    """

    __slots__ = ("__weakref__", "cause", "path")

    path: str
    cause: str

    def __new__(cls, referent_type: str, path: str, cause: str) -> UnpicklableTombstone:
        tombstone: UnpicklableTombstone = super().__new__(cls, "unpicklable", referent_type)  # type: ignore[assignment]
        object.__setattr__(tombstone, "path", path)
        object.__setattr__(tombstone, "cause", cause)
        return tombstone

    def __init__(self, referent_type: str, path: str, cause: str) -> None:
        pass

    def __repr__(self) -> str:
        return f"<safepickle.Tombstone: unpicklable, was a {self.referent_type} at {self.path} ({self.cause})>"

    def __reduce__(self) -> ReduceTuple:
        return type(self), (self.referent_type, self.path, self.cause)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise self._error("()")

    def __getattr__(self, name: str) -> Any:
        raise self._error(f".{name}")

    def __setattr__(self, name: str, value: object) -> None:
        if name not in ("reason", "referent_type"):
            raise self._error(f".{name}")
        object.__setattr__(self, name, value)

    def __getitem__(self, key: object) -> Any:
        raise self._error("[...]")

    def __setitem__(self, key: object, value: object) -> None:
        raise self._error("[...]")

    def __iter__(self) -> Any:
        raise self._error("iter()")

    def __next__(self) -> Any:
        raise self._error("next()")

    def __enter__(self) -> Any:
        raise self._error("with")

    def __exit__(self, *exception: object) -> None:
        raise self._error("with")

    def _error(self, wanted: str) -> UnpicklableError:
        return UnpicklableError(wanted, str(self.referent_type), self.path, self.cause)


@file_format
def rebuild_replacement(replacement: T) -> T:
    """Put in place what was chosen to stand for an object that nothing can pickle."""
    return replacement


@file_format
def rebuild_salvaged(
    function: Callable[..., object], arguments: tuple[object, ...], referent_type: str, path: str
) -> Any:
    """Build an object from arguments among which there is a tombstone: it is one itself if that fails."""
    try:
        return function(*arguments)
    except Exception as error:
        cause = f"it is built from an object that could not be pickled: {type(error).__name__}: {error}"
        return UnpicklableTombstone(referent_type, path, cause)


@file_format
def rebuild_salvaged_contents(obj: Any, contents: tuple[Any, Any, Any, Any]) -> None:
    """Set the state, the list items and the dict items of what `rebuild_salvaged` has built.

    Args:
        obj: The object, or the tombstone of it.
        contents: State; list items; pairs of key and value; what sets the state. Each may be None.
    """
    state, items, pairs, setter = contents
    if type(obj) is UnpicklableTombstone:
        return
    if items is not None:
        obj.extend(items)
    for key, value in pairs or ():
        obj[key] = value
    try:
        if setter is not None:
            setter(obj, state)
        else:
            set_attributes(obj, state)
    except Exception as error:
        cls = type(obj)
        warn(UnpicklableStateWarning(dotted_name(cls), f"{type(error).__name__}: {error}"))
        attributes = state[0] if isinstance(state, tuple) and state else state
        if isinstance(attributes, dict) and hasattr(obj, "__dict__"):
            obj.__dict__.update(attributes)
