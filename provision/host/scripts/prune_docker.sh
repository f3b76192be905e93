#!/bin/sh
# Installed by provision. Lists or removes stopped containers, unused images and build cache that are older than DAYS.
# Arguments: MODE DAYS, then images to keep. MODE: list or remove.
# Prints a line for each: container|ID|SIZE|NAME, image|ID|SIZE|NAMES, cache|ID|SIZE|. Sizes are printed by list only, and
# so is the cache.
#
# Apps' containers and images stay, and so do GitLab Runner's containers and helper images, and all volumes. The age of
# an image is that of its last pull, build or tag on this host: an image that was built years ago may have come today.
# Docker's own time (LastTagTime) has the pulls only in the containerd store. The other store writes a file for each image
# when it comes: moby's image/fs.go.
# Sources: docker-ps(1), docker-image(1).
mode=$1 days=$2
shift 2
command -v docker >/dev/null || exit 0
limit=$(($(date +%s) - days * 86400))
# seconds_of TIME: as Docker prints times; 0 for none, and never old for one that date cannot read.
seconds_of() {
  case $1 in
    '' | *0001-01-01*) echo 0 ;;
    *) date -d "$(printf %s "$1" | tr -d '"' | sed 's/ [A-Z]*$//')" +%s || echo "$limit"1 ;;
  esac
}
newer() {
  for time; do [ "$(seconds_of "$time")" -le "$limit" ] || return 0; done
  return 1
}
stopped=$(docker ps -aq --no-trunc -f status=exited -f status=created -f status=dead) || exit 1
containers=$(
  # shellcheck disable=SC2086 # one argument for each line
  [ -z "$stopped" ] || docker container inspect -f '{{.Id}}|{{.Created}}|{{.State.FinishedAt}}|{{with .Config.Labels}}{{with index . "provision.app"}}{{.}}{{end}}{{end}}|{{with .Config.Labels}}{{with index . "com.gitlab.gitlab-runner.type"}}{{.}}{{end}}{{end}}|{{.Name}}' $stopped |
    while IFS='|' read -r id created ended app kind name; do
      case $app$kind in '') newer "$created" "$ended" || echo "$id|${name#/}" ;; esac
    done
)
leaving=$(printf '%s\n' "$containers" | cut -d '|' -f 1)
staying=$(docker ps -aq --no-trunc | grep -avxF -e "$leaving")
used=$(
  # shellcheck disable=SC2086 # one argument for each line
  [ -z "$staying" ] || docker container inspect -f '{{.Image}}' $staying
  [ $# = 0 ] || docker image inspect -f '{{.Id}}' "$@" 2>/dev/null
)
all=$(docker images -q --no-trunc | sort -u)
root=$(docker info -f '{{.DockerRootDir}}') || exit 1
came() { stat -c '@%Y' "$root"/image/*/imagedb/content/sha256/"${1#sha256:}" 2>/dev/null; }
images=$(
  # shellcheck disable=SC2086 # one argument for each line
  [ -z "$all" ] || docker image inspect -f '{{.Id}}|{{.Created}}|{{json .Metadata.LastTagTime}}|{{range .RepoTags}}{{.}} {{end}}' $all |
    while IFS='|' read -r id created tagged names; do
      case $names in *gitlab-runner-helper*) continue ;; esac
      case $used in *"$id"*) ;; *) newer "$created" "$tagged" "$(came "$id")" || echo "$id|$names" ;; esac
    done
)
# What `docker builder prune` would remove of BuildKit's cache: entries that were not used in that time, without those that
# an image shares and those that a remaining entry builds on. Docker limits the cache by itself since 28.2, to a part of the
# disk (moby's daemon/config/builder.go: builder.gc is enabled by default; worker/gc.go). Several parents are listed as `a, b`.
cache() {
  docker system df -v --format '{{range .BuildCache}}{{.ID}}|{{.Size}}|{{.InUse}}{{.Shared}}{{.CacheType}}|{{.Parent}}|{{.LastUsedAt}}{{println}}{{end}}' |
    while IFS='|' read -r id size state parents used; do
      stays=
      case $state in falsefalseinternal | falsefalsefrontend) stays=yes ;; falsefalse*) ! newer "$used" || stays=yes ;; *) stays=yes ;; esac
      [ -z "$id" ] || echo "$id|$size|$stays|$parents"
    done |
    awk -F '|' '
      { order[NR] = $1; size[$1] = $2; stays[$1] = $3; parents[$1] = $4 }
      END {
        do {
          changed = 0
          for (id in stays) if (stays[id]) {
            count = split(parents[id], list, /, */)
            for (i = 1; i <= count; i++) if ((list[i] in stays) && !stays[list[i]]) { stays[list[i]] = "yes"; changed = 1 }
          }
        } while (changed)
        for (n = 1; n <= NR; n++) if (!stays[order[n]]) print "cache|" order[n] "|" size[order[n]] "|"
      }'
}
if [ "$mode" = list ]; then
  cache
  [ "$containers$images" ] || exit 0
  sizes=$(docker system df -v --format '{{range .Images}}{{.ID}} {{.UniqueSize}}{{println}}{{end}}{{range .Containers}}{{.ID}} {{.Size}}{{println}}{{end}}' | cut -d ' ' -f 1,2)
fi
size() { printf '%s\n' "$sizes" | while read -r id size; do case $1 in "$id"*) echo "$size"; break ;; esac; done; }
[ -z "$containers" ] || printf '%s\n' "$containers" | while IFS='|' read -r id name; do
  [ "$mode" = list ] || docker rm "$id" >/dev/null || continue
  echo "container|$id|$(size "$id")|$name"
done
[ -z "$images" ] || printf '%s\n' "$images" | while IFS='|' read -r id names; do
  # shellcheck disable=SC2086 # one argument for each name
  [ "$mode" = list ] || docker image rm ${names:-"$id"} >/dev/null || continue
  echo "image|$id|$(size "$id")|$names"
done
# After the images, which share their layers with the cache. buildx keeps files of its own: not in root's home.
[ "$mode" = remove ] || exit 0
BUILDX_CONFIG=$(mktemp -d) || exit 1
export BUILDX_CONFIG
trap 'rm -rf -- "$BUILDX_CONFIG"' EXIT
docker builder prune -f --filter "until=$((days * 24))h" >/dev/null
