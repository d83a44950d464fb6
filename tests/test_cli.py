"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import safepickle
from console_page import run_console_page
from safepickle.cli import main

ROOT = Path(__file__).parents[1]

SCRIPT = """
import weakref
print("hello from the script")

class Parent:
    pass

class Child:
    def __init__(self, parent):
        self.parent = weakref.ref(parent)

class Holder:
    def make(self):
        return {"answer": 42}

parent = Parent()
parent.child = Child(parent)
orphan = Child(Parent())
generator = [number for number in range(3)], (number for number in ())
holder = Holder()
watched = [parent, weakref.finalize(parent, list)]
watched[1].atexit = False

def exits():
    raise SystemExit(3)

if __name__ == "__main__":
    raise AssertionError("this is no program now")
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "graphs.py").write_text(SCRIPT, encoding="utf-8")
    yield "graphs.py"
    sys.modules.pop("graphs", None)


class Referent:
    pass


def test_explain_runs_the_script_and_says_so(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{script}:parent"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["safepickle: running graphs.py to get at parent", "hello from the script"]
    assert captured.out.startswith("graphs.Parent can be pickled: ")
    assert "$.child.parent  weakref.ref  kept      graphs.Parent  weak reference to $" in captured.out


def test_explain_takes_a_module_and_calls_what_it_is_told_to(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "graphs:holder.make()", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "builtins.dict"


def test_explain_tells_by_its_status_what_cannot_be_pickled(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{script}:generator"]) == 1
    assert "$[1]  generator  error    TypeError: cannot pickle 'generator' object" in capsys.readouterr().out


def test_explain_takes_a_policy(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{script}:orphan", "--weakrefs", "strict"]) == 0
    # The orphan's parent died with the line that made it: a dead reference is no reason to refuse.
    assert "tombstone" in capsys.readouterr().out
    assert main(["explain", f"{script}:parent.child", "--weakrefs", "strict", "--json"]) == 1
    (reference,) = json.loads(capsys.readouterr().out)["weak_references"]
    assert reference["becomes"] == "error"


def test_explain_takes_finalizers(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option, becomes in ((), "dead finalizer"), (("--finalizers", "rearm"), "weak reference"):
        assert main(["explain", f"{script}:watched", "--json", *option]) == 0
        found = {entry["path"]: entry["becomes"] for entry in json.loads(capsys.readouterr().out)["weak_references"]}
        assert found == {"$[0].child.parent": "weak reference", "$[1]": becomes}


def test_explain_draws_a_picture(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{script}:parent", "--picture", "graph.dot"]) == 0
    assert (tmp_path / "graph.dot").read_text(encoding="utf-8").startswith("digraph")
    assert main(["explain", f"{script}:parent", "--picture", "graph.html"]) == 0
    assert (tmp_path / "graph.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_explain_reports_where_a_drawing_fails(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{script}:parent", "--picture", "graph.gif"]) == 2
    told = capsys.readouterr()
    assert "can be pickled" in told.out
    assert "ends in .html, .svg, .png, .pdf, .dot, not in '.gif'" in told.err


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("graphs.py", "graphs.py names no object: write module:name or script.py:name"),
        ("missing.py:x", "there is no script missing.py"),
        ("no_such_module:x", "importing no_such_module raised ModuleNotFoundError"),
        ("graphs.py:nothing", "there is no nothing in graphs.py, as graphs.py:nothing has it"),
        ("graphs.py:exits()", "calling exits() raised SystemExit"),
    ],
)
def test_object_that_cannot_be_had_is_status_2(
    script: str, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", target]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == f"safepickle: {message}"
    assert captured.out == ""


def save(path: Path, obj: Any, **options: Any) -> str:
    safepickle.dump(obj, path, **options)
    return str(path)


def test_inspect_tells_what_a_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "a.pkl", {"reference": weakref.ref(Referent()), "epoch": 1})
    assert main(["inspect", file]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{file}: pickle, protocol 5, ")
    assert "$['reference']" in printed
    assert "safepickle.rebuild:Tombstone" in printed


def test_inspect_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "a.pkl", [1, 2])
    assert main(["inspect", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "safe"


def test_inspect_tells_by_its_status_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.pkl"
    save(file, {"key": "value" * 100})
    file.write_bytes(file.read_bytes()[:-20])
    assert main(["inspect", str(file)]) == 1
    assert "verdict damaged" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["inspect", "missing.pkl"], ["diff", "missing.pkl", "missing.pkl"]])
def test_missing_file_is_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err == "safepickle: cannot read missing.pkl: No such file or directory\n"


def test_diff_tells_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    referent = Referent()
    before = save(tmp_path / "before.pkl", {"epoch": 1, "old": [1], "kept": "x"})
    after = save(tmp_path / "after.pkl", {"epoch": 2, "kept": "x", "new": weakref.ref(referent)}, weakrefs="tombstone")
    assert main(["diff", before, after, "--json"]) == 1
    changes = {(change["kind"], change["where"]): change for change in json.loads(capsys.readouterr().out)["changes"]}
    assert changes["entry", "$['old']"]["verb"] == "removed"
    assert changes["tombstone", "$['new']"]["verb"] == "added"
    epoch = changes["value", "$['epoch']"]
    assert (epoch["before"], epoch["after"], epoch["verb"]) == ("1", "2", "changed")
    assert changes["tombstone", "$['new']"]["after"] == f"policy, was {__name__}.Referent"
    assert changes["global", "safepickle.rebuild:Tombstone"]["verb"] == "added"
    assert not [where for _, where in changes if "kept" in where]


def test_diff_prints_what_the_result_says_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = save(tmp_path / "a.pkl", {"lr": 0.1}), save(tmp_path / "b.pkl", {"lr": 0.2})
    assert main(["diff", before, after, "--exit-code"]) == 1
    printed = capsys.readouterr().out
    assert printed == f"{safepickle.diff(before, after)}\n"
    assert "~  $['lr']  0.1     0.2" in printed


def test_diff_of_the_same_is_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "a.pkl", {"epoch": 1})
    assert main(["diff", file, file]) == 0
    assert "nothing changed" in capsys.readouterr().out


def test_diff_of_what_cannot_be_compared_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "a.pkl", {"epoch": 1})
    page = tmp_path / "page.pt"
    page.write_text("<html>not found</html>", encoding="utf-8")
    assert main(["diff", file, str(page)]) == 2
    assert "page.pt" in capsys.readouterr().err
    assert main(["diff", file, str(tmp_path / "none.pkl"), "--exit-code"]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_usage_errors_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "a:b", "--weakrefs", "weak"])
    assert "usage: safepickle" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["explain", "inspect", "diff"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--json" in capsys.readouterr().out


def test_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    file = save(tmp_path / "a.pkl", {f"key {number}": [number] for number in range(2000)})
    command = [sys.executable, "-m", "safepickle", "inspect", file, "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    for said, printed in run_console_page("docs/command-line.md", tmp_path):
        assert said == printed
