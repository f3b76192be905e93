#!/bin/sh
# Host scripts in all shells, slow unit tests and those that need root, property tests, tests of the stand-ins, and the tests on real hosts. Run as root. Argument: the environment's bin folder.
set -eu
bin=$1
# All in one run, so that no worker waits at the end of a part. A file is one worker's, because its tests share hosts.
# More workers than cores: the tests of hosts often wait, for a timer or for a host to boot.
# Files start in the order of tests/conftest.py, not by their number of tests.
"$bin/pytest" -n 5 --dist loadfile --no-loadscope-reorder -m "not unit or shells or slow or root" tests
