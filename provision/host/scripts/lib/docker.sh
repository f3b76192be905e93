#!/bin/sh
# Steps of the Docker CLI: a login that leaves no files, and a message for each failure.

failed=1

# fail WHAT CAUSE [REMEDY]: prints them on standard error and ends the script with "$failed".
fail() {
  printf '%s: %s\n' "$1" "$2" >&2
  [ -z "$3" ] || printf '%s\n' "$3" >&2
  exit "$failed"
}

# registry_fails WHAT CAUSE [REMEDY]: as fail, for a request of Docker's to a registry. It ends with 114 if the registry, or
# GitLab, which gives its tokens, is starting. Docker prints the status as Go does: github.com/distribution,
# registry/client/errors.go; containerd, remotes/docker.
registry_fails() {
  case $2 in *' 502 Bad Gateway'* | *' 503 Service Unavailable'*) failed=114 ;; esac
  fail "$@"
}

# use_temporary_login: makes the folder "$work" for Docker's login and our own files, deleted with the shell. Docker keeps
# logins in clear text, so the folder is on a memory file system.
use_temporary_login() {
  work=$(mktemp -d /dev/shm/provision-docker.XXXXXX) || exit 1
  export DOCKER_CONFIG="$work"
  trap 'rm -rf -- "$work"' EXIT
  trap 'exit 143' TERM
}

# remedy STEP OUTPUT OTHERWISE: prints the next step after Docker's login, push or pull failed with OUTPUT.
#
# GitLab's answer for a wrong password is the one for a password where it requires a token, and a registry's answer is the
# same for every missing permission. Sources: GitLab's JwtController, Gitlab::Auth, config/authz/roles/*.yml.
remedy() {
  case $1:$2 in
    login:*'HTTP Basic: Access denied'*)
      printf '%s\n' "$3; with two-factor authentication GitLab accepts a token here and no password: create an access token with the scopes read_registry and write_registry" ;;
    login:*'denied: access forbidden'*) echo 'the token needs the scopes read_registry and write_registry, or api' ;;
    push:*denied*) echo 'check that this user may push there: in GitLab that takes the role Developer in the project, and write_registry for a token' ;;
    pull:*denied*) echo 'check that the image exists and that this user may pull it: in GitLab that takes the role Reporter in the project, and read_registry for a token' ;;
    *) printf '%s\n' "$3" ;;
  esac
}

# login REGISTRY USER PASSWORD: without a USER nothing happens.
login() {
  [ -n "$2" ] || return 0
  output=$(printf '%s' "$3" | docker login -u "$2" --password-stdin "$1" 2>&1) ||
    registry_fails "login to $1 as $2" "$(printf '%s' "$output" | tail -n 2)" \
      "$(remedy login "$output" 'check the login in the inventory, and that the host reaches the registry')"
}

# require_reference REFERENCE: ends the script where this Docker refuses an IPv6 address in an image's name. Docker 20.10
# does, Docker 26.1 does not; `docker login` takes the address in both. Source: github.com/distribution/reference.
require_reference() {
  case $1 in \[*) ;; *) return 0 ;; esac
  case $(docker image inspect "$1" 2>&1) in *'invalid reference format'*) ;; *) return 0 ;; esac
  fail "$1" "Docker $(docker version -f '{{.Server.Version}}' 2>/dev/null) refuses image names with an IPv6 address" \
    'update Docker, or give the registry a DNS name (registry.external_url)'
}

# show COMMAND…: runs it and prints its output at once; the last lines are in "$work/last" afterwards.
show() {
  { { "$@"; echo $? > "$work/code"; } 2>&1 | { tee /dev/fd/3 | tail -n 500 > "$work/last"; } 3>&1; }
  return "$(cat "$work/code")"
}

# build_problem FILE: why `docker build` failed, in at most four lines: the Dockerfile's line with its instruction, the last two
# lines that the step printed, Docker's error. FILE has the output of `docker build`.
# BuildKit prints below `ERROR:` of the step its output (` > [2/3] RUN …:`, with times), then FILE:LINE with an excerpt,
# then the error (moby/buildkit: util/progress/progressui, solver/errdefs/source.go). The classic builder prints
# `Step 2/3 : INSTRUCTION`, the step's output and the error, without a number of a line.
build_problem() {
  problem=$(_build_problem "$1")
  printf '%s\n' "${problem:-$(tail -n 3 "$1")}"
}
_build_problem() {
  awk '
    function short(text) { return length(text) > 300 ? substr(text, 1, 300) "…" : text }
    function keep(text) { if (text != "") { older = newer; newer = text } }
    function forget() { older = ""; newer = "" }
    /^Step [0-9]+\/[0-9]+ : / { place = $0; forget(); next }
    /^ > .*:$/ { printing = 1; buildkit = 1; forget(); next }
    /^------$/ { printing = 0; next }
    printing { sub(/^[0-9]+\.[0-9]+ /, ""); keep($0); next }
    /^[^ #].*:[0-9]+$/ { file = $0; next }
    /^ *[0-9]+ \| >>> / && file != "" { sub(/^ *[0-9]+ \| >>> /, ""); place = file ": " $0; file = ""; next }
    /^ERROR: / { error = substr($0, 8); next }
    !buildkit && !/^(#[0-9]| ---> |-----|Removing intermediate container| *[0-9]+ \|)/ { keep($0) }
    END {
      if (place != "") print short(place)
      if (older != "") print short(older)
      if (newer != "") print short(newer)
      if (error != "") print short(error)
    }' "$1"
}

# belongs_to CONTAINER APP: the container exists and has the app's label.
belongs_to() {
  [ "$(docker container inspect -f '{{with .Config.Labels}}{{with index . "provision.app"}}{{.}}{{end}}{{end}}' "$1" 2>/dev/null)" = "$2" ]
}
