"""Every attack of the corpus works on plain pickle, and none on a guarded load."""

from __future__ import annotations

import gc
import os
import pickle
import sqlite3
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import safepickle
from guard import attacks
from guard.attacks import ATTACKS, Attack


@pytest.fixture(autouse=True)
def extension_code() -> Iterator[None]:
    with attacks.registered_extension():
        yield


@pytest.fixture
def marker(tmp_path: Path) -> str:
    return str(tmp_path / "m")


def has_fired(attack: Attack, marker: str) -> bool:
    if attack.category == "deferred execution":
        gc.collect()
    return os.path.lexists(marker)


def fires(attack: Attack, marker: str) -> bool:
    """Wait for a marker that another process may still be making."""
    for _ in range(500):
        if has_fired(attack, marker):
            return True
        time.sleep(0.01)
    return False


def test_corpus_is_large_and_spread():
    categories = Counter(attack.category for attack in ATTACKS)
    assert len(ATTACKS) >= 190
    assert len({str(attack) for attack in ATTACKS}) == len(ATTACKS)
    assert min(categories.values()) >= 6


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack_is_refused_though_plain_pickle_falls_for_it(attack: Attack, marker: str):
    data = attack.build(marker)
    with pytest.raises(safepickle.GuardedLoadError, match=r"not allowed|damaged"):
        safepickle.loads(data, allow=attack.allow)
    assert not has_fired(attack, marker)

    verdict = safepickle.inspect(data).verdict
    assert not has_fired(attack, marker)
    assert verdict != "safe"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = pickle.loads(data)
        except Exception as error:  # what comes after the damage is done does not matter
            result = type(error)
        if isinstance(result, sqlite3.Connection):
            # It is part of a cycle, and complains whenever the collector comes upon it.
            result.close()
        del result
        assert fires(attack, marker)


@pytest.mark.parametrize("attack", ATTACKS[::9], ids=str)
def test_attack_is_refused_from_a_file(attack: Attack, marker: str, tmp_path: Path):
    path = tmp_path / "attack.pkl"
    path.write_bytes(attack.build(marker))
    with pytest.raises(safepickle.GuardedLoadError, match=r"attack\.pkl"):
        safepickle.load(path, allow=attack.allow)
    assert not has_fired(attack, marker)


def test_extension_code_is_refused_though_it_is_cached():
    data = b"\x80\x04\x82\xf1."
    assert pickle.loads(data) is os.mkdir
    with pytest.raises(safepickle.NotAllowedError, match="extension codes stand for names"):
        safepickle.loads(data, allow=())
