#!/bin/sh
# Writes constraints.txt: the version and the hashes of every package that the environment needs, for all platforms and
# all supported Python versions. Arguments: the Python to use, and "1" to take the newest versions. Otherwise versions
# stay as they are where the ranges in the pyproject.toml files allow it.
set -eu
cd "$(dirname "$0")/.."
python=$1 upgrade=
[ -z "${2:-}" ] || upgrade=--upgrade
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
# Our own distributions are installed from the checkout. Without this filter a stranger's package of the same name in a
# public registry would be asked for.
"$work/venv/bin/python" - pyproject.toml lab/pyproject.toml > "$work/requirements.in" <<'PYTHON'
import re
import sys
import tomllib

tables = []
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        tables.append(tomllib.load(file))
own = {table["project"]["name"] for table in tables}
needed = {"editables>=0.5,<1"}  # hatchling needs it for an editable installation
for table in tables:
    needed |= {*table["build-system"]["requires"], *table["project"]["dependencies"]}
    needed |= set(table["project"].get("optional-dependencies", {}).get("dev", []))
print("\n".join(sorted(one for one in needed if re.match(r"[\w.-]+", one)[0] not in own)))
PYTHON
cp constraints.txt "$work/constraints.txt"
# No package is built here, because building one executes its code.
"$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-build --no-config $upgrade \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$work/requirements.in" -o "$work/constraints.txt"
{
  echo "# Written by 'make lock': every package with its hashes. pip refuses a file with another hash."
  sed '/^#/d' "$work/constraints.txt"
} > constraints.txt
