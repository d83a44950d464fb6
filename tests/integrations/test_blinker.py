"""blinker's signals: connections of the copies to one another, in place of the ids of the originals."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import blinker
import golden_blinker_cases
import pytest
from golden_blinker_cases import Listener, Sender, listen

import safepickle
from nodes import round_trip
from safepickle import rebuild

GOLDEN = sorted((Path(__file__).resolve().parent.parent / "data" / "golden").glob("*/py*/blinker_*.pickle"))


def listen_to_connections(sender: Any, **said: Any) -> None:
    raise AssertionError("nothing is connected by a load, as seen from outside")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parts[-2]}/{path.stem}")
@pytest.mark.parametrize("reader", ["safepickle", "pickle"])
def test_golden_pickles_load(path: Path, reader: str) -> None:
    data = path.read_bytes()
    loaded = safepickle.loads(data) if reader == "safepickle" else pickle.loads(data)
    golden_blinker_cases.check_signals(loaded)
    assert all(name.encode() in data for name in rebuild.FORMAT["blinker_types"])
    with pytest.raises(safepickle.NotAllowedError, match="not allowed"):
        safepickle.loads(data, allow=[Listener, Sender, listen, blinker.NamedSignal])


@pytest.mark.parametrize("protocol", range(6))
def test_copies_are_connected_to_copies(protocol: int) -> None:
    original = golden_blinker_cases.signals()
    golden_blinker_cases.check_signals(round_trip(original, protocol))
    assert original["listener"].heard == original["picky"].heard == []
    golden_blinker_cases.check_signals(original)


def test_loads_in_a_new_process(tmp_path: Path) -> None:
    target = tmp_path / "signals.pickle"
    safepickle.dump(golden_blinker_cases.signals(), target)
    program = "import sys, safepickle; loaded = safepickle.load(sys.argv[1]); import golden_blinker_cases as cases; "
    program = f"import sys; sys.path[:0] = {sys.path!r}; {program} cases.check_signals(loaded)"
    subprocess.run([sys.executable, "-c", program, str(target)], check=True)


def test_receiver_that_is_met_after_its_signal_is_connected() -> None:
    signal, listener = blinker.Signal(), Listener()
    signal.connect(listener.hear, sender=listener)
    copied_signal, copy = round_trip([signal, listener])
    copied_signal.send(copy, word="heard")
    assert copy.heard == ["heard"]
    assert listener.heard == []


def test_receivers_outside_are_left_out_and_counted() -> None:
    signal, listener, sender = blinker.Signal(), Listener(), Sender()
    signal.connect(listener.hear)
    with pytest.warns(safepickle.WeakReferenceWarning, match=r"golden_blinker_cases\.Listener outside") as caught:
        copy = round_trip(signal)
    assert not caught[0].message.identity_keys  # type: ignore[union-attr]
    assert copy.send(sender, word="nobody") == []
    explanation = safepickle.explain({"signal": signal})
    assert {entry.becomes for entry in explanation.weak_references if entry.state == "outside"} == {"left out"}
    strong = round_trip(signal, weakrefs="strong")
    [(receiver, _)] = strong.send(sender, word="owned")
    assert receiver.__self__.heard == ["owned"]
    with pytest.raises(safepickle.WeakReferenceError, match="is not in the pickle"):
        safepickle.dumps(signal, weakrefs="strict")


def test_copied_receivers_are_held_weakly() -> None:
    signal, listener = blinker.Signal(), Listener()
    signal.connect(listener.hear)
    copied_signal, copy = round_trip([signal, listener])
    watch = weakref.ref(copy)
    del copy
    gc.collect()
    assert watch() is None
    assert not copied_signal.receivers
    assert list(signal.receivers)


def test_mute_and_signals_of_connections_survive() -> None:
    signal, listener = blinker.Signal(), Listener()
    signal.is_muted = True
    signal.connect(listener.hear)
    signal.receiver_connected.connect(listen_to_connections, weak=False)
    copied_signal, copy = round_trip([signal, listener])
    assert copied_signal.is_muted
    assert len(copied_signal.receiver_connected.receivers) == 1
    copied_signal.is_muted = False
    copied_signal.send(word="heard")
    assert copy.heard == ["heard"]


def test_namespaces_keep_their_signals() -> None:
    namespace, listener = blinker.Namespace(), Listener()
    namespace.signal("saved").connect(listener.hear)
    copied, copy = round_trip([namespace, listener])
    copied.signal("saved").send(word="heard")
    assert copy.heard == ["heard"]
