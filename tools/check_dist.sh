#!/bin/sh
# Builds the sdist and, from it, the wheel with the compiled core and the one without into dist/, and tries each where
# nothing else of this project is.
#
# usage: check_dist.sh PYTHON_WITH_BUILD "PYTHON..." TEST...
#
# Each is installed into a fresh environment of the first PYTHON, which runs the first example of the README and
# `safepickle --version`, and draws a picture; the binary wheel is tried on every other PYTHON, too. The sdist is
# unpacked, and runs the TESTs of its own.
set -eu

build=$1 pythons=$2
shift 2
first=${pythons%% *}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

quietly() {
    "$@" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
}

# try PYTHON ARCHIVE "True, or False for the core in Python alone"
try() {
    echo "installing $2 on $("$1" -V)"
    "$1" -m venv --clear "$folder/venv"
    python=$folder/venv/${VENV_BIN:-bin}/python
    "$python" -m pip install --disable-pip-version-check -q -c requirements/core.txt "$2"
    (
        cd "$folder"
        "$python" -W error example.py
        "${python%python}safepickle" --version
        "${python%python}safepickle" explain math:tau --picture picture.html >/dev/null
        "$python" -c "
import importlib.metadata, safepickle
assert safepickle.COMPILED is $3, safepickle.COMPILED
assert importlib.metadata.version('safepickle-weakref') == safepickle.__version__"
    )
}

rm -rf dist
quietly "$build" -m build --no-isolation --sdist --outdir dist .
tar -xzf dist/*.tar.gz -C "$folder"
source=$(echo "$folder"/safepickle_weakref-*/)
quietly "$build" -m build --no-isolation --wheel --outdir dist "$source"
SAFEPICKLE_PURE=1 quietly "$build" -m build --no-isolation --wheel --outdir dist "$source"
"$build" -m twine check --strict dist/*
"$build" - dist/*.whl <<'PYTHON'
import re, sys, zipfile
from pathlib import Path

SOURCE = {path.relative_to("src").as_posix() for path in Path("src/safepickle").rglob("*") if path.is_file()}
WANTED = {name for name in SOURCE if not re.search(r"__pycache__|\.([ch]|so|pyd)$", name)}
for wheel in sys.argv[1:]:
    archive = zipfile.ZipFile(wheel)
    packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    binaries = {name for name in packed if re.fullmatch(r"safepickle/_speedups\.[\w.-]*(so|pyd)", name)}
    if packed - binaries != WANTED or len(binaries) != ("none-any" not in wheel):
        sys.exit(f"{wheel} should hold what src/ does: {packed ^ WANTED}")
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    if dead := re.findall(r"\]\((?!https?:|#)[^)]*\)", archive.read(metadata).decode()):
        sys.exit(f"{wheel}: these links of the README lead nowhere on the package index: {dead}")
PYTHON

awk '/^```python$/ { inside = 1; next } /^```/ { if (inside) exit } inside' README.md >"$folder/example.py"
test -s "$folder/example.py"
binary=$(echo dist/*-abi3-*.whl)
try "$first" "$(echo dist/*-none-any.whl)" False
for python in $pythons; do
    try "$python" "$binary" True
done
try "$first" "$(echo dist/*.tar.gz)" True

cd "$source"
echo "running tests of the unpacked sdist: $*"
tools/make_venv.sh "$first" "$folder/tests" requirements/core.txt
"$folder/tests/${VENV_BIN:-bin}/python" -m pytest -q -p no:cacheprovider "$@"
