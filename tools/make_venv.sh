#!/bin/sh
# Makes the virtual environment VENV from pinned requirements, with this project installed in it as editable.
#
# usage: make_venv.sh PYTHON VENV REQUIREMENTS
#
# One made before is kept while the interpreter and every pin are what they were; else it is made anew.
set -eu

python=$1 venv=$2 requirements=$3

# The requirements with those that they name by "-r", as one text.
pins() {
    grep -v '^#' "$1" | while read -r line; do
        case $line in
            "-r "*) pins "$(dirname "$1")/${line#-r }" ;;
            *) echo "$line" ;;
        esac
    done
}

install() {
    "$venv/${VENV_BIN:-bin}/python" -m pip install --disable-pip-version-check -q "$@"
}

wanted=$("$python" -V; pins "$requirements")
if [ "$(cat "$venv/.pins" 2>/dev/null)" != "$wanted" ]; then
    echo "making $venv with $("$python" -V)"
    "$python" -m venv --clear "$venv"
    # torch goes first and alone: were it resolved with the rest, a package that asks for a range of it could draw in
    # another build.
    torch=$(pins "$requirements" | grep '^torch==') && install "$torch"
    install -r "$requirements"
    echo "$wanted" >"$venv/.pins"
fi
install --no-deps --no-build-isolation -e .
