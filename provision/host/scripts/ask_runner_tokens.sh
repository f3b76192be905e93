#!/bin/sh
# Asks GitLab servers about tokens of runners. Arguments: CONFIG, then the servers' URLs. CONFIG: config.toml.
# Standard input: `URL TOKEN` lines of the inventory's tokens. Tokens reach curl on standard input.
# Prints a line STATUS CURLCODE URL TOKEN TYPE for each token of a server, of the inventory or of CONFIG; TOKEN is - for a
# server without any, which is asked for its version: any answer shows that it can be reached.
#
# Only the servers that are named are asked, and each only about its own tokens: an entry may spell the URL in another
# way, or name the server by http as before it had TLS. A server that limits requests is asked again after the pause
# that it names, for a minute in all. The exit code is 114 if one is starting (502, 503). Without the system id of this host a verification would add an unnamed machine to
# GitLab's list.
. ./lib/runner.sh
use_runner_proxy
config=$1
shift
system=
{ read -r system < /etc/gitlab-runner/.runner_system_id; } 2>/dev/null
[ -e "$config" ] || config=/dev/null
pairs=$(wanted="$*" awk '
  BEGIN { count = split(ENVIRON["wanted"], urls, " ") }
  # The URL as gitlab-runner uses it (network/client.go, fixCIURL), in lower case before the path, without a default port.
  function plain(url, end, path) {
    sub(/\/+$/, "", url)
    end = match(url, /:\/\//) + 3
    path = substr(url, end)
    sub(/^[^\/]*/, "", path)
    url = tolower(substr(url, 1, length(url) - length(path)))
    if (url ~ /^http:/) sub(/:80$/, "", url)
    if (url ~ /^https:/) sub(/:443$/, "", url)
    sub(/\/ci$/, "", path)
    return url path
  }
  function is_at(url, place) {
    if (url == place) return 1
    return sub(/^http:/, "https:", url) && url == place
  }
  function add(url, token, i) {
    if (url == "" || token == "" || url ~ /[ \t]/ || token ~ /[^A-Za-z0-9_.=-]/) return
    url = plain(url)
    for (i = 1; i <= count; i++)
      if (is_at(url, plain(urls[i])) && !seen[urls[i], token]++) print urls[i], token
  }
  function flush() { add(url, token); url = ""; token = "" }
  function value(line, parts) { split(line, parts, /["\047]/); return parts[2] }
  given { add($1, $2); next }
  /^[ \t]*\[\[runners\]\]/ { flush(); inside = 1; next }
  /^[ \t]*\[/ { inside = 0 }
  inside && /^[ \t]*url[ \t]*=/ { url = value($0) }
  inside && /^[ \t]*token[ \t]*=/ { token = value($0) }
  END { flush() }' given=1 - given=0 "$config")
ask() {
  if [ "$token" = - ]; then printf 'url = "%s/api/v4/version"\n' "$url"
  else printf 'url = "%s/api/v4/runners/verify"\ndata = "token=%s&system_id=%s"\n' "$url" "$token" "$system"; fi |
    runner_curl "$url" -D - -o /dev/null -w 'answer=%{http_code} %{content_type}' --max-time 15 2>/dev/null
}
seconds_left=60 starting=
set -f
for url; do
  tokens="" where=""
  for word in $pairs; do
    if [ -z "$where" ]; then where=$word; continue; fi
    [ "$where" != "$url" ] || tokens="$tokens $word"
    where=
  done
  for token in ${tokens:--}; do
    while response=$(ask) && code=0 || code=$?; answer=${response##*answer=}; [ "${answer%% *}" = 429 ]; do
      pause=$(printf '%s\n' "$response" | sed -n 's/^retry-after: *\([0-9][0-9]*\)[^0-9]*$/\1/Ip')
      seconds_left=$((seconds_left - ${pause:-99}))
      [ "$seconds_left" -ge 0 ] || break
      sleep "$pause"
    done
    type=${answer#* } answer=${answer%% *}
    case $answer in 502 | 503) echo "$url answers $answer" >&2; starting=yes ;; esac
    printf '%s %s %s %s %s\n' "${answer:-000}" "$code" "$url" "$token" "$type"
  done
done
[ -z "$starting" ] || exit 114
