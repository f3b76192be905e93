"""Settings in `/etc/gitlab/gitlab.rb`, and the `gitlab-ctl reconfigure` that follows.

The file is edited by its syntax tree: every byte that is not ours stays. Before the first change since the last
successful reconfigure it is copied to `ROLLBACK`.

One reconfigure follows any number of changes, and outlives the connection. First GitLab evaluates the file without
changing anything (`show-config`). When that or the reconfigure fails, a service stays down, the registry does not answer,
or Rails does not boot, the previous gitlab.rb is restored, and GitLab is reconfigured with that if the reconfigure had begun: the host
ends in the new state or in the old one. gitlab-ctl waits for another program's reconfigure without end, we up to the
limit. Services that were down before do not count.

With wrong S3 keys or a missing bucket the registry answers at first, and with 503 after 30 s or more. So a blob is
uploaded, read and deleted through the registry when its configuration changed (`lib/registry_storage.sh`).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from provision.errors import ProbeFailed, Refused
from provision.host.files import HOME, replace
from provision.host.pending import PENDING, Handler
from provision.host.releases import ASK_PACKAGES, Installed, read_packages
from provision.host.scripts import script
from provision.host.state import strings
from provision.inventory.tables.gitlab import READY_SECONDS
from provision.resources.base import Change, Note, Observation, Probe, Resource, record_only
from provision.secret import Secret, revealed, secret_texts
from provision.shell import sh
from provision.url import Url

if TYPE_CHECKING:
    from provision.editing.ruby.edit import EditedRuby

GITLAB_RB: Final = "/etc/gitlab/gitlab.rb"
ROLLBACK: Final = f"{HOME}/rollback/gitlab.rb"
# The package's template is 170 KB, mostly comments: compressed it takes a fifth.
ASK_GITLAB_RB: Final = sh("if [ -e %s ]; then gzip -1c -- %s; fi", GITLAB_RB, GITLAB_RB)
CONTENT_LIMIT: Final = 8 << 20  # bytes; a thousandth of that in gzip may become any size
NEWEST: Final = "19.3.0"  # its rules apply where GitLab is not installed yet
_STORAGE_SECONDS: Final = 12  # for the whole check; the driver may look for an IAM role for longer
_UP_SECONDS: Final = 90
_LIMIT_SECONDS: Final = 1500
_REGISTRY_CONFIG: Final = "/var/opt/gitlab/registry/config.yml"
_CHECK_SYNTAX: Final = 'ruby=/opt/gitlab/embedded/bin/ruby; [ ! -x "$ruby" ] || "$ruby" -c "$new" >/dev/null'

# Source: omnibus-gitlab, gitlab/libraries/gitlab_rails.rb, parse_secrets; package/libraries/omnibus_helper.rb.
_ROOT_PASSWORD: Final = ("gitlab_rails", "initial_root_password")
ROOT_PASSWORD_FILE: Final = "/etc/gitlab/initial_root_password"

Path = tuple[str, ...]


class Removed(NamedTuple):
    """A setting that makes `gitlab-ctl reconfigure` abort from a version on.

    only_true     with the value true alone; otherwise with any value but nil
    first, until  the rule holds from one version on, and no longer in another, which accepts the setting without an effect
    """

    path: Path
    version: tuple[int, int]
    instead: str
    only_true: bool = False
    first: tuple[int, int] = (0, 0)
    until: tuple[int, int] = (99, 0)


# Sources: omnibus-gitlab, files/gitlab-cookbooks/package/libraries/deprecations.rb at 14.0, 16.11, 18.0, 18.2, 18.11, 19.0,
# 19.2 and 19.3; for names that are no longer known, libraries/config/gitlab.rb.
REMOVED: Final = (
    Removed(("unicorn",), (14, 0), "see puma", until=(18, 1)),
    Removed(("repmgr",), (14, 0), "see patroni", until=(18, 1)),
    Removed(("repmgrd",), (14, 0), "see patroni", until=(18, 1)),
    Removed(("sidekiq_cluster",), (14, 0), "see sidekiq"),
    Removed(("omnibus_gitconfig",), (17, 0), "see gitaly['configuration'][:git][:config]"),
    Removed(("grafana",), (17, 1), "it is no longer part of the package"),
    Removed(("git_data_dirs",), (18, 0), "see gitaly['configuration'][:storage]"),
    Removed(("gitlab_shell", "migration"), (18, 0), "it has no effect any more"),
    Removed(("spamcheck",), (19, 0), "it is no longer part of the package"),
    Removed(("gitaly", "configuration", "git", "use_bundled_binaries"), (19, 0), "Gitaly always uses its own Git"),
    Removed(("gitaly", "configuration", "git", "bin_path"), (19, 0), "Gitaly always uses its own Git"),
    Removed(("mattermost",), (19, 0), "it is no longer part of the package", until=(19, 3)),
    Removed(("mattermost", "enable"), (19, 0), "it is no longer part of the package", only_true=True, first=(19, 3)),
    Removed(("mattermost_external_url",), (20, 0), "see gitlab_rails['mattermost_host']"),
)


def gitlab_version(packages: Mapping[str, Installed]) -> str:
    """The version of the installed GitLab, like `19.3.0`; "" when GitLab is not installed."""
    for name in ("gitlab-ce", "gitlab-ee"):
        if name in packages:
            return packages[name].version.partition("-")[0].partition("+")[0]
    return ""


def read_gitlab_rb(observation: Observation, name: str = "file") -> bytes | None:
    """The bytes of gitlab.rb, from the answer to ASK_GITLAB_RB; None when there is no such file."""
    result = observation[name]
    if result.code != 0:
        raise ProbeFailed(
            f"{GITLAB_RB} cannot be read: {result.errors.strip()}", hint=f"check it on the host: ls -l {GITLAB_RB}"
        )
    if not result.stdout:
        return None
    try:
        unpacker = zlib.decompressobj(wbits=31)
        content = unpacker.decompress(result.stdout, CONTENT_LIMIT)
    except zlib.error as error:
        raise ProbeFailed(
            f"{GITLAB_RB}: what gzip printed on the host cannot be unpacked: {error}",
            hint=f"check gzip on the host: gzip -1c {GITLAB_RB} | gunzip | wc -c",
        ) from error
    if not unpacker.eof:
        problem = f"is larger than {CONTENT_LIMIT >> 20} MiB" if len(content) == CONTENT_LIMIT else "arrived incomplete"
        raise ProbeFailed(f"{GITLAB_RB} {problem}", hint=f"check it on the host: ls -l {GITLAB_RB}")
    return content


@dataclass(frozen=True)
class RubySettings(Resource):
    """These settings are in gitlab.rb. Settings that the task set earlier and no longer wants are removed.

    settings  by path: ("external_url",), ("gitlab_rails", "time_zone"), ("registry", "storage"); a path that
              begins with "registry_nginx" is written as the installed version requires
    absent    settings that are removed, also those that an administrator set: GitLab must not have them beside ours
    generated  whether root keeps the first password that GitLab generates
    """

    settings: Mapping[Path, Any] = field(hash=False)
    notify: tuple[Handler, ...] = ()
    absent: tuple[Path, ...] = ()
    generated: bool = True

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
            Secret(one)  # masked from now on: a reconfigure may print secrets that are not in the inventory
        version = gitlab_version(read_packages(seen["packages"]))
        wanted = {path_in(path, version): value for path, value in self.settings.items()}
        before = _paths(seen.record)
        others = {path for paths in seen.others.values() for path in _paths(paths)}
        dropped = {path for path in before - wanted.keys() - others if not _claims_of(path) & seen.claimed}
        # A hash that was set as a whole earlier, and of which only parts are wanted now, keeps its other parts.
        dropped = {path for path in dropped if not any(one[: len(path)] == path for one in wanted)}
        edited = edit(text or b"", wanted, remove=sorted({*dropped, *self.absent}))
        record = sorted(list(path) for path in _ours(wanted, before | others, edited)) or None
        if text is not None:
            yield from (Note(f"{GITLAB_RB}: {note}") for note in edited.notes)
        if not edited.changes:
            # A setting that another task recorded, too, stays when that task drops it. A dropped setting is no longer ours.
            if before - wanted.keys() or (others & wanted.keys()) - before:
                yield record_only(f"this task's settings in {GITLAB_RB}", record)
            return
        if text is None and not version:
            yield Note(f"GitLab is not installed: its settings are planned by the rules of version {NEWEST}")
            if ("external_url",) in self.settings and _ROOT_PASSWORD not in self.settings and self.generated:
                yield Note(f"GitLab's first password for its user root will be in {ROOT_PASSWORD_FILE} for 24 hours")
        else:
            removed, possible = removed_settings(edited.content, version)
            if removed:
                raise Refused(
                    f"{GITLAB_RB} would have settings with which GitLab {version} cannot be reconfigured: {'; '.join(removed)}",
                    hint="remove them from [gitlab.settings] or by hand, as the release notes of that version explain, then rerun",
                )
            for one in possible:
                yield Note(
                    f"{GITLAB_RB}: only Ruby can tell whether this is set, which the reconfigure would refuse: {one}"
                )
        yield Change(
            f"set {', '.join(dict.fromkeys(_written(one.path) for one in edited.changes))} in {GITLAB_RB}",
            replace(
                GITLAB_RB,
                edited.content,
                mode="0600",
                owner="root:root",
                check=_CHECK_SYNTAX,
                keep=True,
                rollback=ROLLBACK,
            ),
            "update" if text is not None else "create",
            diff(text or b"", edited.content, secret_texts(wanted)),
            self.notify,
            record=record,
            requires="" if text is not None or version else "gitlab",
        )


def _paths(record: Any) -> set[Path]:
    if record is not None and not isinstance(record, list):
        return {tuple(strings(record))}  # raises
    return {tuple(strings(path)) for path in record or () if path}


def _claim(path: Path) -> str:
    return f"gitlab.rb {_written(path)}"


def _claims_of(path: Path) -> Set[str]:
    """The claims that may belong to a recorded path: claims are made before the installed version is known."""
    nginx = {_claim(("registry_nginx", *path[2:]))} if path[:2] == ("registry", "nginx") else set()
    return {_claim(path)} | nginx


def _ours(wanted: Mapping[Path, Any], before: set[Path], edited: EditedRuby) -> Iterator[Path]:
    """The wanted settings that one of our tasks set, now or earlier; others were there before us."""
    touched = [one.path for one in edited.changes]
    for path in wanted:
        if any(path[: len(one)] == one for one in before) or any(
            one[: len(path)] == path[: len(one)] for one in touched
        ):
            yield path


def removed_settings(text: bytes, version: str) -> tuple[list[str], list[str]]:
    """The lines that make this version's reconfigure abort, and those that do so only with some values that Ruby computes.

    Each setting counts with the value that it has at the end of the file. Included files are not read; GitLab's own check
    comes later.
    """
    from provision.editing.ruby.assignments import find_assignments, value_after
    from provision.editing.ruby.source import parse_valid
    from provision.editing.ruby.values import MISSING, NotLiteral, setting_name

    numbers = re.match(r"(\d+)\.(\d+)", version)
    installed = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    rules = [one for one in REMOVED if max(one.version, one.first) <= installed < one.until]
    assignments = find_assignments(parse_valid(text), {one.path[0] for one in rules})
    certain: list[str] = []
    possible: list[str] = []
    for rule in rules:
        setting = assignments.affecting(rule.path)
        value = value_after(setting, rule.path)
        if isinstance(value, Mapping) and value and not rule.only_true:
            given = [one for one in value.values() if one is not None]
            value = next((one for one in given if not isinstance(one, NotLiteral)), given[0] if given else None)
        removed = ".".join(map(str, rule.version))
        line = (
            f"line {setting[-1].line}: {setting_name(rule.path)} (removed in {removed}, {rule.instead})"
            if setting
            else ""
        )
        if isinstance(value, NotLiteral):
            possible.append(line)
        elif value is not MISSING and value is not None and (value is True or not rule.only_true):
            certain.append(line)
    return certain, possible


def path_in(path: Path, version: str) -> Path:
    """The path of a setting in a version of GitLab; "" (a host without GitLab) means the newest.

    `registry_nginx['x']` is `registry['nginx']['x']` from GitLab 19.2 on. Older versions silently ignore the new form.
    """
    from provision.editing.ruby.values import nginx_path

    return (*nginx_path(version or NEWEST), *path[1:]) if path[0] == "registry_nginx" else path


def _written(path: Path) -> str:
    head, *rest = path
    return head + "".join(f"['{key}']" for key in rest)


def reconfigure(
    registry: Url | None = None,
    realm: str = "",
    gitlab: Url | None = None,
    *,
    ready: int = READY_SECONDS,
    limit: int = _LIMIT_SECONDS,
) -> Handler:
    """Reconfigures GitLab, and rolls gitlab.rb back when GitLab does not come up.

    registry, realm  what must answer afterwards, and where it must send clients for tokens; None without a registry
    gitlab, ready    where Rails must answer within so many seconds; None or 0: it is not waited for
    limit            seconds for one `gitlab-ctl show-config` or `reconfigure`, waiting for another one included
    """
    files = (GITLAB_RB, ROLLBACK, PENDING, _REGISTRY_CONFIG)
    limits = (limit, _UP_SECONDS, _STORAGE_SECONDS)
    run = script("reconfigure_gitlab", str(registry or ""), realm, *files, *limits, str(gitlab or ""), ready)
    deadline = 3.0 * limit + ready + 300  # show-config, the reconfigure, and the one of the rollback
    return Handler("reconfigure", "reconfigure GitLab", run, deadline, detached=True, rolls_back=True)


def ready(gitlab: Url, seconds: int) -> Handler:
    """Waits until Rails answers at GitLab's URL, for so many seconds at most: after an upgrade."""
    run = script("wait_for_gitlab", str(gitlab), seconds, PENDING)
    return Handler("gitlab-ready", "wait until GitLab is ready", run, deadline=seconds + 60.0)
