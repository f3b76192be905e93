#!/bin/sh
# Waiting for services of this host itself.

now() { date +%s; }

# loopback_of URL: the loopback address to reach its host at. An IPv6 address in the URL is served on IPv6 only.
loopback_of() { case $1 in *://\[*) echo '[::1]' ;; *) echo 127.0.0.1 ;; esac; }

# wait_until_ready URL SECONDS [FILE]: waits until Rails answers at GitLab's URL. It prints what it waits for, at once and
# every 15 s. Returns 1 if Rails does not answer within SECONDS; then "$status" has the last answer. Returns 3 as soon as FILE
# has content.
#
# The services run long before Rails has booted, and Workhorse answers 502 until then. Rails answers /-/readiness with 200,
# with 404 where gitlab_rails['monitoring_whitelist'] leaves this host out, and with 503 while a part of it is missing.
# Returns 2 if all connections are refused for a tenth of SECONDS: then GitLab cannot be asked on this host.
# Sources: workhorse's routes.go and badgateway; docs.gitlab.com/administration/monitoring/health_check.
wait_until_ready() {
  since=$(now) reported='' connected=
  while :; do
    status=$(readiness_of "$1")
    case $status in '' | 000 | 5??) ;; *) return 0 ;; esac
    [ -z "${3-}" ] || [ ! -s "$3" ] || return 3
    waited=$(($(now) - since))
    [ "$waited" -lt "$2" ] || return 1
    [ -z "$status" ] || connected=yes
    [ -n "$connected" ] || [ "$waited" -lt $(($2 / 10)) ] || return 2
    if [ -z "$reported" ] || [ $((waited - reported)) -ge 15 ]; then
      reported=$waited
      echo "waiting until GitLab is ready, for $waited s of at most $2 s: $1/-/readiness answers ${status:-nothing}"
    fi
    sleep 1
  done
}

# readiness_of URL: prints the status of GitLab's health check; 000 for no answer, nothing if the connection is refused. Where
# GitLab's nginx does not serve the URL (TLS ends at another server), Workhorse is asked at its default socket.
readiness_of() {
  found=$(ask_service "$1/-/readiness" -o /dev/null -w '%{http_code}') && code=0 || code=$?
  if [ "$code" = 7 ]; then
    path=${1#*://}
    case $path in */*) path=/${path#*/} ;; *) path= ;; esac
    found=$(curl -s --max-time 5 --unix-socket /var/opt/gitlab/gitlab-workhorse/sockets/socket -o /dev/null -w '%{http_code}' \
      -- "http://localhost$path/-/readiness") || found=
  fi
  printf %s "$found"
}

# ask_service URL [options of curl]: sends the request to this host, whatever the URL's name resolves to.
# A proxy of the host's environment must not answer in the service's place.
ask_service() {
  service=$1
  shift
  curl -sk --noproxy '*' --max-time 5 --connect-to "::$(loopback_of "$service"):" "$@" -- "$service"
}
