"""What ``torch.load`` takes for the unpickler of a guarded load, and what any unpickler of ours asks of a subclass."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from safepickle.cpython import is_method_of_c
from safepickle.guard.loading import Loader
from safepickle.guard.source import open_source
from safepickle.options import LoadOptions

__all__ = ["GuardedUnpickler", "own_persistent_load"]


class GuardedUnpickler(pickle.Unpickler):
    """`pickle.Unpickler`, guarded, with its constructor's signature. A subclass says what makes its loader."""

    new_loader: ClassVar[Callable[..., Loader]]

    def __init__(
        self,
        file: Any,
        *,
        fix_imports: bool = True,
        encoding: str = "ASCII",
        errors: str = "strict",
        buffers: Iterable[Any] | None = (),
    ) -> None:
        super().__init__(file, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers)
        self._file = file
        self._loader = type(self).new_loader(
            LoadOptions(fix_imports, encoding, errors, buffers),
            find_class=None if type(self).find_class is GuardedUnpickler.find_class else self.find_class,
        )

    def load(self) -> Any:
        """Load the next object."""
        return self._loader.load(open_source(self._file), own_persistent_load(self))

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the object of a name, if it is allowed."""
        return self._loader.find_class(module_name, global_name)


def own_persistent_load(unpickler: pickle.Unpickler) -> Callable[[Any], Any] | None:
    """Return the `persistent_load` that a subclass defines, or that was set on an unpickler, or None."""
    found = getattr(unpickler, "persistent_load", None)
    return None if is_method_of_c(found, unpickler) else found
