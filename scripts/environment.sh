#!/bin/sh
# Makes the project's own Python environment. Arguments: the Python to use, the environment's folder.
set -eu
python=$1 venv=$2
report() { printf '%s\n' "$*" >&2; }

command -v "$python" >/dev/null || { report "$python is missing: apt-get install python3"; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  report "Python 3.11 or newer is needed; $("$python" --version) is what '$python' gives: make PYTHON=python3.12 …"; exit 1; }
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  report "installing python3-venv"
  if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
  $sudo apt-get update -q >/dev/null && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv >/dev/null || {
    report "python3-venv could not be installed: apt-get install python3-venv, as root"; exit 1; }
fi
report "making the environment in $venv (about half a minute)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,lab]' -e ./lab || {
  report "packages could not be installed: is the network, or a mirror in pip's configuration, there?"; exit 1; }
touch "$venv/.ready"
