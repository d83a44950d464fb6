"""THE FILE FORMAT: every callable and class that a pickle written by safepickle names.

A name here is bytes in files that exist. So:

* a name is never renamed or removed, and its arguments are never reordered;
* a new argument gets a default;
* a changed meaning gets a new name;
* every change stands in CHANGELOG.md under ``Format``, and a golden pickle of it is added to the tests.

Files know a name as a member of this package, whichever of its modules defines it: there `file_format` marks it. To
add one, mark it and list it in `FORMAT`.

A weak reference that was relinked names nothing from here: ``weakref.ref(copy)`` needs no safepickle to load.
This package knows nothing of how a dump decides; it only builds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

# ruff: noqa: F403 (type checkers alone read these lines; at run time `FORMAT` says where a name is)
if TYPE_CHECKING:
    from safepickle.rebuild.blinker_types import *
    from safepickle.rebuild.classes import *
    from safepickle.rebuild.containers import *
    from safepickle.rebuild.keras import *
    from safepickle.rebuild.logging_types import *
    from safepickle.rebuild.partial import *
    from safepickle.rebuild.recomputed import *
    from safepickle.rebuild.records import *
    from safepickle.rebuild.stdlib_types import *
    from safepickle.rebuild.stubs import *
    from safepickle.rebuild.tensorflow import *
    from safepickle.rebuild.tensors import *
    from safepickle.rebuild.torch_parametrized import *
    from safepickle.rebuild.torch_weak import *
    from safepickle.rebuild.weak import *

FORMAT: Final[dict[str, tuple[str, ...]]] = {
    "weak": (
        "Owner",
        "OwningFinalize",
        "OwningWeakMethod",
        "RecipeRef",
        "StrongRef",
        "Tombstone",
        "rebuild_dead_finalize",
        "rebuild_dead_proxy",
        "rebuild_dead_reference",
        "rebuild_dead_weak_method",
        "rebuild_finalize",
        "rebuild_owning_finalize",
        "rebuild_owning_reference",
        "rebuild_proxy_referent",
        "rebuild_reference",
    ),
    "blinker_types": ("rebuild_blinker_connections",),
    "classes": (
        "rebuild_class",
        "rebuild_class_attributes",
        "rebuild_method",
    ),
    "containers": (
        "rebuild_root",
        "rebuild_set_members",
        "rebuild_weak_container",
        "rebuild_weak_entries",
    ),
    "logging_types": ("rebuild_logging_handler",),
    "stdlib_types": (
        "rebuild_descriptor",
        "rebuild_file",
        "rebuild_lru_cache",
        "rebuild_memoryview",
        "rebuild_queue_items",
        "rebuild_shareable_list",
        "rebuild_shared_memory",
        "rebuild_thread",
    ),
    "partial": (
        "UnpicklableTombstone",
        "rebuild_replacement",
        "rebuild_salvaged",
        "rebuild_salvaged_contents",
    ),
    "recomputed": ("rebuild_recomputed",),
    "records": ("rebuild_record",),
    "stubs": (
        "Stub",
        "StubRecord",
        "rebuild_global",
        "rebuild_stub_of_builtin",
    ),
    "tensors": (
        "rebuild_torch_attributes",
        "rebuild_torch_parameter",
        "rebuild_torch_storage",
        "rebuild_torch_tensor",
        "rebuild_torch_typed_storage",
    ),
    "torch_parametrized": ("rebuild_torch_parametrizations", "rebuild_torch_parametrized"),
    "torch_weak": (
        "rebuild_torch_owning_handle",
        "rebuild_torch_weak_dictionary",
        "rebuild_torch_weak_entries",
        "rebuild_torch_weak_reference",
    ),
    "keras": (
        "KerasRuntime",
        "rebuild_keras_container",
        "rebuild_keras_loss_entry",
        "rebuild_keras_masked",
        "rebuild_keras_node",
        "rebuild_keras_object",
        "rebuild_keras_tracker",
        "restore_keras_attributes",
        "restore_keras_node",
        "restore_keras_object",
        "restore_keras_set",
        "restore_keras_tracker",
    ),
    "tensorflow": (
        "rebuild_tf_default_strategy",
        "rebuild_tf_function",
        "rebuild_tf_mutable_table",
        "rebuild_tf_static_table",
        "restore_tf_function",
    ),
}
"""Module of this package -> the names that it defines. A module is imported when one of its names is asked for."""

_HELPERS = {"weak": ("weak_method_callback",), "stubs": ("reduce_stub_class", "stub_class")}
"""What else is asked for here: no pickle names it."""

__all__ = [name for names in FORMAT.values() for name in names]


def __getattr__(name: str) -> object:
    for listed in (FORMAT, _HELPERS):
        for module, names in listed.items():
            if name in names:
                found: object = getattr(import_module(f"{__name__}.{module}"), name)
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
