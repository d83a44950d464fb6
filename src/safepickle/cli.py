"""The command line: ``safepickle explain``, ``safepickle inspect``, ``safepickle diff``.

The only module that prints or exits. It finds the object or the files, has them reported on, and lays the report out:
tables in a terminal where rich is installed, plain text in a pipe, JSON on request.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safepickle import COMPILED, __version__
from safepickle.report.document import Document, Table, document_as_text

__all__ = ["main"]

_CORE = "compiled core" if COMPILED else "Python alone: the same, but slower, without the compiled core"
_VERSION = f"safepickle {__version__} ({_CORE})"
_EXIT_CODES = """exit status:
  explain   0 it can be pickled, 1 it cannot, 2 it was not found
  inspect   0 it can be loaded, 1 it is refused, damaged or no pickle, 2 it cannot be read
  diff      0 nothing changed, 1 something did, 2 a file cannot be read or compared
"""


class _Failure(Exception):
    """Something that the user has to put right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; by default, those of the process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the terminal cannot show must not end the report.
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except _Failure as failure:
        print(f"safepickle: {failure}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="safepickle",
        description="What a pickle would do, holds, or has changed.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_VERSION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    explain = commands.add_parser(
        "explain",
        help="what a dump of a live object would do",
        description="Tell what a dump of an object would do: what becomes of its weak references, what cannot be "
        "pickled, and where the bytes go. The module or script is run to get at the object, but under its own name: "
        'what stands below if __name__ == "__main__" is not.',
    )
    explain.add_argument("target", metavar="MODULE:NAME", help="or SCRIPT.py:NAME; NAME may have dots, and end in ()")
    explain.add_argument(
        "--weakrefs", choices=("relink", "strong", "tombstone", "strict"), default="relink", help="the policy"
    )
    explain.add_argument("--finalizers", choices=("dead", "rearm"), default="dead", help="what becomes of them")
    explain.add_argument("--protocol", type=int, choices=range(6), metavar="N", help="of the pickle; the highest")
    explain.add_argument(
        "--picture", metavar="FILE", help="draw the objects to FILE.html; or to FILE.svg, .png, .pdf or .dot"
    )
    explain.set_defaults(run=_explain)

    inspect = commands.add_parser(
        "inspect",
        help="what a file holds and would import",
        description="Tell what a pickle or a torch file holds and would import, running and importing nothing of it; "
        "or what a safetensors, npz, npy, .keras or HDF5 file holds.",
    )
    inspect.add_argument("file", metavar="FILE")
    inspect.set_defaults(run=_inspect)

    difference = commands.add_parser(
        "diff",
        help="what changed between two files",
        description="Tell what changed between two files: which tensors and arrays by how much, which numbers and "
        "texts from what to what, what was added and removed. Nothing of either file is run. Pickles, torch files, "
        "safetensors, .keras, npz and npy files are read, one against the other as well.",
    )
    difference.add_argument(
        "--exit-code", action="store_true", help="as git's, and always so here: 1 where something differs"
    )
    difference.add_argument("before", metavar="BEFORE")
    difference.add_argument("after", metavar="AFTER")
    difference.set_defaults(run=_diff)

    for command in (explain, inspect, difference):
        command.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def _explain(options: argparse.Namespace) -> int:
    from safepickle.report.explain import explain
    from safepickle.report.explanation import explanation_document

    explanation = explain(
        _find(options.target),
        protocol=options.protocol,
        weakrefs=options.weakrefs,
        finalizers=options.finalizers,
    )
    _print(explanation, explanation_document(explanation), options.json)
    if options.picture:
        try:
            explanation.picture(options.picture)
        except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
            raise _Failure(str(error)) from error
    return 0 if explanation.picklable else 1


def _inspect(options: argparse.Namespace) -> int:
    from safepickle.report.inspect import inspect
    from safepickle.report.inspection import inspection_document

    with _reading(options.file):
        inspection = inspect(options.file)
    _print(inspection, inspection_document(inspection), options.json)
    return 0 if inspection.verdict in ("safe", "needs_allow") else 1


def _diff(options: argparse.Namespace) -> int:
    from safepickle.report.changes import difference_document
    from safepickle.report.diff import diff

    with _reading(f"{options.before} or {options.after}"):
        difference = diff(options.before, options.after)
    _print(difference, difference_document(difference), options.json)
    return 0 if difference.same else 1


@contextlib.contextmanager
def _reading(files: str) -> Iterator[None]:
    """Tell the user where files cannot be read."""
    try:
        yield
    except OSError as error:
        raise _Failure(f"cannot read {error.filename or files}: {error.strerror or error}") from error
    except (UnpicklingError, ImportError, ValueError) as error:
        # fsspec, too, says so of an address that it has no package for, or that is of no kind it knows.
        raise _Failure(str(error)) from error


def _find(target: str) -> Any:
    """Run a module or script, and return the object in it that is meant."""
    source, colon, name = target.rpartition(":")
    if not colon or not source or not name:
        raise _Failure(f"{target} names no object: write module:name or script.py:name")
    print(f"safepickle: running {source} to get at {name}", file=sys.stderr)
    # What the module prints must not end up in the report.
    with contextlib.redirect_stdout(sys.stderr):
        obj = _run(source)
        for part in name.split("."):
            called = part.endswith("()")
            obj = _attribute(obj, part.removesuffix("()"), target)
            if called:
                obj = _guarded(obj, f"calling {part}")
    return obj


def _run(source: str) -> Any:
    if not source.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return _guarded(lambda: importlib.import_module(source), f"importing {source}")
    path = Path(source).resolve()
    if not path.is_file():
        raise _Failure(f"there is no script {source}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise _Failure(f"{source} is no Python script")
    module = importlib.util.module_from_spec(spec)
    # As a program of that name would have it: its folder is searched first, and its classes can be imported.
    sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module
    loader = spec.loader
    _guarded(lambda: loader.exec_module(module), f"running {source}")
    return module


def _guarded(call: Any, what: str) -> Any:
    """Call what is the user's, and tell the user when that goes wrong."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise _Failure(f"{what} raised {type(error).__name__}") from error


def _attribute(obj: Any, name: str, target: str) -> Any:
    try:
        return getattr(obj, name)
    except AttributeError:
        raise _Failure(f"there is no {name} in {target.rpartition(':')[0]}, as {target} has it") from None


def _print(report: Any, document: Document, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    elif not sys.stdout.isatty() or not _print_rich(document):
        print(document_as_text(document))


def _print_rich(document: Document) -> bool:
    """Print tables to the terminal; tell whether rich is there to do it."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ModuleNotFoundError:
        return False
    console = Console(highlight=False)
    first, *others = document.lines
    console.print(Text(first, style="bold"))
    for line in others:
        console.print(Text(line))
    for table in document.tables:
        console.print()
        console.print(_rich_table(table))
    if document.closing:
        console.print()
        console.print(Text(document.closing))
    return True


def _rich_table(table: Table) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(title=table.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, caption=table.more)
    made.caption_justify = "left"
    for position, column in enumerate(table.columns):
        made.add_column(column, justify="right" if position in table.right else "left", overflow="fold")
    for row in table.rows:
        # As text, so that the brackets of a path are no markup.
        made.add_row(*(Text(cell) for cell in row))
    return made
