"""What nobody uses any more, found and removed by one script: for a look, for a run, and for the hosts' own timer.

Stopped containers and images that nobody uses any more are gone; or the host's own timer sees to it.

Apps' containers and images stay, whatever their age, and so do GitLab Runner's containers and helper images, and all
volumes, its caches among them. Sources: docker-ps(1), docker-image(1), systemd.timer(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import ProbeFailed
from provision.host.files import ASK_STATE, read_state
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.system.file import ask_file, read_file
from provision.shell import Command, sh

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


_UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NAMES: Final = 10  # how many are named in one line
_SCRIPT: Final = "/usr/local/lib/provision/prune"
_SERVICE: Final = "/etc/systemd/system/provision-prune.service"
_TIMER: Final = "/etc/systemd/system/provision-prune.timer"
_STATE: Final = "prune timer"


@dataclass(frozen=True)
class UnusedImages(Resource):
    """Those older than `days`, but for the images `keep`."""

    days: int
    keep: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return "UnusedImages"

    def probe(self) -> Probe:
        return Probe.of(self._script("list"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise ProbeFailed(
                f"Docker does not say what it has: {seen.only.errors.strip()[-300:]}", hint="provision docker"
            )
        lines = [line.split("|") for line in seen.text.splitlines() if line.count("|") == 3]
        if not lines:
            return
        parts = [_named(kind, [line for line in lines if line[0] == kind]) for kind in ("container", "image")]
        freed = sum(map(bytes_of, (line[2] for line in lines)))
        yield Change(
            f"remove {' and '.join(filter(None, parts))}: frees {human(freed)} at least",
            self._script("remove"),
            "delete",
            diff="".join(f"-{kind} {names.strip() or identity[:19]} {size}\n" for kind, identity, size, names in lines),
            deadline=1800,
        )

    def _script(self, mode: str) -> Command:
        return Command(sh("set -- %s %s %s\n", mode, self.days, self.keep).script + PRUNE)


@dataclass(frozen=True)
class PruneTimer(Resource):
    """The same every night, by a script of ours and a systemd timer; or nothing of that, where we once installed it."""

    wanted: bool
    days: int
    keep: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return "PruneTimer"

    def probe(self) -> Probe:
        questions = Probe({"state": ASK_STATE})
        if self.wanted:
            questions["unit"] = sh(
                "systemctl is-enabled provision-prune.timer; systemctl is-active provision-prune.timer"
            )
            questions |= {path: ask_file(path) for path in self._files()}
        return questions

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        ours = read_state(seen["state"].text).get(_STATE)
        if not self.wanted:
            if ours:
                yield Change("remove the prune timer", sh(_REMOVE), "delete", remember={_STATE: None})
            return
        files = self._files()
        wrong = [path for path, text in files.items() if read_file(path, seen, path).content != text.encode()]
        if wrong or seen["unit"].text.split() != ["enabled", "active"] or not ours:
            arguments = [one for path, text in files.items() for one in (path, text)]
            yield Change("install the prune timer", sh(_INSTALL, *arguments), "update", remember={_STATE: True})

    def _files(self) -> dict[str, str]:
        start = " ".join([_SCRIPT, "remove", str(self.days), *self.keep])
        return {
            _SCRIPT: f"#!/bin/sh\n# Kept by provision.{PRUNE}",
            _SERVICE: f"[Unit]\nDescription=Remove containers and images that nobody uses\nAfter=docker.service\n\n"
            f"[Service]\nType=oneshot\nExecStart={start}\n",
            _TIMER: "[Unit]\nDescription=Remove containers and images that nobody uses, every night\n\n[Timer]\n"
            "OnCalendar=daily\nRandomizedDelaySec=1h\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n",
        }


_INSTALL: Final = """
set -e
put() { mkdir -p -- "${2%%/*}"; printf '%%s' "$3" > "$2.provision"; chmod "$1" "$2.provision"; mv -f -- "$2.provision" "$2"; }
put 0755 %s %s
put 0644 %s %s
put 0644 %s %s
systemctl daemon-reload
systemctl enable --quiet provision-prune.timer
systemctl restart provision-prune.timer
"""
_REMOVE: Final = f"""
systemctl disable --quiet --now provision-prune.timer
rm -f -- {_SCRIPT} {_SERVICE} {_TIMER} /var/lib/systemd/timers/stamp-provision-prune.timer || exit 1
rmdir -- {_SCRIPT.rpartition("/")[0]} 2>/dev/null
systemctl daemon-reload
"""


def bytes_of(size: str) -> float:
    """`41.06MB` as a number; 0 for what is none."""
    parts = re.match(r"([0-9.]+)([kMGT]?B)", size)
    return float(parts[1]) * _UNITS[parts[2]] if parts else 0


def human(size: float) -> str:
    """A number of bytes as Docker writes it."""
    unit = next(unit for unit, factor in reversed(_UNITS.items()) if size >= factor or factor == 1)
    return f"{size / _UNITS[unit]:.3g} {unit}"


def _named(kind: str, lines: list[list[str]]) -> str:
    if not lines:
        return ""
    names = [line[3].strip() or line[1].removeprefix("sha256:")[:12] for line in lines]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    word = (
        f"unused image{'s' if len(names) > 1 else ''}"
        if kind == "image"
        else f"stopped container{'s' if len(names) > 1 else ''}"
    )
    return f"{len(names)} {word} ({', '.join(names[:_NAMES])}{more})"
