"""Run the tests of cloudpickle and dill with safepickle in their place, and hold it to what is known.

Each peer's tests run twice: as they are, and with safepickle. A test that passes with the peer and does not with
safepickle is a deviation. Each is listed in ``deviations.toml`` with its reason; one that is new fails, and so does one
that is listed and gone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from peers.in_their_place import VARIABLE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "peers"


@dataclass(frozen=True)
class Peer:
    """Where a peer's tests are.

    Attributes:
        name: Of the package.
        archive: The newest release whose archive has the tests, where an installation lacks them.
        tests: Their folder, in the archive or in what is installed.
        search: Folders of the archive to import from.
        options: Of pip, to get the archive.
        apart: Whether each file runs in a process of its own, because its tests change what others rely on.
    """

    name: str
    archive: str | None
    tests: str
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    apart: bool = False

    def fetch(self) -> Path:
        """Return the folder that holds `tests`."""
        if self.archive is None:
            spec = importlib.util.find_spec(self.name)
            assert spec is not None
            assert spec.origin is not None
            return Path(spec.origin).parents[1]
        folder = CACHE / self.archive.replace("==", "-")
        if not folder.exists():
            download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *self.options, self.archive]
            with tempfile.TemporaryDirectory() as downloads:
                subprocess.run([*download, "-d", downloads], check=True)
                (archive,) = Path(downloads).iterdir()
                with tarfile.open(archive) as sdist:
                    sdist.extractall(CACHE, filter="data")
        return folder


PEERS = (
    Peer(
        "cloudpickle",
        "cloudpickle==3.1.0",
        "tests",
        search=("tests/cloudpickle_testpkg",),
        options=("--no-binary", "cloudpickle", "--no-build-isolation"),
    ),
    Peer("dill", None, "dill/tests", search=("dill/tests",), apart=True),
)


def outcomes(peer: Peer, replaced: bool) -> dict[str, str]:
    """Run a peer's tests, and return for each whether it ``"passed"``, ``"failed"`` or was ``"skipped"``."""
    top = peer.fetch()
    work = CACHE / f"{peer.name}-{'replaced' if replaced else 'own'}"
    work.mkdir(parents=True, exist_ok=True)
    (work / "pytest.ini").write_text("[pytest]\npython_files = test_*.py *_test.py\n", encoding="utf-8")
    folder = top / peer.tests
    found: dict[str, str] = {}
    with (work / "output.txt").open("w", encoding="utf-8") as output:
        for tests in sorted(folder.glob("test_*.py")) if peer.apart else [folder]:
            report = work / "report.xml"
            report.unlink(missing_ok=True)
            search = [str(HERE.parent), *(str(top / folder) for folder in peer.search)]
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-s",
                "-p",
                "peers.in_their_place",
                "-p",
                "no:cacheprovider",
            ]
            command += ["-c", str(work / "pytest.ini"), "--rootdir", str(top), f"--junitxml={report}", "--timeout=300"]
            subprocess.run(
                [*command, str(tests)],
                cwd=work,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(search), VARIABLE: peer.name if replaced else ""},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if report.exists():
                found |= _read(report, peer.tests.replace("/", ".") + ".")
    return found


def _read(report: Path, prefix: str) -> dict[str, str]:
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[f"{case.get('classname', '')}.{case.get('name')}".removeprefix(prefix)] = outcome
    return found


def check(peer: Peer, listed: set[str]) -> bool:
    """Compare the two runs with the list; print what differs, and tell whether nothing did."""
    own, ours = outcomes(peer, replaced=False), outcomes(peer, replaced=True)
    passed = {test for test, outcome in own.items() if outcome == "passed"}
    if not passed:
        sys.exit(f"no test of {peer.name} passes: see {CACHE}")
    deviations = {test for test in passed if ours.get(test) != "passed"}
    print(
        f"{peer.archive or peer.name}: {len(passed) - len(deviations)} of the {len(passed)} tests that pass with "
        f"{peer.name} pass with safepickle ({len(own)} in all)",
        flush=True,
    )
    for test in sorted(deviations - listed):
        print(f"  a new deviation: {test} ({ours.get(test, 'not found')})")
    for test in sorted(listed - deviations):
        print(f"  listed, and gone: {test}")
    return deviations == listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", help="by default all")
    chosen = parser.parse_args().peers
    known = tomllib.loads((HERE / "deviations.toml").read_text(encoding="utf-8"))
    good = True
    for peer in PEERS:
        if not chosen or peer.name in chosen:
            listed = {test for group in known.get(peer.name, []) for test in group["tests"]}
            good = check(peer, listed) and good
    if not good:
        sys.exit(f"the deviations are not those of {HERE / 'deviations.toml'}; the output of the tests is in {CACHE}")


if __name__ == "__main__":
    main()
