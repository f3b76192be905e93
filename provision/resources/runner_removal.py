"""Taking a runner that we once registered out of GitLab, before its entry leaves config.toml.

Asked from the host, with the runner's own token on curl's standard input: `DELETE /runners` removes a runner that we made by
the API, `DELETE /runners/managers` only this host's part in one that somebody else made (as `gitlab-runner
unregister` does with a glrt- token). GitLab's 403 and 404 mean that it is gone already; anything else leaves all as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from provision.resources.base import Change
from provision.resources.runner_toml import Entry
from provision.shell import Command

_UNREGISTER = r"""
system=$(cat /etc/gitlab-runner/.runner_system_id 2>/dev/null)
while read -r what url token; do
  machine="&system_id=$system"
  [ "$what" != - ] || what= machine=
  name=${url#*://}; name=${name%%[:/]*}; ca=/etc/gitlab-runner/certs/$name.crt
  said=$({
    [ ! -e "$ca" ] || printf 'cacert = "%s"\n' "$ca"
    printf 'request = "DELETE"\nurl = "%s/api/v4/runners%s"\ndata = "token=%s%s"\n' "$url" "$what" "$token" "$machine"
  } | curl -sS -o /dev/null -w '%{http_code} %{content_type}' --max-time 20 -K - 2>&1)
  case $said in
    204*|'403 application/json'*|'404 application/json'*) ;;
    *) printf 'GitLab at %s did not take the runner out: %s\n' "$url" "$said" >&2; exit 1 ;;
  esac
done
"""


def unregister(gone: Sequence[tuple[Entry, bool]]) -> Iterator[Change]:
    """A change that takes these entries' runners out of GitLab; True with one that we made by the API."""
    if not gone:
        return
    lines = "".join(f"{'-' if made else '/managers'} {entry.url.rstrip('/')} {entry.token}\n" for entry, made in gone)
    names = ", ".join(f"{entry.name} ({entry.url})" for entry, _ in gone)
    yield Change(f"unregister {names} from GitLab", Command(_UNREGISTER).reading(lines), "delete", deadline=90)
