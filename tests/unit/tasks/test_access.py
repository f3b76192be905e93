"""The task `access`, with the real engine and the lab's gitlab-rails: the token, its renewal, killed runs, root's password."""

from __future__ import annotations

import datetime
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ApiFailed, UsageError
from provision.resources import ApiAction, ImageCheck, Outcome
from provision.tasks import verify
from provision.testing import observe, planned
from provision_lab.standins.gitlab_ce.host.api.store import Store, check_password, ensure_user
from provision_lab.standins.gitlab_ce.host.layout import Paths
from tests.support.estate import PROJECT, Estate
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

WANTED = f'[projects."{PROJECT}"]\nregistry = "private"\n'
RUNNER = '[[runners]]\nname = "builder"\nexecutor = "docker"\n[runners.docker]\nimage = "docker:28"\n'
NO_TOKEN = {"token": ""}


@pytest.fixture
def rails(estate: Estate) -> Paths:
    """The GitLab host's files."""
    return estate.installs_rails()


def living(estate: Estate) -> list[dict[str, Any]]:
    """The tokens that are not revoked."""
    return [one for one in estate.tokens if not one["revoked"]]


def kept(estate: Estate) -> dict[str, str]:
    """The file with the token, by the first word of each line."""
    text = (estate.home / "api_token").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines())


def days(number: int) -> str:
    """The date in that many days."""
    return str(datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=number))


def age(estate: Estate, left: int) -> None:
    """Makes the kept token so old that it ends in that many days."""
    file = estate.home / "api_token"
    text = file.read_text().replace(f"expires {days(365)}", f"expires {days(left)}")
    file.write_text(text.replace(f"made {days(0)}", f"made {days(left - 365)}"))


def booted(estate: Estate) -> list[str]:
    """The arguments of each call of gitlab-rails."""
    log = estate.folder / "rails.log"
    return log.read_text().splitlines() if log.exists() else []


class TestToken:
    """The token that the inventory does not give."""

    @pytest.mark.usefixtures("rails")
    def test_made_once(self, estate: Estate) -> None:
        """The first run makes it and keeps it for root alone; the second changes nothing and does not start Rails."""
        report = estate.run("access", WANTED, **NO_TOKEN)
        assert report.code == 0, report.errors
        assert report.summaries == ["make a token for GitLab's API (scopes api)"]
        (made,) = estate.tokens
        assert (made["user"], made["scopes"], made["expires_at"]) == ("root", ["api"], days(365))
        assert made["name"].startswith("provision")
        file = estate.home / "api_token"
        assert (file.stat().st_mode & 0o777, kept(estate)["token"]) == (0o600, made["token"])
        assert sorted(one.name for one in estate.home.iterdir()) == ["api_token"]
        assert made["token"] not in str(report.events)
        assert len(booted(estate)) == 1
        assert "runner', '-'" in booted(estate)[0]
        again = estate.run("access", WANTED, **NO_TOKEN)
        assert (again.code, again.summaries, len(booted(estate))) == (0, [], 1)

    @pytest.mark.usefixtures("rails")
    def test_requests_use_it(self, estate: Estate) -> None:
        """A task that asks the API reads it on the GitLab host; nothing shows it."""
        estate.run("access", WANTED, **NO_TOKEN)
        report = estate.run("project", WANTED, **NO_TOKEN)
        assert report.code == 0, report.errors
        assert report.summaries == ["set container_registry_access_level of project root/hello"]
        assert kept(estate)["token"] not in str(report.events)

    @pytest.mark.usefixtures("rails")
    def test_not_made_yet(self, estate: Estate) -> None:
        """Without it, a task names the task that makes it; check mode predicts."""
        report = estate.run("project", WANTED, **NO_TOKEN)
        assert report.code == 1
        assert "it requires access" in report.error.text
        assert estate.run("project", WANTED, check=True, **NO_TOKEN).code == 0
        assert estate.asked == []

    @pytest.mark.parametrize(
        ("text", "scopes"),
        [(RUNNER, ["create_runner", "manage_runner", "read_api"]), (RUNNER + WANTED, ["api"])],
        ids=["runners", "projects"],
    )
    @pytest.mark.usefixtures("rails")
    def test_smallest_scopes(self, estate: Estate, text: str, scopes: list[str]) -> None:
        """It can do what the tables of the inventory need, and no more."""
        estate.run("access", text, **NO_TOKEN)
        assert [one["scopes"] for one in estate.tokens] == [scopes]

    def test_admin_mode(self, estate: Estate, rails: Paths) -> None:
        """In admin mode it has the scope for it."""
        (rails.switches / "settings.json").write_text(json.dumps({"admin_mode": True}))
        estate.run("access", WANTED, **NO_TOKEN)
        assert [one["scopes"] for one in estate.tokens] == [["api", "admin_mode"]]

    @pytest.mark.parametrize("text", ["", RUNNER.replace('"docker"\n[', '"docker"\ntoken = "glrt-abcdefgh"\n[')])
    @pytest.mark.usefixtures("rails")
    def test_not_needed(self, estate: Estate, text: str) -> None:
        """No table needs it: none is made."""
        report = estate.run("access", text, **NO_TOKEN)
        assert (report.code, report.summaries, estate.tokens) == (0, [], [])

    @pytest.mark.usefixtures("rails")
    def test_inventory_wins(self, estate: Estate) -> None:
        """With gitlab.api_token none is made."""
        report = estate.run("access", WANTED)
        assert (report.code, report.summaries, estate.tokens) == (0, [], [])

    @pytest.mark.usefixtures("rails")
    def test_more_scopes(self, estate: Estate) -> None:
        """Further tables that need more: a token with more takes its place, and the old one is revoked."""
        estate.run("access", RUNNER, **NO_TOKEN)
        report = estate.run("access", RUNNER + WANTED, **NO_TOKEN)
        assert report.summaries == ["make a token for GitLab's API (it needs the scopes api)"]
        assert [one["revoked"] for one in estate.tokens] == [True, False]
        assert estate.run("access", RUNNER, **NO_TOKEN).summaries == []

    @pytest.mark.parametrize(("left", "renewed"), [(31, False), (30, True), (1, True), (-5, True)])
    @pytest.mark.usefixtures("rails")
    def test_renewal(self, estate: Estate, left: int, renewed: bool) -> None:
        """It is renewed 30 days before its end, and the old one is revoked."""
        estate.run("access", WANTED, **NO_TOKEN)
        before = kept(estate)["token"]
        age(estate, left)
        report = estate.run("access", WANTED, **NO_TOKEN)
        assert bool(report.summaries) is renewed
        assert (kept(estate)["token"] != before) is renewed
        assert [one["token"] for one in living(estate)] == [kept(estate)["token"]]

    def test_revoked_by_hand(self, estate: Estate, rails: Paths) -> None:
        """GitLab refuses it: naming the task makes another one."""
        estate.run("access", WANTED, **NO_TOKEN)
        with Store(rails.database) as store:
            store.all("tokens")[-1]["revoked"] = True
            store.changed()
        refused = estate.run("project", WANTED, **NO_TOKEN)
        assert "`provision access` makes another one" in refused.error.hint
        report = estate.run("access", WANTED, named="access", **NO_TOKEN)
        assert report.summaries == ["make a token for GitLab's API (GitLab does not accept the present one any more)"]
        assert len(living(estate)) == 1
        assert estate.run("project", WANTED, **NO_TOKEN).code == 0

    def test_without_rails(self, estate: Estate) -> None:
        """On a host without GitLab it requires the task gitlab; check mode predicts."""
        estate.folders |= {"/opt/gitlab": estate.folder / "none"}
        report = estate.run("access", WANTED, **NO_TOKEN)
        assert report.code == 1
        assert "it requires gitlab" in report.error.text
        assert estate.run("access", WANTED, check=True, **NO_TOKEN).summaries == [
            "make a token for GitLab's API (scopes api)"
        ]

    @pytest.mark.usefixtures("rails")
    def test_check(self, estate: Estate) -> None:
        """Check mode makes none."""
        assert estate.run("access", WANTED, check=True, **NO_TOKEN).summaries
        assert (estate.tokens, booted(estate)) == ([], [])

    @pytest.mark.usefixtures("rails")
    def test_broken_file(self, estate: Estate) -> None:
        """A file of another form is refused, and kept."""
        (estate.home / "api_token").write_text("expires tomorrow\n")
        report = estate.run("access", WANTED, **NO_TOKEN)
        assert report.code == 1
        assert "has not the form that this program writes" in report.error.text

    def test_still_an_error_for_others(self, estate: Estate) -> None:
        """A GitLab that somebody else installs: a missing token is a mistake in the inventory, as before."""
        estate.more = "install = false\n"
        with pytest.raises(UsageError, match=r"gitlab\.api_token is missing"):
            estate.run("project", WANTED, **NO_TOKEN)


class TestVerify:
    """The login of `verify` that the inventory does not give."""

    CHECK = f'{WANTED}[registry]\nexternal_url = "https://gitlab.example.com:5555"\n'

    def action(self, estate: Estate) -> Outcome:
        """The request of the check, sent."""
        host = estate.inventory(self.CHECK, "runner-1")
        (check,) = [one for one in verify.resources(host) if isinstance(one, ImageCheck)]
        assert (check.user, check.password, check.image) == ("provision", None, PROJECT)
        (change,) = planned(check, observe(check, 0, due=True))
        assert isinstance(change.run, ApiAction)
        outcome = change.run.make()
        assert outcome is not None
        return outcome

    def bots(self, estate: Estate) -> list[tuple[int, list[str], bool]]:
        """Role, scopes and validity of the tokens of the project's bots."""
        return [(one["access_level"], one["scopes"], not one["revoked"]) for one in estate.tokens if "bot_of" in one]

    def test_for_one_check(self, estate: Estate) -> None:
        """A bot of the project, with the role that deletes images; its token is on standard input, and ends with the check."""
        outcome = self.action(estate)
        (token,) = [one["token"] for one in estate.tokens]
        assert outcome.run.stdin.decode() == f"{token}\n"
        assert token not in outcome.run.script
        assert self.bots(estate) == [(40, ["api"], True)]
        assert outcome.after is not None
        outcome.after()
        assert self.bots(estate) == [(40, ["api"], False)]

    def test_after_a_killed_run(self, estate: Estate) -> None:
        """What a killed run left is revoked by the next one."""
        self.action(estate)
        self.action(estate)
        assert self.bots(estate) == [(40, ["api"], False), (40, ["api"], True)]

    def test_refused(self, estate: Estate) -> None:
        """GitLab's reason, and the key to give instead."""
        estate.faults({"method": "POST", "path": "/api/v4/projects/*/access_tokens", "status": 400})
        with pytest.raises(ApiFailed, match="no login for the check can be made in project root/hello") as caught:
            self.action(estate)
        assert "registry.login" in caught.value.hint

    def test_nothing_to_push_to(self, estate: Estate) -> None:
        """No project with a registry, or no token for the API: no check."""
        off = self.CHECK.replace('"private"', '"disabled"')
        assert verify.resources(estate.inventory(off, "runner-1")) == ()
        estate.more = "install = false\n"
        assert verify.resources(estate.inventory(self.CHECK, "runner-1", token="")) == ()


class TestKilled:
    """A run that is killed while it makes the token."""

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_one_token(self, estate: Estate, rails: Paths, moment: str) -> None:
        """Killed before or after GitLab has stored it: the next run completes it, and no second one is alive."""
        estate.run("access", WANTED, **NO_TOKEN)
        first = kept(estate)["token"]
        (estate.home / "api_token").write_text("made 2020-01-01\nexpires 2020-12-31\nscopes api\ntoken old\n")
        switch = rails.switches / ("rails-runner-seconds" if moment == "before" else "rails-runner-exit-seconds")
        switch.write_text("60")
        pid = os.fork()
        if pid == 0:
            os.setsid()
            try:
                estate.run("access", WANTED, **NO_TOKEN)
            finally:
                os._exit(0)
        try:
            wait_for(lambda: _is_there(estate, moment, first), f"the moment {moment} GitLab has stored it", 30)
        finally:
            kill_tree(pid)
        switch.unlink()
        assert (estate.home / "api_token.new").exists()
        assert len(living(estate)) == 1
        report = estate.run("access", WANTED, **NO_TOKEN)
        assert report.summaries == ["make a token for GitLab's API (an earlier run was ended while it made one)"]
        (one,) = living(estate)
        assert one["token"] == kept(estate)["token"] != first
        assert sorted(file.name for file in estate.home.iterdir()) == ["api_token"]


class TestRootPassword:
    """gitlab.root_password."""

    GENERATED = "kZ8vT2mQx4Rr1LsW9yBn6HcJ3fDp5GtA0eUiOo7KvMw="
    OURS = "correct-horse-battery-7"

    @pytest.fixture
    def fresh(self, estate: Estate, rails: Paths) -> Estate:
        """A GitLab that was just installed: root has a generated password, which a file holds."""
        with Store(rails.database) as store:
            ensure_user(store, "root", self.GENERATED)
        rails.initial_root_password.parent.mkdir(parents=True, exist_ok=True)
        rails.initial_root_password.write_text(f"# WARNING: …\n\nPassword: {self.GENERATED}\n\n# NOTE: …\n")
        estate.more = f'root_password = "{self.OURS}"\n'
        return estate

    def is_root(self, estate: Estate, password: str) -> bool:
        """Whether it is root's password."""
        (root,) = [one for one in estate.database["users"] if one["username"] == "root"]
        return check_password(root, password)

    def test_set_once(self, fresh: Estate, rails: Paths) -> None:
        """It is set in the same start of Rails as the token, and the file with the other one goes away."""
        report = fresh.run("access", WANTED, **NO_TOKEN)
        assert report.code == 0, report.errors
        assert report.summaries == ["make a token for GitLab's API (scopes api) and set root's password"]
        assert self.is_root(fresh, self.OURS)
        assert (rails.initial_root_password.exists(), len(booted(fresh))) == (False, 1)
        for secret in (self.OURS, self.GENERATED, self.OURS.encode().hex()):
            assert secret not in str(report.events)
            assert secret not in "".join(booted(fresh))
        fresh.more = 'root_password = "another-correct-horse-8"\n'
        assert fresh.run("access", WANTED, **NO_TOKEN).summaries == []
        assert self.is_root(fresh, self.OURS)

    def test_a_renewal_does_not_send_it(self, fresh: Estate) -> None:
        """Root's password is set already: nothing is said about it."""
        fresh.run("access", WANTED, **NO_TOKEN)
        age(fresh, 10)
        report = fresh.run("access", WANTED, **NO_TOKEN)
        assert report.summaries == [f"make a token for GitLab's API (the present one ends on {days(10)})"]
        assert "root's password" not in str(report.events)

    def test_beside_a_token_of_the_inventory(self, fresh: Estate) -> None:
        """It needs no token."""
        assert fresh.run("access", WANTED).summaries == ["set root's password"]
        assert (self.is_root(fresh, self.OURS), fresh.tokens) == (True, [])

    def test_changed_by_hand(self, fresh: Estate, rails: Paths) -> None:
        """Whoever changed it meanwhile keeps it."""
        with Store(rails.database) as store:
            ensure_user(store, "root", "changed by hand")
        assert fresh.run("access", WANTED).code == 0
        assert self.is_root(fresh, "changed by hand")
        assert fresh.run("access", WANTED).summaries == []

    def test_refused(self, fresh: Estate) -> None:
        """GitLab refuses a weak one: the message has GitLab's reason and not the password. A better one is then set."""
        fresh.more = 'root_password = "my-gitlab-password"\n'
        report = fresh.run("access", WANTED, **NO_TOKEN)
        assert "Password must not contain commonly used combinations of words and letters" in report.error.text
        assert "my-gitlab-password" not in str(report.events)
        fresh.more = f'root_password = "{self.OURS}"\n'
        assert fresh.run("access", WANTED, **NO_TOKEN).code == 0
        assert (self.is_root(fresh, self.OURS), len(living(fresh))) == (True, 1)

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ("install = false\n", "only a GitLab that is installed here"),
            ('settings = { gitlab_rails = { initial_root_password = "x" } }\n', "initial_root_password: goes with"),
        ],
    )
    def test_mistakes(self, estate: Estate, more: str, words: str) -> None:
        """It is refused where it would have no effect."""
        estate.more = f'root_password = "{self.OURS}"\n{more}'
        with pytest.raises(UsageError, match=words):
            estate.run("access", "")


def _is_there(estate: Estate, moment: str, first: str) -> bool:
    if moment == "before":
        return (estate.home / "api_token.new").exists() and len(booted(estate)) == 2
    return bool([one for one in living(estate) if one["token"] != first])


def kill_tree(pid: int) -> None:
    """Kills a process and everything that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = children.read_text().split() if children.exists() else []
    os.kill(pid, 9)
    for one in below:
        kill_tree(int(one))
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
