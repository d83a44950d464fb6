#!/bin/sh
# Runs the tests of the compiled core with the address and the undefined-behaviour sanitizer.
#
# usage: sanitize.sh PYTHON
#
# PYTHON has what the core's tests need. A copy of the package is built in .cache/sanitize, so that the one that is
# installed stays as it is. Objects are allocated one by one, so that every access outside of one is seen.
set -eu

python=$1 copy=.cache/sanitize
rm -rf "$copy" && mkdir -p "$copy" && cp -r src/safepickle "$copy" && rm -f "$copy"/safepickle/_speedups.*so

include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
compiler=${CC:-cc}
"$compiler" -g -O1 -std=c11 -fPIC -shared -fno-omit-frame-pointer -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined -Wall -Wextra -Wno-missing-field-initializers -Wno-cast-function-type -Werror \
    -DPy_LIMITED_API=0x030B0000 -I"$include" src/safepickle/_*.c -o "$copy/safepickle/_speedups.abi3.so"

# The interpreter itself frees little when it ends; the tests look for leaks by counting.
export ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH="$PWD/$copy"
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)" \
    "$python" -X dev -m pytest -q -p no:cacheprovider tests/test_speedups.py tests/test_weak_references.py \
    tests/test_weak_containers.py tests/test_policies.py tests/guard/test_verified.py
