"""`gitlab-ctl reconfigure`, as owed work that takes itself back.

One reconfigure pays for any number of edits. It outlives the connection. First GitLab evaluates the file without
changing anything (`show-config`). When that or the reconfigure fails, a service stays down, or the registry
does not answer, the gitlab.rb of before the first unpaid edit is put back, and GitLab is reconfigured with that if it had
begun: the host ends in the new state or in the old one. A reconfigure of somebody else's is waited for by
gitlab-ctl itself, without end; here within the limit. Services that were down before are not held against it.

With wrong S3 keys or a missing bucket the registry answers at first and turns to 503 after about 30 s (its
storage check runs every 10 s and gives up after 3), so it is watched that long when its configuration changed. Images
on the host's own disk need no watching: without it the registry does not even start.
"""

from __future__ import annotations

from typing import Final

from provision.host.files import PENDING
from provision.host.pending import Handler
from provision.resources.gitlab.ruby_settings import GITLAB_RB, ROLLBACK
from provision.shell import sh
from provision.url import Url

SETTLE_SECONDS: Final = 35
_ANSWER_SECONDS: Final = 90
_LIMIT_SECONDS: Final = 1500
_CONFIG: Final = "/var/opt/gitlab/registry/config.yml"

_SCRIPT = """
url=%s realm=%s rb=%s aside=%s owed=%s config=%s limit=%s patience=%s settle=%s
sum() { cat "$config" 2>/dev/null | cksum; }
size() { cat "/var/log/gitlab/$1/current" 2>/dev/null | wc -c; }
since() { [ "$(size "$1")" -ge "$2" ] && from=$2 || from=0; tail -c "+$((from + 1))" "/var/log/gitlab/$1/current" 2>/dev/null; }
# A registry that gitlab.rb does not ask for yet is not this reconfigure's to bring up.
grep -s '^[[:space:]]*registry_external_url' "$rb" | grep -qF -- "$url" || url=
log=/run/provision-reconfigure
(umask 077; : > "$log") || exit 1
trap 'rm -f -- "$log"' EXIT
now() { date +%%s; }
drop_aside() { rm -f -- "$aside" "$aside.begun"; rmdir -- "$(dirname -- "$aside")" 2>/dev/null; :; }
reconfigure() {
  timeout -k 60 "$limit" gitlab-ctl reconfigure > "$log" 2>&1 &
  tail -n +1 -s 0.2 -f --pid=$! -- "$log" 2>/dev/null
  wait $!
}
waited() { grep -q 'is running, will wait for it' "$log" && ! grep -qE '^(Converging|Recipe:|Starting .*Client)' "$log"; }
down() {
  gitlab-ctl status 2>/dev/null | sed -n '/^down: /s/;.*//p' | while IFS= read -r line; do
    service=${line#down: }
    case " $idle " in *" ${service%%%%:*} "*) ;; *) printf '%%s\\n' "$line" ;; esac
  done
}
ask() { curl -sk --max-time 5 --connect-to ::127.0.0.1: "$@" -- "$url/v2/"; }
answer() {
  ask -o /dev/null -D - | tr -d '\\r' > "$log"
  status=$(sed -n '1s/^[^ ]* \\([0-9]*\\).*/\\1/p' "$log")
  [ "$status" = 401 ] && { [ -z "$realm" ] || grep -qiF "realm=\\"$realm\\"" "$log"; }
}
well() { [ -z "$(down)" ] || return 1; [ -z "$url" ] || answer; }
ill() {
  services=$(down)
  if [ -n "$services" ]; then
    printf '%%s\\n' "$services"
  else
    if [ "$status" = 401 ]; then echo "$url/v2/ does not send clients to $realm, but: $(grep -i '^www-authenticate:' "$log")"
    else printf '%%s\\n' "$url/v2/ answers ${status:-nothing} instead of 401"; [ -z "$status" ] || ask | head -c 300 | grep .; fi
    endpoint=$(sed -n 's/^storage:.*"regionendpoint":"\\([^"]*\\)".*/\\1/p' "$config" 2>/dev/null)
    if [ -n "$endpoint" ]; then
      said=$(curl -kSs -o /dev/null --max-time 5 -- "$endpoint" 2>&1) || echo "the storage $endpoint cannot be reached from the host: $said"
    fi
  fi
  since nginx "$nginx_logged" | grep -F emerg | tail -n 1
  since registry "$registry_logged" |
    grep -E '(level=|"level":")(error|fatal|panic)|^panic' | cut -c -400 | tail -n 3
}
healthy() {
  until well; do
    if [ "$(now)" -ge "$deadline" ]; then cause="GitLab was reconfigured, but does not come up: $(ill)"; return 1; fi
    [ -n "$told" ] || echo "waiting until GitLab's services are up"
    told=yes
    sleep 0.5
  done
  [ -n "$url" ] && [ "$before" != "$(sum)" ] || return 0
  ! grep -qs '^storage:.*"filesystem":' "$config" || return 0
  echo "the registry answers; watching it for $settle s, as wrong storage shows only then"
  deadline=$(( $(now) + settle ))
  while [ "$(now)" -lt "$deadline" ]; do
    answer || { cause="the registry came up and broke down again, its storage cannot be used: $(ill)"; return 1; }
    sleep 1
  done
}
why() {
  sed -n '/There was an error running gitlab-ctl reconfigure/,$p' "$log" | sed '/^[[:space:]]*$/d' | head -n 12
}
# An attempt that was cut short (a reboot) has begun to put the file in force as well.
begun=no idle='' told='' before=$(sum) other=no
nginx_logged=$(size nginx) registry_logged=$(size registry)
[ ! -e "$aside.begun" ] || begun=yes
# What nobody runs is not what this reconfigure broke.
[ "$begun" = yes ] || idle=$(down | sed 's/^down: //; s/:.*//' | tr '\\n' ' ')
attempt() {
  if ! gitlab-ctl show-config > "$log" 2>&1; then
    cause="GitLab cannot read $rb: $(tail -n 4 "$log")"; return 1
  fi
  if [ -e "$aside" ] && ! cause=$(touch -- "$aside.begun" 2>&1); then return 1; fi
  earlier=$begun begun=yes
  reconfigure; code=$?
  if [ "$code" = 0 ]; then deadline=$(( $(now) + patience )); healthy; return; fi
  cause=$(why)
  case $code in 124 | 137) late=yes ;; *) late=no ;; esac
  if [ "$late" = yes ] && waited; then
    begun=$earlier other=yes
    cause="another reconfigure is under way, and did not end within $limit s"
  elif [ "$late" = yes ]; then cause="gitlab-ctl reconfigure did not end within $limit s"
  elif [ -z "$cause" ]; then cause="gitlab-ctl reconfigure failed with code $code: $(tail -n 5 "$log")"; fi
  return 1
}
if attempt; then drop_aside; exit 0; fi
if [ ! -e "$aside" ]; then
  restored="$rb is as it was edited: there is no earlier one to put back"
elif ! { cp -p -- "$aside" "$rb.new" && sync -- "$rb.new" && mv -f -- "$rb.new" "$rb"; }; then
  rm -f -- "$rb.new"
  restored="the previous $rb could not be put back: it is kept as $aside"
elif [ "$other" = yes ]; then
  # Which of the two files that one has read cannot be told: the debt stays.
  restored="the previous $rb is back in place, and is reconfigured by the next run"
  drop_aside
elif [ "$begun" = yes ] && ! reconfigure > /dev/null; then
  restored="the previous $rb is back in place, but cannot be reconfigured either: $(why | head -n 3)"
else
  if [ "$begun" = yes ]; then restored="the previous $rb is back in force"
  else restored="the previous $rb is back in place; nothing had been reconfigured"; fi
  drop_aside
  if [ -e "$owed" ] && awk -F '\\t' '$1 != "reconfigure"' "$owed" > "$owed.new"; then
    if [ -s "$owed.new" ]; then mv -f -- "$owed.new" "$owed"; else rm -f -- "$owed" "$owed.new"; fi
  fi
fi
printf '%%s\\n%%s\\n' "$cause" "$restored" >&2
exit 1
"""


def reconfigure(registry: Url | None = None, realm: str = "", *, limit: int = _LIMIT_SECONDS) -> Handler:
    """The handler.

    registry, realm  what must answer afterwards; None for an estate without a registry
    limit            seconds for one `gitlab-ctl reconfigure`, waiting for another one included
    """
    places = (GITLAB_RB, ROLLBACK, PENDING, _CONFIG)
    script = sh(_SCRIPT, str(registry or ""), realm, *places, limit, _ANSWER_SECONDS, SETTLE_SECONDS)
    deadline = 2.0 * limit + 300
    return Handler("reconfigure", "reconfigure GitLab", script, deadline, detached=True, takes_back=True)
