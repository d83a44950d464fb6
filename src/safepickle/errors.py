"""Every exception and warning that safepickle raises.

Each keeps its facts as attributes and rebuilds itself from ``args``, because errors cross processes in joblib, dask
and multiprocessing. This module knows nothing of the rest of the package.
"""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from safepickle.public import public

__all__ = [
    "CallbackWarning",
    "ChecksumError",
    "DamagedPickleError",
    "EmptyFileError",
    "GuardedLoadError",
    "KerasFallbackWarning",
    "KerasVersionWarning",
    "LoadLimitError",
    "MissingGlobalError",
    "MissingModuleError",
    "NestingError",
    "NotAPickleError",
    "NotAllowedError",
    "StateDictError",
    "StateDictWarning",
    "UnpicklableError",
    "UnpicklableStateWarning",
    "UnpicklableWarning",
    "WeakReferenceError",
    "WeakReferenceWarning",
]


# Keys of tasks and the like. Without them the warnings of one line are the same, which Python then shows once.
_RANDOM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}")

LostReference: TypeAlias = tuple[str, str, str, str]


@public
class WeakReferenceError(pickle.PicklingError):
    """A weak reference that the policy ``"strict"`` does not let become a tombstone.

    Attributes:
        path: Where the reference is, seen from the root (``$.layers[2]._parent``), or None when it was not found.
        referent_type: Dotted name of the referent's type.
        reason: ``"outside"``: the referent is not in the pickle. ``"cycle"``: the referent is still being built when
            the reference must be made.
        referent_name: Dotted name of a referent that is a function or a class and travels by value, else None.
    """

    def __init__(
        self, path: str | None, referent_type: str, reason: str = "outside", referent_name: str | None = None
    ) -> None:
        super().__init__(path, referent_type, reason, referent_name)
        self.path = path
        self.referent_type = referent_type
        self.reason = reason
        self.referent_name = referent_name

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        if self.reason == "cycle":
            return (
                f"cannot pickle the weak reference{where}: its referent ({self.referent_type}) is built from arguments "
                "that lead back to the reference, so it does not exist yet when the reference is loaded. Move what "
                'leads back from the reduce arguments into the state, or pass weakrefs="relink" to leave a tombstone.'
            )
        if self.referent_name is not None:
            return (
                f"cannot pickle the weak reference{where}: its referent ({self.referent_name}) is not in the pickle. "
                f"{_BY_VALUE}: move it into a module that the other side imports, or pickle it too, or pass "
                'weakrefs="strong" to carry a copy, or weakrefs="relink" to leave a tombstone. safepickle.explain(obj) '
                "lists every such reference."
            )
        return (
            f"cannot pickle the weak reference{where}: its referent ({self.referent_type}) is not in the pickle. "
            'Pickle its owner too, or pass weakrefs="strong" to carry a copy, or weakrefs="relink" to leave a '
            "tombstone. safepickle.explain(obj) lists every such reference."
        )


@public
class NestingError(pickle.PicklingError, RecursionError):
    """Pickling recurses more deeply than the interpreter allows.

    It is a `RecursionError`, which plain pickle raises, and a `pickle.PicklingError`, as cloudpickle raises.
    """


@public
class StateDictError(RuntimeError):
    """A state dict that does not fit the module; the module is as it was. torch raises a `RuntimeError` here as well.

    Attributes:
        report: What fits and what does not: a `safepickle.integrations.torch.LoadReport`.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])


@public
class StateDictWarning(UserWarning):
    """Entries that a state dict leaves out, because nothing but a weak proxy holds them.

    Attributes:
        module: Dotted name of the module's type.
        reasons: Why each is left out, by key.
    """

    def __init__(self, module: str, reasons: dict[str, str]) -> None:
        super().__init__(module, reasons)
        self.module = module
        self.reasons = reasons

    def __str__(self) -> str:
        listed = ", ".join(f"{key} ({reason})" for key, reason in self.reasons.items())
        return (
            f"the state dict of {self.module} leaves out what it holds through weak proxies alone: {listed}. "
            "Keep a strong reference to it where it is registered, or register the object itself."
        )


@public
class WeakReferenceWarning(UserWarning):
    """Weak references that will load dead though their referents live, or not be found; one warning for each dump.

    It points at the user's own line, and by default Python shows what is the same from one line once. The text names
    the first paths. It is data, and holds none of the objects.

    Attributes:
        counts: How many references point outside the pickle, by the dotted name of the referent's type.
        cycles: How many point at an object that is built from arguments which lead back to the reference.
        functions: Dotted names of the functions and classes among the referents outside: they travel by value.
        identity_keys: How many integer keys are the `id` of an object in the pickle, by the dotted name of its type:
            its copy has another.
        references: For each of them, those next to the root first: its path; ``weakref.ref``, ``weakref.proxy`` or the
            dotted name of its class; the dotted name of the referent's type; and ``"outside"``, ``"cycle"`` or
            ``"identity key"``. At most 1,000 are named, of those that the 10,000 objects next to the root hold.
    """

    def __init__(
        self,
        counts: dict[str, int],
        cycles: dict[str, int] | None = None,
        functions: tuple[str, ...] = (),
        identity_keys: dict[str, int] | None = None,
        references: tuple[LostReference, ...] = (),
    ) -> None:
        super().__init__(counts, cycles, functions, identity_keys, references)
        self.counts = counts
        self.cycles = cycles or {}
        self.functions = functions
        self.identity_keys = identity_keys or {}
        self.references = references

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the references are, and the registries with such keys: ``$.layers[2]._parent``."""
        return tuple(path for path, *_ in self.references)

    def __str__(self) -> str:
        said = [self._on_dead()] if self.counts or self.cycles else []
        if self.identity_keys:
            count = sum(self.identity_keys.values())
            where = self._places(count, "identity key")
            keys = "1 integer key is" if count == 1 else f"{count} integer keys are"
            of = ", ".join(f"{count} of {name}" for name, count in self.identity_keys.items())
            said.append(
                f"{keys} the id() of an object in the pickle ({of}){where}, and its copy has another: nothing is found "
                "under the old one. Key by the object itself, in a weakref.WeakKeyDictionary if it must not be kept, "
                "or make the keys anew in __setstate__."
            )
        return " ".join([*said, "safepickle.explain(obj) lists every such reference."])

    def _on_dead(self) -> str:
        total = sum(self.counts.values()) + sum(self.cycles.values())
        reasons, advice = [], []
        if self.counts:
            reasons.append(f"{_listed(self.counts)} outside the pickle")
            advice += self._advice_on_outside()
        if self.cycles:
            reasons.append(f"{_listed(self.cycles)} built from arguments that lead back to the reference")
            advice.append(
                "What is built from such arguments does not exist yet when the reference is made: move what leads back "
                'from the reduce arguments into the state, or pass weakrefs="tombstone" to silence this, '
                'weakrefs="strict" to make it an error.'
            )
        where = self._places(total, "outside", "cycle")
        dead = f"{total} weak reference{'s' * (total != 1)} will load dead: {'; '.join(reasons)}{where}."
        return f"{dead} {' '.join(advice)}"

    def _places(self, total: int, *reasons: str) -> str:
        most = 3
        # The keys of one registry have one path.
        paths = [path for path, _, _, reason in self.references if reason in reasons]
        named = list(dict.fromkeys(paths))[:most]
        more = total - sum(path in named for path in paths)
        if not named:
            return ""
        places = ", ".join(shorten(_RANDOM.sub("...", path), 150) for path in named)
        return f", at {places}" + (f" and {more:,} more place{'s' * (more != 1)}" if more else "")

    def _advice_on_outside(self) -> list[str]:
        options = (
            'pass weakrefs="strong" to carry a copy, weakrefs="tombstone" to silence this, weakrefs="strict" to make '
            "it an error."
        )
        if not self.functions:
            return [f"Pickle the owner too, or {options}"]
        most = 5
        named = ", ".join(self.functions[:most])
        if len(self.functions) > most:
            named += f" and {len(self.functions) - most} more"
        them = "it" if len(self.functions) == 1 else "them"
        advice = [
            f"{_BY_VALUE}, so no module of the other side owns {named}: move {them} into one that it imports, pickle "
            f"{them} too, or {options}"
        ]
        if sum(self.counts.values()) > len(self.functions):
            advice.append("Of other referents, pickle the owner too.")
        return advice


@public
class CallbackWarning(WeakReferenceWarning):
    """Callbacks that `deepcopy` left out: they lead to what was copied, and cannot be copied themselves.

    Attributes:
        counts: How many references and finalizers came back without one, by the dotted name of the callback.
    """

    def __str__(self) -> str:
        total = sum(self.counts.values())
        return (
            f"{total} weak reference{'s' * (total != 1)} came back without a callback: {_listed(self.counts)}. A "
            "callback that leads to what was copied and cannot be copied itself would go on acting on the original. "
            "Let it hold what it needs by a weak reference, or give what cannot be copied a __deepcopy__."
        )


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
    """The module of a class or function that a pickle names is not there. See `MissingGlobalError`."""

    def __str__(self) -> str:
        return self._explain(f"there is no module {self.module}", self.module)


@public
class UnpicklableError(AttributeError, TypeError):
    """Something is asked of an object that could not be pickled: only its tombstone was loaded.

    It is an `AttributeError` and a `TypeError`, so that ``hasattr`` and the like see an object without attributes.

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
            f"{self.wanted} is not to be had: the {self.object_type} that stood at {self.path} could not be pickled "
            f"({self.cause}). Put a new one in the place of this tombstone."
        )


@public
class UnpicklableWarning(UserWarning):
    """Objects that nothing can pickle were replaced by tombstones; one warning for each dump.

    Attributes:
        lost: For each: the dotted name of its type, its path, and why it could not be pickled.
    """

    def __init__(self, lost: list[tuple[str, str, str]]) -> None:
        super().__init__(lost)
        self.lost = lost

    def __str__(self) -> str:
        most = 20
        listed = [f"{path}: {name} ({cause})" for name, path, cause in self.lost[:most]]
        if len(self.lost) > most:
            listed.append(f"and {len(self.lost) - most} more")
        count = len(self.lost)
        replaced = "object could not be pickled and is replaced by a tombstone"
        if count != 1:
            replaced = "objects could not be pickled and are replaced by tombstones"
        return f"{count} {replaced}; the rest is saved: {'; '.join(listed)}."


@public
class UnpicklableStateWarning(UserWarning):
    """An object's ``__setstate__`` failed at load over a tombstone in its state, so the state was set without it.

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


_BY_VALUE = "Functions and classes of __main__, and local ones, travel by value"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} to {name}" for name, count in counts.items())


@public
class ChecksumError(pickle.UnpicklingError):
    """A pickle that is not what its checksum says, or that has none where one is required.

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
    """What was to be loaded is empty. It is an `EOFError`, which plain pickle raises, as well."""


@public
class GuardedLoadError(pickle.UnpicklingError):
    """A guarded load stopped before it did anything that it should not.

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
    """A pickle asks for something that is not allowed: a name, a call, or a state."""

    _what = "not allowed"


@public
class DamagedPickleError(GuardedLoadError):
    """A file is not a complete pickle: truncated, damaged, contradicting itself, or another kind of file."""

    _what = "damaged"


@public
class LoadLimitError(GuardedLoadError):
    """A pickle asks for more memory or time than one of its length may."""

    _what = "over a limit"


@public
class KerasFallbackWarning(UserWarning):
    """A Keras object is pickled as Keras's own archive, because the inside of this Keras is not what is expected.

    Attributes:
        cls: Dotted name of the object's class.
        version: Of the installed Keras.
        difference: What was not as expected.
    """

    def __init__(self, cls: str, version: str, difference: str) -> None:
        super().__init__(cls, version, difference)
        self.cls = cls
        self.version = version
        self.difference = difference

    def __str__(self) -> str:
        return (
            f"{self.cls} is pickled as a Keras archive, because the inside of Keras {self.version} is not what "
            f"safepickle expects ({self.difference}). Attributes outside the config, weak references, and layers "
            "shared with other objects in this pickle are lost. Use a Keras that safepickle is tested with, or choose "
            'the archive yourself with safepickle.integrations.keras.use_route("archive").'
        )


@public
class KerasVersionWarning(UserWarning):
    """A pickle holds Keras objects of another version of Keras, which may keep other attributes.

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


def shorten(path: str, longest: int = 300) -> str:
    """Leave out the middle of a path that is too long to read."""
    if len(path) <= longest:
        return path
    half = (longest - 40) // 2
    return f"{path[:half]} ... ({len(path) - 2 * half:,} more characters) ... {path[-half:]}"
