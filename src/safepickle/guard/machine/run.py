"""The loop that runs one pickle."""

from __future__ import annotations

from typing import Any, Final

from safepickle.guard.limits import LimitExceeded, Malformed, Refusal, told
from safepickle.guard.machine.state import NO_FRAME, MachineState
from safepickle.guard.machine.table import BY_BYTE, Finished
from safepickle.guard.opcodes import OPCODES
from safepickle.guard.source import MOVED

_MEMOIZE: Final = 0x94
_BINGET: Final = ord("h")


class Machine(MachineState):
    """Runs one pickle, and leaves its source just behind it. The arguments are those of `MachineState`."""

    def run(self) -> Any:
        """Run to the STOP opcode and return the object.

        Raises:
            Refusal: The stream asks for what is not allowed.
            Malformed: It is not a whole pickle.
            LimitExceeded: It costs more than it may.
        """
        source = self.source
        handlers = BY_BYTE
        memo = self.memo
        start = seen = 0
        try:
            while True:
                data, position, base = source.data, source.position, source.base
                limit = min(source.limit, self.frame_end - base)
                self.budget.grow(base + source.end - seen)
                seen = base + source.end
                while position < limit:
                    start = position
                    code = data[position]
                    # Two opcodes in five are these, and a call costs as much as what they do.
                    if code == _MEMOIZE:
                        memo[len(memo)] = self.stack[-1]
                        position += 1
                    elif code == _BINGET:
                        self.stack.append(memo[data[position + 1]])
                        position += 2
                    else:
                        position = handlers[code](self, data, position + 1)
                if position != MOVED:
                    source.position = position
                self._leave_frame(source.base + source.position)
                if source.position >= source.limit:
                    start = source.position
                    source.advance(start)
        except Finished as finished:
            if not self.stack:
                raise Malformed("STOP comes with nothing on the stack") from None
            if self.frame_end not in (NO_FRAME, base + finished.args[0]):
                raise Malformed("STOP comes before the end of its frame") from None
            self.keep(self.stack[-1:])
            source.finish(finished.args[0])
            self.offset = base + finished.args[0]
            result = self.stack.pop()
            self.stack, self.outer = [], []
            return result
        except (Refusal, Malformed, LimitExceeded):
            self._note(base + start, data, start)
            raise
        except MemoryError:
            self._note(base + start, data, start)
            raise LimitExceeded("it asks for more memory than there is") from None
        except IndexError:
            self._note(base + start, data, start)
            raise Malformed("an opcode takes more from the stack than is there") from None
        except Exception as error:
            self._note(base + start, data, start)
            raise Malformed(told(error)) from error

    def _leave_frame(self, reached: int) -> None:
        """Close the frame that ends where the stream was read to.

        Raises:
            Malformed: It ends inside of an opcode, so that a reader of frames and a reader of opcodes see two streams.
        """
        if reached < self.frame_end:
            return
        if reached > self.frame_end:
            raise Malformed("an opcode runs over the end of its frame")
        self.frame_end = NO_FRAME

    def _note(self, offset: int, data: Any, start: int) -> None:
        self.offset = offset
        code = data[start] if start < len(data) else None
        self.opcode = OPCODES[code].name if code in OPCODES else ""
