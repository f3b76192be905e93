#!/bin/sh
# The property tests, and the tests on real hosts. Run as root. Argument: the environment's bin folder.
set -eu
bin=$1
"$bin/pytest" -n 4 --dist loadfile tests/property tests/lab tests/faults
