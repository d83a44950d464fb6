"""Names that stand for something else."""

import os

innocent = os.system
an_instance = object()
