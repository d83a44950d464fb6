"""Addresses of fsspec: one put once the pickle is whole, and nothing where the dump fails."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

import safepickle
from nodes import Offender
from safepickle.cli import main


@pytest.mark.parametrize("name", ["x.pkl", "x.pkl.gz"])
def test_addresses_are_written_and_read(name: str):
    address = f"memory://folder/{name}"
    safepickle.dump({"epoch": 3}, address)
    assert safepickle.load(address) == safepickle.load(address, allow=()) == {"epoch": 3}
    assert safepickle.inspect(address).verdict == "safe"
    with pytest.raises(ValueError, match="not today"):
        safepickle.dump([bytes(1000), Offender()], address)
    assert safepickle.load(address) == {"epoch": 3}


def test_an_address_of_a_local_file_is_replaced_as_a_path_is(tmp_path: Path):
    safepickle.dump([1], f"file://{tmp_path}/x.pkl")
    assert safepickle.load(tmp_path / "x.pkl") == safepickle.load(f"file://{tmp_path}/x.pkl") == [1]
    with pytest.raises(ValueError, match="not today"):
        safepickle.dump(Offender(), f"file://{tmp_path}/x.pkl")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pkl"]


def test_what_is_at_an_address_is_named():
    with fsspec.open("memory://folder/page.pt", "wb") as file:
        file.write(b"<html>404</html>")
    with pytest.raises(safepickle.NotAPickleError, match=r"page\.pt: this is an HTML or XML page"):
        safepickle.load("memory://folder/page.pt")


def test_the_command_line_takes_addresses(capsys: pytest.CaptureFixture[str]):
    for number in (1, 2):
        safepickle.dump({"epoch": number}, f"memory://folder/{number}.pkl")
    assert main(["inspect", "memory://folder/1.pkl"]) == 0
    assert main(["diff", "memory://folder/1.pkl", "memory://folder/2.pkl"]) == 1
    assert "$['epoch']" in capsys.readouterr().out
    for address in ("memory://folder/none.pkl", "none://folder/1.pkl"):
        assert main(["inspect", address]) == 2
        assert "none" in capsys.readouterr().err
