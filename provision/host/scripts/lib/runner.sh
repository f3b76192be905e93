#!/bin/sh
# The files that gitlab-runner keeps for a GitLab server.

# runner_ca URL: prints the path of the CA file for a server.
#
# gitlab-runner cuts the URL's host at the first colon, also in an IPv6 address: [2001.crt. Source: network/client.go.
runner_ca() (
  host=${1#*://}
  printf '%s\n' "/etc/gitlab-runner/certs/${host%%[:/]*}.crt"
)
