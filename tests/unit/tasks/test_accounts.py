"""The task `accounts`, with the real engine and the lab's API: users, groups, projects and members."""

from __future__ import annotations

from typing import Any

import pytest

from provision.errors import InventoryError
from tests.support.estate import PROJECT, Estate

pytestmark = pytest.mark.slow

USER = '[gitlab.users.anna]\nname = "Anna A."\nemail = "anna@example.com"\npassword = "correct-horse-battery-7"\n'
GROUPS = """
[gitlab.groups.team]
visibility = "internal"
members = { anna = "owner" }
[gitlab.groups."team/sub"]
description = "Below"
members = { anna = "owner", sammy = "developer" }
"""
MINE = """
[projects."anna/hello_hapi"]
create = true
visibility = "internal"
description = "Says hello"
default_branch = "trunk"
members = { sammy = "maintainer" }
"""
THEIRS = '[projects."team/sub/shop"]\ncreate = true\n'
ALL = USER + GROUPS + MINE + THEIRS


def user(estate: Estate, name: str) -> dict[str, Any]:
    """A user in GitLab."""
    (found,) = estate.ask("GET", f"/users?username={name}")
    return dict(found)


def members(estate: Estate, kind: str, path: str) -> dict[str, int]:
    """The direct members' levels."""
    found = estate.ask("GET", f"/{kind}/{path.replace('/', '%2F')}/members")
    return {one["username"]: one["access_level"] for one in found}


class TestCreated:
    """What GitLab lacks."""

    def test_everything(self, estate: Estate) -> None:
        """A user, groups, projects in both, and members, in one run; the next one asks nothing."""
        report = estate.run("accounts", ALL)
        assert report.code == 0, report.errors
        assert report.summaries == [
            "create user anna",
            "create group team",
            "add anna as owner to group team",
            "create group team/sub",
            "add anna as owner to group team/sub",
            "add sammy as developer to group team/sub",
            "create project anna/hello_hapi",
            "add sammy as maintainer to project anna/hello_hapi",
            "create project team/sub/shop",
        ]
        assert "correct-horse-battery-7" not in str(report.events)
        assert {name: user(estate, "anna")[name] for name in ("name", "email", "is_admin", "external")} == {
            "name": "Anna A.",
            "email": "anna@example.com",
            "is_admin": False,
            "external": False,
        }
        assert estate.ask("GET", "/groups/team")["visibility"] == "internal"
        assert estate.ask("GET", "/groups/team%2Fsub")["description"] == "Below"
        assert members(estate, "groups", "team/sub") == {"root": 50, "anna": 50, "sammy": 30}
        project = estate.ask("GET", "/projects/anna%2Fhello_hapi")
        assert (project["visibility"], project["description"], project["empty_repo"]) == (
            "internal",
            "Says hello",
            True,
        )
        assert members(estate, "projects", "anna/hello_hapi") == {"anna": 50, "sammy": 40}
        again = estate.run("accounts", ALL)
        assert (again.code, again.summaries, estate.asked) == (0, [], [])

    def test_named(self, estate: Estate) -> None:
        """Named by the user, it compares with a few requests, and changes nothing."""
        estate.run("accounts", ALL)
        report = estate.run("accounts", ALL, named="accounts")
        assert (report.code, report.summaries) == (0, [])
        assert len(estate.asked) == 1 + 2 * 2 + 2 + 1

    def test_check(self, estate: Estate) -> None:
        """Check mode shows all of it and makes none."""
        report = estate.run("accounts", ALL, check=True)
        assert report.summaries[:4] == [
            "create user anna",
            "create group team",
            "add anna as owner to group team",
            "create group team/sub",
        ]
        assert [one for one in estate.asked if not one.startswith("GET ")] == []

    def test_check_without_a_token(self, estate: Estate) -> None:
        """On a GitLab that has no token yet, check mode predicts, and a run names the task that makes it."""
        estate.installs_rails()
        assert estate.run("accounts", USER, check=True, token="").summaries == ["create user anna"]
        assert "it requires access" in estate.run("accounts", USER, token="").error.text
        theirs = f'[projects."{PROJECT}"]\ndescription = "x"\n'
        assert estate.run("accounts", theirs, check=True, token="").summaries == []

    def test_without_a_password(self, estate: Estate) -> None:
        """GitLab makes a random one."""
        estate.run("accounts", '[gitlab.users.anna]\nemail = "anna@example.com"\n')
        (sent,) = [one for one in estate.bodies if "username" in one]
        assert sent == {
            "name": "anna",
            "email": "anna@example.com",
            "username": "anna",
            "skip_confirmation": True,
            "force_random_password": True,
        }

    def test_all_the_way(self, estate: Estate) -> None:
        """The pipeline of a project that was created is its first commit, on the wanted branch."""
        pipeline = (
            '[projects."anna/hello_hapi".pipeline]\ntemplate = "registry"\nimage = "anna/hello_hapi"\ntest = "true"\n'
        )
        text = USER + MINE + pipeline
        assert "it requires accounts" in estate.run("pipeline", text).error.text
        settings = MINE.replace("create = true", "create = true\nshared_runners = true")
        assert "it requires accounts" in estate.run("project", USER + settings).error.text
        assert estate.run("accounts", text).code == 0
        assert estate.run("pipeline", text).code == 0
        assert estate.ask("GET", "/projects/anna%2Fhello_hapi")["default_branch"] == "trunk"
        assert estate.run("accounts", text, named="accounts").summaries == []


class TestConverged:
    """What exists."""

    def test_settings(self, estate: Estate) -> None:
        """Settings that are named are set; the others, and the password, stay."""
        estate.run("accounts", ALL)
        changed = (
            ALL.replace('name = "Anna A."', 'name = "Anna B."\nexternal = true')
            .replace("correct-horse-battery-7", "another-horse-battery-8")
            .replace('visibility = "internal"\nmembers', 'visibility = "public"\nmembers')
            .replace('"Says hello"', '"Says more"')
            .replace('sammy = "developer"', 'sammy = "maintainer"')
        )
        report = estate.run("accounts", changed)
        assert report.summaries == [
            "set name, external of user anna",
            "set visibility of group team",
            "make sammy maintainer of group team/sub, not developer",
            "set description of project anna/hello_hapi",
        ]
        assert "-description: Says hello\n+description: Says more" in report.diffs
        assert [one for one in estate.bodies if "password" in one] == []
        assert estate.run("accounts", changed, named="accounts").summaries == []

    def test_nothing_is_deleted(self, estate: Estate) -> None:
        """What leaves the inventory stays in GitLab, members too."""
        estate.run("accounts", ALL)
        fewer = GROUPS.replace(', sammy = "developer"', "")
        report = estate.run("accounts", USER.replace("anna", "otto").replace("Anna A.", "Otto") + fewer)
        assert report.summaries == ["create user otto"]
        assert members(estate, "groups", "team/sub")["sammy"] == 30
        assert user(estate, "anna")["state"] == "active"

    def test_existing_project(self, estate: Estate) -> None:
        """Without create, an existing project gets its settings; a missing one is an error as before."""
        text = f'[projects."{PROJECT}"]\ndescription = "x"\nmembers = {{ sammy = "reporter" }}\n'
        assert estate.run("accounts", text).summaries == [
            "set description of project root/hello",
            "add sammy as reporter to project root/hello",
        ]
        missing = estate.run("accounts", text.replace(PROJECT, "root/missing"))
        assert missing.code == 1
        assert "project root/missing does not exist" in missing.error.text
        assert "create = true" in missing.error.hint


class TestRefused:
    """GitLab's refusals, and mistakes in the inventory."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (USER.replace("correct-horse-battery-7", "short"), "is too short (minimum is 8 characters)"),
            (USER.replace("correct-horse-battery-7", "my-gitlab-7"), "must not contain commonly used combinations"),
            (USER.replace("users.anna", "users.admin"), "admin is a reserved name"),
            (USER.replace("users.anna", "users.team2") + "[gitlab.groups.team2]\n", "has already been taken"),
            ("[gitlab.groups.dashboard]\n", "dashboard is a reserved name"),
            ('[gitlab.groups."none/sub"]\n', "GitLab has no user or group none"),
            ('[gitlab.groups.team]\nmembers = { nobody = "guest" }\n', "GitLab has no user nobody"),
            (
                '[gitlab.groups.team]\n[gitlab.groups."team/sub"]\nvisibility = "public"\n',
                "public is not allowed since the parent group has a private visibility",
            ),
            (
                '[gitlab.groups.team]\n[projects."team/x"]\ncreate = true\nvisibility = "internal"\n',
                "internal is not allowed in a private group",
            ),
            ('[projects."root/tree"]\ncreate = true\n', "tree is a reserved name"),
            ('[projects."nobody/x"]\ncreate = true\n', "GitLab has no user or group nobody"),
            (f'[projects."{PROJECT}"]\nmembers = {{ root = "guest" }}\n', "Member"),
        ],
    )
    def test_by_gitlab(self, estate: Estate, text: str, words: str) -> None:
        """The reason is GitLab's, or names what is missing."""
        report = estate.run("accounts", text)
        assert report.code == 1
        assert words in f"{report.error.text} {report.error.hint}"
        assert "my-gitlab-7" not in str(report.events)

    def test_an_address_that_another_user_has(self, estate: Estate) -> None:
        """Another user has the address: nothing is created, and the run ends."""
        estate.run("accounts", USER)
        report = estate.run("accounts", USER.replace("users.anna", "users.otto"))
        assert "409 Email has already been taken" in report.error.text

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (USER.replace("users.anna", 'users."anna/x"'), "expected a user name"),
            (USER.replace("anna@example.com", "anna"), "expected one e-mail address"),
            (USER + USER.replace("users.anna", "users.otto"), "has this address, too"),
            ('[gitlab.groups."team.git"]\n', "expected a group's path"),
            ('[gitlab.groups.team]\nmembers = { anna = "boss" }\n', "members.anna"),
        ],
    )
    def test_mistakes(self, estate: Estate, text: str, words: str) -> None:
        """They are found before anything is contacted."""
        with pytest.raises(InventoryError, match=words):
            estate.run("accounts", text)
