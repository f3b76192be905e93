#!/bin/sh
# The tests on real hosts. Run as root. Argument: the environment's bin folder.
set -eu
bin=$1
"$bin/pytest" -n 4 --dist loadfile tests/lab tests/faults
