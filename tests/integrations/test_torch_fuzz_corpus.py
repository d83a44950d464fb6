"""What the fuzzer found in torch files is held again without it."""

from __future__ import annotations

from fuzz.again import run_again


def test_torch_files_that_the_fuzzer_found_find_nothing():
    run_again("torch_files")
