"""How an app's container takes the place of the one before: one script on the host, so that nobody else is needed half-way.

It goes on to its end when the controller or the connection goes. Until the new container has proven itself the previous
one is kept under another name; whatever ends the script before brings it back. What even a killed script leaves is put
right by the next: the container under the other name is the one that served.
"""

from __future__ import annotations

from typing import Final

from provision.host.docker_steps import LOGIN, OURS, WORK

_SETTINGS: Final = """
trap '' PIPE HUP
app=%s image=%s pull=%s domain=%s user=%s settings=%s
ports=%s
url=%s status=%s contains=%s seconds=%s
old="$app.provision-old" new="$app.provision-new" created= switched= had=
IFS= read -r password
(umask 077; cat > "$work/env") || fail "$app" 'its variables cannot be kept in memory' 'is /dev/shm full? df -h /dev/shm'
there() { docker container inspect "$1" >/dev/null 2>&1; }
last() { printf '%%s\\n' "$1" | tail -n 3; }
"""

# Whatever ends the script early: what serves is what served.
_UNDO: Final = """
undo() {
  [ -z "$created" ] || docker rm -f "$new" >/dev/null 2>&1
  created=
  [ -n "$switched" ] || return 0
  switched=
  if there "$old"; then
    docker rm -f "$app" >/dev/null 2>&1
    docker rename "$old" "$app"
  elif [ -z "$had" ]; then
    docker rm -f "$app" >/dev/null 2>&1
  fi
  [ -z "$had" ] || docker start "$app" >/dev/null
}
trap 'undo; rm -rf -- "$work"' EXIT
"""

_RECOVER: Final = """
if there "$app" && ! is_ours "$app"; then
  fail "$app" 'another container has this name, and it is not ours' 'rename or remove it, or call the app otherwise'
fi
docker rm -f "$new" >/dev/null 2>&1
if there "$old"; then
  ! there "$app" || docker rm -f "$app" >/dev/null
  docker rename "$old" "$app" && docker start "$app" >/dev/null || fail "$app" 'its previous container cannot be brought back' "look at: docker ps -a"
fi
"""

_PULL: Final = """
if [ "$pull" = yes ]; then
  login "$domain" "$user"
  said=$(docker pull "$image" 2>&1) ||
    fail "docker pull $image" "$(last "$said")" 'is it pushed (provision image), may this login read it, and has the host room for it (df -h)?'
  digest=$(printf '%%s\\n' "$said" | sed -n 's/^Digest: //p' | tail -n 1)
else
  digest=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) ||
    fail "$image" 'it is not on this host, and pull is false' 'build it there: provision image'
fi
"""

# Who holds a port is asked before anything is stopped. Docker's own proxies are told by its containers.
_PORTS: Final = """
meets() { case $1 in '*'|0.0.0.0|'[::]'|'::') return 0 ;; esac; [ -z "$address" ] || [ "$1" = "$address" ] || [ "$1" = "[$address]" ]; }
taken() {
  address=${1%%%%|*} port=${1#*|} protocol=${1##*|}; port=${port%%|*}
  docker ps --filter "publish=$port/$protocol" --format '{{.Names}}|{{.Image}}|{{.Ports}}' | while IFS='|' read -r name of where; do
    [ "$name" != "$app" ] || continue
    for one in $(printf '%%s' "$where" | tr ', ' '\\n\\n' | sed -n "s/:$port->.*//p"); do
      meets "$one" && { echo "the container $name ($of)"; break; }
    done
  done
  [ "$protocol" = udp ] && kind=u || kind=t
  ss -Hln${kind}p "sport = :$port" | grep -v docker-proxy | while read -r a b c d e who; do
    meets "${d%%:*}" && printf '%%s\\n' "$who" | sed -n 's/.*(("\\([^"]*\\)",pid=\\([0-9]*\\).*/\\1 (process \\2)/p;t;s/.*/somebody/p'
  done
}
for one in $ports; do
  holder=$(taken "$one" | head -n 1)
  [ -z "$holder" ] || { port=${one#*|}; fail "port ${port%%|*}" "$holder holds it" "stop that, or publish another port of $app"; }
done
"""

_SWITCH: Final = """
now=$(docker container inspect -f '{{.State.Running}} {{with .Config.Labels}}{{with index . "provision.settings"}}{{.}}{{end}}{{end}} {{with .Config.Labels}}{{with index . "provision.image"}}{{.}}{{end}}{{end}}' "$app" 2>/dev/null)
[ "$now" != "true $settings $digest" ] || { settled; exit; }
if [ "$now" = "false $settings $digest" ]; then
  said=$(docker start "$app" 2>&1) || fail "docker start $app" "$(last "$said")" "look at: docker logs $app"
else
  said=$(docker create --name "$new" --label "provision.app=$app" --label "provision.settings=$settings" \\
    --label "provision.image=$digest" --env-file "$work/env" %s "$image" %s 2>&1) ||
    fail "docker create $app" "$(last "$said")" 'mend its settings in the inventory; what served still does'
  created=yes
  if there "$app"; then had=yes; fi
  switched=yes
  if [ -n "$had" ]; then docker stop "$app" >/dev/null && docker rename "$app" "$old" || exit 1; fi
  docker rename "$new" "$app" && created= || exit 1
  said=$(docker start "$app" 2>&1) || verdict="it cannot be started: $(printf '%%s\n' "$said" | grep -v 'failed to start containers' | tail -n 1 | cut -c1-600)"
fi
"""

_CHECK: Final = """
since=$(date +%%s)
well() {
  if [ -n "$url" ]; then
    code=$(curl -sS -o "$work/body" -w '%%{http_code}' --max-time 5 --noproxy '*' -- "$url" 2>"$work/said") ||
      { why="$url: $(head -n 1 "$work/said")"; return 1; }
    [ "$code" = "$status" ] || { why="$url answers $code instead of $status"; return 1; }
    [ -z "$contains" ] || grep -qF -e "$contains" "$work/body" || { why="$url answers without the text $contains"; return 1; }
  elif [ $# -gt 0 ]; then
    timeout 10 docker exec "$app" "$@" >"$work/said" 2>&1 || { why="$* says: $(tail -n 1 "$work/said")"; return 1; }
  else
    why='it has not run for three seconds'
    [ "$(($(date +%%s) - since))" -ge 3 ]
  fi
}
# Whether what was brought back runs, and says anything at all where the new one was asked: within ten seconds.
serves() {
  since=$(date +%%s)
  until [ -z "$url" ] || curl -s -o /dev/null --max-time 2 --noproxy '*' -- "$url"; do
    [ "$(($(date +%%s) - since))" -lt 10 ] || return 1
    sleep 0.2
  done
  [ "$(docker container inspect -f '{{.State.Running}}' "$app")" = true ]
}
set -- %s
while [ -z "$verdict" ]; do
  state=$(docker container inspect -f '{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}{{if .State.Health}} {{.State.Health.Status}}{{end}}' "$app")
  case $state in
    running\\ 0\\ *' unhealthy') verdict='its health check fails' ;;
    running\\ 0\\ *' starting') why='its health check has not succeeded yet' ;;
    running\\ 0\\ *) if well "$@"; then break; fi ;;
    running*) verdict='it ended, and Docker started it again' ;;
    *) state=${state#* * }; verdict="it ended, with code ${state%%%% *}" ;;
  esac
  [ -n "$verdict" ] || [ "$(($(date +%%s) - since))" -lt "$seconds" ] || verdict="not well within $seconds s: $why"
  [ -n "$verdict" ] || sleep 0.5
done
if [ -n "$verdict" ]; then
  log=$(docker logs --tail 8 "$app" 2>&1 | tail -n 8 | cut -c1-300)
  [ -z "$log" ] || log="
its last words:
$log"
  [ -n "$switched" ] || fail "$app" "$verdict$log" 'it is left as it is'
  undo
  if [ -z "$had" ]; then back='there was none before it, and it is removed'
  elif serves; then back='the previous container is back in service'
  else back='the previous container is back, but does not answer'; fi
  fail "$app" "$verdict$log" "$back"
fi
switched=
! there "$old" || docker rm -f "$old" >/dev/null
settled
"""

# `settled` strikes what was owed off. Takes, in this order: app, image, pull, domain, user, settings, ports, url, status, contains, seconds; the options and
# the command of docker create; the check's command.
DEPLOY: Final = WORK + LOGIN + OURS + _SETTINGS + _UNDO + _RECOVER + _PULL + _PORTS + "verdict=\n" + _SWITCH + _CHECK
