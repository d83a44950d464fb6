"""What a caller may ask of a dump, and what of a load, validated.

It knows the words of the options, not how they are carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "DEFAULTS",
    "UNBOUND",
    "Aliases",
    "AllowItem",
    "DumpOptions",
    "Finalizers",
    "LoadOptions",
    "Missing",
    "OutsideFate",
    "Unpicklable",
    "WeakReferencePolicy",
    "check_fate",
    "check_finalizers",
]

OutsideFate: TypeAlias = Literal["strong", "tombstone", "strict"]
WeakReferencePolicy: TypeAlias = Literal["relink", "strong", "tombstone", "strict"] | Callable[[Any], OutsideFate]
Finalizers: TypeAlias = Literal["dead", "rearm"]
Unpicklable: TypeAlias = Literal["raise", "tombstone"] | Callable[[Any], Any]
AllowItem: TypeAlias = type[Any] | Callable[..., Any] | str
Aliases: TypeAlias = Mapping[str, str | type[Any] | Callable[..., Any] | ModuleType]
Missing: TypeAlias = Literal["raise", "stub"]

_POLICIES = ("relink", "strong", "tombstone", "strict")
_FINALIZERS = ("dead", "rearm")
_FATES = ("strong", "tombstone", "strict")


def check_finalizers(finalizers: Any) -> None:
    """Raise ``ValueError`` unless `finalizers` is ``"dead"`` or ``"rearm"``."""
    if finalizers not in _FINALIZERS:
        raise ValueError(f"finalizers={finalizers!r} is not known: pass one of {', '.join(map(repr, _FINALIZERS))}")


def check_fate(fate: Any) -> OutsideFate:
    """Return what a policy callable answered, or raise ``ValueError`` when that is not a valid answer."""
    if fate in _FATES:
        known: OutsideFate = fate
        return known
    raise ValueError(
        f"the weakrefs callable returned an object of type {type(fate).__qualname__}, which is not a valid answer: "
        f"return one of {', '.join(map(repr, _FATES))}"
    )


class DumpOptions(NamedTuple):
    """What a caller asks of a dump. See `safepickle.Pickler` for the meaning of each."""

    protocol: int | None = None
    weakrefs: WeakReferencePolicy = "relink"
    finalizers: Finalizers = "dead"
    unpicklable: Unpicklable = "raise"

    @property
    def may_copy(self) -> bool:
        """Whether an outside referent may be carried along as a strong copy."""
        return callable(self.weakrefs) or self.weakrefs == "strong"

    def given(self, **options: Any) -> DumpOptions:
        """Return these options with those replaced that are not None, checked."""
        return self._replace(**{name: value for name, value in options.items() if value is not None}).checked()

    def checked(self) -> DumpOptions:
        """Return these options, or raise ``ValueError`` where one has no such value."""
        if self.weakrefs not in _POLICIES and not callable(self.weakrefs):
            raise ValueError(
                f"weakrefs={self.weakrefs!r} is not a weak-reference policy: pass one of "
                f"{', '.join(map(repr, _POLICIES))}, or a callable that is given the referent and returns one of "
                + ", ".join(map(repr, _FATES))
            )
        check_finalizers(self.finalizers)
        if self.unpicklable not in ("raise", "tombstone") and not callable(self.unpicklable):
            raise ValueError(f"unpicklable={self.unpicklable!r} is not known: pass 'raise', 'tombstone' or a callable")
        return self


DEFAULTS: Final = DumpOptions()


class LoadOptions(NamedTuple):
    """What a caller asks of a load. See `safepickle.Unpickler` for the meaning of each."""

    fix_imports: bool = True
    encoding: str = "ASCII"
    errors: str = "strict"
    buffers: Iterable[Any] | None = ()
    allow: Iterable[AllowItem] | None = None
    aliases: Aliases | None = None
    missing: Missing | None = None

    def bound_to(self, bound: LoadOptions) -> LoadOptions:
        """Return these options, with `allow`, `aliases` and `missing` of `bound` where they are None."""
        if bound is UNBOUND:
            return self
        names = ("allow", "aliases", "missing")
        return self._replace(**{name: getattr(bound, name) for name in names if getattr(self, name) is None})


UNBOUND: Final = LoadOptions()
