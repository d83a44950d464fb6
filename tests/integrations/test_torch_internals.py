"""Private names of torch: each that is used is listed, and is there."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.utils.parametrize
import torch.utils.weak

import safepickle
from safepickle.guard.rules import tensors
from safepickle.torch_internals import OPTIONAL_NAMES, PRIVATE_NAMES

PACKAGE = Path(safepickle.__file__).parent
LISTED = {part for expression in PRIVATE_NAMES for part in expression.replace("()", "").split(".")} | OPTIONAL_NAMES


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("expression", PRIVATE_NAMES)
def test_private_name_of_torch_is_there(expression: str) -> None:
    importlib.import_module("torch._subclasses.fake_tensor")
    try:
        eval(expression, {"torch": torch})
    except AttributeError as error:
        pytest.fail(f"torch {torch.__version__} has no {expression} ({PRIVATE_NAMES[expression]}): {error}")


RULED = [key for key in tensors.RULES if key[0].startswith("torch") and "._" in ".".join(key)]


@pytest.mark.parametrize(("module", "name"), RULED, ids=".".join)
def test_private_name_that_the_guard_knows_is_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), f"torch {torch.__version__} has no {module}.{name}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of_torch(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the private names that a module imports from torch or asks of an object, but for its own."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and type(node.ctx) is ast.Store}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            for name in (part for alias in node.names for part in f"{node.module}.{alias.name}".split(".")):
                yield name, node.lineno
        elif isinstance(node, ast.Attribute) and not (
            node.attr in own or ast.unparse(node.value) in ("self", "cls", "super()", "sys", "copyreg")
        ):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            match node.args[1]:
                case ast.Constant(str(literal)):
                    yield literal, node.lineno


def imports_torch(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "torch" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch")
        for node in ast.walk(tree)
    )


def test_every_private_name_of_torch_that_is_used_is_listed() -> None:
    unlisted = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if imports_torch(tree):
            found = [(name, line) for name, line in names_of_torch(tree) if is_private(name) and name not in LISTED]
            unlisted += [f"{path.relative_to(PACKAGE)}:{line}: {name}" for name, line in found]
    assert unlisted == [], "add them to safepickle.torch_internals.PRIVATE_NAMES"
