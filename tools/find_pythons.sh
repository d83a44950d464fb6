#!/bin/sh
# Prints "VERSION EXECUTABLE" for each supported CPython on this machine, oldest first.
#
# usage: find_pythons.sh [--default]
#
# Looks on PATH first, then among pyenv's versions, then for `python` and the launcher `py`, since on Windows no version
# has a name of its own. An interpreter that cannot make a virtual environment is passed over (a bare Debian python3 has
# no ensurepip; a pyenv shim may stand for a version that is not active).
# --default prints one executable alone: python3 where it is a supported one, else the oldest found.
set -eu

supported="3.11 3.12 3.13 3.14 3.15"
pyenv_root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}

# resolve "VERSION..." COMMAND...
#
# The executable behind a command, if it is CPython of a version asked for and can make virtual environments.
resolve() {
    wanted=$1
    shift
    "$@" -I - "$wanted" 2>/dev/null <<'PYTHON'
import ensurepip, os, sys, venv
if sys.implementation.name != "cpython" or "%d.%d" % sys.version_info[:2] not in sys.argv[1].split():
    sys.exit(1)
print(sys.executable.replace(os.sep, "/"))
PYTHON
}

find_version() {
    for candidate in "python$1" "$pyenv_root"/versions/"$1"*/bin/"python$1"; do
        resolve "$1" "$candidate" && return
    done
    resolve "$1" python || resolve "$1" py "-$1"
}

if [ "${1-}" = --default ]; then
    resolve "$supported" python3 && exit
    for version in $supported; do
        find_version "$version" && exit
    done
    echo "no CPython of $supported that can make virtual environments was found" >&2
    exit 1
fi

for version in $supported; do
    if executable=$(find_version "$version"); then
        echo "$version $executable"
    fi
done
