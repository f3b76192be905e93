#!/bin/sh
# Host scripts in all shells, slow unit tests, property tests, tests of the stand-ins, and the tests on real hosts. Run as root. Argument: the environment's bin folder.
set -eu
bin=$1
"$bin/pytest" -q -n 4 -m "shells or slow" tests/unit
"$bin/pytest" -n 4 --dist loadfile tests/property tests/standins tests/lab tests/faults
