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

from provision.host.pending import PENDING, Handler
from provision.host.scripts import script
from provision.resources.gitlab.ruby_settings import GITLAB_RB, ROLLBACK
from provision.url import Url

WATCH_SECONDS: Final = 35
_UP_SECONDS: Final = 90
_LIMIT_SECONDS: Final = 1500
_CONFIG: Final = "/var/opt/gitlab/registry/config.yml"


def reconfigure(registry: Url | None = None, realm: str = "", *, limit: int = _LIMIT_SECONDS) -> Handler:
    """The handler.

    registry, realm  what must answer afterwards; None for an estate without a registry
    limit            seconds for one `gitlab-ctl reconfigure`, waiting for another one included
    """
    files = (GITLAB_RB, ROLLBACK, PENDING, _CONFIG)
    run = script("reconfigure_gitlab", str(registry or ""), realm, *files, limit, _UP_SECONDS, WATCH_SECONDS)
    deadline = 2.0 * limit + 300
    return Handler("reconfigure", "reconfigure GitLab", run, deadline, detached=True, rolls_back=True)
