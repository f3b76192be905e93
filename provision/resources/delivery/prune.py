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
from provision.host.scripts import file_text, script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.system.file import ask_file, read_file
from provision.shell import Command, sh

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
        return script("prune_docker", mode, self.days, self.keep)


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
                yield Change(
                    "remove the prune timer",
                    script("remove_prune_timer", _SCRIPT, _SERVICE, _TIMER),
                    "delete",
                    remember={_STATE: None},
                )
            return
        files = self._files()
        wrong = [path for path, text in files.items() if read_file(path, seen, path).content != text.encode()]
        if wrong or seen["unit"].text.split() != ["enabled", "active"] or not ours:
            arguments = [one for path, text in files.items() for one in (path, text)]
            yield Change(
                "install the prune timer", script("install_prune_timer", *arguments), "update", remember={_STATE: True}
            )

    def _files(self) -> dict[str, str]:
        start = " ".join([_SCRIPT, "remove", str(self.days), *self.keep])
        return {
            _SCRIPT: file_text("prune_docker"),
            _SERVICE: f"[Unit]\nDescription=Remove containers and images that nobody uses\nAfter=docker.service\n\n"
            f"[Service]\nType=oneshot\nExecStart={start}\n",
            _TIMER: "[Unit]\nDescription=Remove containers and images that nobody uses, every night\n\n[Timer]\n"
            "OnCalendar=daily\nRandomizedDelaySec=1h\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n",
        }


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
