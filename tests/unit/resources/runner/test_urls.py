"""One runner, one entry: its server's URL may be written in another way, or have changed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from provision.editing.toml.model import same_url
from provision.resources import RunnerEntry
from provision.resources.base import ApiAction
from provision.resources.runner.registrations import ask_tokens, read_tokens
from provision.shell import Result
from provision.testing import LocalSession
from tests.support.programs import Programs
from tests.unit.resources.runner.test_entries import OTHERS, URL, Case, creator, entry, recorded, section, unverified

HTTP = "http://gitlab.example.com"
OLD = "https://old.example.com"


def at(url: str, text: str) -> str:
    """A section with another URL."""
    assert URL in text
    return text.replace(URL, url)


def record_at(url: str, **tokens: str) -> dict[str, Any]:
    """A record of runners on another URL."""
    found = recorded(**tokens)
    for one in found["runners"].values():
        one["url"] = url
    return found


def answers(url: str, token: str, status: int = 200) -> str:
    """A server's answer."""
    return f"{status} {7 if status == 0 else 0} {url} {token}"


class TestSameServer:
    """What gitlab-runner takes for one server. Source: its network/client.go, fixCIURL."""

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            (URL, f"{URL}/ci", True),
            (URL, f"{URL}/ci/", True),
            (URL, "https://GitLab.Example.com:443/ci", True),
            (f"{URL}/git", f"{URL}/git/ci", True),
            (URL, f"{URL}/cia", False),
            (URL, f"{URL}/ci/ci", False),
            (URL, f"{URL}/CI", False),
            (URL, HTTP, False),
            (URL, f"{URL}:8443", False),
        ],
    )
    def test_it(self, one: str, other: str, same: bool) -> None:
        """In both directions."""
        assert (same_url(one, other), same_url(other, one)) == (same, same)

    @pytest.mark.parametrize("url", [f"{URL}/ci", f"{URL}/ci/", "https://GITLAB.example.com:443"])
    def test_an_entry_with_another_spelling_is_converged(self, url: str) -> None:
        """Of old registrations: nothing is changed, and no second entry is added."""
        text = OTHERS + at(url, section())
        for ours in (recorded(builder="glrt-mine"), record_at(url, builder="glrt-mine"), None):
            assert Case(entry(), text=text, tokens=answers(URL, "glrt-mine"), ours=ours).changes == []

    @pytest.mark.parametrize("url", [f"{URL}/ci", "https://GITLAB.example.com:443"])
    def test_a_created_runner_is_found_under_another_spelling(self, url: str) -> None:
        """It is not created a second time."""
        created = RunnerEntry("builder", URL, {"executor": "docker"}, None, creator())
        text = OTHERS + at(url, section(token="glrt-born", number=7))
        case = Case(created, text=text, tokens=answers(URL, "glrt-born"), ours=recorded(builder_7="glrt-born"))
        assert not [one for one in case.changes if isinstance(one.run, ApiAction)]

    def test_a_dropped_one_is_unregistered(self) -> None:
        """At the server, without /ci."""
        text = OTHERS + at(f"{URL}/ci", section())
        change = Case(text=text, ours=recorded(builder="glrt-mine")).changes[0]
        assert change.summary.startswith("unregister builder")
        assert change.run.stdin == f"/managers {URL} glrt-mine\n".encode()


class TestAsking:
    """The host asks about tokens under the URL of the inventory."""

    @staticmethod
    def ask(folder: Path, config: str, url: str) -> tuple[Result, str]:
        """Asks a server, which knows every token, about those of config.toml; the answer, and what curl was given."""
        (folder / "config.toml").write_text(config)
        programs, given = Programs(folder), folder / "given"
        programs.add("curl", f"cat >> {given}; printf 'answer=200 application/json'")
        host = LocalSession({}, {"PATH": programs.path})
        result = host.run(ask_tokens(str(folder / "config.toml"), [url], []), deadline=30)
        return result, given.read_text()

    @pytest.mark.parametrize(
        ("written", "asked"),
        [
            (f"{URL}/ci", True),
            (f"{URL}/ci/", True),
            ("https://GitLab.example.com:443", True),
            (HTTP, True),
            (f"{HTTP}/ci", True),
            (f"{HTTP}:8080", False),
            (f"{URL}.evil.org", False),
            (f"{URL}:8443", False),
            (f"{URL}/cia", False),
        ],
    )
    def test_which_tokens_are_asked(self, tmp_path: Path, written: str, asked: bool) -> None:
        """Those of the same server in another spelling, and those of the server before it had TLS."""
        result, text = self.ask(tmp_path, at(written, section()), URL)
        assert read_tokens(result).status == {(URL, "glrt-mine" if asked else "-"): 200}
        assert ("glrt-mine" in text) == asked
        assert f'url = "{URL}/api/v4/' in text

    def test_a_token_of_https_is_never_sent_by_http(self, tmp_path: Path) -> None:
        """Where the inventory names http by mistake."""
        result, text = self.ask(tmp_path, section(), HTTP)
        assert result.code == 0
        assert "glrt-mine" not in text


class TestMoved:
    """The server's URL changed; the runner's token stayed."""

    @pytest.mark.parametrize("old", [HTTP, OLD, f"{URL}:8443"])
    def test_the_url_of_our_entry_follows(self, old: str) -> None:
        """From http to https, to another name or port: the entry on record is changed, and no other is added."""
        case = Case(
            entry(),
            text=OTHERS + at(old, section()),
            tokens=answers(URL, "glrt-mine"),
            ours=record_at(old, builder="glrt-mine"),
        )
        (change,) = case.changes
        assert change.summary == "builder: set url"
        assert case.written(change) == OTHERS + section()
        assert change.record["runners"]["builder"]["url"] == URL

    def test_afterwards_nothing_is_left(self) -> None:
        """The second run."""
        ours = recorded(builder="glrt-mine")
        assert Case(entry(), text=OTHERS + section(), tokens=answers(URL, "glrt-mine"), ours=ours).changes == []

    def test_an_entry_made_by_hand_follows_to_https(self) -> None:
        """One token on one host is one runner, though we have no record of it."""
        case = Case(entry(), text=OTHERS + at(HTTP, section()), tokens=answers(URL, "glrt-mine"))
        (change,) = case.changes
        assert [one["url"] for one in tomllib.loads(case.written(change))["runners"]] == [URL, URL]

    def test_an_entry_made_by_hand_on_another_host_stays(self) -> None:
        """A copy of a GitLab knows the same tokens: that entry is of others."""
        case = Case(entry(), text=OTHERS + at(OLD, section()), tokens=answers(URL, "glrt-mine"))
        (change,) = case.changes
        assert [one["url"] for one in tomllib.loads(case.written(change))["runners"]] == [URL, OLD, URL]

    def test_two_entries_already(self) -> None:
        """What is there under the right URL is the runner; the other entry is not removed."""
        text = OTHERS + at(HTTP, section()) + section()
        ours = recorded(builder="glrt-mine")
        assert Case(entry(), text=text, tokens=answers(URL, "glrt-mine"), ours=ours).changes == []

    @pytest.mark.parametrize("status", [0, 502])
    def test_the_new_server_does_not_answer(self, status: int) -> None:
        """The change requires GitLab."""
        case = Case(
            entry(),
            text=OTHERS + at(HTTP, section()),
            tokens=answers(URL, "glrt-mine", status),
            ours=record_at(HTTP, builder="glrt-mine"),
        )
        (change,) = case.changes
        assert change.requires == "gitlab"

    def created(self) -> RunnerEntry:
        """A runner without a token."""
        return RunnerEntry("builder", URL, {"executor": "docker"}, None, creator())

    def test_a_created_runner_follows_to_https(self) -> None:
        """Its token is asked at the same host over TLS; no second runner is created."""
        case = Case(
            self.created(),
            text=OTHERS + at(HTTP, section(token="glrt-born", number=7)),
            tokens=answers(URL, "glrt-born"),
            ours=record_at(HTTP, builder_7="glrt-born"),
        )
        (change,) = case.changes
        assert change.summary == "builder: set url"
        assert case.written(change) == OTHERS + section(token="glrt-born", number=7)
        assert change.record["runners"]["builder"]["made"]

    def test_a_created_runner_stays_while_the_answer_is_unknown(self) -> None:
        """The entry keeps its URL."""
        case = Case(
            self.created(),
            text=OTHERS + at(HTTP, section(token="glrt-born", number=7)),
            tokens=answers(URL, "glrt-born", 0),
            ours=record_at(HTTP, builder_7="glrt-born"),
        )
        unverified(case.changes)
