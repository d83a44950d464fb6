#!/bin/sh
# Builds the wheel and the sdist into dist/, and tries each where nothing else of this project is.
#
# usage: check_dist.sh PYTHON_WITH_BUILD PYTHON TEST...
#
# Each is installed into a fresh environment, which runs the first example of the README and `safepickle --version`.
# The sdist is unpacked, and runs the TESTs of its own.
set -eu

build=$1 python=$2
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

rm -rf dist
"$build" -m build --no-isolation --outdir dist . >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
awk '/^```python$/ { inside = 1; next } /^```/ { if (inside) exit } inside' README.md >"$folder/example.py"
test -s "$folder/example.py"

for archive in dist/*.whl dist/*.tar.gz; do
    echo "installing $archive"
    "$python" -m venv --clear "$folder/venv"
    "$folder/venv/bin/python" -m pip install --disable-pip-version-check -q -c requirements/core.txt "$archive"
    (cd "$folder" && venv/bin/python -W error example.py && venv/bin/safepickle --version)
done

tar -xzf dist/*.tar.gz -C "$folder"
cd "$folder"/*-[0-9]*/
echo "running the tests of the unpacked sdist"
tools/make_venv.sh "$python" "$folder/tests" requirements/core.txt
"$folder/tests/bin/python" -m pytest -q -p no:cacheprovider "$@"
