"""What the package says of itself, in the places that have to agree: version, Pythons, extras, links of the README."""

import re
import shutil
import subprocess
import sys
import tomllib

import pytest

import safepickle
from pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINK = re.compile(r"\]\(([^)]+)\)")


def pins():
    files = [*(ROOT / "requirements").glob("*.txt")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {tuple(found.groups()) for line in lines if (found := re.match(r"([\w.-]+)==([\w.]+)", line))}


def test_the_change_log_begins_with_the_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)[0] == safepickle.__version__


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_asks_for_what_the_tests_ran_with(extra):
    for requirement in PROJECT["optional-dependencies"][extra]:
        name, version = requirement.split(">=")
        tested = {pin for library, pin in pins() if library == name}
        assert min(tested).startswith(version), (requirement, tested)


def test_pythons_of_the_classifiers_are_those_that_the_tests_look_for():
    classified = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if " :: 3." in line]
    (supported,) = re.findall(
        r'^supported="(.+)"$', (ROOT / "tools/find_pythons.sh").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert classified == supported.split()
    assert PROJECT["requires-python"] == f">={classified[0]}"


@pytest.mark.parametrize("hosted", [True, False])
def test_links_of_the_readme_lead_somewhere_on_the_package_index(hosted, tmp_path):
    for name in ("README.md", "LICENSE", "setup.py", "pyproject.toml", "src/safepickle/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    if hosted:
        with (tmp_path / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write('\n[project.urls]\nRepository = "https://example.org/safepickle"\n')
    command = [sys.executable, "setup.py", "--quiet", "egg_info"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.rglob("PKG-INFO")
    shown = metadata.read_text(encoding="utf-8")
    links = set(LINK.findall(shown))
    assert f"Version: {safepickle.__version__}" in shown.splitlines()
    assert all(link.startswith(("https://", "#")) for link in links)
    assert ("https://example.org/safepickle/blob/HEAD/docs/torch.md" in links) == hosted
    assert ("https://example.org/safepickle/raw/HEAD/docs/performance.svg" in links) == hosted
    assert "torch.md" in shown
