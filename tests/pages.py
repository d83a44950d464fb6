"""Run the examples of a documentation page, so that page and program cannot drift apart."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import types
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(name: str, folder: Path, leave_out: Collection[str] = ()) -> int:
    """Run every ``python`` block of a page in one namespace, in `folder`; return how many there were.

    A ``text`` block right after a ``python`` block is what that block prints. Classes that the examples define are
    importable from their module, as those of a program are. A block whose fence says ``python notest`` is not run.

    Args:
        name: Path of the page from the root of the project.
        folder: Where the examples find and leave their files.
        leave_out: Further words after ``python`` of the blocks that are not run.
    """
    page = ROOT / name
    blocks = [found.groups() for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    sys.modules[module.__name__] = module
    before = os.getcwd()
    os.chdir(folder)
    count = 0
    try:
        for index, (language, word, source) in enumerate(blocks):
            if language != "python" or word == "notest" or word in leave_out:
                continue
            count += 1
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"{name}, example {count}", "exec"), module.__dict__)
            following = blocks[index + 1] if index + 1 < len(blocks) else ("", "", "")
            expected = following[2] if following[0] == "text" else ""
            assert printed.getvalue() == expected, f"{name}, example {count} prints\n{printed.getvalue()}"
    finally:
        os.chdir(before)
        del sys.modules[module.__name__]
    return count
