#!/bin/sh
# All containers of this host. Argument: FORMAT of `docker ps`.
# Prints a line for each, or a line that begins with `docker: `.
command -v docker >/dev/null || { echo 'docker: not installed'; exit; }
timeout 20 docker ps -a --no-trunc --format "$1" 2>&1 || echo 'docker: no answer'
