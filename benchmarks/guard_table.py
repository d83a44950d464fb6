"""The guarded load beside picklescan, fickling and torch's weights_only, on one corpus: a table in Markdown.

Each tool judges every pickle of the tests' corpus in a process of its own, with a gigabyte of memory and ten seconds
for each; where a pickle ends that process, the next one goes on behind it. Run:
python benchmarks/guard_table.py docs/guarded-loading.md
"""

from __future__ import annotations

import gc
import importlib.metadata
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

TOOLS = ("safepickle", "picklescan", "fickling", "torch")
MEMORY = 1 << 30
SECONDS = 10
BEGIN, END = "<!-- written by benchmarks/guard_table.py -->", "<!-- end -->"


def corpus(folder: str) -> list[tuple[str, str, bytes]]:
    """Return kind, title and bytes of every pickle."""
    from guard.attacks import ATTACKS
    from guard.benign import BUILT_IN
    from guard.costly import COSTLY, DAMAGED

    cases = [(attack.category, attack.title, attack.build(f"{folder}/m{n}")) for n, attack in enumerate(ATTACKS)]
    cases += [("resources", title, build()) for title, build in COSTLY.items()]
    cases += [("damaged input", title, data) for title, data in DAMAGED.items()]
    cases += [("good pickles", title, pickle.dumps(obj, 2)) for title, obj in BUILT_IN.items()]
    return cases


def judge_by_safepickle(data: bytes) -> bool:
    import safepickle

    try:
        safepickle.loads(data, allow=())
    except pickle.UnpicklingError:
        return False
    return True


def judge_by_picklescan(data: bytes) -> bool:
    from picklescan.scanner import scan_pickle_bytes

    result = scan_pickle_bytes(io.BytesIO(data), "case")
    return not result.issues_count and not result.scan_err


def judge_by_fickling(data: bytes) -> bool:
    from fickling.analysis import Severity, check_safety
    from fickling.fickle import Pickled

    return check_safety(Pickled.load(data)).severity == Severity.LIKELY_SAFE


def judge_by_torch(data: bytes) -> bool:
    from torch import _weights_only_unpickler

    try:
        _weights_only_unpickler.load(io.BytesIO(data))
    except pickle.UnpicklingError:
        return False
    return True


JUDGES: dict[str, Callable[[bytes], bool]] = {
    "safepickle": judge_by_safepickle,
    "picklescan": judge_by_picklescan,
    "fickling": judge_by_fickling,
    "torch": judge_by_torch,
}


def work(tool: str, first: int) -> None:
    """Judge every pickle from `first` on, and print a line for each."""
    import logging

    logging.disable()
    warnings.simplefilter("ignore")
    # Tools print what they please; the outcomes go where nothing else does.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    judge = JUDGES[tool]
    judge(pickle.dumps(1))  # whatever has to be imported is, before memory is limited
    used = 0
    if tool == "torch":
        used = 8 << 30  # its shared libraries take address space
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + used, MEMORY + used))
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, _, data) in enumerate(corpus(folder)):
            if number < first:
                continue
            signal.alarm(SECONDS)
            try:
                outcome = "passed" if judge(data) else "refused"
            except BaseException as error:
                outcome = f"raised {type(error).__name__}"
            signal.alarm(0)
            gc.collect()
            print(json.dumps([number, outcome]), file=answers, flush=True)


def outcomes(tool: str, count: int) -> list[str]:
    """Let a tool judge every pickle, with a new process behind each one that ends it."""
    found: dict[int, str] = {}
    while len(found) < count:
        first = len(found)
        child = subprocess.run(
            [sys.executable, __file__, "--work", tool, str(first)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ, encoding="utf-8"
        )  # fmt: skip
        for line in child.stdout.splitlines():
            number, outcome = json.loads(line)
            found[number] = outcome
        if len(found) < count:
            found[len(found)] = "killed"
    return [found[number] for number in range(count)]


def cell(kind: str, results: list[str]) -> str:
    """Say how a tool did on one kind of pickle."""
    total = len(results)
    passed = results.count("passed")
    killed = results.count("killed")
    raised = sum(result.startswith("raised") for result in results)
    if kind == "good pickles":
        return f"{passed} of {total} pass"
    parts = [f"{total - passed - killed} of {total}"]
    if kind in ("resources", "damaged input"):
        if killed:
            parts.append(f"{killed} end the process or hang it")
        if raised:
            parts.append(f"{raised} by another exception")
    return ", ".join(parts)


def table() -> str:
    """Run every tool and return the table."""
    with tempfile.TemporaryDirectory() as folder:
        cases = corpus(folder)
    results = {tool: outcomes(tool, len(cases)) for tool in TOOLS}
    versions = {tool: importlib.metadata.version(tool) for tool in TOOLS[1:]}
    names = ["safepickle `allow=()`", *(f"{tool} {version}" for tool, version in versions.items())]
    names[-1] = names[-1].replace("torch ", "torch `weights_only` ").replace("+cpu", "")
    kinds = list(dict.fromkeys(kind for kind, _, _ in cases))
    rows = [f"| refused | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for kind in kinds:
        chosen = [number for number, (own, _, _) in enumerate(cases) if own == kind]
        cells = [cell(kind, [results[tool][number] for number in chosen]) for tool in TOOLS]
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]))
        return
    text = table()
    print(text)
    for name in sys.argv[1:]:
        page = Path(name)
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
