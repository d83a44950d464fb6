"""Imports go one way: each room of the package imports only rooms that lie further along the data's way.

Read from the source. An import inside a function, or for type checkers alone, counts like any other.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import safepickle
from programs import run

PACKAGE = Path(safepickle.__file__).parent

# The rooms, from the street to the back yard. A room imports those on the lines below its own, and its own modules.
ORDER = [
    ["__main__"],
    ["cli"],
    ["integrations"],
    ["__init__"],
    ["backend"],
    ["loading", "copying", "report"],
    ["dumping"],
    ["tracing"],
    ["reducers"],
    ["guard"],
    ["rebuild", "storage"],
    ["options"],
    ["errors", "load_errors", "weak_types"],
    ["callers", "public", "cpython", "messages", "progress", "reduce_value", "speedups", "torch_internals"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

# Modules that import one of ours inside a function, each with the reason.
LATE = {
    "cli": "each command imports what it needs, so that --version and --help answer at once",
    "dumping.base_pickler": "few graphs nest too deeply, or lead back into a tensor, and few dumps lose references",
    "dumping.pickler": "most dumps succeed",
    "guard.allowing": "most loads are not guarded",
    "loading.aliases": "most loads find what they ask for",
    "loading.torch_files": "most loads are not guarded",
    "loading.unpickler": "most loads are neither guarded nor mapped",
    "rebuild.tensors": "torch is imported by what makes its storages, and by nothing else",
    "reducers.stdlib_types": "dill is imported for the types that it alone can pickle",
    "report.elements": "numpy is imported by what works with it, and may be missing",
    "report.explanation": "few reports are drawn",
    "storage.files": "few files have a checksum",
}

FRAMEWORKS = {"torch", "keras", "tensorflow", "jax", "lightning", "numpy", "pandas", "joblib", "dask", "ray", "pyspark"}
HEAVY = FRAMEWORKS | {"dill", "rich", "tqdm", "graphviz", "ctypes", "tempfile", "zipfile"}

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports(tree: ast.AST, *, late: bool) -> Iterator[str]:
    """Yield the dotted names that a module imports at once; with `late`, in functions and for type checkers, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the package imports by absolute name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not late and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module(node.orelse, []), late=late)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, late=late)


def imports_of_ours(module: str, *, late: bool) -> set[str]:
    """Return the modules of the package that `module` imports, as keys of `MODULES`."""
    names = imports(ast.parse(MODULES[module].read_text(encoding="utf-8")), late=late)
    return {longest_module(name.split(".")[1:]) for name in names if name.split(".")[0] == "safepickle"}


def longest_module(parts: list[str]) -> str:
    for end in range(len(parts), 0, -1):
        for candidate in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
            if candidate in MODULES:
                return candidate
    return "__init__"


def against_the_order(module: str) -> set[tuple[str, str]]:
    room = room_of(module)
    others = {room_of(imported) for imported in imports_of_ours(module, late=True)} - {room}
    return {(room, other) for other in others if LEVEL[other] <= LEVEL[room]}


def test_every_room_has_its_place_in_the_order():
    assert {room_of(module) for module in MODULES} <= set(LEVEL)


def test_the_map_of_the_design_shows_every_room():
    page = (PACKAGE.parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    (\w+(?:, \w+)*)", page[page.index("## 11. The rooms") :], re.MULTILINE)
    assert {room for line in shown for room in line.split(", ")} == set(LEVEL)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module):
    assert against_the_order(module) == set()


def test_imports_inside_functions_are_few_and_have_a_reason():
    late = {
        module
        for module, path in MODULES.items()
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports(function, late=True)
        if name.split(".")[0] == "safepickle" and not module.startswith("integrations.")
    }
    assert late == set(LATE)


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: imports_of_ours(module, late=True) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"import cycle: {' -> '.join([*way, module])}"
        if module not in done:
            for imported in graph[module] - {module}:
                visit(imported, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_what_is_imported_at_once_imports_no_framework():
    reached: set[str] = set()
    to_visit = {"__init__"}
    while to_visit:
        module = to_visit.pop()
        reached.add(module)
        to_visit |= imports_of_ours(module, late=False) - reached
    assert "dumping.pickler" in reached
    for module in reached:
        names = {
            name.split(".")[0] for name in imports(ast.parse(MODULES[module].read_text(encoding="utf-8")), late=False)
        }
        assert not names & HEAVY, module


def test_importing_safepickle_imports_nothing_heavy():
    program = "import sys, json, cloudpickle; peer = set(sys.modules); import safepickle; " + (
        "print(json.dumps(sorted(set(sys.modules) - peer)))"
    )
    added = {name.split(".")[0] for name in json.loads(run(program))}
    assert "safepickle" in added
    assert not added & HEAVY


def test_no_framework_is_imported_until_its_objects_are_met():
    program = f"""
import sys, weakref
import safepickle
class Node: pass
node = Node()
node.itself, node.function = weakref.ref(node), lambda: node
safepickle.loads(safepickle.dumps([node, {{2: set()}}]))
print(*sorted({FRAMEWORKS | {"dill"}!r} & set(sys.modules)))
"""
    assert run(program).split() == []
