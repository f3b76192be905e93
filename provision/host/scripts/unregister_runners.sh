#!/bin/sh
# Deletes runners from GitLab. Standard input: a line WHAT URL TOKEN for each. WHAT: - deletes the runner, /managers only
# this host's entry in it. The token reaches curl on standard input.
# GitLab's own 403 and 404 mean that GitLab has no such runner. Anything else is printed on standard error, with code 1.
. ./lib/runner.sh
use_runner_proxy
system=$(cat /etc/gitlab-runner/.runner_system_id 2>/dev/null)
while read -r what url token; do
  machine="&system_id=$system"
  [ "$what" != - ] || what='' machine=''
  answer=$(printf 'request = "DELETE"\nurl = "%s/api/v4/runners%s"\ndata = "token=%s%s"\n' "$url" "$what" "$token" "$machine" |
    runner_curl "$url" -o /dev/null -w '%{http_code} %{content_type}' --max-time 20 2>&1)
  case $answer in
    204* | '403 application/json'* | '404 application/json'*) ;;
    *) printf 'GitLab at %s did not delete the runner: %s\n' "$url" "$answer" >&2; exit 1 ;;
  esac
done
