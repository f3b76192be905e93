#!/bin/sh
# Replaces the container of an app, checks the new one, and rolls back when the check fails.
# Arguments: APP IMAGE PULL DOMAIN USER FINGERPRINT PORTS URL STATUS CONTAINS SECONDS CHECK PENDING, then the arguments
# of `docker create`: options, image, command.
#   PULL         yes: pulled from DOMAIN, logged in as USER; no: the image is on this host
#   FINGERPRINT  of the settings, kept in a label
#   PORTS        ADDRESS|PORT|PROTOCOL of each published port, separated by spaces
#   URL, STATUS, CONTAINS   what must answer within SECONDS; or CHECK, a quoted command that must succeed in the
#                container; or neither: it must run for three seconds
#   PENDING      the list of pending handlers
# Standard input: the password, one line; then the variables, one NAME=value a line.
# On failure the cause and the outcome are on standard error.
#
# The script runs to its end when the connection breaks. Until the check has succeeded the previous container is kept
# under another name; if the script ends earlier for any reason, it rolls back. After a kill the next run recovers: the container
# under the other name is the one that served.
. ./lib/docker.sh
. ./lib/pending.sh
. ./lib/services.sh
trap '' PIPE HUP
app=$1 image=$2 pull=$3 domain=$4 user=$5 fingerprint=$6 ports=$7
url=$8 status=$9 contains=${10} seconds=${11} check=${12} pending=${13}
shift 13
mkdir -p -m 0700 -- "$(dirname -- "$pending")" && add_pending "$pending" "deploy-$app" "deploy $app" && sync -- "$pending" || exit
use_temporary_login
old="$app.provision-old" new="$app.provision-new" created='' switched='' had='' problem=''
IFS= read -r password
(umask 077; cat > "$work/env") || fail "$app" 'its variables cannot be kept in memory' 'check its free space: df -h /dev/shm'
exists() { docker container inspect "$1" >/dev/null 2>&1; }
last() { printf '%s\n' "$1" | tail -n 3; }

roll_back() {
  [ -z "$created" ] || docker rm -f "$new" >/dev/null 2>&1
  created=
  [ -n "$switched" ] || return 0
  switched=
  if exists "$old"; then
    docker rm -f "$app" >/dev/null 2>&1
    docker rename "$old" "$app"
  elif [ -z "$had" ]; then
    docker rm -f "$app" >/dev/null 2>&1
  fi
  [ -z "$had" ] || docker start "$app" >/dev/null
}
trap 'roll_back; rm -rf -- "$work"' EXIT

# Recover from a killed run.
if exists "$app" && ! belongs_to "$app" "$app"; then
  fail "$app" 'another container has this name' 'rename or remove it, or give the app another name'
fi
docker rm -f "$new" >/dev/null 2>&1
if exists "$old"; then
  ! exists "$app" || docker rm -f "$app" >/dev/null
  docker rename "$old" "$app" && docker start "$app" >/dev/null ||
    fail "$app" 'its previous container cannot be restored' 'see docker ps -a on the host'
fi

require_reference "$image"
if [ "$pull" = yes ]; then
  login "$domain" "$user" "$password"
  output=$(docker pull "$image" 2>&1) ||
    registry_fails "docker pull $image" "$(last "$output")" \
      "$(remedy pull "$output" 'check that it was pushed (provision image), and that the host has space for it (df -h)')"
  digest=$(printf '%s\n' "$output" | sed -n 's/^Digest: //p' | tail -n 1)
else
  digest=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) ||
    fail "$image" 'it is not on this host, and pull is false' 'build it there: provision image'
fi

# The ports must be free before anything is stopped. docker-proxy holds the ports of containers, which are checked first.
overlaps() {
  case $1 in '*' | 0.0.0.0 | '[::]' | '::') return 0 ;; esac
  [ -z "$address" ] || [ "$1" = "$address" ] || [ "$1" = "[$address]" ]
}
holders() {
  address=${1%%|*} port=${1#*|} protocol=${1##*|}
  port=${port%|*}
  docker ps --filter "publish=$port/$protocol" --format '{{.Names}}|{{.Image}}|{{.Ports}}' | while IFS='|' read -r name of where; do
    [ "$name" != "$app" ] || continue
    # shellcheck disable=SC2020 # both characters become a line end
    for one in $(printf '%s' "$where" | tr ', ' '\n\n' | sed -n "s/:$port->.*//p"); do
      overlaps "$one" && { echo "the container $name ($of)"; break; }
    done
  done
  [ "$protocol" = udp ] && kind=u || kind=t
  ss -Hlnp"$kind" "sport = :$port" | grep -av docker-proxy | while read -r _ _ _ local _ process; do
    overlaps "${local%:*}" &&
      printf '%s\n' "$process" | sed -n 's/.*(("\([^"]*\)",pid=\([0-9]*\).*/\1 (process \2)/p;t;s/.*/another process/p'
  done
}
for published in $ports; do
  holder=$(holders "$published" | head -n 1)
  [ -z "$holder" ] || { port=${published#*|}; fail "port ${port%|*}" "$holder uses it" "stop that, or publish another port of $app"; }
done

current=$(docker container inspect -f '{{.State.Running}} {{with .Config.Labels}}{{with index . "provision.settings"}}{{.}}{{end}}{{end}} {{with .Config.Labels}}{{with index . "provision.image"}}{{.}}{{end}}{{end}}' "$app" 2>/dev/null)
[ "$current" != "true $fingerprint $digest" ] || { clear_pending "$pending" "deploy-$app"; exit; }
if [ "$current" = "false $fingerprint $digest" ]; then
  output=$(docker start "$app" 2>&1) || fail "docker start $app" "$(last "$output")" "see docker logs $app on the host"
else
  output=$(docker create --name "$new" --label "provision.app=$app" --label "provision.settings=$fingerprint" \
    --label "provision.image=$digest" --env-file "$work/env" "$@" 2>&1) ||
    fail "docker create $app" "$(last "$output")" 'fix its settings in the inventory; the previous container still runs'
  created=yes
  if exists "$app"; then had=yes; fi
  switched=yes
  if [ -n "$had" ]; then docker stop "$app" >/dev/null && docker rename "$app" "$old" || exit 1; fi
  docker rename "$new" "$app" && created= || exit 1
  output=$(docker start "$app" 2>&1) ||
    problem="it cannot be started: $(printf '%s\n' "$output" | grep -av 'failed to start containers' | tail -n 1 | cut -c1-600)"
fi

since=$(now)
# healthy [COMMAND…]: whether the check succeeds; "$why" is the reason if not.
healthy() {
  if [ -n "$url" ]; then
    code=$(curl -sS -o "$work/body" -w '%{http_code}' --max-time 5 --noproxy '*' -- "$url" 2>"$work/output") ||
      { why="$url: $(head -n 1 "$work/output")"; return 1; }
    [ "$code" = "$status" ] || { why="$url answers $code instead of $status"; return 1; }
    [ -z "$contains" ] || grep -qF -e "$contains" "$work/body" || { why="the answer of $url does not contain $contains"; return 1; }
  elif [ $# -gt 0 ]; then
    timeout 10 docker exec "$app" "$@" >"$work/output" 2>&1 || { why="$* fails: $(tail -n 1 "$work/output")"; return 1; }
  else
    why='it has not run for three seconds'
    [ "$(($(now) - since))" -ge 3 ]
  fi
}
# Whether the restored container runs, and answers at the URL at all, within ten seconds.
answers() {
  since=$(now)
  until [ -z "$url" ] || curl -s -o /dev/null --max-time 2 --noproxy '*' -- "$url"; do
    [ "$(($(now) - since))" -lt 10 ] || return 1
    sleep 0.2
  done
  [ "$(docker container inspect -f '{{.State.Running}}' "$app")" = true ]
}
eval "set -- $check"
while [ -z "$problem" ]; do
  state=$(docker container inspect -f '{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}{{if .State.Health}} {{.State.Health.Status}}{{end}}' "$app")
  case $state in
    running\ 0\ *' unhealthy') problem='its health check fails' ;;
    running\ 0\ *' starting') why='its health check has not succeeded yet' ;;
    running\ 0\ *) if healthy "$@"; then break; fi ;;
    running*) problem='it ended, and Docker started it again' ;;
    *) state=${state#* * }; problem="it ended with code ${state%% *}" ;;
  esac
  [ -n "$problem" ] || [ "$(($(now) - since))" -lt "$seconds" ] || problem="not healthy within $seconds s: $why"
  [ -n "$problem" ] || sleep 0.5
done
if [ -n "$problem" ]; then
  log=$(docker logs --tail 8 "$app" 2>&1 | tail -n 8 | cut -c1-300)
  [ -z "$log" ] || log="
its last log lines:
$log"
  [ -n "$switched" ] || fail "$app" "$problem$log" 'the container is unchanged'
  roll_back
  if [ -z "$had" ]; then outcome='rolled back: there was no container before, and the new one is removed'
  elif answers; then outcome='rolled back: the previous container runs again'
  else outcome='rolled back: the previous container runs again, but does not answer'; fi
  fail "$app" "$problem$log" "$outcome"
fi
switched=
! exists "$old" || docker rm -f "$old" >/dev/null
clear_pending "$pending" "deploy-$app"
