"""Settings in `/etc/gitlab/gitlab.rb`, edited by its syntax tree: every byte that is not ours stays.

Before the first edit since the last good reconfigure the file is put aside (`ROLLBACK`); the reconfigure
that follows puts it back when GitLab does not come up with the new one.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from provision.errors import ProbeFailed, Refused
from provision.host.facts import ASK_PACKAGES, Installed, read_packages
from provision.host.files import HOME, replace
from provision.host.pending import Handler
from provision.resources.base import Change, Note, Observation, Probe, Resource, record_only
from provision.secret import Secret, revealed, secret_texts
from provision.shell import sh

if TYPE_CHECKING:
    from provision.editing.ruby.edit import EditedRuby

GITLAB_RB: Final = "/etc/gitlab/gitlab.rb"
ROLLBACK: Final = f"{HOME}/rollback/gitlab.rb"
# The template alone is 170 KB, most of it comments: packed it travels in a fifth of that.
ASK_GITLAB_RB: Final = sh("if [ -e %s ]; then gzip -1c -- %s; fi", GITLAB_RB, GITLAB_RB)
NEWEST: Final = "19.3.0"  # whose rules are assumed where GitLab is not installed yet
SYNTAX: Final = 'ruby=/opt/gitlab/embedded/bin/ruby; [ ! -x "$ruby" ] || "$ruby" -c "$new" >/dev/null'

# top-level name: the version that removed it, and what to do
REMOVED: Final = {
    "unicorn": (14, "removed in 14.0, Puma serves instead"),
    "sidekiq_cluster": (14, "removed in 14.0, see sidekiq"),
    "repmgr": (14, "removed in 14.0, see patroni"),
    "git_data_dirs": (18, "removed in 18.0, see gitaly['configuration'][:storage]"),
    "mattermost": (19, "removed in 19.0, it has a package of its own"),
    "mattermost_external_url": (19, "removed in 19.0, it has a package of its own"),
}

Path = tuple[str, ...]


def gitlab_version(packages: Mapping[str, Installed]) -> str:
    """The installed GitLab's version, like `19.3.0`; "" when there is none."""
    for name in ("gitlab-ce", "gitlab-ee"):
        if name in packages:
            return packages[name].version.partition("-")[0].partition("+")[0]
    return ""


def read_gitlab_rb(observation: Observation, name: str = "file") -> bytes | None:
    """The file's bytes; None when it is not there."""
    result = observation[name]
    if result.code != 0:
        raise ProbeFailed(
            f"{GITLAB_RB} cannot be read: {result.errors.strip()}", hint=f"on the host: ls -l {GITLAB_RB}"
        )
    return zlib.decompress(result.stdout, wbits=31) if result.stdout else None


@dataclass(frozen=True)
class RubySettings(Resource):
    """These settings are in gitlab.rb. Settings that the task set earlier and no longer wants are removed.

    settings   by path: ("external_url",), ("gitlab_rails", "time_zone"), ("registry", "storage"); a path that
               begins with "registry_nginx" is spelt as the installed version wants it
    """

    settings: Mapping[Path, Any] = field(hash=False)
    notify: tuple[Handler, ...] = ()

    @property
    def label(self) -> str:
        return f"RubySettings {GITLAB_RB}"

    @property
    def record_key(self) -> str:
        return "gitlab.rb"

    def claims(self) -> Mapping[str, Hashable]:
        return {_claim(path): json.dumps(revealed(value), sort_keys=True) for path, value in self.settings.items()}

    def probe(self) -> Probe:
        return Probe({"file": ASK_GITLAB_RB, "packages": ASK_PACKAGES})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        from provision.editing.ruby.edit import edit
        from provision.editing.ruby.masking import diff, secret_strings

        text = read_gitlab_rb(seen)
        for one in secret_strings(text or b""):
            Secret(one)  # those of other tasks and people: from now on masked, should a reconfigure speak of them
        version = gitlab_version(read_packages(seen["packages"]))
        wanted = {spelt(path, version): value for path, value in self.settings.items()}
        before = _paths(seen.record)
        others = {path for paths in seen.others.values() for path in _paths(paths)}
        dropped = {path for path in before - wanted.keys() - others if not _claims_of(path) & seen.claimed}
        edited = edit(text or b"", wanted, remove=sorted(dropped))
        record = sorted(list(path) for path in _ours(wanted, before | others, edited)) or None
        if text is not None:
            yield from (Note(f"{GITLAB_RB}: {note}") for note in edited.notes)
        if not edited.changes:
            # What another task recorded too stays when that task drops it; what is gone is no longer ours.
            if before - wanted.keys() or (others & wanted.keys()) - before:
                yield record_only(f"this task's settings in {GITLAB_RB}", record)
            return
        if text is None and not version:
            yield Note(f"GitLab is not installed: its settings are planned by the rules of version {NEWEST}")
        elif removed := removed_settings(edited.content, version):
            raise Refused(
                f"{GITLAB_RB} would hold settings that GitLab {version} refuses to be reconfigured with: {'; '.join(removed)}",
                hint="take them out of [gitlab.settings] or by hand, as the release notes of that version say, and run again",
            )
        yield Change(
            f"set {', '.join(dict.fromkeys(_spell(one.path) for one in edited.changes))} in {GITLAB_RB}",
            replace(
                GITLAB_RB, edited.content, mode="0600", owner="root:root", check=SYNTAX, keep=True, rollback=ROLLBACK
            ),
            "update" if text is not None else "create",
            diff(text or b"", edited.content, secret_texts(wanted)),
            self.notify,
            record=record,
            requires="" if text is not None or version else "gitlab",
        )


def _paths(record: Any) -> set[Path]:
    return {tuple(path) for path in record or ()}


def _claim(path: Path) -> str:
    return f"gitlab.rb {_spell(path)}"


def _claims_of(path: Path) -> Set[str]:
    """The claims that a recorded path may stand for: claims are made before the installed version is known."""
    nginx = {_claim(("registry_nginx", *path[2:]))} if path[:2] == ("registry", "nginx") else set()
    return {_claim(path)} | nginx


def _ours(wanted: Mapping[Path, Any], before: set[Path], edited: EditedRuby) -> Iterator[Path]:
    """The wanted settings that a task of ours set, now or earlier; what was there before is somebody else's."""
    touched = [one.path for one in edited.changes]
    for path in wanted:
        if path in before or any(one[: len(path)] == path[: len(one)] for one in touched):
            yield path


def removed_settings(text: bytes, version: str) -> list[str]:
    """The lines with top-level names that this version's reconfigure aborts on, each with where it went.

    Source: omnibus-gitlab's deprecations and the release notes of 14.0, 18.0 and 19.0. A line that only looks like a
    setting (in a heredoc) is at worst a refusal that names it.
    """
    major = int(version.partition(".")[0]) if version[:1].isdigit() else 0
    found = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        word = re.match(r"\s*([a-z_]+)", line)
        name = word[1] if word else ""
        if name in REMOVED and major >= REMOVED[name][0]:
            found.append(f"line {number}: {name} ({REMOVED[name][1]})")
    return found


def spelt(path: Path, version: str) -> Path:
    """How a version spells a path; without one (a bare host) as the newest does.

    `registry_nginx['x']` is `registry['nginx']['x']` from GitLab 19.2 on; before it the new form is silently ignored.
    """
    from provision.editing.ruby.source import nginx_path

    return (*nginx_path(version or NEWEST), *path[1:]) if path[0] == "registry_nginx" else path


def _spell(path: Path) -> str:
    head, *rest = path
    return head + "".join(f"['{key}']" for key in rest)
