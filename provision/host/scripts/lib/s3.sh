#!/bin/sh
# Requests to S3, which were signed elsewhere.

# ask_s3 HEADERS: sends a request by curl, which reads its configuration on standard input. Prints the answer, then its
# status in a line. HEADERS: a file for the answer's headers.
#
# GitLab's supervisor starts the registry without the environment of a login, so S3 is asked directly. A proxy of the
# host's environment is used where S3 cannot be reached otherwise: gitlab.rb may give it to the registry, too
# (registry['env']).
ask_s3() {
  headers=$1 request=$(cat)
  send() { printf '%s\n' "$request" | curl -g -K - --proto '=http,https' -D "$headers" -w '\n%{http_code}\n' "$@"; }
  answer=$(send --noproxy '*' --connect-timeout 5)
  code=$?
  case $code:${https_proxy:-}${HTTPS_PROXY:-}${http_proxy:-}${all_proxy:-}${ALL_PROXY:-} in
    *:) ;;
    6:* | 7:* | 28:*) answer=$(send); code=$? ;;
  esac
  printf '%s\n' "$answer"
  return "$code"
}
