"""How some tests are run."""

from __future__ import annotations

import concurrent.futures
import sys
import threading

import pytest

# A thread has a C stack of the size that is asked for, on every machine.
_SMALL_STACK = 1 << 20


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked ``small_stack`` in a thread of its own.

    From CPython 3.14 on the C pickler follows a graph as deep as its stack allows, which is a setting of the machine.
    Before, it counts calls and overflows a small stack, so the test runs as any other.
    """
    if sys.version_info < (3, 14) or pyfuncitem.get_closest_marker("small_stack") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    before = threading.stack_size(_SMALL_STACK)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(pyfuncitem.obj, **arguments).result()
    finally:
        threading.stack_size(before)
    return True
