#!/bin/sh
# Starts gitlab-runner again after wait_for_ci_jobs.sh has ended it. One that was stopped by hand stays stopped.
# A unit that waits for its automatic restart does not start earlier with `systemctl start`, only with `restart`.
# Source: systemd, service_start() in src/core/service.c.
case $(systemctl show gitlab-runner --property=SubState --value 2>/dev/null) in
  auto-restart*) systemctl restart gitlab-runner ;;
esac
