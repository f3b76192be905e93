"""What nobody uses any more, found and removed by one script: for a look, for a run, and for the hosts' own timer."""

from __future__ import annotations

from typing import Final

# Arguments: `list` or `remove`, days, images that stay. It prints a line for each: container|ID|SIZE|NAME, image|ID|SIZE|NAMES.
# An image's age is that of its last pull, build or tag here: a base image that was made years ago may have come today.
PRUNE: Final = r"""
mode=$1 days=$2
shift 2
command -v docker >/dev/null || exit 0
limit=$(($(date +%s) - days * 86400))
at() {
  case $1 in
    '' | *0001-01-01*) echo 0 ;;
    *) date -d "$(printf %s "$1" | tr -d '"')" +%s || echo "$limit"1 ;;
  esac
}
newer() { [ "$(at "$1")" -gt "$limit" ] || [ "$(at "$2")" -gt "$limit" ]; }
stopped=$(docker ps -aq --no-trunc -f status=exited -f status=created -f status=dead) || exit 1
containers=$(
  [ -z "$stopped" ] || docker container inspect -f '{{.Id}}|{{.Created}}|{{.State.FinishedAt}}|{{with .Config.Labels}}{{with index . "provision.app"}}{{.}}{{end}}{{end}}|{{with .Config.Labels}}{{with index . "com.gitlab.gitlab-runner.type"}}{{.}}{{end}}{{end}}|{{.Name}}' $stopped |
    while IFS='|' read -r id created ended app kind name; do
      case $app$kind in '') newer "$created" "$ended" || echo "$id|${name#/}" ;; esac
    done
)
going=$(printf '%s\n' "$containers" | cut -d '|' -f 1)
staying=$(docker ps -aq --no-trunc | grep -vxF -e "$going")
used=$(
  [ -z "$staying" ] || docker container inspect -f '{{.Image}}' $staying
  [ $# = 0 ] || docker image inspect -f '{{.Id}}' "$@" 2>/dev/null
)
all=$(docker images -q --no-trunc | sort -u)
images=$(
  [ -z "$all" ] || docker image inspect -f '{{.Id}}|{{.Created}}|{{json .Metadata.LastTagTime}}|{{range .RepoTags}}{{.}} {{end}}' $all |
    while IFS='|' read -r id created tagged names; do
      case $names in *gitlab-runner-helper*) continue ;; esac
      case $used in *"$id"*) ;; *) newer "$created" "$tagged" || echo "$id|$names" ;; esac
    done
)
[ "$containers$images" ] || exit 0
if [ "$mode" = list ]; then
  sizes=$(docker system df -v --format '{{range .Images}}{{.ID}} {{.UniqueSize}}{{println}}{{end}}{{range .Containers}}{{.ID}} {{.Size}}{{println}}{{end}}' | cut -d ' ' -f 1,2)
fi
size() { printf '%s\n' "$sizes" | while read -r id size; do case $1 in "$id"*) echo "$size"; break ;; esac; done; }
[ -z "$containers" ] || printf '%s\n' "$containers" | while IFS='|' read -r id name; do
  [ "$mode" = list ] || docker rm "$id" >/dev/null || continue
  echo "container|$id|$(size "$id")|$name"
done
[ -z "$images" ] || printf '%s\n' "$images" | while IFS='|' read -r id names; do
  [ "$mode" = list ] || docker image rm ${names:-"$id"} >/dev/null || continue
  echo "image|$id|$(size "$id")|$names"
done
"""
