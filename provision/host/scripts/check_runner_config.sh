#!/bin/sh
# Checks the config.toml "$new". gitlab-runner has `lint` from 19.3 on; before that the file is accepted.
if gitlab-runner lint --help >/dev/null 2>&1; then
  output=$(gitlab-runner lint --config "${new:?}" 2>&1) || { printf '%s\n' "$output" >&2; exit 1; }
fi
