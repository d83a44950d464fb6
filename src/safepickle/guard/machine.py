"""The pickle machine: reads opcodes, moves a stack, and asks its world before anything happens.

The machine knows the grammar of protocols 0 to 5 and what each opcode may touch. What a name stands for, whether it may
be called and whether the call really happens is the affair of the `World` that it is given.
"""

from __future__ import annotations

import pickle
import re
from codecs import escape_decode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Final, Protocol

from safepickle.guard.keys import Budget, KeyGuard
from safepickle.guard.limits import DIGITS, OPEN_MARKS, Damage, Excess, Refusal
from safepickle.guard.opcodes import OPCODES
from safepickle.guard.source import MOVED, Source

_INT: Final = Struct("<i")
_FLOAT: Final = Struct(">d")

_MEMOIZE: Final = 0x94
_BINGET: Final = ord("h")

_SCALARS: Final = frozenset(b"KMJGN\x88\x89\x8a")
_SCALAR_RUN: Final = re.compile(
    rb"(?:K.|M..|J.{4}|G.{8}|[N\x88\x89]|\x8a(?:\x05.{5}|\x06.{6}|\x07.{7}|\x08.{8}|\x09.{9})){16,}+", re.DOTALL
)
"""Sixteen or more numbers, booleans and None in a row: nothing in it can name, call or refer to anything."""

_BATCH: Final = frozenset({list, deque})
_MAPPINGS: Final = frozenset({dict, OrderedDict, defaultdict, Counter})


class World(Protocol):
    """What the machine leaves to others: names, calls and state."""

    def find(self, module: str, name: str, protocol: int) -> Any:
        """Return what a name stands for, once it is decided that it may stand there."""

    def call(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any] | None, new: bool) -> Any:
        """Call what `find` has returned, or with `new` make an instance without ``__init__``."""

    def set_state(self, obj: Any, state: Any) -> Any:
        """Give `obj` its state, and return it."""

    def extend(self, obj: Any, items: list[Any]) -> None:
        """Append to something that is no exact builtin container."""

    def update(self, obj: Any, pairs: list[Any]) -> None:
        """Charge for the keys and set items (keys and values in turn) of what is no exact builtin container."""

    def persistent(self, identifier: Any) -> Any:
        """Return what a persistent id stands for."""

    def buffer(self) -> Any:
        """Return the next out-of-band buffer."""

    def read_only(self, buffer: Any) -> Any:
        """Return a read-only view of a buffer."""

    def payload(self, source: Source, position: int, length: int, mutable: bool) -> tuple[Any, int]:
        """Return the bytes at `position` of the window, and the position behind them."""


class Finished(Exception):
    """The STOP opcode was reached; carries the position behind it."""


class Machine:
    """Runs one pickle.

    Args:
        source: Its bytes; left just behind the pickle.
        world: Names, calls and state.
        memo: What earlier pickles of the same unpickler left.
        encoding: How the 8-bit strings of Python 2 are decoded; ``"bytes"`` leaves them as bytes.
        errors: As for `bytes.decode`.
    """

    def __init__(
        self,
        source: Source,
        world: World,
        memo: dict[int, Any] | None = None,
        *,
        encoding: str = "ASCII",
        errors: str = "strict",
    ) -> None:
        self.source = source
        self.protocol = 0
        self.budget = Budget()
        self.offset = 0
        self.opcode = ""
        self._world = world
        self._encoding = encoding
        self._errors = errors
        self._keys = KeyGuard(self.budget)
        self._tuples = self._keys.kinds
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {} if memo is None else memo
        self._seen = 0

    def run(self) -> Any:
        """Run to the STOP opcode and return the object.

        Raises:
            Refusal: The stream asks for what is not allowed.
            Damage: It is not a whole pickle.
            Excess: It costs more than it may.
        """
        source = self.source
        handlers = _HANDLERS
        memo = self._memo
        start = 0
        try:
            while True:
                data, position, limit = source.data, source.position, source.limit
                base = source.base
                self.budget.grow(base + source.end - self._seen)
                self._seen = base + source.end
                while position < limit:
                    start = position
                    code = data[position]
                    # Two opcodes in five are these, and a call costs as much as what they do.
                    if code == _MEMOIZE:
                        memo[len(memo)] = self._stack[-1]
                        position += 1
                    elif code == _BINGET:
                        self._stack.append(memo[data[position + 1]])
                        position += 2
                    else:
                        position = handlers[code](self, data, position + 1)
                if position != MOVED:
                    start = position
                    source.advance(position)
        except Finished as finished:
            if not self._stack:
                raise Damage("STOP comes with nothing on the stack") from None
            source.finish(finished.args[0])
            self.offset = base + finished.args[0]
            result = self._stack.pop()
            self._stack, self._outer = [], []
            return result
        except (Refusal, Damage, Excess):
            self._note(base + start, data, start)
            raise
        except MemoryError:
            self._note(base + start, data, start)
            raise Excess("it asks for more memory than there is") from None
        except IndexError:
            self._note(base + start, data, start)
            raise Damage("an opcode takes more from the stack than is there") from None
        except Exception as error:
            self._note(base + start, data, start)
            raise Damage(f"{type(error).__name__}: {error}") from error

    def enter_tuple(self, value: tuple[Any, ...]) -> None:
        """Weigh an instance of a subclass of `tuple`."""
        self._keys.enter_subclass(value)

    def check_keys(self, keys: Iterable[Any], container: object) -> None:
        """Charge for hashing, as the opcodes do; for rules that hash."""
        self._keys.check(keys, container)

    def _note(self, offset: int, data: Any, start: int) -> None:
        self.offset = offset
        code = data[start] if start < len(data) else None
        self.opcode = OPCODES[code].name if code in OPCODES else ""

    # Containers and the stack.

    def _mark(self, data: Any, position: int) -> int:
        self._outer.append(self._stack)
        self._stack = []
        if len(self._outer) > OPEN_MARKS:
            raise Excess(f"more than {OPEN_MARKS:,} containers are open at once")
        if data[position : position + 1] and data[position] in _SCALARS:
            run = _SCALAR_RUN.match(data, position, self.source.end)
            if run is not None:
                # Nothing but numbers: the C unpickler may read them, at a tenth of the price.
                self._stack.extend(pickle.loads(b"(" + run.group() + b"t."))
                return run.end()
        return position

    def _to_mark(self) -> list[Any]:
        items = self._stack
        if not self._outer:
            raise Damage("an opcode needs a MARK, and there is none")
        self._stack = self._outer.pop()
        return items

    def _stop(self, data: Any, position: int) -> int:
        raise Finished(position)

    def _pop(self, data: Any, position: int) -> int:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()
        return position

    def _pop_mark(self, data: Any, position: int) -> int:
        self._to_mark()
        return position

    def _dup(self, data: Any, position: int) -> int:
        self._stack.append(self._stack[-1])
        return position

    def _empty_tuple(self, data: Any, position: int) -> int:
        self._stack.append(())
        return position

    def _tuple1(self, data: Any, position: int) -> int:
        stack = self._stack
        value = (stack.pop(),)
        if type(value[0]) in self._tuples:
            self._keys.enter(value)
        stack.append(value)
        return position

    def _tuple2(self, data: Any, position: int) -> int:
        stack = self._stack
        second = stack.pop()
        first = stack.pop()
        value = (first, second)
        if type(first) in self._tuples or type(second) in self._tuples:
            self._keys.enter(value)
        stack.append(value)
        return position

    def _tuple3(self, data: Any, position: int) -> int:
        stack = self._stack
        third = stack.pop()
        second = stack.pop()
        value = (stack.pop(), second, third)
        self._keys.enter_any(value)
        stack.append(value)
        return position

    def _tuple(self, data: Any, position: int) -> int:
        value = tuple(self._to_mark())
        self._keys.enter_any(value)
        self._stack.append(value)
        return position

    def _empty_list(self, data: Any, position: int) -> int:
        self._stack.append([])
        return position

    def _list(self, data: Any, position: int) -> int:
        items = self._to_mark()
        self._stack.append(items)
        return position

    def _append(self, data: Any, position: int) -> int:
        item = self._stack.pop()
        self.extend(self._stack[-1], [item])
        return position

    def _appends(self, data: Any, position: int) -> int:
        items = self._to_mark()
        self.extend(self._stack[-1], items)
        return position

    def extend(self, target: Any, items: list[Any]) -> None:
        """Append `items` to what the stream has made."""
        if type(target) in _BATCH:
            target.extend(items)
        else:
            self._world.extend(target, items)

    def _empty_dict(self, data: Any, position: int) -> int:
        self._stack.append({})
        return position

    def _dict(self, data: Any, position: int) -> int:
        items = self._to_mark()
        target: dict[Any, Any] = {}
        self.update(target, items)
        self._stack.append(target)
        return position

    def _setitem(self, data: Any, position: int) -> int:
        stack = self._stack
        value = stack.pop()
        key = stack.pop()
        self.update(stack[-1], [key, value])
        return position

    def _setitems(self, data: Any, position: int) -> int:
        items = self._to_mark()
        self.update(self._stack[-1], items)
        return position

    def update(self, target: Any, items: list[Any]) -> None:
        """Set items, keys and values in turn, of what the stream has made."""
        if len(items) % 2:
            raise Damage("a dict has a key without a value")
        keys = items[::2]
        if not keys:
            return
        if type(target) is dict:
            self._keys.check(keys, target)
            target.update(zip(keys, items[1::2], strict=True))
        elif type(target) in _MAPPINGS:
            self._keys.check(keys, target)
            # Counter.update would add up, and the subclasses' __setitem__ is dict's own or equal to it.
            for key, value in zip(keys, items[1::2], strict=True):
                target[key] = value
        else:
            self._world.update(target, items)

    def _empty_set(self, data: Any, position: int) -> int:
        self._stack.append(set())
        return position

    def _additems(self, data: Any, position: int) -> int:
        items = self._to_mark()
        target = self._stack[-1]
        if type(target) is not set:
            raise Refusal(f"ADDITEMS is for sets alone, and this is a {type(target).__qualname__}")
        if items:
            self._keys.check(items, target)
            target.update(items)
        return position

    def _frozenset(self, data: Any, position: int) -> int:
        items = self._to_mark()
        if items:
            self._keys.check(items, items)
        self._stack.append(frozenset(items))
        return position

    # Numbers and text.

    def _none(self, data: Any, position: int) -> int:
        self._stack.append(None)
        return position

    def _true(self, data: Any, position: int) -> int:
        self._stack.append(True)
        return position

    def _false(self, data: Any, position: int) -> int:
        self._stack.append(False)
        return position

    def _binint(self, data: Any, position: int) -> int:
        self._stack.append(_INT.unpack_from(data, position)[0])
        return position + 4

    def _binint1(self, data: Any, position: int) -> int:
        self._stack.append(data[position])
        return position + 1

    def _binint2(self, data: Any, position: int) -> int:
        self._stack.append(data[position] | data[position + 1] << 8)
        return position + 2

    def _binfloat(self, data: Any, position: int) -> int:
        self._stack.append(_FLOAT.unpack_from(data, position)[0])
        return position + 8

    def _long1(self, data: Any, position: int) -> int:
        payload, position = self.source.take(position + 1, data[position])
        self._stack.append(int.from_bytes(payload, "little", signed=True))
        return position

    def _long4(self, data: Any, position: int) -> int:
        length = _INT.unpack_from(data, position)[0]
        if length < 0:
            raise Damage("a number has a negative length")
        payload, position = self.source.take(position + 4, length)
        self._keys.saw_wide_number(length)
        self._stack.append(int.from_bytes(payload, "little", signed=True))
        return position

    def _int(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        if line in (b"00", b"01"):
            self._stack.append(line == b"01")
        else:
            self._stack.append(_number(line))
        return position

    def _long(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        self._stack.append(_number(line.removesuffix(b"L")))
        return position

    def _float(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        self._stack.append(float(line))
        return position

    def _short_unicode(self, data: Any, position: int) -> int:
        end: int = position + 1 + data[position]
        if end <= self.source.end:
            self._stack.append(str(data[position + 1 : end], "utf-8", "surrogatepass"))
            return end
        return self._text(position + 1, data[position])

    def _binunicode(self, data: Any, position: int) -> int:
        return self._text(position + 4, int.from_bytes(data[position : position + 4], "little"))

    def _binunicode8(self, data: Any, position: int) -> int:
        return self._text(position + 8, int.from_bytes(data[position : position + 8], "little"))

    def _text(self, position: int, length: int) -> int:
        payload, position = self.source.take(position, length)
        self._stack.append(str(payload, "utf-8", "surrogatepass"))
        return position

    def _unicode(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        self._stack.append(str(line, "raw-unicode-escape"))
        return position

    def _string(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        line = line.rstrip(b" \t\r")
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
            raise Damage("the argument of STRING is not in quotes")
        self._old_text(escape_decode(line[1:-1])[0])
        return position

    def _binstring(self, data: Any, position: int) -> int:
        length = _INT.unpack_from(data, position)[0]
        if length < 0:
            raise Damage("a string has a negative length")
        payload, position = self.source.take(position + 4, length)
        self._old_text(payload)
        return position

    def _short_binstring(self, data: Any, position: int) -> int:
        payload, position = self.source.take(position + 1, data[position])
        self._old_text(payload)
        return position

    def _old_text(self, payload: bytes) -> None:
        """Push an 8-bit string of Python 2."""
        if self._encoding == "bytes":
            self._stack.append(payload)
        else:
            self._stack.append(payload.decode(self._encoding, self._errors))

    # Bytes and buffers.

    def _short_bytes(self, data: Any, position: int) -> int:
        payload, position = self.source.take(position + 1, data[position])
        self._stack.append(payload)
        return position

    def _bytes(self, data: Any, position: int) -> int:
        return self._payload(position + 4, int.from_bytes(data[position : position + 4], "little"), False)

    def _bytes8(self, data: Any, position: int) -> int:
        return self._payload(position + 8, int.from_bytes(data[position : position + 8], "little"), False)

    def _bytearray8(self, data: Any, position: int) -> int:
        return self._payload(position + 8, int.from_bytes(data[position : position + 8], "little"), True)

    def _payload(self, position: int, length: int, mutable: bool) -> int:
        payload, position = self._world.payload(self.source, position, length, mutable)
        self._stack.append(payload)
        return position

    def _next_buffer(self, data: Any, position: int) -> int:
        self._stack.append(self._world.buffer())
        return position

    def _readonly_buffer(self, data: Any, position: int) -> int:
        self._stack[-1] = self._world.read_only(self._stack[-1])
        return position

    # The memo.

    def _memoize(self, data: Any, position: int) -> int:
        memo = self._memo
        memo[len(memo)] = self._stack[-1]
        return position

    def _binput(self, data: Any, position: int) -> int:
        self._put(data[position])
        return position + 1

    def _long_binput(self, data: Any, position: int) -> int:
        self._put(int.from_bytes(data[position : position + 4], "little"))
        return position + 4

    def _text_put(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        self._put(_number(line))
        return position

    def _put(self, index: int) -> None:
        # Stock pickle makes an array as long as the largest index: one opcode would claim 32 GB.
        if not 0 <= index <= self.source.base + self.source.end + len(self._memo) + 256:
            raise Excess(f"memo index {index:,} is larger than the stream could have filled")
        self._memo[index] = self._stack[-1]

    def _binget(self, data: Any, position: int) -> int:
        self._get(data[position])
        return position + 1

    def _long_binget(self, data: Any, position: int) -> int:
        self._get(int.from_bytes(data[position : position + 4], "little"))
        return position + 4

    def _text_get(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        self._get(_number(line))
        return position

    def _get(self, index: int) -> None:
        try:
            self._stack.append(self._memo[index])
        except KeyError:
            raise Damage(f"memo entry {index} is read before it is written") from None

    # Names, calls and state.

    def _global(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        module, name, position = self._two_lines(position)
        self._stack.append(self._world.find(module, name, self.protocol))
        return position

    def _stack_global(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        stack = self._stack
        name = stack.pop()
        module = stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Damage("STACK_GLOBAL needs two strings")
        stack.append(self._world.find(module, name, self.protocol))
        return position

    def _two_lines(self, position: int) -> tuple[str, str, int]:
        source = self.source
        first, position = source.line(position)
        second, position = source.line(source.position if position == MOVED else position)
        return first.decode(), second.decode(), position

    def _extension(self, data: Any, position: int) -> int:
        # A code that was used before comes from a cache that no find_class sees, so all are refused.
        raise Refusal("extension codes stand for names that the stream does not tell")

    def _reduce(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        stack = self._stack
        arguments = stack.pop()
        if type(arguments) is not tuple:
            raise Damage("REDUCE needs a tuple of arguments")
        stack[-1] = self._world.call(stack[-1], arguments, None, False)
        return position

    def _newobj(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        stack = self._stack
        arguments = stack.pop()
        if type(arguments) is not tuple:
            raise Damage("NEWOBJ needs a tuple of arguments")
        stack[-1] = self._world.call(stack[-1], arguments, None, True)
        return position

    def _newobj_ex(self, data: Any, position: int) -> int:
        stack = self._stack
        keywords = stack.pop()
        arguments = stack.pop()
        if type(arguments) is not tuple or type(keywords) is not dict or not all(type(key) is str for key in keywords):
            raise Damage("NEWOBJ_EX needs a tuple of arguments and a dict of keyword arguments")
        stack[-1] = self._world.call(stack[-1], arguments, keywords, True)
        return position

    def _inst(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        module, name, position = self._two_lines(position)
        arguments = tuple(self._to_mark())
        self._stack.append(self._instantiate(self._world.find(module, name, self.protocol), arguments))
        return position

    def _obj(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        items = self._to_mark()
        self._stack.append(self._instantiate(items[0], tuple(items[1:])))
        return position

    def _instantiate(self, cls: Any, arguments: tuple[Any, ...]) -> Any:
        self._keys.enter_any(arguments)
        return self._world.call(cls, arguments, None, not arguments)

    def _build(self, data: Any, position: int) -> int:
        self.offset = self.source.base + position - 1
        stack = self._stack
        state = stack.pop()
        stack[-1] = self._world.set_state(stack[-1], state)
        return position

    def _persid(self, data: Any, position: int) -> int:
        line, position = self.source.line(position)
        self._stack.append(self._world.persistent(line.decode("ascii")))
        return position

    def _binpersid(self, data: Any, position: int) -> int:
        self._stack[-1] = self._world.persistent(self._stack[-1])
        return position

    # The stream itself.

    def _proto(self, data: Any, position: int) -> int:
        self.protocol = data[position]
        if self.protocol > pickle.HIGHEST_PROTOCOL:
            raise Damage(f"protocol {self.protocol} is unknown; the newest is {pickle.HIGHEST_PROTOCOL}")
        return position + 1

    def _frame(self, data: Any, position: int) -> int:
        length = int.from_bytes(data[position : position + 8], "little")
        left = self.source.left(position + 8)
        if left is not None and length > left:
            raise Damage(f"a frame claims {length:,} bytes, and {left:,} are left")
        return position + 8

    def _unknown(self, data: Any, position: int) -> int:
        raise Damage(f"byte 0x{data[position - 1]:02x} is no opcode")


def _number(line: bytes) -> int:
    """Read a decimal number."""
    if len(line) > DIGITS:
        raise Excess(f"a decimal number has more than {DIGITS:,} digits")
    return int(line)


_Handler = Callable[[Machine, Any, int], int]

_BY_NAME: Final[dict[str, _Handler]] = {
    "MARK": Machine._mark,
    "STOP": Machine._stop,
    "POP": Machine._pop,
    "POP_MARK": Machine._pop_mark,
    "DUP": Machine._dup,
    "FLOAT": Machine._float,
    "INT": Machine._int,
    "BININT": Machine._binint,
    "BININT1": Machine._binint1,
    "LONG": Machine._long,
    "BININT2": Machine._binint2,
    "NONE": Machine._none,
    "PERSID": Machine._persid,
    "BINPERSID": Machine._binpersid,
    "REDUCE": Machine._reduce,
    "STRING": Machine._string,
    "BINSTRING": Machine._binstring,
    "SHORT_BINSTRING": Machine._short_binstring,
    "UNICODE": Machine._unicode,
    "BINUNICODE": Machine._binunicode,
    "APPEND": Machine._append,
    "BUILD": Machine._build,
    "GLOBAL": Machine._global,
    "DICT": Machine._dict,
    "EMPTY_DICT": Machine._empty_dict,
    "APPENDS": Machine._appends,
    "GET": Machine._text_get,
    "BINGET": Machine._binget,
    "INST": Machine._inst,
    "LONG_BINGET": Machine._long_binget,
    "LIST": Machine._list,
    "EMPTY_LIST": Machine._empty_list,
    "OBJ": Machine._obj,
    "PUT": Machine._text_put,
    "BINPUT": Machine._binput,
    "LONG_BINPUT": Machine._long_binput,
    "SETITEM": Machine._setitem,
    "TUPLE": Machine._tuple,
    "EMPTY_TUPLE": Machine._empty_tuple,
    "SETITEMS": Machine._setitems,
    "BINFLOAT": Machine._binfloat,
    "PROTO": Machine._proto,
    "NEWOBJ": Machine._newobj,
    "EXT1": Machine._extension,
    "EXT2": Machine._extension,
    "EXT4": Machine._extension,
    "TUPLE1": Machine._tuple1,
    "TUPLE2": Machine._tuple2,
    "TUPLE3": Machine._tuple3,
    "NEWTRUE": Machine._true,
    "NEWFALSE": Machine._false,
    "LONG1": Machine._long1,
    "LONG4": Machine._long4,
    "BINBYTES": Machine._bytes,
    "SHORT_BINBYTES": Machine._short_bytes,
    "SHORT_BINUNICODE": Machine._short_unicode,
    "BINUNICODE8": Machine._binunicode8,
    "BINBYTES8": Machine._bytes8,
    "EMPTY_SET": Machine._empty_set,
    "ADDITEMS": Machine._additems,
    "FROZENSET": Machine._frozenset,
    "NEWOBJ_EX": Machine._newobj_ex,
    "STACK_GLOBAL": Machine._stack_global,
    "MEMOIZE": Machine._memoize,
    "FRAME": Machine._frame,
    "BYTEARRAY8": Machine._bytearray8,
    "NEXT_BUFFER": Machine._next_buffer,
    "READONLY_BUFFER": Machine._readonly_buffer,
}

_HANDLERS: Final[list[_Handler]] = [
    _BY_NAME[OPCODES[code].name] if code in OPCODES else Machine._unknown for code in range(256)
]
