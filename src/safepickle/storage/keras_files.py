"""``.keras`` archives: what Keras says of the model in JSON, and the weights beside it."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, Final

from safepickle.storage.contents import LONGEST_JSON, CannotListError, Contents, MemberReader, open_zip, parse_json
from safepickle.storage.hdf5 import list_hdf5

__all__ = ["list_keras"]

_WEIGHTS: Final = "model.weights.h5"
_MOST_NAMED: Final = 10
_OWN_MODULES: Final = ("keras", "tensorflow", "tf_keras", "builtins")


def list_keras(file: IO[bytes], start: int) -> Contents:
    """List what a ``.keras`` archive holds, without Keras.

    Raises:
        CannotListError: It is damaged.
    """
    archive = open_zip(file, start)
    members = {member.filename: member for member in archive.infolist()}
    contents = Contents()
    weights = members.get(_WEIGHTS)
    if weights is None:
        contents.notes.append(f"it has no {_WEIGHTS}, so no weights are listed")
    elif weights.compress_type != zipfile.ZIP_STORED:
        contents.notes.append(f"its {_WEIGHTS} is compressed, so no weights are listed")
        contents.complete = False
    else:
        contents = list_hdf5(file, _offset(file, weights), weights.file_size)
    contents.documents = {name: _json(archive, members, name) for name in ("config.json", "metadata.json")}
    for key, value in contents.documents["metadata.json"].items():
        contents.facts[key.replace("_", " ")] = str(value)
    _describe(contents.documents["config.json"], contents)
    return contents


def _json(archive: Any, members: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in members:
        return {}
    length = min(members[name].file_size, LONGEST_JSON + 1)
    return parse_json(MemberReader(archive, members[name], 0, length)(), name)


def _offset(file: IO[bytes], member: Any) -> int:
    """Return where the bytes of a member begin that is not compressed: behind its header, which has two long fields."""
    file.seek(member.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4":
        raise CannotListError("the archive is damaged")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return int(member.header_offset) + 30 + lengths


def _describe(config: dict[str, Any], contents: Contents) -> None:
    """Say of which classes a model is made, and which of them are not Keras's own."""
    if type(config.get("class_name")) is str:
        contents.facts["model"] = config["class_name"]
    compiled = config.get("compile_config")
    optimizer = compiled.get("optimizer") if type(compiled) is dict else None
    if type(optimizer) is dict and type(optimizer.get("class_name")) is str:
        contents.facts["optimizer"] = optimizer["class_name"]
    layers: Counter[str] = Counter()
    foreign: dict[str, None] = {}
    holds_code = False
    for part in _parts(config):
        name, module = part.get("class_name"), part.get("module")
        if name == "__lambda__":
            holds_code = True
        if type(name) is not str or type(module) is not str:
            continue
        if module == "keras.layers":
            layers[name] += 1
        if module.partition(".")[0] not in _OWN_MODULES:
            foreign[f"{module}:{name}"] = None
    if layers:
        named = [f"{count} {name}" for name, count in layers.most_common(_MOST_NAMED)]
        contents.facts["layers"] = ", ".join(named) + (", ..." if len(layers) > _MOST_NAMED else "")
    if holds_code:
        contents.notes.append("it holds the code of a lambda, which Keras runs with safe_mode=False")
    if foreign:
        named = list(foreign)[:_MOST_NAMED]
        contents.notes.append(f"Keras imports {', '.join(named)}{', ...' if len(foreign) > _MOST_NAMED else ''} for it")


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every JSON object in another one."""
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            yield value
            waiting += value.values()
        elif type(value) is list:
            waiting += value
