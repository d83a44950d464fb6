"""Loggers by name and by value, and handlers that are flushed when the process ends."""

from __future__ import annotations

import gc
import logging
import logging.handlers
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import round_trip


class OwnLogger(logging.Logger):
    """A class of logger."""


class OwnHandler(logging.Handler):
    """Leaves something out, and has to be told so."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []
        self.connection: Any = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())

    def __getstate__(self) -> Any:
        return {**self.__dict__, "connection": None, "lock": None}


def handlers_of_the_process() -> list[Any]:
    return [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", range(6))
def test_logger_of_the_manager_goes_by_name(protocol: int) -> None:
    logger = logging.getLogger("app.of.this.test")
    for found in (logger, logging.root, logging.Logger.manager):
        assert round_trip([found], protocol)[0] is found


@pytest.mark.parametrize("cls", [logging.Logger, OwnLogger, logging.RootLogger])
@pytest.mark.parametrize("protocol", range(6))
def test_logger_outside_the_manager_keeps_handlers_and_level(cls: Any, protocol: int) -> None:
    logger: Any = cls(logging.INFO) if cls is logging.RootLogger else cls("app.of.this.test", logging.INFO)
    logger.addHandler(OwnHandler())
    logger.addFilter(logging.Filter("app"))
    logger.propagate = False
    logger.itself = weakref.ref(logger)
    logger.isEnabledFor(logging.DEBUG)
    copy = round_trip({"logger": logger}, protocol)["logger"]
    assert type(copy) is cls
    assert copy is not logging.getLogger("app.of.this.test")
    assert (copy.name, copy.level, copy.propagate) == (logger.name, logging.INFO, False)
    assert copy.itself() is copy
    copy.filters.clear()
    copy.info("said to the copy")
    copy.debug("not said")
    assert copy.handlers[0].records == ["said to the copy"]
    assert logger.handlers[0].records == []
    assert logger.filters


def test_logger_outside_does_not_make_one_in_the_manager() -> None:
    round_trip(logging.Logger("never.heard.of"))
    assert "never.heard.of" not in logging.Logger.manager.loggerDict


def test_loggers_of_a_manager_of_ones_own() -> None:
    manager = logging.Manager(logging.RootLogger(logging.WARNING))
    child = manager.getLogger("parent.child")
    parent = manager.getLogger("parent")
    parent.addHandler(OwnHandler())
    copy = round_trip(child)
    copy.error("up")
    assert copy.parent.handlers[0].records == ["up"]
    assert copy.parent is copy.manager.getLogger("parent")
    assert copy.parent is not parent
    assert parent.handlers[0].records == []  # type: ignore[attr-defined]


def test_logger_that_was_taken_out_of_the_manager() -> None:
    logger = logging.getLogger("taken.out")
    del logging.Logger.manager.loggerDict["taken.out"]
    logger.setLevel(7)
    copy = round_trip(logger)
    assert copy.level == 7
    assert copy.manager is logging.Logger.manager


def test_logger_class_that_says_itself_how_it_is_pickled() -> None:
    class Said(logging.Logger):
        def __reduce__(self) -> Any:
            return logging.getLogger, ("said",)

    assert round_trip(Said("other")) is logging.getLogger("said")


@pytest.mark.parametrize("protocol", range(6))
def test_handler_is_listed_after_what_it_passes_on_to_and_works(protocol: int) -> None:
    target = OwnHandler()
    handler = logging.handlers.MemoryHandler(10, target=target)
    handler.handle(logging.makeLogRecord({"msg": "kept", "levelno": 20}))
    copy = round_trip(handler, protocol)
    listed = handlers_of_the_process()
    assert listed.index(copy.target) < listed.index(copy)
    with copy.lock:
        copy.flush()
    assert copy.target.records == ["kept"]
    assert target.records == []
    handler.target = None
    count = len(listed)
    del copy, listed
    gc.collect()
    assert len(handlers_of_the_process()) <= count - 2


def test_handlers_own_state_and_null_handlers_are_honoured() -> None:
    handler = OwnHandler()
    copy, null = round_trip([handler, logging.NullHandler()])
    assert copy.connection is None
    copy.handle(logging.makeLogRecord({"msg": "said", "levelno": 20}))
    assert copy.records == ["said"]
    assert null.lock is None


@pytest.mark.parametrize("mode", ["a", "w"])
def test_copied_memory_handler_loses_no_record_when_the_process_ends(tmp_path: Path, mode: str) -> None:
    log = tmp_path / "log.txt"
    data = tmp_path / "handler.pickle"
    program = """
        import logging, logging.handlers, os, sys
        import safepickle
        mode, log, data = sys.argv[1:]
        handler = logging.handlers.MemoryHandler(10, target=logging.FileHandler(log, mode))
        handler.handle(logging.makeLogRecord({"msg": "a record", "levelno": 20}))
        safepickle.dump(handler, data)
        handler.buffer.clear()
        """
    load = "import sys, safepickle; handler = safepickle.load(sys.argv[3])"
    for text in (program, load):
        subprocess.run([sys.executable, "-c", textwrap.dedent(text), mode, str(log), str(data)], check=True)
    assert log.read_text(encoding="utf-8") == "a record\n"


def test_explain_and_deep_graphs_know_them() -> None:
    logger = logging.Logger("deep")
    logger.addHandler(OwnHandler())
    assert safepickle.explain(logger).picklable
