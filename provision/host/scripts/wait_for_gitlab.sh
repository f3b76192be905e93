#!/bin/sh
# Waits until GitLab is ready, after its package was upgraded: the package's script reconfigures and restarts it.
# Arguments: URL SECONDS PENDING. PENDING: the list of pending handlers
. ./lib/services.sh
[ -e /opt/gitlab/service/puma ] || exit 0  # it was never configured
! grep -qs '^reconfigure[[:space:]]' "$3" || exit 0  # the reconfigure waits itself
wait_until_ready "$1" "$2"
case $? in
  1) echo "GitLab is not ready within $2 s: $1/-/readiness answers ${status:-nothing}; see gitlab-ctl tail puma" >&2; exit 1 ;;
  2) echo "it is not known whether GitLab is ready: this host refuses connections to $1" ;;
esac
