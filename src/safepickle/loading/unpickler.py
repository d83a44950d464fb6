"""Unpickler, load and loads: pickle's contract, with a guard on request."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

from safepickle.guard.allowing import allow_list
from safepickle.load_errors import GuardedLoadError
from safepickle.loading.aliases import Names, explain_missing, names, position_of
from safepickle.loading.torch_files import is_torch_file, load_torch_file
from safepickle.loading.unpacking import unpack_to_load
from safepickle.messages import dotted_name
from safepickle.options import UNBOUND, Aliases, AllowItem, LoadOptions, Missing
from safepickle.progress import reading
from safepickle.public import public
from safepickle.storage.checksum import ChecksumPolicy, check_buffer, check_file
from safepickle.storage.compression import compression_of
from safepickle.storage.files import ReadableOrPath, is_path
from safepickle.storage.remote import is_address, open_path

if TYPE_CHECKING:
    from safepickle.guard.allow_list import AllowList

__all__ = ["Unpickler", "load", "loads"]


class _Unopened:
    """An unpickler as it is when a subclass forgets the constructor: the base class says so in its own words."""

    load_options: LoadOptions = UNBOUND
    _keeps_memo = True
    _loader: Any = None
    _names: Names | None = None
    _file: Any = None


@public
class Unpickler(_Unopened, pickle.Unpickler):
    """`pickle.Unpickler`, with its constructor's signature, and a guard on request.

    Args:
        file: Open for reading.
        fix_imports: As for `pickle.Unpickler`.
        encoding: As for `pickle.Unpickler`.
        errors: As for `pickle.Unpickler`.
        buffers: As for `pickle.Unpickler`.
        allow: None for pickle's contract: the stream can run anything. Classes, functions and ``"module:name"`` strings
            for a guarded load, which takes these and the built-in list; ``()`` is the built-in list alone.
        aliases: Dotted names of old (of classes, functions, modules or packages), each with the one of today, or with
            the class, function or module itself. The guard decides on the name of today.
        missing: What becomes of a name that does not exist: ``"raise"``; ``"stub"``: a placeholder class of that name.

    Raises:
        TypeError: `allow` holds something of another kind.
        ValueError: `allow` holds what can never be allowed; the message says why.

    Examples:
        >>> import io
        >>> file = io.BytesIO(safepickle.dumps({"epoch": 3}))
        >>> safepickle.Unpickler(file, allow=()).load()
        {'epoch': 3}
    """

    def __init__(
        self,
        file: Any,
        *,
        fix_imports: bool = True,
        encoding: str = "ASCII",
        errors: str = "strict",
        buffers: Iterable[Any] | None = (),
        allow: Iterable[AllowItem] | None = None,
        aliases: Aliases | None = None,
        missing: Missing | None = None,
    ) -> None:
        super().__init__(file, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers)
        self._file = file
        self._loader = self._names = None
        plain = allow is None and aliases is None and missing is None and self.load_options is UNBOUND
        if plain and allow_list(None) is None:
            return  # Most are so, and are not to wait for more.
        options = LoadOptions(fix_imports, encoding, errors, buffers, allow, aliases, missing)
        # What `backend` binds stands in its class.
        options = options.bound_to(self.load_options)
        self._take(options, allow_list(options.allow))

    @classmethod
    def _with(cls, file: Any, options: LoadOptions, allowed: AllowList | None) -> Unpickler:
        """Return an unpickler whose options a public function has made."""
        unpickler = cls.__new__(cls)
        unpickler._file = file
        pickle.Unpickler.__init__(
            unpickler,
            file,
            fix_imports=options.fix_imports,
            encoding=options.encoding,
            errors=options.errors,
            buffers=options.buffers,
        )
        unpickler._take(options, allowed)
        return unpickler

    def _take(self, options: LoadOptions, allowed: AllowList | None) -> None:
        self._names = names(options)
        if allowed is not None:
            from safepickle.guard.torch_loading import new_loader

            self._loader = new_loader(
                allowed,
                options,
                names=self._names,
                find_class=None if type(self).find_class is Unpickler.find_class else self.find_class,
                name=_name_of(self._file),
                keep_memo=self._keeps_memo,
            )

    def load(self) -> Any:
        """Load the next object.

        Returns:
            The object.

        Raises:
            NotAPickleError, EmptyFileError: The file is of another format, which was recognised, or empty.
            NotAllowedError: The guard is on, and the stream asks for what is not allowed.
            DamagedPickleError: The guard is on, and this is not a whole pickle.
            LoadLimitError: The guard is on, and the stream costs more than one of its length may.
            MissingGlobalError, MissingModuleError: There is no such name. They are the `AttributeError` and the
                `ModuleNotFoundError` of plain pickle.
        """
        start = position_of(self._file)
        try:
            return super().load() if self._loader is None else self._load_guarded()
        except Exception as error:
            explained = self._explain(error, start)
            if explained is None:
                raise
            raise explained from error

    def _load_guarded(self) -> Any:
        from safepickle.guard.source import open_source
        from safepickle.guard.unpickler import own_persistent_load

        loaded = self._loader.load(open_source(self._file), own_persistent_load(self))
        self._loader.follow(self._file, loaded)
        return loaded

    def _explain(self, error: Exception, start: int | None) -> Exception | None:
        if self._loader is None and isinstance(error, (AttributeError, ImportError)):
            explained = explain_missing(error, self._file, start, self._names)
            if explained is not None:
                return explained
            _note_early_hash(error)
        from safepickle.loading.wrong_files import explain_format

        return explain_format(error, self._file, start, _name_of(self._file))

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the class or function of a name. A subclass may override it, as with `pickle.Unpickler`.

        Args:
            module_name: Dotted name of the module.
            global_name: Its name there; with dots for what stands inside a class.

        Returns:
            The class, the function, or a placeholder of it.

        Raises:
            NotAllowedError: The guard is on, and the name is not allowed.
            MissingGlobalError, MissingModuleError: There is no such name.
        """
        if self._loader is None:
            if self._names is None:
                return super().find_class(module_name, global_name)
            return self._names.find(module_name, global_name, super().find_class)
        return self._loader.find_class(module_name, global_name)


class _Once(Unpickler):
    """Loads one pickle: no other can refer to its objects."""

    _keeps_memo = False


@public
def load(
    file: ReadableOrPath,
    *,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    errors: str = "strict",
    buffers: Iterable[Any] | None = (),
    checksum: ChecksumPolicy = "check",
    allow: Iterable[AllowItem] | None = None,
    aliases: Aliases | None = None,
    missing: Missing | None = None,
    mmap: bool = False,
) -> Any:
    """Load an object from an open binary file or from a path.

    A path to a file that ``torch.save`` wrote is given to ``torch.load``. One to a compressed file is unpacked first,
    whatever its name is, and what its format has of checksums is verified. A load that takes long draws a progress bar,
    as `dump` does.

    Without `allow` the file can run any code: load only what you trust.

    Args:
        file: An open binary file, a path, or an address such as ``"s3://bucket/key"`` where fsspec is installed.
        fix_imports: As for `pickle.load`.
        encoding: As for `pickle.load`.
        errors: As for `pickle.load`.
        buffers: As for `pickle.load`.
        checksum: ``"check"``: a checksum that the file carries is verified before anything is loaded, unless the file
            cannot seek. ``"require"``: it is an error if there is none. ``"ignore"``: it is passed over.
        allow: None for pickle's contract: the file can run anything. Classes, functions and ``"module:name"`` strings
            for a guarded load; ``()`` is the built-in list alone.
        aliases: Names that have moved, as for `Unpickler`.
        missing: ``"raise"``, or ``"stub"`` for placeholders of what does not exist, as for `Unpickler`.
        mmap: Of paths alone: map the large arrays and tensors of a file of `dump` or of ``torch.save`` into memory, so
            that each is read when it is first looked at. They can be written to, and the file stays as it is. A
            checksum is verified first, which reads the whole file: ``checksum="ignore"`` passes it over.

    Returns:
        The object.

    Raises:
        TypeError: `file` is neither a path nor an open file.
        OSError: The file cannot be read.
        ValueError: `mmap` is asked for an open file, an address, a compressed file, with `buffers`, or of a guarded
            load, which reads all that it checks.
        ChecksumError: The file is damaged or truncated.
        NotAPickleError, EmptyFileError: The file is of another format, which was recognised, or empty.
        NotAllowedError: The guard is on, and the file asks for what is not allowed.
        DamagedPickleError: The guard is on, and this is not a whole pickle.
        LoadLimitError: The guard is on, and the file costs more than one of its length may.
        MissingGlobalError, MissingModuleError: There is no such name.

    Examples:
        >>> safepickle.dump({"epoch": 3}, "checkpoint.pkl")
        >>> safepickle.load("checkpoint.pkl", allow=())
        {'epoch': 3}
    """
    if not hasattr(file, "read") and not is_path(file):
        raise TypeError(
            f"load() takes a path or an open file, not {type(file).__qualname__}: to load from bytes, call loads()"
        )
    options = LoadOptions(fix_imports, encoding, errors, buffers, allow, aliases, missing)
    allowed = allow_list(options.allow)
    if mmap:
        return _load_mapped(file, checksum, options, allowed)
    if is_path(file):
        with open_path(file) as opened:
            # Of paths alone: torch.load hands open files of its own to this function, one pickle after the other.
            packed = compression_of(opened) if opened.seekable() else None
            if packed is not None:
                with reading("unpack", opened):
                    unpacked = unpack_to_load(opened, packed, is_guarded=allowed is not None)
                with unpacked:
                    return _load_whole(unpacked, checksum, options, allowed)
            return _load_whole(opened, checksum, options, allowed)
    with reading("load", file):
        return _Once._with(check_file(file, checksum), options, allowed).load()  # type: ignore[arg-type]


@public
def loads(
    data: Any,
    /,
    *,
    fix_imports: bool = True,
    encoding: str = "ASCII",
    errors: str = "strict",
    buffers: Iterable[Any] | None = (),
    checksum: ChecksumPolicy = "check",
    allow: Iterable[AllowItem] | None = None,
    aliases: Aliases | None = None,
    missing: Missing | None = None,
) -> Any:
    """Load an object from bytes, or from any other buffer.

    Without `allow` the bytes can run any code: load only what you trust.

    Args:
        data: The pickle: bytes, or another object with the buffer protocol.
        fix_imports: As for `pickle.loads`.
        encoding: As for `pickle.loads`.
        errors: As for `pickle.loads`.
        buffers: The out-of-band buffers, as for `pickle.loads`.
        checksum: As for `load`.
        allow: As for `load`.
        aliases: As for `load`.
        missing: As for `load`.

    Returns:
        The object.

    Raises:
        TypeError: `data` is text, a path or an open file.
        Exception: As for `load`.

    Examples:
        >>> data = safepickle.dumps({"epoch": 3})
        >>> safepickle.loads(data, allow=())
        {'epoch': 3}
    """
    if type(data) is not bytes:
        _hold_for_buffer(data)
    data = check_buffer(data, checksum)
    allowed = allow_list(allow)
    if allowed is not None or aliases or missing is not None:
        options = LoadOptions(fix_imports, encoding, errors, buffers, allow, aliases, missing)
        return _load_bytes(data, options, allowed)
    # Most loads, which are not to wait for more than this.
    try:
        return pickle.loads(data, fix_imports=fix_imports, encoding=encoding, errors=errors, buffers=buffers)
    except Exception as error:
        explained = _explain_bytes(error, data)
        if explained is None:
            raise
        raise explained from error


def _load_bytes(data: Any, options: LoadOptions, allowed: AllowList | None) -> Any:
    if allowed is None:
        return Unpickler._with(io.BytesIO(data), options, None).load()
    from safepickle.guard.source import source_of_bytes
    from safepickle.guard.torch_loading import new_loader

    try:
        return new_loader(allowed, options, names=names(options)).load(source_of_bytes(data))
    except GuardedLoadError as error:
        raise _explain_bytes(error, data) or error from error.__cause__


def _load_whole(file: IO[bytes], checksum: ChecksumPolicy, options: LoadOptions, allowed: AllowList | None) -> Any:
    """Load what a file holds that was opened for this load: a pickle, or what ``torch.save`` wrote."""
    with reading("load", file):
        if is_torch_file(file):
            bound = type("Unpickler", (Unpickler,), {"load_options": options})
            return load_torch_file(file, bound, allowed, names(options))
        return _Once._with(check_file(file, checksum), options, allowed).load()


def _load_mapped(
    file: ReadableOrPath, checksum: ChecksumPolicy, options: LoadOptions, allowed: AllowList | None
) -> Any:
    from safepickle.loading.mapping import map_buffers

    if not is_path(file) or is_address(file):
        raise ValueError("mmap=True maps a file of this machine into memory: pass its path")
    if allowed is not None:
        raise ValueError("mmap=True is not for guarded loads, which read all that they check: leave out mmap or allow")
    if options.buffers is not None and options.buffers != ():
        raise ValueError("mmap=True finds the buffers in the file: leave out mmap or buffers")
    with open(file, "rb") as opened:
        if not opened.seekable():
            raise ValueError(f"{opened.name} is a pipe or the like, and cannot be mapped into memory: leave out mmap")
        packed = compression_of(opened)
        if packed is not None:
            raise ValueError(
                f"{opened.name} is compressed ({packed}), and cannot be mapped into memory: leave out mmap, or dump it "
                "uncompressed (compress=False)"
            )
        if is_torch_file(opened):
            bound = type("Unpickler", (Unpickler,), {"load_options": options})
            return load_torch_file(opened, bound, None, names(options), mmap=True)
        check_file(opened, checksum)
        stream, buffers = map_buffers(opened)
        unpickler = Unpickler._with(stream, options._replace(buffers=buffers), None)
        unpickler._file = opened  # which errors are explained by
        return unpickler.load()


def _hold_for_buffer(data: Any) -> None:
    try:
        memoryview(data).release()
    except TypeError as error:
        raise TypeError(
            f"loads() takes bytes, not {type(data).__qualname__}: to load from a path or an open file, call load()"
        ) from error


def _explain_bytes(error: Exception, data: Any) -> Exception | None:
    if isinstance(error, (AttributeError, ImportError)):
        explained = explain_missing(error, io.BytesIO(data), 0, None)
        if explained is not None:
            return explained
        _note_early_hash(error)
    from safepickle.loading.wrong_files import explain_bytes

    return explain_bytes(error, data)


def _note_early_hash(error: BaseException) -> None:
    """Say what is behind a ``__hash__`` that misses an attribute, if its object has none at all yet."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "__hash__" and frame.f_code.co_argcount:
            hashed = frame.f_locals.get(frame.f_code.co_varnames[0])
            try:
                is_bare = not object.__getattribute__(hashed, "__dict__")
            except AttributeError:
                is_bare = True  # It has slots.
            if is_bare:
                cls = type(hashed)
                error.add_note(
                    f"An object of {dotted_name(cls)} was hashed before it had its attributes: it "
                    "leads to a set, a dict or a weak container that it is in. Give the class a __reduce__ that passes "
                    "what __hash__ reads to the constructor, or pickle the container first."
                )
            return
        traceback = traceback.tb_next


def _name_of(file: Any) -> str:
    name = getattr(file, "name", "")
    return name if isinstance(name, str) else ""
