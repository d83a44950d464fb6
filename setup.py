"""The compiled core, `safepickle._speedups`, and the README for the package index: the rest is in pyproject.toml.

The core is optional. Where no compiler works the rest is installed all the same; an interpreter without a GIL or other
than CPython goes without it; and ``SAFEPICKLE_PURE=1`` leaves it out, for the wheel that runs everywhere.
"""

import os
import re
import sys
import sysconfig
import tomllib
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
PURE = (
    os.environ.get("SAFEPICKLE_PURE", "0") not in ("", "0")
    or sys.implementation.name != "cpython"
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
)

# One binary of the oldest CPython that is supported serves it and every later one. What the headers of a later one make
# of the limited API serves that version alone: there None is immortal, and nobody counts references to it.
IS_OLDEST = sys.version_info[:2] == (3, 11)
LIMITED_API = "0x{:02X}{:02X}0000".format(*sys.version_info[:2])

SPEEDUPS = Extension(
    "safepickle._speedups",
    ["src/safepickle/_speedups.c", "src/safepickle/_verifier.c"],
    depends=["src/safepickle/_speedups.h"],
    define_macros=[("Py_LIMITED_API", LIMITED_API)],
    py_limited_api=IS_OLDEST,
    optional=True,
)

LINK = re.compile(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)]+)\)")


def readme() -> str:
    """Return the README as the package index shows it: there no file lies beside it that a link could lead to.

    The links lead into the repository that pyproject.toml names. While it names none their words stay, as plain text.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project.get("urls", {}).get("Repository")

    def elsewhere(link: re.Match[str]) -> str:
        picture, words, path = link.groups()
        if repository is None:
            return "" if picture else words
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/HEAD/{path})"

    return LINK.sub(elsewhere, (ROOT / "README.md").read_text(encoding="utf-8"))


if PURE:
    print("safepickle is built in Python alone: it works the same, and is slower")
setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    ext_modules=[] if PURE else [SPEEDUPS],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if IS_OLDEST and not PURE else {},
)
