#!/bin/sh
# What must pass before each commit, in under a minute. Argument: the environment's bin folder.
set -eu
bin=$1
standins=lab/provision_lab/standins
# The checks of the text need one processor, so they run beside the tests.
(
  "$bin/ruff" format --check --quiet .
  "$bin/ruff" check --quiet .
  "$bin/shellcheck" --check-sourced scripts/*.sh .ci/run provision/host/scripts/*.sh \
    benchmarks/*/by_hand.sh \
    "$standins"/*/debian/p*inst "$standins"/*/debian/p*rm "$standins"/gitlab_runner/root/usr/share/gitlab-runner/*
  "$bin/lint-imports" --no-cache | tail -n 2
  "$bin/mypy" --no-error-summary
) & text=$!
status=0
# More workers than cores: many of these tests wait for a process.
"$bin/pytest" -q -n 4 -m "not shells and not slow and not root" tests/unit || status=$?
wait "$text" || status=$?
exit "$status"
