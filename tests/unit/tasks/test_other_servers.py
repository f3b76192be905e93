"""Runners on a GitLab server that is not gitlab.external_url: which token and which CA is for which server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.errors import InventoryError
from provision.resources import File, RunnerEntries, RunnerSettings
from provision.resources.base import Note, Observation
from provision.secret import Secret
from provision_lab.certificates import Authority
from tests.support.web import tls

Serve = Callable[..., Any]
Wants = Callable[..., Any]
CANARY = "glpat-canary-of-the-estate"
OWN_CA, OTHER_CA = (Authority(name).certificate for name in ("own authority", "other authority"))
OWN = f'api_token = "{CANARY}"\n[registry]\nexternal_url = "https://gitlab.example.com:5555"\n[registry.certificate]\nca = "ca.pem"\n'
RUNNER = '[[runners]]\nname = "builder"\nexecutor = "shell"\ntags = ["a"]\n'
OTHERS = [
    "http://gitlab.example.com",  # another scheme
    "https://gitlab.example.com:8443",  # another port
    "https://gitlab.example.org",  # another host
]


def runner(url: str, more: str = "") -> str:
    """A runner of a server."""
    return f'{RUNNER}url = "{url}"\n{more}'


def server(url: str, more: str) -> str:
    """The settings of another server."""
    return f'[gitlab.servers."{url}"]\n{more}'


@pytest.fixture(autouse=True)
def authorities(tmp_path: Path) -> None:
    """The CA files that the inventories name."""
    (tmp_path / "ca.pem").write_text(OWN_CA)
    (tmp_path / "other.pem").write_text(OTHER_CA)


def creator(resources: Any) -> Any:
    """The creator of the only runner."""
    (entries,) = [one for one in resources if isinstance(one, RunnerEntries)]
    return entries.runners[0].creator


def certificates(resources: Any) -> dict[str, bytes]:
    """The files of the runner's CAs."""
    return {one.path: one.content for one in resources if isinstance(one, File)}


class TestToken:
    """gitlab.api_token is for scheme, host and port of gitlab.external_url."""

    @pytest.mark.parametrize(
        "url", ["https://gitlab.example.com", "https://GitLab.example.com:443/", "https://gitlab.example.com/sub"]
    )
    def test_the_own_server(self, wants: Wants, url: str) -> None:
        """Other spellings and paths are the same server."""
        found = creator(wants("register", OWN + runner(url)))
        assert found.api.token == Secret(CANARY)
        assert found.api.ca.name == "ca.pem"
        assert found.api.fallback == "203.0.113.10"

    @pytest.mark.parametrize("url", OTHERS)
    def test_another_server_gets_neither_token_nor_ca(self, wants: Wants, url: str) -> None:
        """Nor is it looked for at the address of our GitLab host."""
        resources = wants("register", OWN + runner(url))
        assert creator(resources) is None
        (settings,) = [one for one in resources if isinstance(one, RunnerSettings)]
        assert (settings.api.token, settings.api.ca, settings.api.fallback) == (Secret(""), None, "")
        assert certificates(resources) == {}

    def test_it_is_reported_and_nothing_is_sent(self, wants: Wants) -> None:
        """That GitLab's settings are not compared."""
        resources = wants("register", OWN + runner("http://127.0.0.1:9"))
        (settings,) = [one for one in resources if isinstance(one, RunnerSettings)]
        data = settings.probe()["runner"].call(Observation())
        notes = [one for one in settings.plan(Observation({"runner": data})) if isinstance(one, Note)]
        assert 'http://127.0.0.1:9 is not gitlab.external_url, and gitlab.servers."http://127.0.0.1:9"' in notes[0].text

    @pytest.mark.parametrize("url", OTHERS)
    def test_credentials_of_its_own(self, wants: Wants, url: str) -> None:
        """[gitlab.servers."URL"]."""
        more = server(f"{url}/", 'api_token = "glpat-other"\nca = "other.pem"\n')
        resources = wants("register", OWN + more + runner(url))
        api = creator(resources).api
        assert (api.token, api.ca.name, api.fallback) == (Secret("glpat-other"), "other.pem", "")

    def test_a_registration_token_is_enough(self, wants: Wants) -> None:
        """It was given for that server. gitlab.api_token is not sent to it."""
        found = creator(wants("register", OWN + runner(OTHERS[2], 'registration_token = "GR13"\n')))
        assert (found.api.token, found.registration_token) == (Secret(""), Secret("GR13"))

    def test_another_server_receives_no_request_with_our_token(self, wants: Wants, serve: Serve, reply: Any) -> None:
        """A real server with a registration token: the canary is in none of its requests."""
        web = serve(lambda _: reply(201, {"id": 7, "token": "glrt-x"}))
        creator(wants("register", OWN + runner(web.url, 'registration_token = "GR13"\n'))).create()
        assert web.asked
        for asked in web.asked:
            assert CANARY not in f"{asked.path}{asked.headers}{asked.body!r}"

    def test_our_ca_does_not_vouch_for_another_server(
        self, wants: Wants, serve: Serve, reply: Any, tmp_path: Path
    ) -> None:
        """A server with a certificate of our private CA, at another origin, is not trusted."""
        authority = Authority()
        (tmp_path / "ca.pem").write_text(authority.certificate)
        context = tls(authority.issue([], ["127.0.0.1"]), tmp_path)
        web = serve(lambda _: reply(201, {"id": 7, "token": "glrt-x"}), context)
        found = creator(wants("register", OWN + runner(web.url, 'registration_token = "GR13"\n')))
        with pytest.raises(Exception, match="certificate verify failed"):
            found.create()
        assert web.asked == []


class TestCertificates:
    """gitlab-runner reads one CA file for each host."""

    def test_each_host_has_its_own(self, wants: Wants) -> None:
        """The own CA for the own server, the other's for the other."""
        text = OWN + server(OTHERS[2], 'ca = "other.pem"\n') + RUNNER + runner(OTHERS[2]).replace("builder", "second")
        assert certificates(wants("register", text)) == {
            "/etc/gitlab-runner/certs/gitlab.example.com.crt": OWN_CA.encode(),
            "/etc/gitlab-runner/certs/gitlab.example.org.crt": OTHER_CA.encode(),
        }

    def test_two_ports_of_a_host(self, wants: Wants) -> None:
        """The file's name has no port: both CAs are in it."""
        text = OWN + server(OTHERS[1], 'ca = "other.pem"\n') + RUNNER + runner(OTHERS[1]).replace("builder", "second")
        assert certificates(wants("register", text)) == {
            "/etc/gitlab-runner/certs/gitlab.example.com.crt": (OWN_CA + OTHER_CA).encode()
        }

    def test_an_inventory_without_gitlab(self, wants: Wants) -> None:
        """The registry's CA is for the registry's host."""
        base = '[hosts.r]\ngroups = ["runners"]\n'
        registry = OWN.partition("\n")[2]
        for url, expected in {"https://gitlab.example.com": 1, "https://gitlab.example.org": 0}.items():
            assert len(certificates(wants("register", registry + runner(url), base=base))) == expected


class TestTable:
    """[gitlab.servers."URL"]."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (server("gitlab.example.org", ""), "expected a URL with its scheme"),
            (server("https://gitlab.example.org/sub", ""), "expected a URL without a path"),
            (server("https://gitlab.example.com:443", ""), "is the server of gitlab.external_url"),
            (server("https://a.org", "") + server("https://A.org/", ""), "https://a.org is the same server: keep one"),
            (server("https://a.org", "token = 'x'\n"), "token"),
        ],
    )
    def test_what_is_refused(self, wants: Wants, text: str, words: str) -> None:
        """Each with its place."""
        with pytest.raises(InventoryError, match=words):
            wants("register", OWN + text)
