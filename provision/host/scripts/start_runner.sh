#!/bin/sh
# Starts gitlab-runner again after wait_for_ci_jobs.sh has ended it. One that somebody stopped stays stopped.
case $(systemctl show gitlab-runner --property=SubState --value 2>/dev/null) in
  auto-restart*) systemctl start gitlab-runner ;;
esac
