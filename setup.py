"""The compiled core, `safepickle._speedups`: everything else is in pyproject.toml.

It is optional. Where no compiler works the rest is installed all the same; an interpreter without a GIL or other than
CPython goes without it; and ``SAFEPICKLE_PURE=1`` leaves it out, for the wheel that runs everywhere.
"""

import os
import sys
import sysconfig

from setuptools import Extension, setup

PURE = (
    os.environ.get("SAFEPICKLE_PURE", "0") not in ("", "0")
    or sys.implementation.name != "cpython"
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
)

SPEEDUPS = Extension(
    "safepickle._speedups",
    ["src/safepickle/_speedups.c"],
    # The limited API of the oldest CPython that is supported: one binary serves it and every later one.
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
    optional=True,
)

if PURE:
    print("safepickle is built in Python alone: it works the same, and is slower")
    setup()
else:
    setup(ext_modules=[SPEEDUPS], options={"bdist_wheel": {"py_limited_api": "cp311"}})
