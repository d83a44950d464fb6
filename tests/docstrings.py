"""What the docstrings of public names have to say, read from the source: the frameworks need not be there.

And how their examples are run, which does need them.
"""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safepickle

PACKAGE = Path(safepickle.__file__).parent
ERRORS = ("errors.py", "load_errors.py")
MARKS = {"public", "file_format"}
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Warns", "Examples")

# The integrations whose frameworks only tests/heavy has.
HEAVY = ("huggingface", "ray", "spark")
INTEGRATIONS = [
    *sorted(path for path in (PACKAGE / "integrations").glob("*.py") if path.stem != "__init__"),
    PACKAGE / "integrations" / "torch" / "__init__.py",
]

# No user calls them, so they need no example.
CALLED_BY_FRAMEWORKS = {
    "safepickle.integrations.dask.dask_setup",
    "safepickle.integrations.torch.load_tracked",
    "safepickle.integrations.torch.save_tracked",
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function, class or method: what its docstring says, and what that has to cover."""

    name: str
    sections: dict[str, str]
    parameters: tuple[str, ...]
    returns: bool
    is_method: bool
    is_error: bool

    def missing(self) -> list[str]:
        """Return what the docstring leaves out."""
        said = self.sections.get("Args", "") + self.sections.get("Attributes", "")
        found = [name for name in self.parameters if not re.search(rf"^ *{re.escape(name)}: ", said, re.MULTILINE)]
        if not self.sections[""].strip():
            found.append("what it is")
        if self.returns and not self.sections.keys() & {"Returns", "Yields"}:
            found.append("Returns")
        if self.is_error:
            wanted = {"when it is raised": r"^(Raised|Given) ", "what to do": r"\bWhat\s+to\s+do:\s"}
            found += [what for what, words in wanted.items() if not re.search(words, self.sections[""], re.MULTILINE)]
        elif "Examples" not in self.sections and not self.is_method and self.name not in CALLED_BY_FRAMEWORKS:
            found.append("Examples")
        return found


def of_package() -> Iterator[Documented]:
    """Yield what `safepickle.__all__` lists and is made here, with the public methods of its classes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in _defined(path):
            marks = {ast.unparse(mark) for mark in node.decorator_list}
            if node.name in safepickle.__all__ and (marks & MARKS or path.name in ERRORS):
                yield from _of_node(node, f"safepickle.{node.name}", is_error=path.name in ERRORS)


def of_integration(path: Path) -> Iterator[Documented]:
    """Yield what an integration lists in ``__all__``, wherever that is defined, and the public methods of classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (listed,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    name = module_name(path)
    places = {path} | {
        (PACKAGE.parent / Path(*node.module.split("."))).with_suffix(".py")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("safepickle.")
    }
    for place in sorted(place for place in places if place.exists() and place.name not in ERRORS):
        for node in _defined(place):
            if node.name in listed:
                yield from _of_node(node, f"{name}.{node.name}")


def of_reports() -> Iterator[Documented]:
    """Yield the classes of what `explain`, `inspect`, `diff` and `compare_attributes` return, which need no example."""
    for name in ("attributes", "changes", "elements", "explanation", "inspection"):
        path = PACKAGE / "report" / f"{name}.py"
        for node in _defined(path):
            if any(ast.unparse(mark) == "record" for mark in node.decorator_list):
                for documented in _of_node(node, f"{module_name(path)}.{node.name}"):
                    yield replace(documented, is_method=True)


def module_name(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def run_examples(named: Any, name: str) -> int:
    """Run the examples in the docstrings of a function, or of a class and its methods; return how many lines ran.

    They begin with `safepickle` imported, and with no other name.
    """
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    finder = doctest.DocTestFinder(exclude_empty=True)
    for test in finder.find(named, name, module=False, globs={"safepickle": safepickle, "__name__": "__main__"}):
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    return runner.tries


def examples_of_integrations(*, heavy: bool) -> list[tuple[str, str]]:
    """Return module and name of what an integration documents with an example, for one of the two environments."""
    return [
        (module_name(path), documented.name.rpartition(".")[2])
        for path in INTEGRATIONS
        if (path.stem in HEAVY) == heavy
        for documented in of_integration(path)
        if "Examples" in documented.sections
    ]


def _defined(path: Path) -> list[Any]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.ClassDef | _Function)]


def _of_node(node: Any, name: str, *, is_error: bool = False) -> Iterator[Documented]:
    """Yield a function, or a class, whose constructor's arguments are part of its own docstring, and its methods."""
    if isinstance(node, _Function):
        yield _documented(name, [node], _parameters(node), returns=_returns(node))
        return
    methods = [each for each in node.body if isinstance(each, _Function)]
    made = [each for each in methods if each.name == "__init__"]
    parameters = [name for each in made for name in _parameters(each)[1:]]
    yield _documented(name, [node, *made], parameters, is_error=is_error)
    for method in methods:
        if not method.name.startswith("_"):
            is_property = any(ast.unparse(mark).endswith("property") for mark in method.decorator_list)
            returns = _returns(method) and not is_property
            yield _documented(
                f"{name}.{method.name}", [method], _parameters(method)[1:], returns=returns, is_method=True
            )


def _parameters(function: Any) -> list[str]:
    taken = function.args
    names = [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return names + [f"{stars}{each.arg}" for stars, each in (("*", taken.vararg), ("**", taken.kwarg)) if each]


def _returns(function: Any) -> bool:
    return ast.unparse(function.returns or ast.Constant(None)) != "None"


def _documented(
    name: str,
    nodes: list[Any],
    parameters: list[str],
    *,
    returns: bool = False,
    is_method: bool = False,
    is_error: bool = False,
) -> Documented:
    sections: dict[str, str] = {"": ""}
    for node in nodes:
        parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", ast.get_docstring(node) or "", flags=re.MULTILINE)
        for title, text in zip(["", *parts[1::2]], parts[::2], strict=True):
            sections[title] = sections.get(title, "") + text
    return Documented(name, sections, tuple(parameters), returns, is_method, is_error)
