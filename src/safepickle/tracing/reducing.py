"""What follows a live graph asks of a pickler, which writes nothing meanwhile."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from safepickle.options import DumpOptions
from safepickle.reduce_value import ReduceTuple, ReduceValue
from safepickle.reducers.decisions import Dump
from safepickle.reducers.walker import Walker

__all__ = ["ReducingPickler"]


class ReducingPickler(Walker, Protocol):
    """What walks ask of a pickler that have its reducers speak and write nothing.

    Attributes:
        proto: The protocol of its pickles.
        dump_options: What its caller has asked for.
        has_persistent_id: Its class stores some objects outside the pickle, as ``torch.save`` does.
        offender: The reference that the error of a failed dump is about, or None.
    """

    proto: int
    dump_options: DumpOptions
    has_persistent_id: ClassVar[bool]
    offender: object

    @property
    def file_failed(self) -> bool:
        """Whether a dump has failed over its file."""

    def reducer_override(self, obj: object) -> ReduceValue:
        """Return the reduce value of `obj`, or NotImplemented to leave it to the C pickler."""

    def reduce_value(self, obj: object) -> ReduceTuple | str:
        """Return the reduce value that the pickler uses for `obj`, which is not an exact builtin."""

    def is_replaced(self, obj: object) -> bool:
        """Tell whether something else is pickled in the place of `obj`."""

    def asking(self, known: Dump) -> AbstractContextManager[None]:
        """Have the reducers ask `known`, outside a dump, for as long as the context lasts."""
