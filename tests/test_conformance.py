"""CPython's own tests of pickle, run against safepickle.

The abstract classes of ``test.pickletester`` are given safepickle's functions and classes, alone and crossed with
pickle's, each way. Where safepickle differs from pickle, `WhatPickleRefuses` and `HeldBack` replace the test by one
that says what holds instead, and why.
"""

from __future__ import annotations

import collections
import contextlib
import copyreg
import io
import pickle
import struct
import unittest
import unittest.mock
import weakref
from typing import Any

import pytest

import safepickle

pickletester: Any = pytest.importorskip("test.pickletester", reason="this interpreter ships without its test package")

# What the classes below are mixed into, whose methods a type checker does not know.
Mixin: Any = object


def dumps_with(pickler: type[pickle.Pickler]) -> Any:
    """Return a ``dumps`` method that goes through `pickler`."""

    def dumps(self: unittest.TestCase, obj: object, protocol: int | None = None, **options: Any) -> bytes:
        stream = io.BytesIO()
        pickler(stream, protocol, **options).dump(obj)
        return stream.getvalue()

    return dumps


def loads_with(unpickler: type[pickle.Unpickler]) -> Any:
    """Return a ``loads`` method that goes through `unpickler`."""

    def loads(self: unittest.TestCase, data: bytes, **options: Any) -> Any:
        return unpickler(io.BytesIO(data), **options).load()

    return loads


class WhatPickleRefuses(Mixin):
    """Differences because safepickle pickles what pickle refuses."""

    def test_local_lookup_error(self):
        # A local function travels by value.
        def function():
            return "called"

        for variant in ("as it is", "without a module", "named by its path"):
            if variant == "without a module":
                del function.__module__
            elif variant == "named by its path":
                function.__name__ = function.__qualname__
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                with self.subTest(variant, protocol=protocol):
                    assert self.loads(self.dumps(function, protocol))() == "called"

    def test_c_methods(self):
        # The descriptors of static and class methods travel, too.
        with self.refusals_become_round_trips():
            super().test_c_methods()

    def test_py_methods(self):
        with self.refusals_become_round_trips():
            super().test_py_methods()

    @contextlib.contextmanager
    def refusals_become_round_trips(self):
        def round_trip(expected_error, dumps, descriptor, protocol):
            loaded = self.loads(dumps(descriptor, protocol))
            assert type(loaded) is type(descriptor)
            assert vars_of(loaded) == vars_of(descriptor)

        def vars_of(descriptor):
            function = getattr(descriptor, "__func__", descriptor)
            return function.__name__, function.__doc__

        with unittest.mock.patch.object(self, "assertRaises", round_trip):
            yield

    def test_bad_getattr(self):
        # Under the old protocols pickle asks such an object for its __slots__, without end. The second attempt, which
        # what nests too deeply is given, does not.
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with self.subTest(protocol=protocol):
                assert type(self.loads(self.dumps(pickletester.BadGetattr(), protocol))) is pickletester.BadGetattr

    def test_newobj_proxies(self):
        # A proxy stays a proxy. Only on request is it what pickle makes of it: a copy of its referent.
        def dumps(obj, protocol):
            return type(self).dumps(self, obj, protocol, weakrefs="strong")

        with unittest.mock.patch.object(self, "dumps", dumps):
            super().test_newobj_proxies()


class HeldBack(Mixin):
    """A difference because nothing reaches a file that cannot be truncated before the dump has succeeded."""

    def test_framed_write_sizes_with_delayed_writer(self):
        class Chunks(list):
            write = list.append

        expected = [(str(number), {number: number}) for number in range(10_000)]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with self.subTest(protocol=protocol):
                chunks = Chunks()
                pickler = self.pickler(chunks, protocol)
                pickler.dump(expected)
                assert self.loads(b"".join(chunks)) == expected
                written = len(chunks)
                with pytest.raises(TypeError, match="generator"):
                    pickler.dump([bytes(10**6), (nothing for nothing in "")])
                assert len(chunks) == written


class TestFunctions(
    WhatPickleRefuses, pickletester.AbstractPickleTests, pickletester.AbstractUnpickleTests, unittest.TestCase
):
    bad_stack_errors = (pickle.UnpicklingError, IndexError)
    truncated_errors = (pickle.UnpicklingError, EOFError, AttributeError, ValueError, struct.error, IndexError)
    truncated_data_error = ((pickle.UnpicklingError, EOFError), "")
    size_overflow_error = ((OverflowError, pickle.UnpicklingError), "exceeds")

    def dumps(self, obj: object, protocol: int | None = None, **options: Any) -> bytes:
        return safepickle.dumps(obj, protocol, **options)

    loads = staticmethod(safepickle.loads)

    # These need classes to subclass; TestPicklerAndUnpickler has them.
    test_framed_write_sizes_with_delayed_writer = None
    test_find_class = None
    test_custom_find_class = None


class TestPicklerAndUnpickler(WhatPickleRefuses, HeldBack, pickletester.AbstractPickleTests, unittest.TestCase):
    pickler = safepickle.Pickler
    unpickler = safepickle.Unpickler
    dumps = dumps_with(safepickle.Pickler)
    loads = loads_with(safepickle.Unpickler)


class TestPicklerAlone(WhatPickleRefuses, HeldBack, pickletester.AbstractPickleTests, unittest.TestCase):
    """What safepickle writes, pickle reads."""

    pickler = safepickle.Pickler
    unpickler = pickle.Unpickler
    dumps = dumps_with(safepickle.Pickler)
    loads = loads_with(pickle.Unpickler)


class TestUnpicklerAlone(pickletester.AbstractPickleTests, unittest.TestCase):
    """What pickle writes, safepickle reads."""

    pickler = pickle.Pickler
    unpickler = safepickle.Unpickler
    dumps = dumps_with(pickle.Pickler)
    loads = loads_with(safepickle.Unpickler)


class TestUnpickler(pickletester.AbstractUnpickleTests, unittest.TestCase):
    unpickler = safepickle.Unpickler
    bad_stack_errors = (pickle.UnpicklingError,)
    truncated_errors = (pickle.UnpicklingError,)
    truncated_data_error = (pickle.UnpicklingError, "truncated")
    size_overflow_error = (OverflowError, "exceeds")
    loads = loads_with(safepickle.Unpickler)


class TestModule(pickletester.AbstractPickleModuleTests, unittest.TestCase):
    dump = staticmethod(safepickle.dump)
    dumps = staticmethod(safepickle.dumps)
    load = staticmethod(safepickle.load)
    loads = staticmethod(safepickle.loads)
    Pickler = safepickle.Pickler
    Unpickler = safepickle.Unpickler


class PersistentIds(Mixin):
    """Pickles through subclasses whose persistent ids come from the test."""

    pickler = safepickle.Pickler
    unpickler = safepickle.Unpickler

    def dumps(self, obj: object, protocol: int | None = None) -> bytes:
        test = self
        pickler: Any = self.pickler

        class Pickler(pickler):
            def persistent_id(self, obj):
                return test.persistent_id(obj)

        return dumps_with(Pickler)(self, obj, protocol)

    def loads(self, data: bytes, **options: Any) -> Any:
        test = self
        unpickler: Any = self.unpickler

        class Unpickler(unpickler):
            def persistent_load(self, pid):
                return test.persistent_load(pid)

        return loads_with(Unpickler)(self, data, **options)


class TestPersistentIds(PersistentIds, pickletester.AbstractPersistentPicklerTests, unittest.TestCase):
    pass


class TestIdentityPersistentIds(PersistentIds, pickletester.AbstractIdentityPersistentPicklerTests, unittest.TestCase):
    def test_a_pickler_dies_with_its_last_reference(self):
        class OfInstance(safepickle.Pickler):
            def persistent_id(self, obj):
                return obj

        class OfClass(safepickle.Pickler):
            @classmethod
            def persistent_id(cls, obj):
                return obj

        class Static(safepickle.Pickler):
            @staticmethod
            def persistent_id(obj):
                return obj

        for cls in (OfInstance, OfClass, Static):
            with self.subTest(cls.__name__):
                stream = io.BytesIO()
                pickler = cls(stream)
                pickler.dump("abc")
                assert self.loads(stream.getvalue()) == "abc"
                assert pickler.persistent_id("def") == "def"
                watcher = weakref.ref(pickler)
                del pickler
                assert watcher() is None

    def test_an_unpickler_dies_with_its_last_reference(self):
        class Unpickler(safepickle.Unpickler):
            def persistent_load(self, pid):
                return pid

        unpickler = Unpickler(io.BytesIO(self.dumps("abc")))
        assert unpickler.load() == "abc"
        watcher = weakref.ref(unpickler)
        del unpickler
        assert watcher() is None


class TestPicklerObject(pickletester.AbstractPicklerUnpicklerObjectTests, unittest.TestCase):
    pickler_class = safepickle.Pickler
    unpickler_class = safepickle.Unpickler


class DispatchTable(pickletester.AbstractDispatchTableTests):
    pickler_class = safepickle.Pickler

    def test_default_dispatch_table(self):
        # Every pickler has a dispatch table, as a cloudpickle.Pickler has, and pickle's is part of it.
        table = safepickle.Pickler(io.BytesIO()).dispatch_table
        assert dict(copyreg.dispatch_table).items() <= dict(table).items()


class TestDispatchTable(DispatchTable, unittest.TestCase):
    def get_dispatch_table(self):
        return copyreg.dispatch_table.copy()


class TestChainedDispatchTable(DispatchTable, unittest.TestCase):
    def get_dispatch_table(self):
        return collections.ChainMap({}, copyreg.dispatch_table)


class TestReducerOverride(pickletester.AbstractHookTests, unittest.TestCase):
    class CustomPickler(pickletester.AbstractCustomPicklerClass, safepickle.Pickler):
        pass

    pickler_class = CustomPickler


if hasattr(pickletester, "AbstractPicklingErrorTests"):  # from 3.13 on

    class TestPicklingErrors(WhatPickleRefuses, pickletester.AbstractPicklingErrorTests, unittest.TestCase):
        pickler = safepickle.Pickler
        dumps = dumps_with(safepickle.Pickler)
        loads = staticmethod(pickle.loads)
        test_c_methods = test_py_methods = test_newobj_proxies = None  # type: ignore[assignment]

        def assertEqual(self, first: Any, second: Any, msg: Any = None) -> None:
            """Compare, but let the path take the place of pickle's last notes, which it adds from 3.14 on."""
            if isinstance(second, list) and "when serializing" in str(second):
                theirs = [note for note in first if note.startswith("when serializing")]
                ours = first[len(theirs) :]
                assert theirs == second[: len(theirs)]
                assert [note[:7] for note in ours] == ["The obj"] or theirs == second
            else:
                super().assertEqual(first, second, msg)  # noqa: PT009 (it is the one that is overridden)

        def test_unpickleable_newobj_class(self):
            # A local class travels by value.
            class Local:
                def __reduce_ex__(self, protocol):
                    return copyreg.__newobj__, (Local,)  # type: ignore[attr-defined]

            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                with self.subTest(protocol=protocol):
                    assert type(self.loads(self.dumps(Local(), protocol))).__qualname__ == Local.__qualname__

        def test_unpickleable_newobj_ex_class(self):
            class Local:
                def __reduce_ex__(self, protocol):
                    return copyreg.__newobj_ex__, (Local, (), {})  # type: ignore[attr-defined]

            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                with self.subTest(protocol=protocol):
                    assert type(self.loads(self.dumps(Local(), protocol))).__qualname__ == Local.__qualname__
