"""What the fuzzer found is held again without it, so each input that was a finding has a place in its corpus."""

from __future__ import annotations

import sys

import pytest

from fuzz.again import run_again


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell what memory and time a process has taken")
def test_seeds_that_the_fuzzer_found_find_nothing():
    run_again("pickles")
