"""ray: an object of a registered class travels as one safepickle pickle, its buffers beside it in the object store."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable
from typing import Any

import ray.util
from ray import cloudpickle as ray_cloudpickle

import safepickle

__all__ = ["register", "setup_hook"]

_ours: set[Any] = set()


def register(*classes: type) -> Callable[[], None]:
    """Let ray serialize instances of exactly these classes with safepickle, in this process.

    Name the class whose instances are the root of what is sent: a trainer, a model, a tree. All that it holds is in the
    same pickle, so the weak references inside are relinked. Call it after `ray.init`. Workers that send such objects
    back need it as well: see `setup_hook`.

    Args:
        *classes: The classes. An instance of a subclass is not concerned.

    Returns:
        A function that undoes it.

    Examples:
        >>> from argparse import Namespace
        >>> from safepickle.integrations.ray import register
        >>> undo = register(Namespace)  # after ray.init()
        >>> undo()
    """
    for cls in classes:
        ray.util.register_serializer(cls, serializer=_serialize, deserializer=_deserialize)
        _ours.add(ray_cloudpickle.CloudPickler.dispatch[cls])

    def undo() -> None:
        for cls in classes:
            _ours.discard(ray_cloudpickle.CloudPickler.dispatch.get(cls))
            ray.util.deregister_serializer(cls)

    return undo


def setup_hook(*classes: type) -> Callable[[], object]:
    """Return what makes every worker call `register`.

    Args:
        *classes: As for `register`.

    Returns:
        A function for ``ray.init(runtime_env={"worker_process_setup_hook": ...})``.

    Examples:
        >>> from argparse import Namespace
        >>> from safepickle.integrations.ray import setup_hook
        >>> runtime_env = {"worker_process_setup_hook": setup_hook(Namespace)}  # ray.init(runtime_env=runtime_env)
    """

    # ray asks for a plain function.
    def register_in_worker() -> None:
        register(*classes)

    return register_in_worker


class _Pickler(safepickle.Pickler):
    """Knows ray's reducers of object references and actor handles."""

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        of_ray = {
            cls: reduce
            for cls, reduce in ray_cloudpickle.CloudPickler.dispatch.items()
            if reduce not in _ours and not _is_of_cloudpickle(reduce)
        }
        self.dispatch_table = {**copyreg.dispatch_table, **of_ray}


def _is_of_cloudpickle(reduce: Any) -> bool:
    return str(getattr(reduce, "__module__", "")).startswith(ray_cloudpickle.__name__)


def _serialize(obj: Any) -> tuple[Any, ...]:
    """The pickle and its buffers, which ray's own pickler then lays beside each other without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(obj)
    # Plain bytes: ray's worker crashes on a buffer whose exporter gives no strides, such as one of ctypes.
    return (file.getvalue(), *(pickle.PickleBuffer(buffer.raw()) for buffer in buffers))


def _deserialize(parts: tuple[Any, ...]) -> Any:
    return pickle.loads(parts[0], buffers=parts[1:])
