#!/bin/sh
# Creates the project's Python environment, with the core and the lab. Arguments: the Python to use, the environment's folder.
set -eu
python=$1 venv=$2
report() { printf '%s\n' "$*" >&2; }

command -v "$python" >/dev/null || { report "$python is missing: apt-get install python3"; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  report "Python 3.11 or newer is needed, and '$python' is $("$python" --version): make PYTHON=python3.12 …"; exit 1; }
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  report "installing python3-venv"
  if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
  # system.sh may install packages at the same time.
  $sudo flock /run/lock/provision-apt sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv' >/dev/null || {
    report "installing python3-venv failed: as root, apt-get install python3-venv"; exit 1; }
fi
report "creating the environment in $venv (about a minute)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
# pip compares every file with the hashes in constraints.txt; wheels only, because building a package executes its code.
# pip would compile them with one processor. A few files are not for this Python, and cannot be compiled.
pip --no-compile --require-hashes --only-binary :all: -r constraints.txt || {
  report "installing packages failed: check the network, or the mirror in pip's configuration"; exit 1; }
"$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null || true
# Nothing is fetched here: what these two need is installed.
pip --no-index --no-deps --no-build-isolation -e . -e ./lab || {
  report "installing provision failed: if its dependencies changed, run make lock"; exit 1; }
"$venv/bin/python" -m pip check --disable-pip-version-check >&2 || {
  report "constraints.txt does not have what pyproject.toml asks for: run make lock"; exit 1; }
touch "$venv/.ready"
