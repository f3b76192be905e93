#!/bin/sh
# Requests to a GitLab server as gitlab-runner sends them: its CA file, and its proxy. Every run asks with these functions:
# they use the shell's own means, since each program costs a host a millisecond or two.

# runner_ca URL: sets "$ca" to the path of the CA file for a server.
#
# gitlab-runner cuts the URL's host at the first colon, also in an IPv6 address: [2001.crt. Source: network/client.go.
runner_ca() {
  ca=${1#*://}
  ca=/etc/gitlab-runner/certs/${ca%%[:/]*}.crt
}

# use_runner_proxy: curl then uses the proxy of gitlab-runner's service, or none. This shell's own environment may name
# another one: pam_env reads /etc/environment for sudo, and systemd does not.
use_runner_proxy() {
  unset http_proxy https_proxy all_proxy no_proxy HTTPS_PROXY ALL_PROXY NO_PROXY
  service=$(systemctl show -p MainPID -p Environment gitlab-runner.service 2>/dev/null) || return 0
  set -f
  pid='' configured='' active='' IFS='
'
  for line in $service; do
    case $line in MainPID=*) pid=${line#*=} ;; Environment=*) configured=${line#*=} ;; esac
  done
  unset IFS
  if grep -qai '_proxy=' "/proc/${pid:-0}/environ" 2>/dev/null; then
    active=$(tr '\0' '\n' < "/proc/$pid/environ" | grep -ai '^[a-z]*_proxy=')
  fi
  for setting in $configured $active; do
    value=${setting#*=}
    case $setting in
      HTTP_PROXY=* | http_proxy=*) export http_proxy="${http_proxy:-$value}" ;;
      HTTPS_PROXY=* | https_proxy=*) export https_proxy="${https_proxy:-$value}" ;;
      NO_PROXY=* | no_proxy=*) export no_proxy="${no_proxy:-$value}" ;;
    esac
  done
  set +f
}

# runner_curl URL ARGUMENT…: curl for a server of gitlab-runner's, with a configuration on standard input. It is the last
# part of a pipeline, whose shell curl replaces.
runner_curl() {
  runner_ca "$1"
  shift
  [ -e "$ca" ] || ca=
  exec curl -sS -g --proto '=http,https' -K - ${ca:+--cacert "$ca"} "$@"
}
