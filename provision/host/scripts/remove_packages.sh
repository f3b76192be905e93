#!/bin/sh
# Removes packages. Arguments: SECONDS, then the packages. SECONDS: how long to wait for other package managers.
. ./lib/apt.sh
set -e
seconds=$1
shift
wait_for_apt "$seconds"
complete_dpkg
apt-get -q remove -y -o DPkg::Lock::Timeout="$seconds" -- "$@"
