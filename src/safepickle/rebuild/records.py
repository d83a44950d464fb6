"""Reports and other plain records that safepickle hands out, each rebuilt from its fields by the name of its class.

A record class carries the mark `record`, and `RECORDS` says where it is defined today: a pickle knows its name alone.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, Final, TypeVar

from safepickle.rebuild.mark import file_format
from safepickle.reduce_value import ReduceTuple

__all__ = ["rebuild_record"]

Record = TypeVar("Record")

RECORDS: Final[dict[str, str]] = {
    "Change": "report.changes",
    "ChangedObject": "report.attributes",
    "Difference": "report.changes",
    "ElementChanges": "report.elements",
    "ElementCount": "report.inspection",
    "Explanation": "report.explanation",
    "GlobalUse": "report.inspection",
    "Graph": "report.graph",
    "Hazard": "report.explanation",
    "IdentityKey": "report.explanation",
    "Inspection": "report.inspection",
    "LeftOut": "integrations.torch.proxies",
    "LoadReport": "integrations.torch.report",
    "Mismatch": "integrations.torch.report",
    "Node": "report.inspection",
    "Omission": "report.explanation",
    "OptimizerEntry": "report.inspection",
    "PathTable": "tracing.path_table",
    "Problem": "report.inspection",
    "Recipe": "report.inspection",
    "StrongCopy": "report.inspection",
    "Subtree": "report.explanation",
    "TensorEntry": "report.inspection",
    "TombstoneEntry": "report.inspection",
    "UnpicklableObject": "report.explanation",
    "ValueEntry": "report.inspection",
    "WeakEdge": "report.graph",
    "WeakReference": "report.explanation",
}
"""Name of a record class -> the module that defines it. A name here is bytes in files; the module may change."""


def record(cls: type[Record]) -> type[Record]:
    """Mark a dataclass or named tuple as a record.

    Its fields are keywords of its constructor: one that is added needs a default, so that older pickles load.
    """
    names = getattr(cls, "_fields", None) or tuple(field.name for field in fields(cls))  # type: ignore[arg-type]

    def reduce_record(self: object) -> ReduceTuple:
        return rebuild_record, (cls.__name__, {name: getattr(self, name) for name in names})

    cls.__reduce__ = reduce_record  # type: ignore[method-assign]
    return cls


@file_format
def rebuild_record(name: str, values: dict[str, object]) -> Any:
    """Rebuild a record from its fields."""
    cls = getattr(import_module(f"safepickle.{RECORDS[name]}"), name)
    return cls(**values)
