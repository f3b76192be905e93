"""How git reaches GitLab: names, addresses, certificates and proxies, with real git, by TLS to the lab's GitLab."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ApiFailed
from provision.gitlab.api import Api
from provision.gitlab.git import workspace
from provision.secret import Secret
from provision.url import Url
from provision_lab.standins.gitlab_ce.loopback import serve as gitlab
from tests.support.http_proxy import HttpProxy
from tests.support.web import forwarded
from tests.unit.gitlab.test_api_by_address import NAME, Authority

SEED = {"api_token": "glpat-the-token", "users": {"root": "p"}, "projects": ["root/hello"]}
TOKEN = Secret("glpat-the-token")


@pytest.fixture
def secure(tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Authority]]:
    """GitLab behind TLS, with a certificate for NAME of a private CA."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    authority = Authority(tmp_path)
    with gitlab(tmp_path / "gitlab", SEED) as behind:
        yield serve(lambda asked: forwarded(asked, behind), authority.context(NAME)), authority


def api(port: int, **more: Any) -> Api:
    """The API at NAME."""
    return Api(Url.parse(f"https://{NAME}:{port}"), TOKEN, **more)


def push(api: Api, folder: Path) -> str:
    """Pushes a folder with one file; the commit that GitLab has then."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    (source / "README").write_text("hello\n")
    with workspace(source, api, "root/hello") as work:
        work.push(work.commit(work.snapshot({}), [], "message"), "main")
        return work.head("main", whole=False)


@pytest.mark.parametrize("way", ["address", "fallback"])
def test_a_name_that_leads_nowhere(secure: tuple[Any, Authority], tmp_path: Path, way: str) -> None:
    """git connects to the address, and checks the certificate for the name."""
    web, authority = secure
    assert len(push(api(web.port, ca=authority.file, **{way: "127.0.0.1"}), tmp_path)) == 40


@pytest.mark.parametrize("trusted", [False, True])
def test_certificates(
    secure: tuple[Any, Authority], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """Without the private CA nothing is sent. The bundle of REQUESTS_CA_BUNDLE counts as for the API."""
    web, authority = secure
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        assert push(api(web.port, address="127.0.0.1"), tmp_path)
        return
    with pytest.raises(ApiFailed, match="certificate") as caught:
        push(api(web.port, address="127.0.0.1"), tmp_path)
    assert "registry.certificate.ca" in caught.value.hint
    assert web.asked == []


def test_another_name(secure: tuple[Any, Authority], tmp_path: Path) -> None:
    """A valid certificate of another host is refused."""
    web, authority = secure
    other = Api(Url.parse(f"https://other.invalid:{web.port}"), TOKEN, authority.file, address="127.0.0.1")
    with pytest.raises(ApiFailed, match=r"certificate|subject|SSL"):
        push(other, tmp_path)
    assert web.asked == []


def test_through_a_proxy(secure: tuple[Any, Authority], proxy: HttpProxy, tmp_path: Path, monkeypatch: Any) -> None:
    """HTTPS_PROXY is used, and sees no token; with an address of the inventory it is not used."""
    web, authority = secure
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    push(api(web.port, ca=authority.file, address="127.0.0.1"), tmp_path)
    assert proxy.asked == []
    direct = Api(Url.parse(f"https://localhost:{web.port}"), TOKEN, authority.file)
    with pytest.raises(ApiFailed):  # the certificate is for NAME
        push(direct, tmp_path)
    assert [one.split()[:2] for one in proxy.asked] == [["CONNECT", f"localhost:{web.port}"]]
    assert b"glpat" not in proxy.received


def test_a_plain_server_never_through_a_proxy(
    proxy: HttpProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy could read the token."""
    for name, value in proxy.environment.items():
        monkeypatch.setenv(name, value)
    with gitlab(tmp_path / "gitlab", SEED) as url:
        push(Api(Url.parse(url), TOKEN), tmp_path)
    assert proxy.asked == []


def test_nothing_is_left(secure: tuple[Any, Authority], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private repository is removed, also after a failure."""
    web, authority = secure
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    push(api(web.port, ca=authority.file, address="127.0.0.1"), tmp_path)
    with pytest.raises(ApiFailed):
        push(api(web.port, address="127.0.0.1"), tmp_path)
    assert list(place.iterdir()) == []


def test_the_users_settings_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ~/.gitconfig nor variables of git lead the token elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    with gitlab(tmp_path / "gitlab", SEED) as url:
        (home / ".gitconfig").write_text(f'[url "http://127.0.0.1:9/"]\n\tinsteadOf = {url}\n')
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.proxy")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", "http://127.0.0.1:9")
        monkeypatch.setenv("GIT_TRACE_CURL", str(tmp_path / "trace"))
        subprocess.run(["git", "config", "--get", "http.proxy"], check=True, capture_output=True)
        assert push(Api(Url.parse(url), TOKEN), tmp_path)
    assert not (tmp_path / "trace").exists()
