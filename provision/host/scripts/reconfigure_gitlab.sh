#!/bin/sh
# Reconfigures GitLab and checks that it comes up. Otherwise the previous gitlab.rb is restored, and GitLab reconfigured
# with that if the reconfigure had begun: the host ends in the new state or in the old one.
# Arguments: URL REALM RB COPY PENDING CONFIG LIMIT UP STORAGE GITLAB READY
#   URL, REALM   the registry and the address that it sends clients to for tokens; "" for an estate without a registry
#   RB, COPY     gitlab.rb and its rollback copy. COPY.begun: a reconfigure with RB has begun
#   PENDING      the list of pending handlers
#   CONFIG       the registry's own configuration
#   LIMIT        seconds for show-config and for a reconfigure, waiting for another program's included
#   UP, STORAGE  seconds until all must be up; seconds for the check of the registry's storage
#   GITLAB, READY  GitLab's URL, and seconds until Rails must answer there; "" or 0 to not wait for it
# Prints GitLab's output. On failure the cause and the outcome are on standard error.
. ./lib/files.sh
. ./lib/pending.sh
. ./lib/process.sh
. ./lib/rollback.sh
. ./lib/registry_storage.sh
. ./lib/services.sh
url=$1 realm=$2 rb=$3 copy=$4 pending=$5 config=$6 limit=$7 up=$8 storage_seconds=$9 gitlab=${10} ready=${11}
[ "$ready" != 0 ] || gitlab=
checksum() { cat "$config" 2>/dev/null | cksum; }
log_size() { cat "/var/log/gitlab/$1/current" 2>/dev/null | wc -c; }
logged_since() {
  [ "$(log_size "$1")" -ge "$2" ] && from=$2 || from=0
  tail -c "+$((from + 1))" "/var/log/gitlab/$1/current" 2>/dev/null
}
# A registry that gitlab.rb does not configure yet cannot answer after this reconfigure.
grep -as '^[[:space:]]*registry_external_url' "$rb" | grep -qF -- "$url" || url=
log=/run/provision-reconfigure bad_storage=/run/provision-storage-found checker=
(umask 077; : > "$log") || exit 1
rm -f -- "$bad_storage"
trap 'rm -f -- "$log" "$bad_storage"' EXIT
# lock_holder: prints the process that holds the lock of a reconfigure, with its name; nothing when none does.
# Chef prints that it waits into its log only. It locks a file with flock(2), and /proc/locks shows that. The inode alone
# does not identify the file. Sources: chef/run_lock.rb; proc(5); gitlab.rb's file_cache_path.
lock_holder() {
  for lock in /opt/gitlab/embedded/cookbooks/cache/*-running.pid; do
    inode=$(stat -c %i -- "$lock" 2>/dev/null) || continue
    awk -v at=":$inode\$" '$2 == "FLOCK" && $6 ~ at { print $5 }' /proc/locks | while read -r pid; do
      [ ! -d "/proc/$pid/fd" ] || [ -n "$(find -L "/proc/$pid/fd" -samefile "$lock" 2>/dev/null)" ] || continue
      name=$(cat "/proc/$pid/comm" 2>/dev/null)  # one that has ended may have left the lock to another process
      printf 'process %s%s\n' "$pid" "${name:+ ($name)}"
      break
    done
  done | head -n 1
}
# another_holds: whether a process that gitlab_ctl did not start holds the lock; "$holder" describes it.
another_holds() {
  holder=$(lock_holder)
  [ -n "$holder" ] || return 1
  pid=${holder#process }
  [ -z "$group" ] || [ "$(group_of "${pid%% *}")" != "$group" ]
}
# gitlab_ctl COMMAND: starts show-config or reconfigure. Both take the lock, and wait for it without a limit.
# timeout(1) makes the process group "$group".
gitlab_ctl() {
  group=
  ! another_holds || echo "waiting until another reconfigure ends, at most $limit s: $holder runs it"
  timeout -k 60 "$limit" gitlab-ctl "$1" > "$log" 2>&1 &
  group=$!
}
reconfigure() {
  gitlab_ctl reconfigure
  tail -n +1 -s 0.2 -f --pid="$group" -- "$log" 2>/dev/null
  wait "$group"
}
# too_late CODE COMMAND: whether the command ran into the limit; "$cause" and "$other" describe it then.
too_late() {
  case $1 in 124 | 137) ;; *) return 1 ;; esac
  cause="gitlab-ctl $2 did not end within $limit s"
  another_holds || return 0
  other=yes cause="another reconfigure is running, and did not end within $limit s: $holder"
}
# The services that are down now and were not before.
services_down() {
  gitlab-ctl status 2>/dev/null | sed -n '/^down: /s/;.*//p' | while IFS= read -r line; do
    service=${line#down: }
    case " $down_before " in *" ${service%%:*} "*) ;; *) printf '%s\n' "$line" ;; esac
  done
}
registry_answers() {
  ask_service "$url/v2/" -o /dev/null -D - | tr -d '\r' > "$log"
  status=$(sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p' "$log")
  [ "$status" = 401 ] && { [ -z "$realm" ] || grep -qiF "realm=\"$realm\"" "$log"; }
}
all_up() { [ -z "$(services_down)" ] || return 1; [ -z "$url" ] || registry_answers; }
storage_unreachable() {
  endpoint=$(sed -n 's/^storage:.*"regionendpoint":"\([^"]*\)".*/\1/p' "$config" 2>/dev/null)
  [ -n "$endpoint" ] || return 0
  output=$(curl -kSs -g --noproxy '*' --proto '=http,https' -o /dev/null --max-time 5 -- "$endpoint" 2>&1) ||
    echo "the storage $endpoint cannot be reached from the host: $output"
}
problems() {
  services=$(services_down)
  if [ -n "$services" ]; then
    printf '%s\n' "$services"
  else
    if [ "$status" = 401 ]; then
      echo "$url/v2/ does not send clients to $realm, but: $(grep -ai '^www-authenticate:' "$log")"
    else
      printf '%s\n' "$url/v2/ answers ${status:-nothing} instead of 401"
      [ -z "$status" ] || ask_service "$url/v2/" | head -c 300 | grep -a .
    fi
    storage_unreachable
  fi
  logged
}
logged() {
  logged_since nginx "$nginx_logged" | grep -aF emerg | tail -n 1
  logged_since registry "$registry_logged" | registry_errors
}
# With wrong S3 keys or a missing bucket the registry of GitLab 18.8 and earlier answers /v2/ at first, and a later one does
# not start: it reads lock files in the storage. What keys may not do, only its use shows.
check_health() {
  waiting=
  until all_up; do
    if [ "$(now)" -ge "$deadline" ]; then cause="GitLab was reconfigured, but does not come up: $(problems)"; return 1; fi
    [ -n "$waiting" ] || echo "waiting until GitLab's services are up"
    waiting=yes
    sleep 1
  done
  begin_storage_check
  check_readiness
  ready_code=$?
  end_storage_check && return "$ready_code"
}
# begin_storage_check: tests a new storage in the background while Rails boots ("$checker" is the process). If the storage
# cannot be used, it writes the reason into the file "$bad_storage".
begin_storage_check() {
  [ -n "$url" ] && [ "$config_before" != "$(checksum)" ] || return 0
  # On the host's own disk: without it the registry does not start.
  ! grep -qs '^storage:.*"filesystem":' "$config" || return 0
  echo "the registry answers; checking its storage with an upload"
  (
    problem=$(storage_problem "$config" /var/opt/gitlab/gitlab-rails/etc/gitlab.yml "$storage_seconds")
    if [ $? = 2 ]; then
      echo "its storage was not checked: $problem; run provision verify"
    else
      (umask 077; printf %s "$problem" > "$bad_storage")
    fi
  ) &
  checker=$!
}
end_storage_check() {
  [ -n "$checker" ] || return 0
  wait "$checker"
  [ -s "$bad_storage" ] || return 0
  cause="the registry cannot use its storage: $(cat "$bad_storage")$(printf '\n'; storage_unreachable; logged)"
  return 1
}
# Everything that follows needs Rails: the API, and the tokens of every login to the registry. If the storage cannot be used,
# the wait ends at once.
check_readiness() {
  [ -n "$gitlab" ] || return 0
  wait_until_ready "$gitlab" "$ready" "$bad_storage"
  case $? in
    1)
      problem="$gitlab/-/readiness answers ${status:-nothing}"
      case $readiness_before in
        5??) echo "GitLab is still not ready, as before this reconfigure: $problem" ;;
        *) cause="GitLab was reconfigured, but is not ready within $ready s: $problem; see gitlab-ctl tail puma"; return 1 ;;
      esac ;;
    2) echo "it is not known whether GitLab is ready: this host refuses connections to $gitlab" ;;
  esac
}
# GitLab's error, and the removed settings, which it prints on standard output, before or after the error. Sources:
# omnibus-gitlab, package/libraries/handlers/gitlab.rb, helpers/logging_helper.rb.
reconfigure_error() {
  sed -n '/There was an error running gitlab-ctl reconfigure/,$p' "$log" |
    sed '/^\(Removals\|Deprecations\|Warnings\|Notes\):$/,$d; /^Running handlers complete/,$d; /^[[:space:]]*$/d' | head -n 12
  sed -n '/^\* .* was removed in /p' "$log" | head -n 8
}
begun=no other=no down_before='' readiness_before='' config_before=$(checksum)
nginx_logged=$(log_size nginx) registry_logged=$(log_size registry)
# An attempt that a reboot interrupted has begun to use the new file, too.
[ ! -e "$copy.begun" ] || begun=yes config_before=
# What was down before is no fault of this reconfigure.
if [ "$begun" = no ]; then
  down_before=$(services_down | sed 's/^down: //; s/:.*//' | tr '\n' ' ')
  [ -z "$gitlab" ] || readiness_before=$(readiness_of "$gitlab")
fi
attempt() {
  gitlab_ctl show-config
  wait "$group"
  code=$?
  if [ "$code" != 0 ]; then
    too_late "$code" show-config && return 1
    cause=$(reconfigure_error)
    cause="GitLab cannot read $rb: ${cause:-$(tail -n 4 "$log")}"
    return 1
  fi
  if [ -e "$copy" ] && ! cause=$(touch -- "$copy.begun" 2>&1); then return 1; fi
  begun_before=$begun begun=yes
  reconfigure
  code=$?
  if [ "$code" = 0 ]; then
    deadline=$(($(now) + up))
    check_health
    return
  fi
  if too_late "$code" reconfigure; then
    [ "$other" = no ] || begun=$begun_before
  else
    cause=$(reconfigure_error)
    [ -n "$cause" ] || cause="gitlab-ctl reconfigure failed with code $code: $(tail -n 5 "$log")"
    # A service that does not start within runit's 30 s. The reason is in its own log.
    case $cause in *'/embedded/bin/sv '*registry*) cause="$cause$(printf '\n'; storage_unreachable; logged)" ;;
      *'/embedded/bin/sv '*) cause="$cause$(printf '\n'; logged)" ;; esac
  fi
  return 1
}
if attempt; then drop_copy "$copy"; exit 0; fi
if [ ! -e "$copy" ]; then
  outcome="there is no earlier version of $rb to restore: it keeps the new settings"
elif ! restore_copy "$rb" "$copy"; then
  outcome="the previous $rb could not be restored: it is kept as $copy"
elif [ "$other" = yes ]; then
  # It is not known which of the two files the other reconfigure has read: ours stays pending.
  outcome="rolled back to the previous $rb; the next run reconfigures GitLab with it"
  drop_copy "$copy"
elif [ "$begun" = yes ] && ! reconfigure > /dev/null; then
  outcome="rolled back to the previous $rb, but GitLab cannot be reconfigured with it either: $(reconfigure_error | head -n 3)"
else
  outcome="rolled back to the previous $rb"
  [ "$begun" = yes ] || outcome="$outcome; nothing was reconfigured"
  drop_copy "$copy"
  clear_pending "$pending" reconfigure
fi
printf '%s\n%s\n' "$cause" "$outcome" >&2
exit 1
