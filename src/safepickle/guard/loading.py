"""One guarded load: the machine with the backend that builds, and its refusals as exceptions for the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safepickle.guard.allow_list import AllowList
from safepickle.guard.budget import is_inside_a_load
from safepickle.guard.costs import Costs
from safepickle.guard.limits import LimitExceeded, Malformed, Refusal
from safepickle.guard.load_backend import LoadBackend, LoadStorage
from safepickle.guard.machine import Machine
from safepickle.guard.names import Renaming
from safepickle.guard.source import Source
from safepickle.guard.storage_claims import StorageClaims, follow_file
from safepickle.guard.verified import load_verified
from safepickle.load_errors import DamagedPickleError, LoadLimitError, NotAllowedError
from safepickle.options import LoadOptions
from safepickle.storage.formats import recognise

__all__ = ["Loader"]


class Loader:
    """Loads the pickles of one source, guarded.

    Args:
        allowed: What the user allows beside the built-in list.
        options: As for `pickle.load`; what they say of names is `allowed` and `names`.
        find_class: The `find_class` of a subclass of the unpickler, or None.
        names: What has moved, or None.
        name: What messages call the file.
        keep_memo: Whether the next pickle may refer to objects of this one, as those of one pickler may.
        storages: What the torch file around the pickle has of storages.
        load_storage: Loads the storage in a torch file that lies inside the pickle: ``load_storage(payload, allowed)``.
    """

    def __init__(
        self,
        allowed: AllowList,
        options: LoadOptions,
        *,
        find_class: Callable[[str, str], Any] | None = None,
        names: Renaming | None = None,
        name: str = "",
        keep_memo: bool = False,
        storages: StorageClaims | None = None,
        load_storage: LoadStorage,
    ) -> None:
        self._options = options
        self._name = name
        self._memo: dict[int, Any] | None = {} if keep_memo else None
        self._costs = Costs() if keep_memo else None
        # What a later pickle refers to has to be on the machine's accounts.
        self._verifies = not keep_memo and find_class is None
        self._backend = LoadBackend(
            allowed,
            options,
            find_class=find_class,
            names=names,
            storages=storages,
            load_storage=load_storage,
        )

    def load(self, source: Source, persistent_load: Callable[[Any], Any] | None = None) -> Any:
        """Load the next pickle of `source`.

        Raises:
            NotAllowedError: It asks for what is not allowed.
            DamagedPickleError: It is not a whole pickle.
            LoadLimitError: It costs more than it may.
        """
        backend = self._backend
        if self._verifies and not is_inside_a_load():
            verified = load_verified(source, backend.find_plain)
            if verified is not None:
                return verified[0]
        memo = {} if self._memo is None else self._memo
        options = self._options
        machine = Machine(source, backend, memo, encoding=options.encoding, errors=options.errors, costs=self._costs)
        backend.attach(machine, persistent_load)
        try:
            return machine.run()
        except (Refusal, Malformed, LimitExceeded) as error:
            raise self._public(error, machine, source) from error.__cause__
        finally:
            backend.detach(forget=self._memo is None)

    def follow(self, file: object, loaded: object) -> None:
        """Hold what was loaded from `file` against the pickle before it, where ``torch.load`` reads several.

        Raises:
            DamagedPickleError: The list of storages is not that of the storages which the file uses.
        """
        try:
            follow_file(file, loaded, self._backend.storages)
        except Malformed as error:
            raise DamagedPickleError(self._name, None, "", "", str(error)) from None

    def find_class(self, module: str, name: str) -> Any:
        """Give the object of a name to a subclass's `find_class`, if it is allowed."""
        try:
            return self._backend.plain_target(module, name)
        except Refusal as error:
            raise NotAllowedError(self._name, None, "", f"{module}:{name}", str(error), error.allow) from None
        except Malformed as error:
            raise DamagedPickleError(self._name, None, "", f"{module}:{name}", str(error)) from error.__cause__

    def _public(self, error: Exception, machine: Machine, source: Source) -> Exception:
        subject, offset = self._backend.subject, source.origin + machine.offset
        known = recognise(source.head())
        if known is not None:
            return DamagedPickleError(self._name, 0, "", "", f"this is {known}")
        if isinstance(error, Refusal):
            return NotAllowedError(self._name, offset, machine.opcode, subject, str(error), error.allow)
        if isinstance(error, LimitExceeded):
            return LoadLimitError(self._name, offset, machine.opcode, subject, str(error))
        return DamagedPickleError(self._name, offset, machine.opcode, subject, str(error))
