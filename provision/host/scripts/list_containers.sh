#!/bin/sh
# All containers of this host. Arguments: FORMAT of `docker ps`, APPS: yes asks always, no only where STATE names an app
# that was deployed (Docker's CLI takes 30 ms), STATE: state.json, PATTERN: how an app is named there.
# Prints a line for each, or a line that begins with `docker: `.
[ "$2" = yes ] || grep -qF -e "$4" "$3" 2>/dev/null || exit 0
command -v docker >/dev/null || { echo 'docker: not installed'; exit; }
timeout 20 docker ps -a --no-trunc --format "$1" 2>&1 || echo 'docker: no answer'
