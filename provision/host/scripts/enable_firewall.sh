#!/bin/sh
# Enables ufw, if it has a rule for the port of SSH. Arguments: PATTERN PORT. PATTERN: that rule in `ufw show added`.
ufw show added | grep -Eq "$1" || { echo "ufw has no rule that allows port $2: it is not enabled" >&2; exit 1; }
output=$(ufw --force enable 2>&1) || { echo "$output" >&2; exit 1; }
