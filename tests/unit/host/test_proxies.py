"""A proxy in the host's environment never answers in the place of a service of the host or of the estate: real curl."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.editing.toml.model import Entry
from provision.host.scripts import FOLDER, script
from provision.inventory.tables.proxy import Proxy
from provision.resources import RegistryEndpoint, S3Bucket
from provision.resources.gitlab.gitlab_rb import reconfigure
from provision.resources.gitlab.registry import endpoint_problem
from provision.resources.gitlab.s3_bucket import listing_problem
from provision.resources.runner.registrations import ask_tokens, read_tokens, unregister
from provision.secret import Secret
from provision.shell import Command
from provision.testing import LocalSession, observe_on, planned
from provision.url import Url
from provision_lab.certificates import Authority
from tests.support.http_proxy import HttpProxy
from tests.support.local import Local
from tests.support.programs import Programs
from tests.support.web import tls

Serve = Callable[..., Any]
REALM = "https://gitlab.example.com/jwt/auth"
CODE = {
    path: path.read_text()
    for pattern in ("*.py", "*.sh")
    for path in sorted(FOLDER.parents[1].rglob(pattern))
    if "curl" in path.read_text()
}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """The host's programs."""
    return Programs(tmp_path / "host")


def answer(reply: Any) -> Callable[[Any], Any]:
    """A registry."""
    return lambda _: reply(401, headers={"WWW-Authenticate": f'Bearer realm="{REALM}"'})


def test_every_request_to_the_host_itself() -> None:
    """A request that is led to the loopback address has no proxy."""
    found = [line for text in CODE.values() for line in text.splitlines() if re.search(r"curl .*--connect-to", line)]
    assert len(found) >= 2
    assert [line for line in found if "--noproxy '*'" not in line and "{options}" not in line] == []


def test_the_registrys_endpoint(serve: Serve, reply: Any, proxy: HttpProxy) -> None:
    """The question about /v2/."""
    web = serve(answer(reply))
    registry = RegistryEndpoint(Url.parse(f"http://registry.invalid:{web.port}"), REALM, reconfigure(None, ""))
    host = LocalSession({}, {"PATH": "/usr/bin:/bin", **proxy.environment})
    assert endpoint_problem(observe_on(host, registry)["answer"].text, REALM) == ""
    assert (proxy.asked, len(web.asked)) == ([], 1)


def test_a_good_reconfigure_is_not_rolled_back(
    serve: Serve, reply: Any, proxy: HttpProxy, programs: Programs, local: Local
) -> None:
    """The registry answers, and the proxy would have answered something else."""
    web = serve(answer(reply))
    url = f"http://registry.invalid:{web.port}"
    for folder in ("etc", "home/rollback", "var/registry", "log", "run"):
        (programs.folder / folder).mkdir(parents=True)
    rb = programs.folder / "etc/gitlab.rb"
    rb.write_text(f"registry_external_url '{url}'\n")
    (programs.folder / "home/rollback/gitlab.rb").write_text("# before\n")
    programs.add("gitlab-ctl")
    names = {"/etc/gitlab": "etc", "/var/lib/provision": "home", "/var/opt/gitlab": "var", "/run": "run"}
    folders = {old: programs.folder / new for old, new in names.items()} | {"/var/log/gitlab": programs.folder / "log"}
    host = local(folders, {"PATH": programs.path, **proxy.environment})
    done = host.run(reconfigure(Url.parse(url), REALM).run, deadline=30)
    assert (done.code, done.errors) == (0, "")
    assert rb.read_text().startswith("registry_external_url")
    assert proxy.asked == []


def test_a_new_certificate(
    serve: Serve, reply: Any, proxy: HttpProxy, programs: Programs, local: Local, tmp_path: Path
) -> None:
    """The question whether the registry is back."""
    chain = tmp_path / "chain.pem"
    web = serve(answer(reply), tls(Authority().issue(["registry.invalid"], []), tmp_path))
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx/registry.conf").write_text(f"ssl_certificate {chain};\n")
    programs.add("gitlab-ctl")
    host = local({}, {"PATH": programs.path, **proxy.environment})
    url = f"https://registry.invalid:{web.port}/v2/"
    command = script("reload_certificate", str(chain), "registry.invalid", web.port, url, 10, str(tmp_path / "nginx"))
    done = host.run(command, deadline=30)
    assert (done.code, done.errors) == (0, "")
    assert len([one for one in web.asked if one.path == "/v2/"]) >= 1
    assert proxy.asked == []


class TestStorage:
    """S3 is asked directly, as the registry does, and through the proxy only where it cannot be reached otherwise."""

    def bucket(self, url: str) -> S3Bucket:
        """A bucket."""
        return S3Bucket("b", "r", Url.parse(url), "the-access-key", "the-secret-key")

    def test_directly(self, serve: Serve, reply: Any, proxy: HttpProxy, local: Local, tmp_path: Path) -> None:
        """Listing, and the verification."""
        web = serve(lambda _: reply(200, b"<ListBucketResult/><UploadId>1</UploadId>"))
        host = local({"/run": tmp_path}, {"PATH": "/usr/bin:/bin", **proxy.environment})
        seen = observe_on(host, self.bucket(web.url))
        assert listing_problem(seen["list"], self.bucket(web.url)) is None
        (change,) = planned(self.bucket(web.url), seen)
        assert isinstance(change.run, Command)
        assert host.run(change.run, deadline=30).code == 0
        assert [one.method for one in web.asked] == [
            *("GET", "PUT", "GET", "GET", "POST"),
            *("PUT", "PUT", "POST", "PUT", "POST"),
        ]
        assert proxy.asked == []

    def test_through_the_proxy(self, proxy: HttpProxy, local: Local) -> None:
        """Nothing listens at the storage's address as it is known here."""
        bucket = self.bucket("http://127.0.0.1:9")
        problem = listing_problem(
            observe_on(local({}, {"PATH": "/usr/bin:/bin", **proxy.environment}), bucket)["list"], bucket
        )
        assert problem is not None
        assert "HTTP 403" in problem.text  # the proxy's answer
        assert [one.partition("?")[0] for one in proxy.asked] == ["GET http://127.0.0.1:9/b"]

    def test_through_the_proxy_of_the_inventory(self, serve: Serve, reply: Any, proxy: HttpProxy, local: Local) -> None:
        """The registry has it as well, even where the storage can be reached directly; exceptions count."""
        web = serve(lambda _: reply(200, b"<ListBucketResult/>"))
        table = Proxy.model_validate({"http": proxy.url})
        bucket = replace(self.bucket("http://s3.invalid:9"), proxy=table.for_curl("http"))
        problem = listing_problem(observe_on(local({}, {"PATH": "/usr/bin:/bin"}), bucket)["list"], bucket)
        assert problem is not None
        assert "HTTP 403" in problem.text  # the proxy's answer
        assert [one.partition("?")[0] for one in proxy.asked] == ["GET http://s3.invalid:9/b"]
        excepted = replace(self.bucket(web.url), proxy=table.for_curl("http"))  # on this machine
        assert listing_problem(observe_on(local({}, {"PATH": "/usr/bin:/bin"}), excepted)["list"], excepted) is None
        assert len(proxy.asked) == 1

    def test_without_a_proxy(self, local: Local) -> None:
        """It is asked once, and the reason is reported."""
        bucket = self.bucket("http://127.0.0.1:9")
        problem = listing_problem(observe_on(local({}, {"PATH": "/usr/bin:/bin"}), bucket)["list"], bucket)
        assert problem is not None
        assert "the connection is refused" in problem.text


class TestRunner:
    """GitLab is asked about tokens as gitlab-runner would: through its service's proxy, or none."""

    TOKEN = "glrt-the-token"

    @pytest.fixture
    def service(self) -> Iterator[HttpProxy]:
        """The proxy of gitlab-runner's service."""
        with HttpProxy() as proxy:
            yield proxy

    def host(self, programs: Programs, local: Local, proxy: HttpProxy, environment: str) -> LocalSession:
        """A host whose own environment names `proxy`, and whose service has `environment`."""
        programs.add("systemctl", f"printf 'MainPID=0\\nEnvironment=%s\\n' '{environment}'")
        (programs.folder / ".runner_system_id").write_text("s_0123456789ab\n")
        session: LocalSession = local(
            {"/etc/gitlab-runner": programs.folder}, {"PATH": programs.path, **proxy.environment}
        )
        return session

    def ask(self, host: LocalSession, url: str) -> int:
        """GitLab's answer to the token."""
        result = host.run(ask_tokens("/nonexistent", [url], [(url, Secret(self.TOKEN))]), deadline=30)
        return read_tokens(result).status[url, self.TOKEN]

    def unregister(self, host: LocalSession, url: str) -> int:
        """The exit code of the deletion."""
        (change,) = unregister([(Entry(0, "r", url, self.TOKEN), True)])
        assert isinstance(change.run, Command)
        return host.run(change.run, deadline=30).code

    def test_without_a_proxy(
        self, serve: Serve, reply: Any, proxy: HttpProxy, programs: Programs, local: Local
    ) -> None:
        """The token does not reach the proxy of the shell's environment."""
        web = serve(lambda asked: reply(204 if asked.method == "DELETE" else 200))
        host = self.host(programs, local, proxy, "LANG=C")
        assert self.ask(host, web.url) == 200
        assert self.unregister(host, web.url) == 0
        assert (len(web.asked), proxy.asked) == (2, [])

    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
    def test_with_the_proxy_of_the_service(
        self,
        serve: Serve,
        reply: Any,
        proxy: HttpProxy,
        service: HttpProxy,
        programs: Programs,
        local: Local,
        name: str,
    ) -> None:
        """Another one than that of the shell."""
        web = serve(lambda _: reply(200))
        host = self.host(programs, local, proxy, f"LANG=C {name}={service.url} NO_PROXY=*.example.com")
        assert self.ask(host, web.url) == 0  # this proxy answers 403, without GitLab's content type
        assert service.asked == [f"POST {web.url}/api/v4/runners/verify HTTP/1.1"]
        assert (proxy.asked, web.asked) == ([], [])

    def test_with_the_exceptions_of_the_service(
        self, serve: Serve, reply: Any, proxy: HttpProxy, service: HttpProxy, programs: Programs, local: Local
    ) -> None:
        """NO_PROXY."""
        web = serve(lambda _: reply(200))
        host = self.host(programs, local, proxy, f"HTTP_PROXY={service.url} NO_PROXY=example.com,127.0.0.1")
        assert self.ask(host, web.url) == 200
        assert (proxy.asked, service.asked) == ([], [])
