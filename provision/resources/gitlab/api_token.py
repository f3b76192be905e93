"""The token for GitLab's API that is made and kept on the GitLab host, and root's first password.

Both need `gitlab-rails runner`, which takes 30 to 60 s to start: it runs only when there is something to make, and once for
both. The token is in a file that only root can read. Requests read it from there when they are sent (`KeptTokens`).

Root's password is set through Rails, because both ways of the package leave it in readable places: a reconfigure passes
GITLAB_ROOT_PASSWORD, and gitlab_rails['initial_root_password'], to Rails in its environment, and the second one stays in
gitlab.rb. Source: omnibus-gitlab's gitlab/recipes/database_migrations.rb.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import ApiFailed, ProbeFailed
from provision.gitlab.access import API_TOKEN
from provision.gitlab.api import Api
from provision.host.scripts import script
from provision.resources.base import ApiQuery, Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.gitlab_rb import ROOT_PASSWORD_FILE
from provision.secret import Secret

NAME: Final = f"provision, kept in {API_TOKEN}"
"""The token's name in GitLab: every other active token of this name is revoked."""
RENEW_DAYS: Final = 30
_DEADLINE: Final = 900.0  # seconds; gitlab-rails takes 30 to 60 s on the machines that GitLab recommends
_ALL: Final = "api"  # this scope includes all others that are needed, admin_mode apart


@dataclass(frozen=True)
class ApiToken(Resource):
    """A token for GitLab's API is kept on this host, and root has its first password.

    scopes         what the token must be able to do; () makes no token
    api            the API, with the kept token
    root_password  None: that which GitLab generated
    """

    scopes: tuple[str, ...]
    api: Api
    root_password: Secret | None = None

    @property
    def label(self) -> str:
        return f"ApiToken {API_TOKEN}"

    def probe(self) -> Probe:
        known = script("observe_api_token", API_TOKEN, ROOT_PASSWORD_FILE)
        if not self.scopes:
            return Probe({"known": known})
        return Probe({"known": known}, when_due={"refused": ApiQuery(("token valid", self.api.url), self._refused)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        known = dict(line.partition(" ")[::2] for line in seen["known"].text.splitlines())
        reason = self._reason(known, bool(seen.due and self.scopes and seen.data("refused")))
        parts = [f"make a token for GitLab's API ({reason})"] if reason else []
        password = ""
        if self.root_password is not None and ("initial" in known or "rails" not in known):
            parts.append("set root's password")
            password = self.root_password.reveal().encode().hex()
        if not parts:
            return
        make = script("make_api_token", API_TOKEN, NAME, " ".join(self.scopes) if reason else "", ROOT_PASSWORD_FILE)
        yield Change(
            " and ".join(parts),
            make.reading(f"{password}\n"),
            "update" if "expires" in known or not reason else "create",
            deadline=_DEADLINE,
            requires="" if "rails" in known else "gitlab",
            id="make",
        )

    def _reason(self, known: dict[str, str], refused: bool) -> str:
        """Why a token must be made; "" if the kept one suffices. Raises ProbeFailed for a file of another form."""
        if not self.scopes:
            return ""
        scopes = f"scopes {', '.join(self.scopes)}"
        if "unfinished" in known:
            return "an earlier run was ended while it made one"
        if "expires" not in known:
            return scopes
        try:
            today, made, end = (datetime.date.fromisoformat(known.get(one, "")) for one in ("today", "made", "expires"))
        except ValueError as error:
            raise ProbeFailed(
                f"{API_TOKEN} has not the form that this program writes: {error}",
                hint=f"remove the file, and revoke the token {NAME!r} in GitLab; then rerun the command",
            ) from error
        given = set(known.get("scopes", "").split(","))
        if _ALL not in given and not set(self.scopes) <= given:
            return f"it needs the {scopes}"
        # An administrator may have limited tokens to a few days: then a token is renewed in the second half of its life.
        if (end - today).days <= min(RENEW_DAYS, (end - made).days // 2):
            return f"the present one ends on {end}"
        return "GitLab does not accept the present one any more" if refused else ""

    def _refused(self, seen: Observation) -> bool:
        """Whether GitLab answers that the kept token is not valid. False if that is unknown."""
        del seen
        try:
            self.api.get("/personal_access_tokens/self")
        except ApiFailed as error:
            return error.status == 401
        return False
