#!/bin/sh
# Downloads a repository's OpenPGP key. Arguments: URL PATH
set -e
new=$2.provision
trap 'rm -f -- "$new"' EXIT
mkdir -p -- "$(dirname -- "$2")"
curl -fsSL --retry 3 --connect-timeout 10 -o "$new" -- "$1"
grep -q 'BEGIN PGP PUBLIC KEY' "$new" || { echo "$1 is not an OpenPGP key" >&2; exit 1; }
chmod 0644 "$new"
sync "$new"
mv -f -- "$new" "$2"
