"""Names that a pickle asks for and that are no longer where they were: aliases, placeholders, and errors that help.

`Names` turns a module and a name of the stream into the object. It knows nothing of lists of what is allowed: the
guard asks it for the name of today, and decides on that.
"""

from __future__ import annotations

import importlib
import io
import sys
import types
from collections.abc import Callable
from typing import Any, Final, TypeGuard

from safepickle import rebuild
from safepickle.load_errors import MissingGlobalError, MissingModuleError
from safepickle.options import Aliases, LoadOptions, Missing

__all__ = ["Names", "explain_missing", "names", "position_of"]

_LARGEST: Final = 1 << 30
"""Pickles of more bytes are not read a second time to find out where in their graph a name is needed."""

_RELINKS_NAMES: Final = ("safepickle.rebuild", "rebuild_global")
_RECONSTRUCTOR: Final = (("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"))


def names(options: LoadOptions) -> Names | None:
    """Return what resolves names by these options, or None when they change nothing.

    Raises:
        TypeError: A key of `aliases` is no string, or a value is no string, class or function.
        ValueError: `missing` is no option, or a string is no dotted name.
    """
    if options.missing not in (None, "raise", "stub"):
        raise ValueError(f"missing={options.missing!r} is not known: pass 'raise' or 'stub'")
    if not options.aliases and options.missing != "stub":
        return None
    return Names(options.aliases or {}, options.missing or "raise")


class Names:
    """Finds the object of a name, wherever it is today.

    Args:
        aliases: Dotted names of old (of a class, a function, a module or a package), each with the dotted name of
            today, or the class, function or module itself. The longest one that fits wins. A colon may part the module
            from the rest, as in ``"app.nets:Outer.Inner"``.
        missing: ``"stub"``: a name that is nowhere is that of a placeholder class.
    """

    def __init__(self, aliases: Aliases, missing: Missing) -> None:
        self._aliases = {_checked(old): _checked_target(old, new) for old, new in aliases.items()}
        self._missing = missing

    def rename(self, module: str, name: str) -> tuple[str, str]:
        """Return the module and the name of today."""
        target = self._renamed(module, name)
        return target if isinstance(target, tuple) else (target.__module__, target.__qualname__)

    def find(self, module: str, name: str, find_class: Callable[[str, str], Any]) -> Any:
        """Return the object of a name.

        Args:
            module: As the stream has it.
            name: As the stream has it.
            find_class: Finds the object of a name of today.

        Raises:
            AttributeError, ImportError: There is none, and no placeholder is wanted.
        """
        if (module, name) == _RELINKS_NAMES:
            return lambda module, name: self.find(module, name, find_class)
        if self._missing == "stub" and (module, name) in _RECONSTRUCTOR:
            return rebuild.rebuild_stub_of_builtin
        target = self._renamed(module, name)
        if not isinstance(target, tuple):
            return target
        try:
            module, name = target
            first, *inner = name.split(".")
            # Below protocol 4 find_class takes no dotted names; those of today may be dotted.
            found = find_class(module, first)
            for part in inner:
                found = getattr(found, part)
            return found
        except (AttributeError, ImportError):
            if self._missing == "raise":
                raise
        return self.stub(*target)

    def stub(self, module: str, name: str) -> Any:
        """Return the placeholder class for a name that is nowhere, or None when an error is wanted."""
        return rebuild.stub_class(module, name) if self._missing == "stub" else None

    def _renamed(self, module: str, name: str) -> Any:
        if not self._aliases:
            return module, name
        parts = [*module.split("."), *name.split(".")]
        for length in range(len(parts), 0, -1):
            target = self._aliases.get(".".join(parts[:length]))
            if target is not None:
                break
        else:
            return module, name
        of_name = length - module.count(".") - 1
        if not isinstance(target, str):
            return (
                target
                if length == len(parts)
                else (target.__module__, ".".join([target.__qualname__, *parts[length:]]))
            )
        new_module, colon, new_name = target.partition(":")
        if of_name <= 0:
            # A module or a package, whose names stay what they are.
            return ".".join([target, *parts[length : module.count(".") + 1]]), name
        if not colon:
            # As many parts of the new name name something inside a module as of the old one.
            head, new_name = _split(target, of_name)
            new_module = head
        return new_module, ".".join([new_name, *parts[length:]])


def position_of(file: Any) -> int | None:
    """Return where a seekable file stands, or None."""
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def explain_missing(error: BaseException, file: Any, start: int | None, renaming: Names | None) -> Exception | None:
    """Explain an error of a load, if it is over a name of the stream that is nowhere.

    The names of the stream are looked up once more, in its order, until one fails as the load did. All before that one
    have been imported already.

    Args:
        error: What the load raised.
        file: What the pickle was read from.
        start: Where it begins, or None when the file cannot go back there.
        renaming: What has moved, or None.

    Returns:
        The error to raise instead, or None when this one is about something else.
    """
    if start is None or isinstance(error, (MissingGlobalError, MissingModuleError)):
        return None
    try:
        end = file.tell()
        file.seek(start)
        asked = _names_of(file)
        for module, name, offset in asked:
            today = (module, name) if renaming is None else renaming.rename(module, name)
            explained = _explained(error, *today, offset)
            if explained is not None:
                break
        else:
            return None
        from safepickle.loading.missing import find_name

        whole = file.seek(0, io.SEEK_END) - start <= _LARGEST
        file.seek(start)
        path, owner = find_name(file, module, name) if whole else (None, None)
        explained = type(explained)(today[0], today[1], explained.near, offset, path, owner)
        file.seek(end)
    except (OSError, ValueError, _OtherwiseError):
        return None
    return explained


class _OtherwiseError(Exception):
    """A name cannot be looked up, but not for the reason for which the load has failed."""


def _explained(
    error: BaseException, module: str, name: str, offset: int
) -> MissingGlobalError | MissingModuleError | None:
    """Look a name up; return None when it is there."""
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as failure:
        return _without_module(error, failure, module, name, offset)
    except AttributeError:
        if isinstance(error, AttributeError) and repr(name) in str(error):
            return MissingGlobalError(module, name, _near_names(sys.modules[module], name), offset)
        raise _OtherwiseError from None
    except Exception:
        raise _OtherwiseError from None
    return None


def _without_module(
    error: BaseException, failure: ModuleNotFoundError, module: str, name: str, offset: int
) -> MissingModuleError:
    absent = failure.name or ""
    # Or else the module is there, and something that it imports is not, which the error names.
    is_the_module = absent == module or module.startswith(f"{absent}.")
    if not isinstance(error, ModuleNotFoundError) or error.name != absent or not is_the_module:
        raise _OtherwiseError
    return MissingModuleError(module, name, _near_modules(absent), offset)


def _names_of(pickle_file: Any) -> list[tuple[str, str, int]]:
    """Return the names in a pickle, in its order, each with the byte at which it is asked for."""
    import pickletools
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

    found: list[tuple[str, str, int]] = []
    strings: list[str] = []
    memo: dict[int, str] = {}
    protocol = 0
    pushed = False
    try:
        argument: Any
        for opcode, argument, position in pickletools.genops(pickle_file):
            if opcode.name == "PROTO":
                protocol = argument
            elif opcode.name in ("GLOBAL", "INST"):
                module, _, name = argument.partition(" ")
                if protocol < 3:
                    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                found.append((module, name, position or 0))
            elif opcode.name == "STACK_GLOBAL":
                found.append((strings[-2], strings[-1], position or 0))
            elif "UNICODE" in opcode.name:
                strings.append(argument)
            elif opcode.name == "MEMOIZE":
                # Only strings matter, and only right after one has been pushed.
                memo[len(memo)] = strings[-1] if pushed else ""
            elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[argument] = strings[-1] if pushed else ""
            elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
                strings.append(memo.get(argument, ""))
            pushed = "UNICODE" in opcode.name
            del strings[:-2]
    except Exception:
        # A stream that ends too early, or that no pickler writes, tells as much as it has told.
        pass
    return found


def _near_names(module: types.ModuleType, name: str) -> tuple[str, ...]:
    """Return dotted names that may be meant: like this one in the same module, the same one in modules beside it."""
    import difflib

    wanted = name.partition(".")[0]
    near = [f"{module.__name__}.{like}" for like in difflib.get_close_matches(wanted, list(vars(module)), 3, 0.6)]
    package = module.__name__.partition(".")[0]
    for other_name, other in sorted(sys.modules.items()):
        if other_name.partition(".")[0] == package and isinstance(other, types.ModuleType):
            found = vars(other).get(wanted)
            if getattr(found, "__module__", None) == other_name:
                near.append(f"{other_name}.{wanted}")
    return tuple(dict.fromkeys(near))


def _near_modules(name: str) -> tuple[str, ...]:
    """Return the names of modules beside the missing one that are like it."""
    import difflib
    import pkgutil

    parent, _, last = name.rpartition(".")
    if parent:
        path = getattr(sys.modules.get(parent), "__path__", [])
        return tuple(
            f"{parent}.{like}"
            for like in difflib.get_close_matches(last, [found.name for found in pkgutil.iter_modules(path)], 3, 0.6)
        )
    loaded = {loaded.partition(".")[0] for loaded in sys.modules}
    return tuple(difflib.get_close_matches(last, sorted(loaded), 3, 0.6))


def _checked(old: object) -> str:
    if not isinstance(old, str):
        raise TypeError(f"the keys of aliases are dotted names, not of type {type(old).__qualname__}")
    if not _is_dotted(old.replace(":", ".")):
        raise ValueError(f"aliases: {old!r} is no dotted name")
    return old.replace(":", ".")


def _checked_target(old: str, new: object) -> Any:
    if isinstance(new, str):
        if not _is_dotted(new.replace(":", ".", 1)):
            raise ValueError(f"aliases: {new!r}, which is to stand for {old!r}, is no dotted name")
        return new
    if isinstance(new, types.ModuleType):
        return new.__name__
    if not hasattr(new, "__module__") or not hasattr(new, "__qualname__"):
        raise TypeError(
            f"aliases: what is to stand for {old!r} is of type {type(new).__qualname__}: give a dotted name, or a "
            "class, a function or a module"
        )
    return new


def _is_dotted(text: str) -> TypeGuard[str]:
    return all(part.isidentifier() for part in text.split("."))


def _split(dotted: str, inner: int) -> tuple[str, str]:
    parts = dotted.split(".")
    inner = min(inner, len(parts) - 1)
    if inner == 0:
        return "builtins", dotted
    return ".".join(parts[:-inner]), ".".join(parts[-inner:])
