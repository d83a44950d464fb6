"""``python -m safepickle``: the command line."""

import sys

from safepickle.cli import main

if __name__ == "__main__":
    sys.exit(main())
