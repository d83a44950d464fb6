"""The exceptions and warnings of loads, and of what was loaded.

Each keeps its facts as attributes and rebuilds itself from ``args``, as those in `errors` do.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from safepickle.public import public

__all__ = [
    "ChecksumError",
    "DamagedPickleError",
    "EmptyFileError",
    "GuardedLoadError",
    "KerasVersionWarning",
    "LoadLimitError",
    "MissingGlobalError",
    "MissingModuleError",
    "NotAPickleError",
    "NotAllowedError",
    "UnpicklableError",
    "UnpicklableStateWarning",
]


if TYPE_CHECKING:
    _Exception = Exception
else:
    # The mix-in is not an exception by itself.
    _Exception = object


class _NotFound(_Exception):
    """The common part of the errors for a name that cannot be found."""

    module: str
    global_name: str
    near: tuple[str, ...]
    offset: int | None
    pickle_path: str | None
    needed_by: str | None

    def __init__(
        self,
        module: str,
        global_name: str,
        near: tuple[str, ...] = (),
        offset: int | None = None,
        pickle_path: str | None = None,
        needed_by: str | None = None,
    ) -> None:
        super().__init__(module, global_name, near, offset, pickle_path, needed_by)
        self.module = module
        self.global_name = global_name
        self.near = near
        self.offset = offset
        self.pickle_path = pickle_path
        self.needed_by = needed_by

    def _explain(self, why: str, moved: str) -> str:
        where = f" at byte {self.offset:,}" if self.offset is not None else ""
        if self.pickle_path is not None:
            where += f", for {self.pickle_path}"
        if self.needed_by is not None:
            where += f", in an object of class {self.needed_by}"
        near = f" Near it: {', '.join(self.near)}." if self.near else ""
        return (
            f"cannot load {self.module}.{self.global_name}: {why}. The pickle asks for it{where}.{near} If it has "
            f'moved, pass aliases={{"{moved}": "{self.near[0] if self.near else "..."}"}}; if it is gone, '
            'missing="stub" loads a placeholder that keeps its state.'
        )


@public
class MissingGlobalError(_NotFound, pickle.UnpicklingError, AttributeError):
    """A class or function that a pickle names is not in its module.

    It is an `AttributeError`, which plain pickle raises, and a `pickle.UnpicklingError`.

    Raised by a load. What to do: if it has moved, pass ``aliases={"old.name": "new.name"}``. If it is gone,
    ``missing="stub"`` loads a placeholder that keeps its state.

    Attributes:
        module: The module.
        global_name: The name that is not in it.
        near: Dotted names that may be meant.
        offset: The byte of the pickle at which it is asked for.
        pickle_path: Where in the graph it is needed, or None when that was not found.
        needed_by: Dotted name of the class whose instance holds it there, or None.
    """

    def __str__(self) -> str:
        return self._explain(f"the module {self.module} has no {self.global_name}", f"{self.module}.{self.global_name}")


@public
class MissingModuleError(_NotFound, pickle.UnpicklingError, ModuleNotFoundError):
    """The module of a class or function that a pickle names is not there.

    It is a `ModuleNotFoundError`, which plain pickle raises, and a `pickle.UnpicklingError`. Its attributes are those
    of `MissingGlobalError`.

    Raised by a load. What to do: install the package that has the module. If it has moved, pass ``aliases=``. If it is
    gone, pass ``missing="stub"``.
    """

    def __str__(self) -> str:
        return self._explain(f"there is no module {self.module}", self.module)


@public
class UnpicklableError(AttributeError, TypeError):
    """Something is asked of an object that could not be pickled: only its tombstone was loaded.

    It is an `AttributeError` and a `TypeError`, so that ``hasattr`` and the like see an object without attributes.

    Raised when a tombstone that ``unpicklable=`` left is used. What to do: put a new object in the place of the
    tombstone.

    Attributes:
        wanted: What was asked of it, such as ``.recv`` or ``()``.
        object_type: Dotted name of the type of the object that stood there.
        path: Where it stood in the graph that was dumped.
        cause: Why it could not be pickled.
    """

    def __init__(self, wanted: str, object_type: str, path: str, cause: str) -> None:
        super().__init__(wanted, object_type, path, cause)
        self.wanted = wanted
        self.object_type = object_type
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"{self.wanted} is not available: the {self.object_type} that stood at {self.path} could not be pickled "
            f"({self.cause}). Put a new one in the place of this tombstone."
        )


@public
class UnpicklableStateWarning(UserWarning):
    """An object's ``__setstate__`` failed at load over a tombstone in its state, so the state was set without it.

    Given by a load. What to do: put new objects in the place of the tombstones, and do what ``__setstate__`` would have
    done.

    Attributes:
        object_type: Dotted name of the object's type.
        cause: What ``__setstate__`` raised.
    """

    def __init__(self, object_type: str, cause: str) -> None:
        super().__init__(object_type, cause)
        self.object_type = object_type
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"the state of a {self.object_type} holds a tombstone, over which its __setstate__ failed ({self.cause}): "
            "its attributes are set as they were, and nothing else that __setstate__ does is done."
        )


@public
class ChecksumError(pickle.UnpicklingError):
    """A pickle that is not what its checksum says, or that has none where one is required.

    Raised by a load, before anything is loaded. What to do: get an undamaged copy of the file. Where the checksum is
    missing, pass ``checksum="check"``.

    Attributes:
        reason: ``"mismatch"``, ``"truncated"``, ``"header"`` (the checksum itself is damaged) or ``"missing"``.
        found: How many bytes there are, or None.
        expected: How many bytes there ought to be, or None.
    """

    def __init__(self, reason: str, found: int | None = None, expected: int | None = None) -> None:
        super().__init__(reason, found, expected)
        self.reason = reason
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        if self.reason == "missing":
            return (
                'the pickle carries no checksum, and checksum="require" asks for one. Write it with '
                'safepickle.dump(..., checksum=True), or pass checksum="check" to load it all the same.'
            )
        if self.reason == "truncated":
            return (
                f"the pickle is truncated: {self.found:,} of {self.expected:,} bytes are there. Nothing was loaded; "
                "get a whole copy of the file."
            )
        part = "the header of its checksum is damaged" if self.reason == "header" else "its checksum does not match"
        return f"the pickle is damaged: {part}. Nothing was loaded; get an undamaged copy of the file."


@public
class NotAPickleError(pickle.UnpicklingError):
    """What was to be loaded is no pickle, but something else that was recognised. Plain pickle's error is its cause.

    Raised by a load. What to do: the message names the loader to use, or says to fetch the file again.

    Attributes:
        file: The name of the file, or ``""``.
        found: What it is, in a word or two: ``"safetensors"``, ``"HTML or XML"``.
        reason: What it is, and what to do with it.
    """

    def __init__(self, file: str, found: str, reason: str) -> None:
        super().__init__(file, found, reason)
        self.file = file
        self.found = found
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot load {self.file or 'these bytes'}: this is {self.reason}"


@public
class EmptyFileError(NotAPickleError, EOFError):
    """What was to be loaded is empty. It is an `EOFError`, which plain pickle raises, as well.

    Raised by a load. What to do: the file was never written, or was cut off: fetch it or save it again.
    """


@public
class GuardedLoadError(pickle.UnpicklingError):
    """A guarded load stopped before it did anything that it should not.

    Raised by a load with ``allow=``, as one of its subclasses. What to do: see the subclasses. `inspect` says what the
    file holds, and runs none of it.

    Attributes:
        file: What was loaded: its name, the member of an archive behind it, or ``""`` for bytes.
        offset: The byte at which the stream asked for it, or None.
        opcode: The opcode there.
        name: The name in question as ``"module:name"``, or ``""``.
        reason: What is wrong.
        allow: What to add to ``allow=`` after a review, or None when nothing there would help.
    """

    _what = "it cannot be loaded"

    def __init__(
        self, file: str, offset: int | None, opcode: str, name: str, reason: str, allow: str | None = None
    ) -> None:
        super().__init__(file, offset, opcode, name, reason, allow)
        self.file = file
        self.offset = offset
        self.opcode = opcode
        self.name = name
        self.reason = reason
        self.allow = allow

    def __str__(self) -> str:
        where = [self.file] if self.file else []
        if self.offset is not None:
            where.append(f"byte {self.offset:,}" + (f" ({self.opcode})" if self.opcode else ""))
        subject = f"{self.name}: " if self.name else ""
        remedy = ""
        if self.allow is not None:
            remedy = (
                f'. If you know it and trust what it does, pass allow=["{self.allow}"]; '
                "safepickle.inspect(file) lists all that the file asks for"
            )
        return f"{', '.join(where)}{': ' if where else ''}{self._what}: {subject}{self.reason}{remedy}"


@public
class NotAllowedError(GuardedLoadError):
    """A pickle asks for something that is not allowed: a name, a call, or a state.

    Raised by a load with ``allow=``. What to do: if you trust the name in the message, add it to ``allow=``. Some names
    can never be allowed; the message says why.
    """

    _what = "not allowed"


@public
class DamagedPickleError(GuardedLoadError):
    """A file is not a complete pickle: truncated, damaged, contradicting itself, or another kind of file.

    Raised by a load with ``allow=``. What to do: get an undamaged copy of the file.
    """

    _what = "damaged"


@public
class LoadLimitError(GuardedLoadError):
    """A pickle asks for more memory or time than one of its length may.

    Raised by a load with ``allow=``. What to do: if you trust the file, load it without ``allow=``.
    """

    _what = "over a limit"


@public
class KerasVersionWarning(UserWarning):
    """A pickle holds Keras objects of another version of Keras, which may keep other attributes.

    Given by a load. What to do: check what was loaded, or load it with the other version and write it with
    ``model.save()``.

    Attributes:
        written: The version that the pickle was written with.
        here: The version that reads it.
    """

    def __init__(self, written: str, here: str) -> None:
        super().__init__(written, here)
        self.written = written
        self.here = here

    def __str__(self) -> str:
        return (
            f"this pickle holds objects of Keras {self.written}, and this is Keras {self.here}, whose objects may keep "
            "other attributes. Check what was loaded, or load it with the other version and move it with model.save()."
        )
