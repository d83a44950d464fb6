"""Run inputs again, without atheris: what is kept of one kind, or files such as those of the findings.

usage: python -m fuzz.replay KIND [FILE...]

Prints each input that finds something: the seed as the corpus writes it, the target, and what was found.
"""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

from fuzz import corpus, watching
from fuzz.targets import TARGETS, import_listed


def main(kind: str, *files: str) -> int:
    """Return 1 when anything was found."""
    warnings.simplefilter("ignore")
    if not files:
        watching.SECONDS = math.inf  # the tests measure no time
    import_listed()
    status = 0
    for seed in [Path(file).read_bytes() for file in files] or corpus.found(kind) + corpus.mended(kind):
        for target in corpus.KINDS[kind]:
            try:
                TARGETS[target](seed)
            except Exception as error:
                status = 1
                print(corpus.line(seed), target, *error.args)
                break
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
