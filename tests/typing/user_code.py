"""What users write with the public names, for the type checker of `make lint`. Nothing runs it."""

from __future__ import annotations

import gzip
import io
import pathlib
import types
import weakref
from collections.abc import Callable
from typing import Any, assert_type

import safepickle


class Model:
    def __init__(self, width: int) -> None:
        self.width = width


def copy_of(model: Model) -> Model:
    return Model(model.width)


def as_users_pickle(model: Model, path: pathlib.Path) -> None:
    data = assert_type(safepickle.dumps(model), bytes)
    data += safepickle.dumps(model, 5, fix_imports=True, buffer_callback=None, weakrefs="strong", finalizers="rearm")
    data += safepickle.dumps(model, weakrefs=lambda referent: "tombstone", unpicklable="tombstone")
    assert_type(safepickle.loads(data), Any)
    safepickle.loads(data, allow=(Model, "app.nets:Net"), aliases={"app.old.Net": Model, "app.older": pathlib})
    safepickle.loads(data, missing="stub", buffers=[bytearray(4)])
    safepickle.dump(model, path)
    safepickle.dump(model, "model.pkl", weakrefs="strict", fsync=False)
    with path.open("r+b") as file, io.BytesIO() as memory:
        safepickle.dump(model, file)
        safepickle.dump(model, memory)
        safepickle.load(file)
        safepickle.Pickler(file, protocol=5, weakrefs="relink").dump(model)
        safepickle.Unpickler(memory, allow=[Model]).load()
    safepickle.load(path, allow=())
    with gzip.open(path, "wb") as packed:
        safepickle.dump(model, packed)
    with gzip.open(path) as packed:
        safepickle.load(packed, allow=[Model, copy_of, len])
    safepickle.load("model.pkl", mmap=True, checksum="ignore")


def as_users_take_a_backend(model: Model) -> None:
    backend = safepickle.backend(weakrefs="strong", allow=[Model], missing="raise")
    data = assert_type(backend.dumps([1]), bytes)
    data += safepickle.backend(weakrefs="strong").dumps([1], protocol=5)
    backend.loads(data)
    with open("model.pkl", "w+b") as file:
        backend.dump(model, file)
        backend.load(file)
        backend.Pickler(file).dump(model)
        backend.Unpickler(file).load()


class Storing(safepickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return "model" if type(obj) is Model else None


class Fetching(safepickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return Model(3)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return super().find_class(module_name, global_name)


def as_users_copy(model: Model) -> int:
    copied = safepickle.deepcopy(model)
    with safepickle.deepcopying():
        pass
    return copied.width


def as_users_look(model: Model) -> None:
    print(safepickle.explain(model))
    report = safepickle.inspect("model.pkl")
    if report.verdict != "safe":
        print(report)
    difference = safepickle.diff("model.pkl", model)
    largest = max((change.elements.largest or 0.0 for change in difference.changes if change.elements), default=0.0)
    print(difference.same, largest, len(safepickle.compare_attributes(model)))


def as_users_register() -> None:
    def reduce_model(model: Model) -> tuple[type[Model], tuple[int]]:
        return Model, (model.width,)

    safepickle.register(Model, reduce_model)


def as_users_recompute() -> int:
    make: Callable[[int], Model] = Model
    recipe = safepickle.Recomputed(make, 3)
    recipe.refresh()
    return recipe.value.width


def as_users_guard_a_block(data: bytes) -> None:
    with safepickle.allowing(Model, "app.nets:Net"):
        safepickle.loads(data)
    try:
        safepickle.loads(data, allow=())
    except safepickle.NotAllowedError as error:
        print(str(error))
    except safepickle.GuardedLoadError as error:
        print(str(error))


def as_users_ask_what_a_reference_was(reference: weakref.ref[Model]) -> str | None:
    if isinstance(reference, safepickle.Tombstone):
        return reference.referent_type
    if isinstance(reference, safepickle.StrongRef):
        return type(reference()).__name__
    return None


def as_users_pickle_by_value(module: types.ModuleType) -> None:
    safepickle.register_pickle_by_value(module)
    safepickle.unregister_pickle_by_value(module)
    protocols: tuple[int, int] = (safepickle.HIGHEST_PROTOCOL, safepickle.DEFAULT_PROTOCOL)
    print(protocols, safepickle.__version__.split("."))
