#!/bin/sh
# Runs a command with the Pythons of a Debian suite: in a throwaway root, with this checkout bound into it.
#
# usage: in_debian.sh SUITE COMMAND [ARGUMENT...]      (such as: in_debian.sh sid make test-core)
#
# Only root can make such a root; debootstrap is installed where it is missing and apt-get is there. The command finds
# the checkout under the path that it has here, but an empty .venv in it, and gets its environment, its certificates
# and the machine's way to the network. What it exits with, this exits with; 69 stands for "cannot be done here".
set -eu

packages=make,gcc,libc6-dev
for version in 3.14 3.15; do
    packages=$packages,python$version,python$version-dev,python$version-venv,libpython$version-testsuite
done
checkout=$(cd "$(dirname "$0")/.." && pwd -P)

unavailable() {
    echo "in_debian.sh: $1" >&2
    exit 69
}

# The rest runs with mounts of its own, which end with it: nothing that is bound outlives it, however it ends, and
# what removes the root cannot reach through them.
if [ "${1-}" != --mounted ]; then
    [ $# -ge 2 ] || { sed -n '4s/# //p' "$0" >&2; exit 64; }
    [ "$(id -u)" = 0 ] || unavailable "needs root, to make a root directory for a suite of Debian"
    if ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || unavailable "needs debootstrap, which was not found"
        { apt-get -qq update && apt-get -qq install -y debootstrap; } >/dev/null
    fi
    root=$(mktemp -d "${TMPDIR:-/tmp}/debian-$1.XXXXXX")
    # A command may go on as another user, who has to get in.
    chmod 755 "$root"
    trap 'rm -rf --one-file-system "$root"' EXIT
    trap 'exit 130' INT TERM
    unshare --mount "$0" --mounted "$root" "$@"
    exit
fi

root=$2 suite=$3
shift 3

echo "making a root of Debian $suite with $packages"
timeout 900 debootstrap --variant=minbase --include="$packages" "$suite" "$root" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    rm -f "$root.log"
    unavailable "debootstrap could not make a root of Debian $suite"
}
rm -f "$root.log"

mkdir -p "$root/etc/ssl/certs" "$root/$checkout"
for file in etc/resolv.conf etc/hosts etc/pip.conf etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "/$file" ] || cp -L --remove-destination "/$file" "$root/$file"
done
for folder in proc dev; do
    mount --rbind "/$folder" "$root/$folder"
done
mount --bind "$checkout" "$root/$checkout"
# Environments made here hold paths of this machine, and those made there would stay behind with paths of the root.
mkdir -p "$checkout/.venv" "$root/venv"
mount --bind "$root/venv" "$root/$checkout/.venv"

env -u PYENV_ROOT -u VIRTUAL_ENV -u PYTHONPATH HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$checkout" "$@"
