"""Harmless attacks, by category: each makes a directory, which plain pickle.loads does and a guarded load must not.

A builder takes the path of the marker and returns the pickle. `allow` is what a user of the file might well allow.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import marshal
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import dill

from guard.assembler import PROTO4, STOP, Raw, build, call, name, new, pickled, stack_name, text, value
from guard.targets import Color, Filling, Mapping, Victim

MKDIR = name("os", "mkdir")


@dataclass(frozen=True)
class Attack:
    category: str
    title: str
    build: Callable[[str], bytes]
    allow: tuple[Any, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.category}-{self.title}".replace(" ", "_")


def _code(marker: str) -> str:
    return f"__import__('os').mkdir({marker!r})"


def _rooted(make: Callable[[str], Any]) -> Callable[[str], bytes]:
    return lambda marker: pickled(make(marker))


def _calls(dotted: str, arguments: Callable[[str], tuple[Any, ...]]) -> Callable[[str], bytes]:
    """Return the builder of a call of an importable name, with arguments that depend on the marker."""
    module, _, attribute = dotted.rpartition(".")
    return _rooted(lambda marker: call(name(module, attribute), *arguments(marker)))


def _marker_and(*rest: Any) -> Callable[[str], tuple[Any, ...]]:
    return lambda marker: (marker, *rest)


def _direct() -> Iterator[Attack]:
    simple: dict[str, tuple[Any, ...]] = {
        "os.mkdir": (), "os.makedirs": (), "posix.mkdir": (), "os.mkfifo": (), "posix.mkfifo": (), "os.mknod": (),
        "mailbox.Maildir": (), "mailbox.MH": (), "sqlite3.connect": (), "logging.FileHandler": (),
        "builtins.open": ("w",), "io.open": ("w",), "_io.open": ("w",), "_pyio.open": ("w",), "io.FileIO": ("w",),
        "_io.FileIO": ("w",), "_pyio.FileIO": ("w",), "codecs.open": ("w",), "tokenize._builtin_open": ("w",),
        "gzip.open": ("wb",), "gzip.GzipFile": ("wb",), "bz2.open": ("wb",), "bz2.BZ2File": ("w",), "lzma.open": ("wb",),
        "lzma.LZMAFile": ("w",), "zipfile.ZipFile": ("w",), "tarfile.open": ("w",), "tarfile.TarFile": ("w",),
        "os.open": (os.O_CREAT | os.O_WRONLY,), "posix.open": (os.O_CREAT | os.O_WRONLY,),
    }  # fmt: skip
    for dotted, rest in simple.items():
        yield Attack("direct calls", dotted, _calls(dotted, _marker_and(*rest)))
    for dotted in ("builtins.eval", "builtins.exec", "timeit.timeit", "cProfile.run"):
        yield Attack("direct calls", dotted, _calls(dotted, lambda m: (_code(m),)))
    for dotted in ("os.system", "posix.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
        yield Attack("direct calls", dotted, _calls(dotted, lambda m: (f"mkdir {m}",)))
    for dotted in ("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"):
        yield Attack("direct calls", dotted, _calls(dotted, lambda m: (["/bin/mkdir", m],)))
    for dotted in ("os.symlink", "posix.symlink", "shutil.copy", "shutil.copyfile", "shutil.copy2"):
        yield Attack("direct calls", dotted, _calls(dotted, lambda m: (__file__, m)))
    yield Attack("direct calls", "shutil.copytree", _calls("shutil.copytree", lambda m: (os.path.dirname(__file__), m)))
    yield Attack(
        "direct calls",
        "os.spawnv",
        _rooted(lambda m: call(name("os", "spawnv"), os.P_WAIT, "/bin/mkdir", ["mkdir", m])),
    )
    yield Attack(
        "direct calls",
        "code.InteractiveInterpreter.runsource",
        _rooted(
            lambda m: call(
                call(name("builtins", "getattr"), call(name("code", "InteractiveInterpreter")), "runsource"), _code(m)
            )
        ),
    )
    yield Attack(
        "direct calls",
        "method of an allowed class",
        _rooted(lambda m: call(stack_name("guard.targets", "Victim.create"), m)),
        (Victim,),
    )
    yield Attack(
        "direct calls",
        "static method of an allowed class",
        _rooted(lambda m: call(stack_name("guard.targets", "Victim.helper"), m)),
        (Victim,),
    )
    yield Attack(
        "direct calls",
        "function that is on no list",
        _rooted(lambda m: call(name("guard.targets", "touch"), m)),
        (Victim,),
    )


def _walks() -> Iterator[Attack]:
    for module, path in (
        ("os", "path.os.mkdir"), ("pathlib", "os.mkdir"), ("uuid", "os.mkdir"), ("weakref", "sys.modules.get"),
        ("collections", "_sys.modules.get"), ("datetime", "sys.modules.get"), ("fractions", "sys.modules.get"),
        ("decimal", "sys.modules.get"), ("shutil", "os.mkdir"), ("tempfile", "_os.mkdir"), ("logging", "os.mkdir"),
        ("copyreg", "sys.modules.get"), ("types", "sys.modules.get"), ("enum", "sys.modules.get"), ("random", "_os.mkdir"),
        ("guard.targets", "os.mkdir"), ("guard.targets", "Victim.create.__func__.__globals__.get"),
        ("guard.targets", "touch.__globals__.get"), ("guard.targets", "touch.__builtins__.get"),
    ):  # fmt: skip

        def walk(marker: str, module: str = module, path: str = path) -> Raw:
            if path.endswith("__builtins__.get"):
                return call(call(stack_name(module, path), "eval"), _code(marker))
            if path.endswith(".get"):
                found = call(stack_name(module, path), "os")
                return call(call(name("builtins", "getattr"), found, "mkdir"), marker)
            return call(stack_name(module, path), marker)

        if module in ("datetime", "decimal", "types", "enum") and not _resolves(module, path):
            continue
        if not _resolves(module, path):
            continue
        yield Attack("attribute walks", f"{module}:{path}", _rooted(walk), (Victim,))
    getters = {
        "getattr": lambda m: call(call(name("builtins", "getattr"), name("guard.targets", "os"), "mkdir"), m),
        "attrgetter": lambda m: call(call(call(name("operator", "attrgetter"), "mkdir"), name("guard.targets", "os")), m),
        "_operator.attrgetter": lambda m: call(call(call(name("_operator", "attrgetter"), "path.os.mkdir"), name("guard.targets", "os")), m),
        "methodcaller": lambda m: call(call(name("operator", "methodcaller"), "mkdir", m), name("guard.targets", "os")),
        "getattr on an allowed class": lambda m: call(call(name("builtins", "getattr"), name("guard.targets", "Victim"), "create"), m),
        "getattr on an instance": lambda m: call(call(name("builtins", "getattr"), new(name("guard.targets", "Victim")), "create"), m),
        "vars of a module": lambda m: call(call(name("operator", "getitem"), call(name("builtins", "vars"), name("guard.targets", "os")), "mkdir"), m),
        "itemgetter": lambda m: call(call(call(name("operator", "itemgetter"), "mkdir"), call(name("builtins", "vars"), name("guard.targets", "os"))), m),
        "setattr": lambda m: call(name("builtins", "setattr"), new(name("guard.targets", "Victim")), "trap", m),
        "pydoc.locate": lambda m: call(call(name("pydoc", "locate"), "os.mkdir"), m),
        "pkgutil.resolve_name": lambda m: call(call(name("pkgutil", "resolve_name"), "os:mkdir"), m),
        "importlib.import_module": lambda m: call(call(name("builtins", "getattr"), call(name("importlib", "import_module"), "os"), "mkdir"), m),
        "__import__": lambda m: call(call(name("builtins", "getattr"), call(name("builtins", "__import__"), "os"), "mkdir"), m),
        "dotted __call__": lambda m: call(stack_name("os", "mkdir.__call__"), m),
        "getattr on a function": lambda m: call(call(name("builtins", "getattr"), name("guard.targets", "touch"), "__call__"), m),
        "MethodType": lambda m: call(call(name("types", "MethodType"), MKDIR, m)),
        "BoundArguments of partial": lambda m: call(call(name("functools", "partial"), MKDIR, m)),
        "partialmethod's func": lambda m: call(call(name("builtins", "getattr"), call(name("functools", "partialmethod"), MKDIR, m), "func"), m),
    }  # fmt: skip
    for title, make in getters.items():
        yield Attack("attribute walks", title, _rooted(make), (Victim, Color))


def _resolves(module: str, path: str) -> bool:
    obj: Any = __import__(module, fromlist=["_"])
    try:
        functools.reduce(getattr, path.split("."), obj)
    except AttributeError:
        return False
    return True


def _opcode_tricks() -> Iterator[Attack]:
    def memo_swap(m: str) -> bytes:
        return (
            PROTO4
            + name("builtins", "list")
            + b"q\x00"
            + b"0"
            + MKDIR
            + b"q\x00"
            + b"0h\x00"
            + value((m,))
            + b"R"
            + STOP
        )

    tricks: dict[str, Callable[[str], bytes]] = {
        "INST": lambda m: b"(" + b"S" + repr(m).encode() + b"\nios\nmkdir\n.",
        "INST at protocol 2": lambda m: b"\x80\x02(" + text(m) + b"ios\nmkdir\n.",
        "OBJ": lambda m: PROTO4 + b"(" + MKDIR + text(m) + b"o.",
        "NEWOBJ of a file": lambda m: pickled(build(new(name("guard.targets", "Victim")), (None, {"trap": m}))),
        "NEWOBJ_EX": lambda m: PROTO4 + name("subprocess", "Popen") + value(()) + value({}) + b"\x920" + call(MKDIR, m) + STOP,
        "protocol 0": lambda m: b"cos\nmkdir\n(V" + m.encode() + b"\ntR.",
        "protocol 1": lambda m: b"cos\nmkdir\n(X" + len(m).to_bytes(4, "little") + m.encode() + b"tR.",
        "STACK_GLOBAL": lambda m: pickled(call(stack_name("os", "mkdir"), m)),
        "STACK_GLOBAL from the memo": lambda m: PROTO4 + text("os") + b"q\x000" + text("mkdir") + b"q\x010h\x00h\x01\x93" + value((m,)) + b"R.",
        "STACK_GLOBAL of unicode escapes": lambda m: PROTO4 + b"V\\u006fs\nV\\u006dkdir\n\x93" + value((m,)) + b"R.",
        "STACK_GLOBAL of BINUNICODE8": lambda m: PROTO4 + b"\x8d\x02" + bytes(7) + b"os" + text("mkdir") + b"\x93" + value((m,)) + b"R.",
        "STACK_GLOBAL of an old string": lambda m: PROTO4 + b"U\x02osU\x05mkdir\x93" + value((m,)) + b"R.",
        "name of Python 2": lambda m: b"\x80\x02c__builtin__\neval\n" + value((_code(m),)) + b"R.",
        "module of Python 2": lambda m: b"\x80\x02ccommands\ngetoutput\n" + value((f"mkdir {m}",)) + b"R.",
        "apply of Python 2": lambda m: b"\x80\x02c__builtin__\nreduce\n" + value((name("guard.targets", "touch"), [m, 1])) + b"R.",
        "global in the memo": lambda m: PROTO4 + MKDIR + b"q\x050h\x05" + value((m,)) + b"R.",
        "memo entry swapped": memo_swap,
        "long memo": lambda m: PROTO4 + MKDIR + b"r\x00\x01\x00\x000j\x00\x01\x00\x00" + value((m,)) + b"R.",
        "text memo": lambda m: PROTO4 + MKDIR + b"p7\n0g7\n" + value((m,)) + b"R.",
        "result thrown away": lambda m: PROTO4 + call(MKDIR, m) + b"0" + b"K\x01.",
        "result thrown away with a mark": lambda m: PROTO4 + b"(" + call(MKDIR, m) + b"1" + b"K\x01.",
        "below the result": lambda m: PROTO4 + call(MKDIR, m) + b"K\x01.",
        "before damage": lambda m: PROTO4 + call(MKDIR, m) + b"\xff",
        "before truncation": lambda m: PROTO4 + call(MKDIR, m),
        "in a frame": lambda m: PROTO4 + b"\x95" + len(call(MKDIR, m) + STOP).to_bytes(8, "little") + call(MKDIR, m) + STOP,
        "behind a frame": lambda m: PROTO4 + b"\x95\x01" + bytes(7) + b"N0" + call(MKDIR, m) + STOP,
        "second PROTO": lambda m: PROTO4 + b"\x80\x02" + call(MKDIR, m) + STOP,
        "DUP": lambda m: PROTO4 + MKDIR + b"2" + value((m,)) + b"R0" + b"0N.",
        "in a dict key": lambda m: PROTO4 + b"}" + call(MKDIR, m) + b"K\x01s.",
        "in a set": lambda m: PROTO4 + b"\x8f(" + call(MKDIR, m) + b"\x90.",
        "in a frozenset": lambda m: PROTO4 + b"(" + call(MKDIR, m) + b"\x91.",
        "in a tuple": lambda m: PROTO4 + call(MKDIR, m) + b"\x85.",
        "as a state": lambda m: pickled(build(new(name("guard.targets", "Victim")), Raw(value({}) + call(MKDIR, m) + b"0"))),
        "in a list": lambda m: PROTO4 + b"(" + call(MKDIR, m) + b"l.",
        "arguments from a list": lambda m: PROTO4 + MKDIR + call(name("builtins", "tuple"), [m]) + b"R.",
        "EXT1": lambda m: PROTO4 + b"\x82\xf1" + value((m,)) + b"R.",
        "EXT2": lambda m: PROTO4 + b"\x83\xf1\x00" + value((m,)) + b"R.",
        "EXT4": lambda m: PROTO4 + b"\x84\xf1\x00\x00\x00" + value((m,)) + b"R.",
        "append of SimpleNamespace": lambda m: pickled(Raw(build(call(name("types", "SimpleNamespace")), {"append": MKDIR}) + text(m) + b"a")),
        "append of an allowed list": lambda m: pickled(Raw(new(name("guard.targets", "Filling")) + text(m) + b"a")),
        "setitem of an allowed dict": lambda m: pickled(Raw(new(name("guard.targets", "Mapping")) + text("k") + text(m) + b"s")),
        "setitems of an allowed dict": lambda m: pickled(Raw(new(name("guard.targets", "Mapping")) + b"(" + text("k") + text(m) + b"u")),
        "copyreg.__newobj__": lambda m: pickled(call(name("copyreg", "__newobj__"), name("guard.targets", "Victim"))) [:-1] + b"0" + call(MKDIR, m) + STOP,
        "import with a side effect": lambda m: PROTO4 + _module_that_touches(m) + STOP,
        "import with a side effect, unused": lambda m: PROTO4 + _module_that_touches(m) + b"0N.",
    }  # fmt: skip
    for title, make in tricks.items():
        yield Attack("opcode tricks", title, make, (Victim, Filling, Mapping))


def _module_that_touches(marker: str) -> Raw:
    folder = os.path.dirname(marker)
    module = "touches_" + "".join(filter(str.isalnum, marker))
    with open(os.path.join(folder, module + ".py"), "w", encoding="utf-8") as file:
        file.write(f"import os\nos.mkdir({marker!r})\nanything = 1\n")
    if folder not in sys.path:
        sys.path.append(folder)
    return name(module, "anything")


@contextlib.contextmanager
def registered_extension() -> Iterator[None]:
    """Give os.mkdir an extension code for a while, and fill the cache that no find_class sees."""
    copyreg.add_extension("posix", "mkdir", 0xF1)
    try:
        pickle.loads(PROTO4 + b"\x82\xf1.")
        yield
    finally:
        copyreg.remove_extension("posix", "mkdir", 0xF1)


def _states() -> Iterator[Attack]:
    victim = new(name("guard.targets", "Victim"))
    states: dict[str, Callable[[str], Raw]] = {
        "__setstate__ in the instance": lambda m: build(build(victim, {"__setstate__": MKDIR}), m),
        "__setstate__ by slots": lambda m: build(build(victim, (None, {"__setstate__": MKDIR})), m),
        "property": lambda m: build(victim, (None, {"trap": m})),
        "property beside a dict": lambda m: build(victim, ({"a": 1}, {"trap": m})),
        "__setstate__ that is a function of the user's": lambda m: build(build(victim, {"__setstate__": name("guard.targets", "touch")}), m),
        "class attribute": lambda m: call(Raw(build(name("guard.targets", "Victim"), (None, {"touched": MKDIR})) + b"0" + stack_name("guard.targets", "Victim.touched")), m),
        "class's __reduce__": lambda m: call(Raw(build(name("guard.targets", "Victim"), (None, {"planted": name("guard.targets", "touch")})) + b"0" + stack_name("guard.targets", "Victim.planted")), m),
        "function attribute": lambda m: call(Raw(build(name("guard.targets", "touch"), {"planted": MKDIR}) + b"0" + stack_name("guard.targets", "touch.planted")), m),
        "module attribute": lambda m: call(Raw(build(name("guard", "targets"), {"planted_function": MKDIR}) + b"0" + stack_name("guard.targets", "planted_function")), m),
        "enum member": lambda m: call(Raw(build(call(name("guard.targets", "Color"), 1), {"planted": MKDIR}) + b"0" + stack_name("guard.targets", "Color.RED.planted")), m),
        "enum class": lambda m: call(Raw(build(name("guard.targets", "Color"), (None, {"planted": MKDIR})) + b"0" + stack_name("guard.targets", "Color.planted")), m),
        "exception's __setstate__": lambda m: build(build(call(name("builtins", "ValueError")), {"__setstate__": MKDIR}), m),
        "OrderedDict's attribute": lambda m: build(build(call(name("collections", "OrderedDict")), {"__setstate__": MKDIR}), m),
        "SimpleNamespace's attribute": lambda m: build(build(call(name("types", "SimpleNamespace")), {"__setstate__": MKDIR}), m),
        "set on a list's items": lambda m: Raw(build(call(name("types", "SimpleNamespace")), {"append": name("guard.targets", "touch")}) + b"(" + text(m) + b"e"),
    }  # fmt: skip
    for title, make in states.items():
        yield Attack("state setting", title, _rooted(make), (Victim, Color))


def _nested() -> Iterator[Attack]:
    def inner(m: str) -> bytes:
        return pickled(call(MKDIR, m))

    loaders = (
        "pickle.loads", "_pickle.loads", "pickle._loads", "cloudpickle.loads", "cloudpickle.cloudpickle.loads", "dill.loads",
        "dill._dill.loads", "safepickle.loads", "safepickle.loading.unpickler.loads",
    )  # fmt: skip
    for dotted in loaders:
        yield Attack("nested streams", dotted, _calls(dotted, lambda m: (inner(m),)))
    for dotted in ("pickle.load", "_pickle.load", "dill.load", "safepickle.load", "safepickle.loading.unpickler.load"):
        yield Attack("nested streams", dotted, _calls(dotted, lambda m: (call(name("io", "BytesIO"), inner(m)),)))
    yield Attack(
        "nested streams",
        "numpy.load",
        _rooted(
            lambda m: call(name("numpy", "load"), call(name("io", "BytesIO"), _object_array(inner(m))), None, True)
        ),
    )
    yield Attack("nested streams", "cPickle.loads", lambda m: b"\x80\x02ccPickle\nloads\n" + value((inner(m),)) + b"R.")
    yield Attack(
        "nested streams",
        "ForkingPickler.loads",
        _rooted(lambda m: call(stack_name("multiprocessing.reduction", "ForkingPickler.loads"), inner(m))),
    )
    yield Attack(
        "nested streams",
        "Unpickler().load",
        _rooted(
            lambda m: call(
                call(
                    name("builtins", "getattr"),
                    call(name("pickle", "Unpickler"), call(name("io", "BytesIO"), inner(m))),
                    "load",
                )
            )
        ),
    )


def _object_array(data: bytes) -> bytes:
    import numpy

    file = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    return file.getvalue() + data


def _deferred() -> Iterator[Attack]:
    victim = call(name("guard.targets", "Victim"))
    later: dict[str, Callable[[str], Raw]] = {
        "finalize": lambda m: Raw(call(name("weakref", "finalize"), victim, MKDIR, m)),
        "callback of a reference": lambda m: Raw(victim + b"q\x000(" + call(name("weakref", "ref"), Raw(b"h\x00"), call(name("functools", "partial"), name("guard.targets", "touch"), m)) + b"h\x00l"),
        "callback of a proxy": lambda m: Raw(victim + b"q\x000(" + call(name("weakref", "proxy"), Raw(b"h\x00"), call(name("functools", "partial"), name("guard.targets", "touch"), m)) + b"h\x00l"),
        "rebuild_finalize": lambda m: call(name("safepickle.rebuild", "rebuild_finalize"), name("weakref", "finalize"), victim, MKDIR, (m,), {}),
        "rebuild_owning_finalize": lambda m: call(name("safepickle.rebuild", "rebuild_owning_finalize"), victim, MKDIR, (m,), {}),
        "StrongRef with a callback": lambda m: Raw(victim + b"q\x000(" + call(name("weakref", "ref"), Raw(b"h\x00"), call(name("safepickle.rebuild", "Owner"), victim, call(name("functools", "partial"), name("guard.targets", "touch"), m))) + b"h\x00l"),
        "multiprocessing Finalize": lambda m: call(name("multiprocessing.util", "Finalize"), victim, MKDIR, (m,)),
        "map into a set": lambda m: call(name("builtins", "set"), call(name("builtins", "map"), MKDIR, [m])),
        "map into a frozenset": lambda m: call(name("builtins", "frozenset"), call(name("builtins", "map"), MKDIR, [m])),
        "map into a list": lambda m: call(name("builtins", "list"), call(name("builtins", "map"), MKDIR, [m])),
        "map into a deque": lambda m: call(name("collections", "deque"), call(name("builtins", "map"), MKDIR, [m])),
        "map into a tuple": lambda m: call(name("builtins", "tuple"), call(name("builtins", "map"), MKDIR, [m])),
        "map into a Counter": lambda m: call(name("collections", "Counter"), call(name("builtins", "map"), MKDIR, [m])),
        "map into any": lambda m: call(name("builtins", "any"), call(name("builtins", "map"), MKDIR, [m])),
        "filter": lambda m: call(name("builtins", "list"), call(name("builtins", "filter"), MKDIR, [m])),
        "starmap": lambda m: call(name("builtins", "list"), call(name("itertools", "starmap"), MKDIR, [(m,)])),
        "reduce": lambda m: call(name("functools", "reduce"), name("guard.targets", "touch"), [m, 1]),
        "partial": lambda m: call(call(name("functools", "partial"), MKDIR, m)),
        "takewhile": lambda m: call(name("builtins", "list"), call(name("itertools", "takewhile"), MKDIR, [m])),
        "accumulate": lambda m: call(name("builtins", "list"), call(name("itertools", "accumulate"), [m, 1], name("guard.targets", "touch"))),
        "factory of a defaultdict": lambda m: call(name("operator", "getitem"), call(name("collections", "defaultdict"), call(name("functools", "partial"), MKDIR, m)), 1),
        "iter with a sentinel": lambda m: call(name("builtins", "next"), call(name("builtins", "iter"), call(name("functools", "partial"), MKDIR, m), 0)),
        "operator.call": lambda m: call(name("operator", "call"), MKDIR, m),
        "lru_cache": lambda m: call(call(name("functools", "lru_cache"), MKDIR), m),
        "Context.run": lambda m: call(call(name("builtins", "getattr"), call(name("contextvars", "Context")), "run"), MKDIR, m),
        "Recomputed, asked for its value": lambda m: call(name("builtins", "getattr"), build(call(name("safepickle.rebuild", "rebuild_recomputed")), (MKDIR, (m,), {})), "value"),
    }  # fmt: skip
    for title, make in later.items():
        yield Attack("deferred execution", title, _rooted(make), (Victim,))


def _code_objects() -> Iterator[Attack]:
    class Evil:
        def __init__(self, marker: str) -> None:
            self.marker = marker

        def __reduce__(self) -> Any:
            marker = self.marker
            return (lambda: os.mkdir(marker)), ()

    def function(m: str) -> Raw:
        code = marshal.dumps(compile(_code(m), "attack", "eval"))
        loaded = call(name("marshal", "loads"), code)
        return call(call(name("types", "FunctionType"), loaded, {}))

    def executed(m: str) -> Raw:
        code = marshal.dumps(compile(_code(m), "attack", "exec"))
        return call(name("builtins", "exec"), call(name("marshal", "loads"), code), {})

    yield Attack("code objects", "cloudpickle", lambda m: cloudpickle.dumps(Evil(m)))
    yield Attack("code objects", "cloudpickle at protocol 2", lambda m: cloudpickle.dumps(Evil(m), protocol=2))
    if sys.version_info < (3, 15):  # dill 0.4 asks code for what it no longer has there, and writes none
        yield Attack("code objects", "dill", lambda m: dill.dumps(Evil(m), recurse=True))
    yield Attack("code objects", "marshal and FunctionType", _rooted(function))
    yield Attack("code objects", "marshal and exec", _rooted(executed))
    yield Attack("code objects", "exec in a namespace", _rooted(lambda m: call(name("builtins", "exec"), _code(m), {})))
    yield Attack(
        "code objects",
        "compiled",
        _rooted(lambda m: call(name("builtins", "eval"), call(name("builtins", "compile"), _code(m), "x", "eval"))),
    )


ATTACKS: tuple[Attack, ...] = (
    *_direct(), *_walks(), *_opcode_tricks(), *_states(), *_nested(), *_deferred(), *_code_objects(),
)  # fmt: skip
