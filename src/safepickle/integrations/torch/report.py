"""What a `load_state_dict` did: data, and its table. Knows nothing of modules and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from safepickle.rebuild.records import record

__all__ = ["LoadReport", "Mismatch"]


@record
class Mismatch(NamedTuple):
    """One key whose value in the state dict does not fit the module.

    Attributes:
        key: The key.
        module: Shape of the module's tensor, as text.
        state: Shape of the state dict's tensor, or the type of what stands in its place.

    Examples:
        >>> from torch import nn
        >>> from safepickle.integrations.torch import load_state_dict
        >>> report = load_state_dict(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), strict=False)
        >>> report.mismatched[0]
        Mismatch(key='weight', module='(3, 2)', state='(4, 2)')
    """

    key: str
    module: str
    state: str


@record
@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a state dict, and of every key of the module.

    Attributes:
        loaded: Keys of the module that took a value from the state dict.
        missing: Keys of the module that the state dict has no value for.
        unexpected: Keys of the state dict that the module has no place for.
        mismatched: Keys that both have, with shapes that differ.
        renamed: From the key in the state dict to the key in the module, where a wrapper's prefix was stripped or
            added.
        initial: Keys of the module that keep the value they had: the missing, the mismatched, and extra states that the
            checkpoint does not know of yet.
        likely: For a missing key, the unexpected key that it was probably called when the state dict was saved.

    Examples:
        >>> from torch import nn
        >>> from safepickle.integrations.torch import load_state_dict
        >>> report = load_state_dict(nn.Linear(2, 2), {}, strict=False)
        >>> report.missing, report.complete
        (('weight', 'bias'), False)
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    initial: tuple[str, ...] = ()
    likely: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every key of either side found its place."""
        return not (self.missing or self.unexpected or self.mismatched)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield a row for each key that was not simply loaded under its own name.

        Yields:
            ``(what, key, detail)``, as in the table.
        """
        guessed = {old: new for new, old in self.likely.items()}
        for key in self.missing:
            yield "missing", key, f"perhaps {self.likely[key]!r}, renamed" if key in self.likely else ""
        for key in self.unexpected:
            yield "unexpected", key, f"perhaps {guessed[key]!r} now" if key in guessed else ""
        for mismatch in self.mismatched:
            yield "mismatched", mismatch.key, f"module {mismatch.module}, state {mismatch.state}"
        for old, new in self.renamed.items():
            yield "renamed", old, f"loaded as {new!r}"
        told = {*self.missing, *(mismatch.key for mismatch in self.mismatched)}
        for key in self.initial:
            if key not in told:
                yield "initial", key, "not in the state dict, left as it was"

    def __str__(self) -> str:
        """Return how many keys were loaded, and the table of the others."""
        loaded = f"{len(self.loaded)} of {len(self.loaded) + len(self.initial)} keys loaded"
        return "\n".join(filter(None, (loaded, self.table())))

    def table(self) -> str:
        """Return the table that ``str()`` ends with.

        Returns:
            One line for each of `rows` under a heading, or ``""``.
        """
        rows = list(self.rows())
        if not rows:
            return ""
        rows.insert(0, ("what", "key", "detail"))
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = (f"{what:<{first}}  {key:<{second}}  {detail}".rstrip() for what, key, detail in rows)
        return "\n".join(lines)
