"""Who may do what: roles in projects and groups, administrators, protected branches, and the limit of requests.

Sources: GitLab's lib/gitlab/access.rb (levels), config/authz/roles/*.yml (the abilities of each role),
lib/gitlab/user_access.rb (branches), lib/gitlab/rack_attack (limits); docs.gitlab.com, "Admin Mode".

/etc/gitlab-standin/settings.json holds what an administrator sets in the admin area:

    {"admin_mode": true, "two_factor": ["sammy"], "require_two_factor": true, "git_passwords": false,
     "api_throttle": {"requests": 7200, "period": 3600}}
"""

from __future__ import annotations

import threading
import time
from email.utils import formatdate
from typing import Any

from .http import Context, Request, Response, authenticate_token, forbidden, not_found
from .store import Record, Store

GUEST, PLANNER, REPORTER, DEVELOPER, MAINTAINER, OWNER, NO_ONE = 10, 15, 20, 30, 40, 50, 60
LEVELS = {
    "guest": GUEST,
    "planner": PLANNER,
    "reporter": REPORTER,
    "developer": DEVELOPER,
    "maintainer": MAINTAINER,
    "owner": OWNER,
    "nobody": NO_ONE,
}


def is_admin(context: Context) -> bool:
    """Whether the caller is an administrator. In admin mode the token needs the scope admin_mode for it."""
    if context.user is None or not context.user["admin"]:
        return False
    return not context.switches.get("admin_mode") or "admin_mode" in (context.token or {}).get("scopes", ())


def role(store: Store, user: Record | None, path: str) -> int:
    """The level of a user in the project or group at `path`: their own namespace, or a membership here or above."""
    if user is None:
        return 0
    parts = path.split("/")
    if parts[0] == user["username"]:
        return OWNER
    above = {"/".join(parts[: length + 1]) for length in range(len(parts))}
    mine = (one for one in store.all("members") if one["user"] == user["username"] and one["path"] in above)
    return max((LEVELS[one["role"]] for one in mine), default=0)


def level(context: Context, path: str) -> int:
    """The level of the caller there; an administrator has an owner's everywhere."""
    return OWNER if is_admin(context) else role(context.store, context.user, path)


def maintained(context: Context, record: Record) -> bool:
    """Whether the caller is at least a maintainer of the project."""
    return level(context, record["path_with_namespace"]) >= MAINTAINER


def find_project(context: Context, identity: str, least: int = GUEST) -> Record:
    """A project by number or path. Raises 404 for those who may not see it, and 403 below the level `least`.

    All users read public and internal projects as a reporter does.
    """
    number = int(identity) if identity.isdigit() else None
    found = context.store.find("projects", **({"id": number} if number else {"path_with_namespace": identity}))
    own = level(context, found["path_with_namespace"]) if found else 0
    if found and found["visibility"] != "private":
        own = max(own, REPORTER)
    if found is None or own < GUEST:
        raise not_found("Project")
    if own < least:
        raise forbidden()
    return found


def find_group(context: Context, identity: str, least: int = GUEST) -> Record:
    """A group by number or path. Raises 404 and 403 as `find_project`. Groups are private here."""
    number = int(identity) if identity.isdigit() else None
    found = context.store.find("groups", **({"id": number} if number else {"full_path": identity}))
    own = level(context, found["full_path"]) if found else 0
    if found is None or own < GUEST:
        raise not_found("Group")
    if own < least:
        raise forbidden()
    return found


def is_protected(context: Context, project: Record, branch: str) -> bool:
    """Whether a branch has a rule of its own, or is the default branch, which always is."""
    return branch == project["default_branch"] or _rule(context, project, branch) is not None


def may_push(context: Context, project: Record, branch: str) -> bool:
    """Whether the caller may push to a branch: a developer does, unless it is protected."""
    rule = _rule(context, project, branch)
    protected = is_protected(context, project, branch)
    least = LEVELS[rule["push"]] if rule else MAINTAINER if protected else DEVELOPER
    return level(context, project["path_with_namespace"]) >= least


def _rule(context: Context, project: Record, branch: str) -> Record | None:
    return context.store.find("protected_branches", project=project["path_with_namespace"], branch=branch)


class Throttle:
    """Counts each user's requests to the API in periods of the clock, as Rack::Attack does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], int] = {}

    def refusal(self, request: Request, store: Store, limits: dict[str, Any] | None) -> Response | None:
        """429 for a request above the limit `{"requests": …, "period": …}` of its user; None when it may pass."""
        if not limits or not request.path.startswith("/api/"):
            return None
        with store:
            token = authenticate_token(request, store)
        if token is None:
            return None
        requests, period = int(limits["requests"]), int(limits["period"])
        moment = int(time.time())
        with self._lock:
            key = (str(token["user"]), moment // period)
            observed = self._counts[key] = self._counts.get(key, 0) + 1
        if observed <= requests:
            return None
        wait = period - moment % period
        headers = {
            "Content-Type": "text/plain",
            "RateLimit-Name": "throttle_authenticated_api",
            "RateLimit-Limit": str(-(-requests * 60 // period)),
            "RateLimit-Observed": str(observed),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(moment + wait),
            "RateLimit-ResetTime": formatdate(moment + wait, usegmt=True),
            "Retry-After": str(wait),
        }
        return Response(429, "Retry later", headers)
