"""Pickler, dump and dumps: what the walks of `BasePickler` need around them when something goes wrong.

An error gets the path of the object that caused it, and under ``unpicklable=`` the rest of the graph is saved. Both are
imported only then.
"""

from __future__ import annotations

import io
import operator
import pickle
from typing import Any

from safepickle.cpython import cached_property
from safepickle.dumping.base_pickler import BasePickler
from safepickle.dumping.buffers import BufferCallback, BufferRelay
from safepickle.errors import NestingError
from safepickle.options import DumpOptions, Finalizers, Unpicklable, WeakReferencePolicy
from safepickle.progress import reading, writing
from safepickle.public import public
from safepickle.reducers.table import TypeTable
from safepickle.storage.atomic import replacing
from safepickle.storage.compression import Compress, compressor, pack
from safepickle.storage.files import Output, OwnBytes, WritableOrPath, is_path
from safepickle.storage.remote import is_address, sending

__all__ = ["Pickler", "dump", "dumps"]


@public
class Pickler(BasePickler):
    """A C-accelerated pickler that keeps weak references.

    Functions, lambdas and classes that cannot be imported are pickled by value, as cloudpickle does. Several calls of
    `dump` share one memo, as with `pickle.Pickler`.

    Args:
        file: Anything with a ``write`` method that takes bytes. Nothing reaches it unless the dump succeeds, or what
            has reached it is taken back.
        protocol: 0 to 5; None or a negative number is ``HIGHEST_PROTOCOL``.
        fix_imports: Map names to those of Python 2 under protocols 0 to 2.
        buffer_callback: Called once for each out-of-band buffer of the pickle, in order; needs protocol 5.
        weakrefs: What becomes of weak references: ``"relink"``, ``"strong"``, ``"tombstone"``, ``"strict"``, or a
            callable that is given each outside referent and returns one of the last three.
        finalizers: What becomes of `weakref.finalize`: ``"dead"``, since it guards what belongs to the original, such
            as a directory, which a copy must not delete; or ``"rearm"``: it is armed on the copy of its object, with
            copies of its arguments.
        unpicklable: What becomes of an object that nothing can pickle: ``"raise"``; ``"tombstone"``: it is replaced by
            an `UnpicklableTombstone`, and the rest is saved; or a callable that is given the object and returns one of
            the two, or any other object to be pickled in its place.

    Raises:
        ValueError: An option has no such value, or `buffer_callback` is given with a protocol below 5.

    Examples:
        >>> import io
        >>> file = io.BytesIO()
        >>> pickler = safepickle.Pickler(file, weakrefs="strict")
        >>> pickler.dump({"epoch": 3})
        >>> safepickle.loads(file.getvalue())
        {'epoch': 3}
    """

    def dump(self, obj: object) -> None:
        """Write the pickle of `obj` to the file.

        Args:
            obj: Any object. It is not changed.

        Raises:
            WeakReferenceError: The policy is ``"strict"`` and a referent is not in the pickle.
            NestingError: The objects nest too deeply, or a reducer recurses without end.
            pickle.PicklingError, TypeError, ...: What plain pickle would raise. Nothing is written then. The path of
                the object that caused it is the exception's ``pickle_path``, and a note.

        Warns:
            WeakReferenceWarning: The policy is ``"relink"`` and referents were left outside.
            UnpicklableWarning: Objects that nothing can pickle were replaced by tombstones.
        """
        try:
            if self.dump_options.unpicklable == "raise":
                self.dump_whole(obj)
            else:
                from safepickle.dumping.partial import dump_partially

                dump_partially(self, obj)
        except Exception as error:
            if self.dump_options.unpicklable == "raise":
                from safepickle.tracing.error_paths import annotate

                annotate(error, obj, self)
            self.offender = None
            if isinstance(error, RecursionError):
                nesting = NestingError(*error.args)
                nesting.__dict__.update(error.__dict__)
                raise nesting from error
            raise


# The C pickler's own slot, which cloudpickle hides.
_C_DISPATCH_TABLE: Any = pickle.Pickler.dispatch_table
_forget_dispatch_table = _C_DISPATCH_TABLE.__delete__

_NO_TABLE: dict[type, Any] = {}


class _BytesPickler(Pickler):
    """The pickler of a whole `dumps`, which a small object is not to wait for.

    Nobody else sees it, so that it needs no more than the C pickler's constructor, and `dumps` sets what is not as
    usual. Nobody can have set its `reducer_override`, so that the look-up of it is C code alone.
    """

    __init__ = pickle.Pickler.__init__
    in_front = BasePickler.reducer_override
    dispatch_table = own_dispatch_table = _NO_TABLE
    _dump = None
    _is_shared = False

    @cached_property
    def _output(self) -> OwnBytes:
        return OwnBytes(self._file)


_BytesPickler.reducer_override = property(operator.attrgetter("in_front"))


@public
def dump(
    obj: object,
    file: WritableOrPath,
    protocol: int | None = None,
    *,
    fix_imports: bool = True,
    buffer_callback: BufferCallback | None = None,
    weakrefs: WeakReferencePolicy = "relink",
    finalizers: Finalizers = "dead",
    unpicklable: Unpicklable = "raise",
    checksum: bool = False,
    fsync: bool = True,
    compress: Compress = None,
) -> None:
    """Write the pickle of `obj` to an open binary file, or to a path, which is replaced atomically.

    A dump that fails leaves the file as it stood. One that takes long draws a progress bar, if tqdm is installed and
    stderr is a terminal, unless ``SAFEPICKLE_PROGRESS=0`` is in the environment. See `Pickler` for the other arguments
    and the errors.

    Args:
        obj: The object.
        file: An open binary file, a path, or an address such as ``"s3://bucket/key"`` where fsspec is installed, to
            which the pickle is put in one step. In a path, large arrays and tensors lie so that `load` can map them.
        protocol: 0 to 5; None is ``HIGHEST_PROTOCOL``.
        fix_imports: As for `Pickler`.
        buffer_callback: As for `Pickler`.
        weakrefs: As for `Pickler`.
        finalizers: As for `Pickler`.
        unpicklable: As for `Pickler`.
        checksum: Put a checksum before the pickle, which `load` verifies and any other unpickler passes over. It is
            about the bytes of the file, and knows nothing of out-of-band buffers.
        compress: Of paths alone. None: by the suffix (``.gz``, ``.bz2``, ``.xz``, ``.lzma``, ``.z``, and ``.zst`` and
            ``.lz4`` where their libraries are installed). False: never. True, or a level from 1 to 9: always, with
            zlib unless the suffix says otherwise. ``"gzip"`` or ``("gzip", 3)``: with this compressor.
        fsync: Return only once a replaced path is on disk, so that it also survives a power cut.

    Raises:
        TypeError: `file` is no place to write to; the message says where the two arguments are swapped.
        OSError: The file cannot be written or replaced. What was there before is there still.
        Exception: As for `Pickler.dump`.

    Examples:
        >>> safepickle.dump([1, 2, 3], "numbers.pkl.gz", checksum=True)
        >>> safepickle.load("numbers.pkl.gz")
        [1, 2, 3]
    """
    options: dict[str, Any] = {"fix_imports": fix_imports, "buffer_callback": buffer_callback}
    options |= {"weakrefs": weakrefs, "finalizers": finalizers, "unpicklable": unpicklable}
    if not hasattr(file, "write") and not is_path(file):
        swapped = hasattr(obj, "write") or is_path(obj)
        raise TypeError(
            f"file must have a 'write' attribute or be a path, and {type(file).__qualname__} is neither: "
            + ("the arguments are swapped, it is dump(obj, file)" if swapped else "for bytes, call dumps()")
        )
    if compress is not None and not is_path(file):
        raise ValueError(
            "compress= is for paths: to compress into an open file, give it a compressor such as gzip.open"
        )
    with writing("dump") as bar:
        if not is_path(file):
            Pickler(Output(file, checksum=checksum, bar=bar), protocol, **options).dump(obj)
            return
        compression = compressor(file, compress)
        place: Any = sending(file) if is_address(file) else replacing(file, fsync=fsync)
        with place as opened:
            if compression is None:
                # With buffers of the caller's out of band, those of the file could not be told from them.
                output = Output(opened, checksum=checksum, bar=bar, align=buffer_callback is None)
                Pickler(output, protocol, **options).dump(obj)
            else:
                # Compressed once it is whole: a walk that starts again could not take compressed bytes back.
                import tempfile

                with tempfile.TemporaryFile() as plain:
                    Pickler(Output(plain, checksum=checksum, bar=bar), protocol, **options).dump(obj)
                    plain.seek(0)
                    with reading("compress", plain):
                        pack(plain, compression, opened)


@public
def dumps(
    obj: object,
    protocol: int | None = None,
    *,
    fix_imports: bool = True,
    buffer_callback: BufferCallback | None = None,
    weakrefs: WeakReferencePolicy = "relink",
    finalizers: Finalizers = "dead",
    unpicklable: Unpicklable = "raise",
) -> bytes:
    """Return the pickle of `obj` as bytes.

    Args:
        obj: Any object. It is not changed.
        protocol: 0 to 5; None is ``HIGHEST_PROTOCOL``.
        fix_imports: As for `Pickler`.
        buffer_callback: As for `Pickler`.
        weakrefs: As for `Pickler`.
        finalizers: As for `Pickler`.
        unpicklable: As for `Pickler`.

    Returns:
        The pickle. Any unpickler reads it: safepickle has to be installed only where the pickle names it.

    Raises:
        ValueError: An option has no such value.
        Exception: As for `Pickler.dump`.

    Examples:
        >>> import weakref
        >>> class Node:
        ...     pass
        >>> node = Node()
        >>> node.itself = weakref.ref(node)
        >>> copy = safepickle.loads(safepickle.dumps(node))
        >>> copy.itself() is copy
        True
    """
    file = io.BytesIO()
    if unpicklable != "raise":
        options: dict[str, Any] = {"weakrefs": weakrefs, "finalizers": finalizers, "unpicklable": unpicklable}
        Pickler(file, protocol, fix_imports, buffer_callback, **options).dump(obj)
        return file.getvalue()
    if protocol is None or protocol < 0:
        protocol = pickle.HIGHEST_PROTOCOL
    relay = None if buffer_callback is None else BufferRelay(buffer_callback)
    pickler = _BytesPickler(file, protocol, fix_imports, relay)
    _forget_dispatch_table(pickler)
    pickler._file = file
    pickler._table = table = TypeTable()
    table.own_dispatch_table = _NO_TABLE
    if protocol != pickle.HIGHEST_PROTOCOL:
        pickler.proto = int(protocol)
    if relay is not None:
        pickler._relay = relay
        pickler._is_shared = True
    if weakrefs != "relink" or finalizers != "dead":
        pickler.dump_options = DumpOptions(None, weakrefs, finalizers).checked()
    pickler.dump(obj)
    return file.getvalue()
