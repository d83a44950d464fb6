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

# One binary of the oldest CPython that is supported serves it and every later one. What the headers of a later one make
# of the limited API serves that version alone: there None is immortal, and nobody counts references to it.
IS_OLDEST = sys.version_info[:2] == (3, 11)

SPEEDUPS = Extension(
    "safepickle._speedups",
    ["src/safepickle/_speedups.c"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=IS_OLDEST,
    optional=True,
)

if PURE:
    print("safepickle is built in Python alone: it works the same, and is slower")
    setup()
else:
    setup(ext_modules=[SPEEDUPS], options={"bdist_wheel": {"py_limited_api": "cp311"}} if IS_OLDEST else {})
