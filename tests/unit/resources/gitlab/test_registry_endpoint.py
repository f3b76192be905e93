"""`RegistryEndpoint` and `ImageCheck`: answers of `/v2/`, and when an image is checked."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from provision.errors import ProbeFailed
from provision.resources import Handler, ImageCheck, RegistryEndpoint, Result
from provision.resources.base import Change
from provision.resources.gitlab.registry import endpoint_problem
from provision.secret import Secret
from provision.shell import Command, sh
from provision.testing import LocalSession, observe, observe_on, packages_are, planned
from provision.url import Url

REALM = "https://gitlab.example.com/jwt/auth"
REPAIR = Handler("reconfigure", "reconfigure GitLab", sh("true"))
REGISTRY = RegistryEndpoint(Url.parse("https://gitlab.example.com:5555"), REALM, REPAIR)
Serve = Callable[..., Any]


def headers(status: str = "HTTP/1.1 401 Unauthorized", realm: str = REALM, name: str = "Www-Authenticate") -> str:
    """An answer's headers, as curl prints them."""
    return f'{status}\r\n{name}: Bearer realm="{realm}",service="container_registry"\r\n\r\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (headers(), ""),
        (headers("HTTP/2 401 ", name="www-authenticate"), ""),
        ("", "no answer"),
        (headers("HTTP/1.1 502 Bad Gateway"), "it answers 502 Bad Gateway instead of 401"),
        ("HTTP/1.1 503\r\n", "it answers 503 instead of 401"),
        ("HTTP/1.1 200 OK\r\n", "it answers 200 OK instead of 401"),
        ("nonsense\r\n", "it answers  instead of 401"),
        (
            headers(realm="https://old.example.com/jwt/auth"),
            'it sends clients to Bearer realm="https://old.example.com/jwt/auth",service="container_registry" '
            f"instead of {REALM}",
        ),
        ("HTTP/1.1 401 Unauthorized\r\n\r\n", f"it sends clients to no address instead of {REALM}"),
    ],
)
def test_problem(text: str, problem: str) -> None:
    """What is wrong with an answer, in words."""
    assert endpoint_problem(text, REALM) == problem


def test_any_realm_will_do_where_gitlabs_own_address_is_not_known() -> None:
    """An inventory without gitlab.external_url."""
    assert endpoint_problem(headers(), "") == ""
    assert endpoint_problem("HTTP/1.1 502 Bad Gateway\r\n", "") == "it answers 502 Bad Gateway instead of 401"


def answer(text: str, installed: bool = True) -> list[Change]:
    """The changes for an answer."""
    packages = packages_are({"gitlab-ce": "19.3.0-ce.0"} if installed else {})
    return planned(REGISTRY, observe(REGISTRY, {"answer": text, "packages": packages}))


def test_bare() -> None:
    """No GitLab: predicted, after it."""
    (change,) = answer("", installed=False)
    assert change.requires == "gitlab"
    assert change.summary == "repair the registry endpoint https://gitlab.example.com:5555/v2/: no answer"


def test_broken_owes_a_reconfigure() -> None:
    """GitLab is there, and its registry is not."""
    (change,) = answer("HTTP/1.1 502 Bad Gateway\r\n")
    assert (change.requires, change.notify, change.action) == ("", (REPAIR,), "run")
    assert REGISTRY.handlers == (REPAIR,)


def test_converged() -> None:
    """It answers as it should."""
    assert answer(headers()) == []


def test_broken_reading() -> None:
    """dpkg is broken: not taken for `not installed`."""
    seen = observe(REGISTRY, {"answer": "", "packages": Result(b"", b"dpkg: broken", 2)})
    with pytest.raises(ProbeFailed):
        planned(REGISTRY, seen)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://gitlab.example.com:5555", "::127.0.0.1: -- https://gitlab.example.com:5555/v2/"),
        ("http://registry.example.com/", "::127.0.0.1: -- http://registry.example.com/v2/"),
        ("https://[2001:db8::1]:5555", "'::[::1]:' -- 'https://[2001:db8::1]:5555/v2/'"),
    ],
)
def test_it_is_asked_on_the_host_itself(url: str, asked: str) -> None:
    """Whatever DNS answers, and whatever the URL names."""
    question = dataclasses.replace(REGISTRY, url=Url.parse(url)).probe()["answer"]
    assert isinstance(question, Command)
    assert question.script.endswith(f"--connect-to {asked}")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("host", ["registry.invalid", "[2001:db8::1]"])
def test_a_real_answer(serve: Serve, reply: Any, host: str) -> None:
    """By real curl, under a name that is nowhere resolved, and under an address that is not this machine's."""
    web = serve(
        lambda _: reply(401, headers={"WWW-Authenticate": f'Bearer realm="{REALM}"'}),
        address="::1" if host.startswith("[") else "127.0.0.1",
    )
    registry = dataclasses.replace(REGISTRY, url=Url.parse(f"http://{host}:{web.port}"))
    seen = observe_on(LocalSession({}, {"PATH": "/usr/bin:/bin"}), registry)
    assert endpoint_problem(seen["answer"].text, REALM) == ""
    assert web.asked[0].path == "/v2/"
    assert web.asked[0].headers["host"] == f"{host}:{web.port}"


CHECK = ImageCheck(
    Url.parse("https://gitlab.example.com:5555"), "sammy", Secret("the-password"), "sammy/hello", "/etc/ca.crt"
)


def changes(check: ImageCheck, code: int = 0, record: Any = None, *, due: bool = False) -> list[Change]:
    """The changes."""
    return planned(check, observe(check, code, record=record, due=due))


class TestImageCheck:
    """When the check is run."""

    def test_bare(self) -> None:
        """Never checked: it is run. It changes nothing, and its password travels on standard input."""
        (change,) = changes(CHECK)
        assert change.verification
        assert change.summary.startswith("verify push and pull of gitlab.example.com:5555/sammy/hello")
        assert isinstance(change.run, Command)
        assert change.run.stdin == b"the-password\n"
        assert "the-password" not in change.run.script

    def test_converged(self) -> None:
        """Checked with these settings, and its port opens."""
        (change,) = changes(CHECK)
        assert changes(CHECK, record=change.record) == []

    @pytest.mark.parametrize("code", [1, 124])
    def test_broken(self, code: int) -> None:
        """It was checked once and cannot be reached now: the check is run, and names what fails."""
        (change,) = changes(CHECK)
        assert len(changes(CHECK, code, change.record)) == 1

    def test_its_look_opens_the_port(self, serve: Serve, reply: Any) -> None:
        """By real bash; a port that is closed and a name without an address give other codes."""
        web = serve(lambda _: reply(401))
        codes = []
        for address in (f"127.0.0.1:{web.port}", "127.0.0.1:1", "registry.invalid:5000"):
            seen = observe_on(
                LocalSession({}, {"PATH": "/usr/bin:/bin"}),
                dataclasses.replace(CHECK, url=Url.parse(f"https://{address}")),
            )
            codes.append(seen.code)
        assert codes == [0, 1, 1]

    @pytest.mark.parametrize(
        "change",
        [
            {"url": Url.parse("https://g:1")},
            {"user": "x"},
            {"image": "y"},
            {"ca": "/z"},
            {"context": "bucket"},
        ],
    )
    def test_other_settings_are_checked_again(self, change: dict[str, Any]) -> None:
        """And the same settings when a verification is due."""
        (before,) = changes(CHECK)
        assert len(changes(CHECK, record=before.record, due=True)) == 1
        assert len(changes(dataclasses.replace(CHECK, **change), record=before.record)) == 1

    def test_its_script_is_sh(self) -> None:
        """Parsed by the shell that will run it."""
        (change,) = changes(CHECK)
        assert isinstance(change.run, Command)
        assert subprocess.run(["sh", "-n"], input=change.run.script.encode(), check=False).returncode == 0
