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

# may_have_proxy: fails if neither a unit file of gitlab-runner nor a process of its service names a proxy, as on most hosts.
# Then systemd, which takes as long as everything else, need not be asked. Sources: systemd.unit(5), "Unit file load path";
# cgroups(7): where version 1 is used, or the unit has another slice, the file of processes is missing.
may_have_proxy() {
  processes=/sys/fs/cgroup/system.slice/gitlab-runner.service/cgroup.procs found=
  [ -e "$processes" ] || return 0
  set --
  for folder in /etc/systemd/system* /run/systemd/system* /run/systemd/generator* /run/systemd/transient \
    /usr/local/lib/systemd/system /lib/systemd/system; do
    set -- "$@" "$folder/gitlab-runner.service" "$folder"/*service.d/*.conf
  done
  while read -r pid; do set -- "$@" "/proc/$pid/environ" && found=yes; done < "$processes"
  [ -z "$found" ] || grep -qsai '_proxy=' -- "$@"
}

# use_runner_proxy: curl then uses the proxy of gitlab-runner's service, or none. This shell's own environment may name
# another one: pam_env reads /etc/environment for sudo, and systemd does not.
use_runner_proxy() {
  unset http_proxy https_proxy all_proxy no_proxy HTTPS_PROXY ALL_PROXY NO_PROXY
  may_have_proxy || return 0
  service=$(systemctl show -p MainPID -p Environment gitlab-runner.service 2>/dev/null) || return 0
  set -f
  pid='' configured='' IFS='
'
  for line in $service; do
    case $line in MainPID=*) pid=${line#*=} ;; Environment=*) configured=${line#*=} ;; esac
  done
  unset IFS
  active=$({ tr '\0' '\n' < "/proc/${pid:-0}/environ" | grep -ai '^[a-z]*_proxy='; } 2>/dev/null)
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
