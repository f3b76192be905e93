"""The proxy of a host's programs: a real apt and a real curl send their requests through a proxy on loopback."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.host.pending import Handler
from provision.inventory import Settings
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.proxy import Proxy
from provision.resources import Download
from provision.resources.base import Change
from provision.resources.system.proxy import APT_CONF, ProxyFile, apt_proxy, service_proxy
from provision.secret import Secret
from provision.shell import Command, sh
from provision.testing import NO_FILE, LocalSession, file_is, observe, planned
from tests.support.apt import apt_config
from tests.support.local import Local, one_shell

RESTART = Handler("restart-docker", "restart docker", sh("systemctl restart docker"))


def proxy(url: str, *exceptions: str) -> Proxy:
    """A table [proxy]."""
    return Proxy.model_validate({"http": url, "no_proxy": list(exceptions)})


class SecretProxy(Proxy):
    """A proxy with a login, as a secret gives it."""

    def address(self, scheme: str) -> str | Secret:
        """The same for both schemes."""
        del scheme
        return Secret("http://user:canary-password@proxy.example.com:3128")


def of_apt(table: Proxy | None, mirror: str = "") -> ProxyFile:
    """apt's proxy, with Docker's packages from a mirror."""
    apt = Apt.model_validate({"docker": {"url": mirror}} if mirror else {})
    return apt_proxy(Settings({Proxy: table, Apt: apt}))


def run(change: Change | Command, session: LocalSession) -> None:
    """Applies a change."""
    command = change.run if isinstance(change, Change) else change
    assert isinstance(command, Command)
    result = session.run(command, deadline=10)
    assert result.code == 0, result.errors


def test_apt_sends_its_requests_through_it(local: Local, tmp_path: Path, serve: Callable[..., Any], reply: Any) -> None:
    """A real apt-get with the file that is written; exceptions, and mirrors in an excepted domain, are asked directly."""
    through = serve(lambda _: reply(404))
    direct = serve(lambda _: reply(404))
    table = proxy(through.url, "localhost", "127.0.0.0/8")
    apt = of_apt(table, direct.url)
    (change,) = planned(apt, observe(apt, NO_FILE))
    run(change, local({"/etc/apt": tmp_path}))
    config = apt_config(tmp_path, "deb http://packages.example.com/x ./", f"deb {direct.url}/y ./")
    environment = {"PATH": os.environ["PATH"], "APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
    subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False, timeout=60)
    assert {one.path for one in through.asked} >= {"http://packages.example.com/x/./InRelease"}
    assert [one.path for one in through.asked if "/y/" in one.path] == []
    assert {one.path for one in direct.asked} >= {"/y/./InRelease"}


@one_shell
def test_a_download_goes_through_it(local: Local, tmp_path: Path, serve: Callable[..., Any], reply: Any) -> None:
    """A real curl; the login of the proxy reaches it on standard input."""
    through = serve(lambda _: reply(200, b"content"))
    secret = Secret(f'proxy = "{through.url.replace("://", "://user:pass@")}"\n')
    me = f"{os.getuid()}:{os.getgid()}"
    digest = hashlib.sha256(b"content").hexdigest()
    download = Download("http://files.example.com/x", "/opt/x", digest, owner=me, proxy=secret)
    (change,) = planned(download, observe(download, "absent\n"))
    assert isinstance(change.run, Command)
    assert "user:pass" not in change.run.script
    run(change, local({"/opt": tmp_path / "opt", "/var/lib/provision": tmp_path / "home"}))
    (asked,) = through.asked
    assert asked.path == "http://files.example.com/x"
    assert asked.headers["proxy-authorization"].startswith("Basic ")


def test_the_table_is_removed() -> None:
    """What this task wrote is deleted; a file that it did not write stays, and so does one that somebody else deleted."""
    gone = of_apt(None)
    (change,) = planned(gone, observe(gone, file_is("x"), record=True))
    assert (change.action, change.summary, change.record) == ("delete", f"delete {APT_CONF}", None)
    assert planned(gone, observe(gone, file_is("x"))) == []
    (forget,) = planned(gone, observe(gone, NO_FILE, record=True))
    assert (forget.verification, forget.record) == (True, None)


def test_a_service(local: Local, tmp_path: Path) -> None:
    """The variables in both spellings, in a file that only the unit names; systemd reads it, and the service restarts."""
    file, drop_in = service_proxy("docker", proxy("http://proxy.example.com:3128", ".example.com"), RESTART)
    (written,) = planned(file, observe(file, NO_FILE))
    assert (written.notify, written.record) == ((RESTART,), True)
    assert isinstance(written.run, Command)
    assert written.run.stdin.decode().splitlines() == [
        'http_proxy="http://proxy.example.com:3128"', 'HTTP_PROXY="http://proxy.example.com:3128"',
        'https_proxy="http://proxy.example.com:3128"', 'HTTPS_PROXY="http://proxy.example.com:3128"',
        'no_proxy="localhost,127.0.0.1,::1,.example.com"', 'NO_PROXY="localhost,127.0.0.1,::1,.example.com"',
    ]  # fmt: skip
    (named,) = planned(drop_in, observe(drop_in, NO_FILE))
    assert isinstance(named.run, Command)
    assert named.run.script.endswith("|| exit\nsystemctl daemon-reload")
    run(Command(named.run.script.replace("systemctl daemon-reload", "echo reloaded"), named.run.stdin),
        local({"/etc/systemd/system": tmp_path / "units", "/var/lib/provision": tmp_path / "home"}))  # fmt: skip
    text = (tmp_path / "units/docker.service.d/provision-proxy.conf").read_text()
    assert "EnvironmentFile=-/etc/default/provision-proxy-docker\n" in text
    removed = service_proxy("docker", None, RESTART)
    actions = [change.action for one in removed for change in planned(one, observe(one, file_is("x"), record=True))]
    assert actions == ["delete", "delete"]


def test_a_login_is_not_shown(local: Local, tmp_path: Path) -> None:
    """It is in no diff and no command line, and other users cannot read the files that have it."""
    table = SecretProxy.model_validate({"http": "http://proxy.example.com:3128"})
    files: list[ProxyFile] = [of_apt(table), *service_proxy("docker", table, RESTART)]
    for one in files:
        (change,) = planned(one, observe(one, NO_FILE))
        assert isinstance(change.run, Command)
        assert "canary-password" not in change.diff + change.summary + change.run.script + repr(one)
    host = local({"/etc/apt": tmp_path / "apt", "/etc/default": tmp_path / "default"})
    for one, path in zip(files, ("apt/apt.conf.d/95provision-proxy", "default/provision-proxy-docker"), strict=False):
        run(planned(one, observe(one, NO_FILE))[0], host)
        assert "canary-password" in (tmp_path / path).read_text()
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("proxy.example.com:3128", "expected a URL with its scheme"),
        ("http://user:pass@proxy.example.com", "give it as a secret"),
        ('http://proxy.example.com"', "encode them"),
        ("http://proxy.example.com/$x", "encode them"),
    ],
)
def test_a_wrong_url(url: str, problem: str) -> None:
    """It is refused with what is expected."""
    with pytest.raises(ValueError, match=problem):
        proxy(url)


@pytest.mark.parametrize(
    ("host", "spared"),
    [("a.example.com", True), ("example.com", True), ("badexample.com", False), ("10.1.2.3", True), ("11.1.2.3", False),
     ("127.0.0.1", True)],
)  # fmt: skip
def test_exceptions(host: str, spared: bool) -> None:
    """Domains and networks, as curl and Go read them."""
    assert proxy("http://proxy.example.com", ".example.com", "10.0.0.0/8").spares(host) == spared
