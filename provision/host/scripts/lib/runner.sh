#!/bin/sh
# The files that gitlab-runner keeps for a GitLab server.

# runner_ca URL: prints the path of the CA file for a server.
runner_ca() (
  host=${1#*://}
  case $host in
    \[*) host=${host#\[} host=${host%%\]*} ;;
    *) host=${host%%[:/]*} ;;
  esac
  printf '%s\n' "/etc/gitlab-runner/certs/$host.crt"
)
