#!/bin/sh
# Host scripts in all shells, slow unit tests, property tests, tests of the stand-ins, and the tests on real hosts. Run as root. Argument: the environment's bin folder.
set -eu
bin=$1
"$bin/pytest" -q -n 4 -m "shells or slow" tests/unit
# Files start in this order, not by their number of tests: a file of the lab may take minutes, and none of them may be
# left alone at the end. The short files that need only a processor come last.
"$bin/pytest" -n 4 --dist loadfile --no-loadscope-reorder tests/faults tests/lab tests/standins tests/property
