"""The pickle machine: reads opcodes, moves a stack, and asks its backend before anything happens.

The machine knows the grammar of protocols 0 to 5 and what each opcode may touch. What a name stands for, whether it may
be called and whether the call really happens is the affair of the `Backend` that it is given.

`state` is what the opcodes work on; `structures`, `scalars`, `memo` and `calls` are the opcodes, a function
``on_<opcode>`` for each; `table` finds the function by the byte; `run` is the loop.
"""

from __future__ import annotations

from safepickle.guard.machine.backend import Backend
from safepickle.guard.machine.run import Machine

__all__ = ["Backend", "Machine"]
