#!/bin/sh
# Prints "VERSION EXECUTABLE" for each supported CPython on this machine, oldest first.
#
# usage: find_pythons.sh [--default]
#
# Looks on PATH first, then among pyenv's versions. An interpreter that cannot make a virtual environment is passed
# over (a bare Debian python3 has no ensurepip; a pyenv shim may stand for a version that is not active).
# --default prints one executable alone: python3 where it is a supported one, else the oldest found.
set -eu

supported="3.11 3.12 3.13 3.14 3.15"
pyenv_root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")}

# The executable behind a command, if it is CPython of the version asked for and can make virtual environments.
resolve() {
    "$1" -I - "$2" 2>/dev/null <<'PYTHON'
import ensurepip, sys, venv
if sys.implementation.name != "cpython" or "%d.%d" % sys.version_info[:2] not in sys.argv[1].split():
    sys.exit(1)
print(sys.executable)
PYTHON
}

find_version() {
    for candidate in "python$1" "$pyenv_root"/versions/"$1"*/bin/"python$1"; do
        resolve "$candidate" "$1" && return
    done
    return 1
}

if [ "${1-}" = --default ]; then
    resolve python3 "$supported" && exit
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
