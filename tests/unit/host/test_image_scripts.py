"""The scripts that build, inspect, check and prune images, and those that read containers, with a Docker made of files."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from provision.host.scripts import NOT_READY, script
from provision.shell import Command, Result
from provision.testing import LocalSession
from tests.support.local import Local, one_shell
from tests.support.programs import Docker

pytestmark = pytest.mark.slow

PASSWORD = 'the "push" pass\\word'
DIGEST = "sha256:" + "1" * 64
Run = Callable[[Command], Result]
# As Docker prints GitLab's answers, and the registry's. Sources: GitLab's JwtController; Docker 20.10 and 28.5.
_DENIED = 'Error response from daemon: Get "https://r/v2/": '
GITLAB_REFUSES = [
    (
        "refused",
        f"{_DENIED}unauthorized: HTTP Basic: Access denied. If a password was provided for Git authentication, the "
        "password was incorrect or you're required to use a token instead of a password. If a token was provided, it "
        "was either incorrect, expired, or improperly scoped.",
        "check registry.login, and that this host reaches external_url; with two-factor authentication GitLab accepts a "
        "token here and no password",
    ),
    ("refused", f"{_DENIED}denied: access forbidden", "the token needs the scopes read_registry and write_registry"),
    ("unwritable", "denied: requested access to the resource is denied", "the role Developer"),
    (
        "gone",
        "Error response from daemon: pull access denied for r/sammy/hello, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied",
        "the role Reporter",
    ),
]


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    """A host with Docker."""
    return Docker(tmp_path / "host")


@pytest.fixture
def host(docker: Docker, local: Local) -> LocalSession:
    """The session."""
    return local({"/var/lib/provision": docker.folder / "home"}, {"PATH": docker.path})


def run(host: LocalSession, name: str, *arguments: Any, stdin: str | bytes = "") -> Result:
    """Runs a script to its end."""
    command = script(name, *arguments)
    assert PASSWORD not in command.script
    return host.run(command.reading(stdin), deadline=30)


class Registry:
    """A registry on loopback that wants a token, with one tag; `asked` holds method and path of each request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.deleting = 202
        self.login = ""
        self.answers: dict[str, tuple[int, bytes]] = {}  # by path
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def handle_any(self) -> None:
                path = self.path.partition("?")[0]
                registry.asked.append(f"{self.command} {path}")
                realm = f'Bearer realm="{registry.url}/token",service="r"'
                if path == "/token":
                    registry.login = self.headers.get("Authorization", "")
                    self.answer(200, b'{"token":"the-token"}')
                elif self.headers.get("Authorization") != "Bearer the-token":
                    self.answer(401, WWW_Authenticate=realm)
                elif self.command == "DELETE":
                    self.answer(registry.deleting)
                elif path in registry.answers:
                    self.answer(*registry.answers[path])
                elif path.endswith("/1.0"):
                    self.answer(200, Docker_Content_Digest=DIGEST)
                else:
                    self.answer(404)

            do_GET = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                """Prints nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """The registry."""
    registry = Registry()
    yield registry
    registry.close()


class TestDigest:
    """find_digest.sh."""

    @pytest.mark.parametrize(("tag", "answer"), [("1.0", DIGEST), ("gone", "absent")])
    def test_answers(self, host: LocalSession, registry: Registry, tag: str, answer: str) -> None:
        """With the token that the registry asks for; the login's quotes and backslashes survive."""
        result = run(host, "find_digest", registry.url, "sammy/hello", tag, "sammy", stdin=f"{PASSWORD}\n")
        assert (result.code, result.text) == (0, f"{answer}\n")
        assert base64.b64decode(registry.login.removeprefix("Basic ")).decode() == f"sammy:{PASSWORD}"

    @one_shell
    def test_no_registry(self, host: LocalSession) -> None:
        """curl's own message."""
        result = run(host, "find_digest", "http://127.0.0.1:9", "a", "1.0", "", stdin="\n")
        assert result.text.startswith("? curl: (7)")


# The end of what Docker 26.1 with buildx 0.13 printed; the last one is the classic builder's.
FAILED_BUILDS = [
    (
        r"""
#6 [3/3] RUN for i in 1 2 3; do echo "line $i"; done;     echo "oops" >&2; exit 3
#6 0.522 line 1
#6 0.523 line 2
#6 0.524 line 3
#6 0.529 oops
#6 ERROR: process "/bin/sh -c for i in 1 2 3" did not complete successfully: exit code: 3
------
 > [3/3] RUN for i in 1 2 3; do echo "line $i"; done;     echo "oops" >&2; exit 3:
0.522 line 1
0.523 line 2
0.524 line 3
0.529 oops
------
docker/Dockerfile:3
--------------------
   2 |     COPY Dockerfile /x
   3 | >>> RUN for i in 1 2 3; do echo "line $i"; done; \
   4 | >>>     echo "oops" >&2; exit 3
   5 |
--------------------
ERROR: failed to solve: process "/bin/sh -c for i in 1 2 3" did not complete successfully: exit code: 3
""",
        [
            'docker/Dockerfile:3: RUN for i in 1 2 3; do echo "line $i"; done; \\',
            "line 3",
            "oops",
            'failed to solve: process "/bin/sh -c for i in 1 2 3" did not complete successfully: exit code: 3',
        ],
    ),
    (
        """
#5 [2/2] COPY nothing /x
#5 ERROR: failed to calculate checksum of ref 7fc3::2xo6: "/nothing": not found
------
 > [2/2] COPY nothing /x:
------
Dockerfile:2
--------------------
   1 |     FROM base:1
   2 | >>> COPY nothing /x
   3 |
--------------------
ERROR: failed to solve: failed to compute cache key: "/nothing": not found
""",
        ["Dockerfile:2: COPY nothing /x", 'failed to solve: failed to compute cache key: "/nothing": not found'],
    ),
    (
        """
#2 DONE 0.0s
Dockerfile:2
--------------------
   1 |     FROM base:1
   2 | >>> COPPY nothing /x
   3 |
--------------------
ERROR: failed to solve: dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)
""",
        [
            "Dockerfile:2: COPPY nothing /x",
            "step 1",
            "failed to solve: dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)",
        ],
    ),
    (
        """
Step 1/2 : FROM base:1
 ---> 5de54e912fd9
Step 2/2 : RUN echo one; exit 3
 ---> Running in 10f829521f87
one
Removing intermediate container 10f829521f87
The command '/bin/sh -c echo one; exit 3' returned a non-zero code: 3
""",
        [
            "Step 2/2 : RUN echo one; exit 3",
            "one",
            "The command '/bin/sh -c echo one; exit 3' returned a non-zero code: 3",
        ],
    ),
]
# What Docker prints: 26.1 at login; BuildKit and containerd at a push.
STARTING = [
    'Error response from daemon: Get "https://r/v2/": received unexpected HTTP status: 502 Bad Gateway',
    "failed to authorize: unexpected status from GET request to https://g/jwt/auth: 503 Service Unavailable",
]


class TestBuild:
    """build_image.sh."""

    REFERENCES = ("r/a:1", "r/a:2")

    def build(self, host: LocalSession, push: str) -> Result:
        """Builds `r/a` with a build argument that holds a space."""
        arguments = ["--build-arg", "A=b c", "-t", "r/a:1"]
        stdin = PASSWORD.encode() + b"\n\x00context\n"
        return run(host, "build_image", "r", "sammy", push, 2, self.REFERENCES, arguments, stdin=stdin)

    def test_built_and_pushed(self, docker: Docker, host: LocalSession) -> None:
        """Docker's output is shown, the context reaches it byte by byte, and no argument holds the password.

        Without attestations, which would make an index of the tag in some image stores.
        """
        result = self.build(host, "yes")
        assert (result.code, result.text) == (0, "step 1\npushing r/a:1\npushing r/a:2\n")
        assert (docker.folder / "context").read_bytes() == b"\x00context\n"
        assert (docker.folder / "password").read_text() == PASSWORD
        assert (docker.folder / "no_attestations").read_text() == "1\n"
        assert docker.calls() == [
            "docker login -u sammy --password-stdin r",
            "docker build --build-arg A=b c -t r/a:1 -",
            "docker push r/a:1",
            "docker push r/a:2",
        ]

    @one_shell
    def test_built_only(self, docker: Docker, host: LocalSession) -> None:
        """push = false."""
        assert self.build(host, "no").code == 0
        assert [call for call in docker.calls() if "push" in call] == []

    @one_shell
    @pytest.mark.parametrize(
        ("broken", "problem"),
        [
            ("unbuildable", "docker build: step 1\nfix"),
            ("unwritable", "docker push r/a:1: pushing"),
        ],
    )
    def test_failure(self, docker: Docker, host: LocalSession, broken: str, problem: str) -> None:
        """The step, Docker's last lines, a remedy; the login's folder is deleted."""
        (docker.folder / broken).touch()
        result = self.build(host, "yes")
        assert result.code == 1
        assert result.errors.startswith(problem)
        folder = Path((docker.folder / "login_folder").read_text().strip())
        assert folder.parent == Path("/dev/shm")
        assert not folder.exists()

    @pytest.mark.parametrize(("output", "lines"), FAILED_BUILDS)
    def test_the_failing_step(self, docker: Docker, host: LocalSession, output: str, lines: list[str]) -> None:
        """Five lines at most: the Dockerfile's line, what the step printed last, Docker's error, a remedy."""
        (docker.folder / "unbuildable").write_text(output)
        result = self.build(host, "yes")
        *found, remedy = result.errors.splitlines()
        assert found == [f"docker build: {lines[0]}", *lines[1:]]
        assert remedy.startswith("fix the Dockerfile")
        assert len(found) < 5

    @one_shell
    @pytest.mark.parametrize(("step", "code"), [("refused", NOT_READY), ("unwritable", NOT_READY), ("unbuildable", 1)])
    def test_gitlab_starts(self, docker: Docker, host: LocalSession, step: str, code: int) -> None:
        """At the login or the push it may be repeated. What the build itself prints about its own servers is no reason."""
        (docker.folder / step).write_text(STARTING[0])
        assert self.build(host, "yes").code == code


class TestIpv6:
    """An image's name with an IPv6 address."""

    REFERENCE = "[2001:db8::1]:5555/a:1"
    REFUSAL = f"{REFERENCE}: Docker 20.10.24 refuses image names with an IPv6 address\nupdate Docker, or give"

    @pytest.mark.parametrize("old", [True, False])
    def test_build(self, docker: Docker, host: LocalSession, old: bool) -> None:
        """A Docker that refuses it is named before anything is built."""
        if old:
            (docker.folder / "old").touch()
        arguments = ("[2001:db8::1]:5555", "sammy", "yes", 1, self.REFERENCE, ["-t", self.REFERENCE])
        result = run(host, "build_image", *arguments, stdin=f"{PASSWORD}\n")
        assert (result.code, result.errors.startswith(self.REFUSAL)) == (int(old), old)
        assert ("docker login" in "".join(docker.calls())) is not old

    def test_nothing_listens(self, host: LocalSession) -> None:
        """nginx listens on IPv4 only by default: the setting is named."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
        where = ("::1", port, f"http://[::1]:{port}", f"[::1]:{port}", "sammy", "sammy/hello", "/nonexistent/ca.crt")
        errors = run(host, "check_registry", *where, stdin=f"{PASSWORD}\n").errors
        assert errors.startswith(f"tcp: ::1 (::1) refuses port {port}\ncheck that the registry runs")
        assert 'registry_nginx.listen_addresses = ["*", "[::]"] in [gitlab.settings]' in errors

    def test_check_registry(self, docker: Docker, host: LocalSession, registry: Registry) -> None:
        """The registry answers, and Docker refuses the name."""
        (docker.folder / "old").touch()
        where = ("127.0.0.1", registry.port, registry.url, "[2001:db8::1]:5555", "sammy", "a", "/nonexistent/ca.crt")
        result = run(host, "check_registry", *where, stdin=f"{PASSWORD}\n")
        assert (result.code, result.text.splitlines()[-1]) == (1, "/v2/")
        assert "Docker 20.10.24 refuses image names with an IPv6 address" in result.errors


class TestInspect:
    """inspect_image.sh."""

    @staticmethod
    def inspect(host: LocalSession, due: str, base: str = "") -> Result:
        """Asks about the fingerprint `fp`."""
        arguments = ("fp", "yes", due, base, "sammy/hello", "sammy", "1.0 gone")
        return run(host, "inspect_image", *arguments, ["r/a:1.0", "r/a:gone"], stdin=f"{PASSWORD}\n")

    def test_registry_is_asked_for_each_tag(self, docker: Docker, host: LocalSession, registry: Registry) -> None:
        """After the images of the host."""
        (docker.folder / "images").write_text("fp sha256:9 r/a@sha256:8\n")
        text = self.inspect(host, "no", registry.url).text
        assert text == f"local fp sha256:9 r/a@sha256:8\ntag 1.0 {DIGEST}\ntag gone absent\n"

    @one_shell
    def test_registry_is_not_asked_about_another_image(self, host: LocalSession, registry: Registry) -> None:
        """No image of ours on the host: it is built."""
        assert self.inspect(host, "no", registry.url).text == ""
        assert registry.asked == []
        assert self.inspect(host, "yes", registry.url).text == f"tag 1.0 {DIGEST}\ntag gone absent\n"


class TestCheckRegistry:
    """check_registry.sh."""

    def check(self, host: LocalSession, registry: Registry, url: str = "") -> Result:
        """Checks the registry on loopback."""
        where = ("127.0.0.1", registry.port, url or registry.url, "r", "sammy", "sammy/hello", "/nonexistent/ca.crt")
        return run(host, "check_registry", *where, stdin=f"{PASSWORD}\n")

    def test_steps(self, docker: Docker, host: LocalSession, registry: Registry) -> None:
        """Each is printed; the pushed tag is deleted; no argument of any program holds the password."""
        (docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        result = self.check(host, registry)
        assert (result.code, result.errors) == (0, "")
        assert result.text.split("\n")[:-1] == [
            "name", "connection", "/v2/", "docker login", "docker push", "docker pull", "delete", "earlier image",
        ]  # fmt: skip
        assert registry.asked[-2] == f"DELETE /v2/sammy/hello/manifests/{DIGEST}"
        assert [call for call in docker.calls() if PASSWORD in call] == []

    @one_shell
    @pytest.mark.parametrize(
        ("broken", "problem"),
        [
            ("refused", "login: Error: unauthorized"),
            ("unwritable", "push: "),
            ("gone", "pull: Error: manifest unknown"),
        ],
    )
    def test_first_problem(
        self, docker: Docker, host: LocalSession, registry: Registry, broken: str, problem: str
    ) -> None:
        """The step is named, with Docker's message."""
        (docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        (docker.folder / broken).touch()
        result = self.check(host, registry)
        assert result.code == 1
        assert result.errors.startswith(problem)

    @one_shell
    @pytest.mark.parametrize(("broken", "message", "advice"), GITLAB_REFUSES)
    def test_gitlab_refuses(
        self, docker: Docker, host: LocalSession, registry: Registry, broken: str, message: str, advice: str
    ) -> None:
        """The advice names the role, or the kind of password, that GitLab requires."""
        (docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        (docker.folder / broken).write_text(f"{message}\n")
        errors = self.check(host, registry).errors
        assert message in errors
        assert advice in errors.splitlines()[-1]

    @one_shell
    @pytest.mark.parametrize(
        ("status", "advice"),
        [(401, "the role Maintainer"), (405, "delete in registry.storage"), (500, "gitlab-ctl tail")],
    )
    def test_it_may_not_be_deleted(
        self, docker: Docker, host: LocalSession, registry: Registry, status: int, advice: str
    ) -> None:
        """A Developer pushes and does not delete; a registry may have deleting off. The tag that stays is named."""
        (docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        registry.deleting = status
        errors = self.check(host, registry).errors
        assert errors.startswith(f"delete: HTTP {status}")
        assert "stays in the registry: r/sammy/hello:provision-" in errors
        assert advice in errors.splitlines()[-1]

    @pytest.mark.parametrize("index", [False, True])
    @pytest.mark.parametrize(("status", "code"), [(200, 0), (307, 0), (404, 1), (500, 1)])
    def test_an_earlier_image(
        self, docker: Docker, host: LocalSession, registry: Registry, index: bool, status: int, code: int
    ) -> None:
        """Each layer of one tag is asked for, of one platform; tags of checks, and without a manifest, do not count."""
        (docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        config, layer, child = (f"sha256:{one * 64}" for one in "123")
        manifest = f'{{"config": {{"digest": "{config}"}}, "layers": [ {{"digest" : "{layer}"}} ]}}'.encode()
        listed = f'{{"manifests": [{{"digest": "{child}"}}, {{"digest": "{layer}"}}]}}'.encode()
        path = "/v2/sammy/hello"
        registry.answers = {
            f"{path}/tags/list": (200, b'{"name":"sammy/hello","tags":["provision-x","1.9","2.0","3.0"]}'),
            f"{path}/manifests/2.0": (200, listed if index else manifest),
            f"{path}/manifests/{child}": (200, manifest),
            f"{path}/blobs/{config}": (200, b""),
            f"{path}/blobs/{layer}": (status, b""),
        }
        result = self.check(host, registry)
        assert result.code == code
        if code:
            problem = f"earlier image: sammy/hello:2.0 is listed, and {layer} of it is answered with HTTP {status}"
            assert result.errors.startswith(problem)
            assert "copy all objects below docker/" in result.errors
        else:
            assert registry.asked[-1] == f"HEAD {path}/blobs/{layer}"

    @one_shell
    @pytest.mark.parametrize("step", ["refused", "unwritable", "gone"], ids=["login", "push", "pull"])
    @pytest.mark.parametrize("message", STARTING)
    def test_gitlab_starts(
        self, docker: Docker, host: LocalSession, registry: Registry, step: str, message: str
    ) -> None:
        """The code says that it may be repeated."""
        (docker.folder / "images").write_text(f"r/a@{DIGEST}\n")
        (docker.folder / step).write_text(message)
        result = self.check(host, registry)
        assert (result.code, message in result.errors) == (NOT_READY, True)

    @one_shell
    @pytest.mark.parametrize(("status", "code"), [(500, 1), (502, NOT_READY), (503, NOT_READY), (504, 1)])
    def test_the_registry_starts(self, host: LocalSession, serve: Any, reply: Any, status: int, code: int) -> None:
        """nginx answers for it."""
        web = serve(lambda _: reply(status))
        where = ("127.0.0.1", web.port, web.url, "r", "sammy", "sammy/hello", "/nonexistent/ca.crt")
        result = run(host, "check_registry", *where, stdin=f"{PASSWORD}\n")
        assert result.code == code
        assert result.errors.startswith(f"/v2/: answers HTTP/1.1 {status}")

    @one_shell
    def test_connection_refused(self, host: LocalSession, registry: Registry) -> None:
        """Host, address and port are named."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        errors = self.check(host, registry, f"http://127.0.0.1:{port}").errors
        assert errors.startswith("tcp: 127.0.0.1 (127.0.0.1) refuses port ")


class TestContainers:
    """list_containers.sh, show_logs.sh and follow_logs.sh."""

    def test_listed(self, docker: Docker, host: LocalSession) -> None:
        """As Docker prints them."""
        (docker.folder / "ps").write_text("web|running\n")
        assert run(host, "list_containers", "{{.Names}}", "yes").text == "web|running\n"

    def test_logs(self, docker: Docker, host: LocalSession) -> None:
        """Of a container that exists."""
        docker.run("web")
        assert run(host, "show_logs", "web", 5).text == "log line\n"
        assert docker.calls()[-1] == "docker logs --tail 5 web"
        assert run(host, "show_logs", "gone", 5).code == 1

    def test_logs_are_followed(self, docker: Docker, shell: tuple[str, ...]) -> None:
        """Below an sshd, which is a shell of that name here, until docker logs ends."""
        docker.run("web")
        sshd = docker.folder / "sshd"
        sshd.write_bytes(Path("/bin/sh").read_bytes())
        sshd.chmod(0o755)
        host = LocalSession({}, {"PATH": docker.path}, shell=(str(sshd), "-c", '"$@"; exit', "sshd", *shell))
        result = run(host, "follow_logs", "web", 5)
        assert (result.code, result.text) == (0, "log line\n")


PRUNE_DOCKER = """
case "$*" in
  'ps -aq --no-trunc -f'*) echo c1; echo c2 ;;
  'ps -aq --no-trunc') echo c1; echo c2; echo c3 ;;
  'container inspect -f {{.Image}}'*) echo i-used ;;
  'container inspect'*) echo 'c1|2020-01-01T00:00:00Z|2020-01-02T00:00:00Z|||/old'; echo 'c2|2020-01-01T00:00:00Z|0001-01-01T00:00:00Z|web||/app' ;;
  'info -f'*) echo "${0%/bin/docker}/root" ;;
  'images -q --no-trunc') echo i-used; echo i-old; echo i-new; echo i-helper ;;
  'image inspect -f {{.Id}}|'*)
    echo 'i-used|2020-01-01T00:00:00Z|"0001-01-01T00:00:00Z"|used:1 '; echo 'i-old|2020-01-01T00:00:00Z|"0001-01-01T00:00:00Z"|old:1 old:2 '
    echo 'i-new|2020-01-01T00:00:00Z|"2999-01-01T00:00:00Z"|new:1 '; echo 'i-helper|2020-01-01T00:00:00Z|"0001-01-01T00:00:00Z"|gitlab-runner-helper:1 ' ;;
  'image inspect'*) echo i-kept ;;
  'system df'*BuildCache*) cat "${0%/bin/docker}/cache" 2>/dev/null || : ;;
  'system df'*) echo 'i-old 5MB'; echo 'c1 1kB' ;;
esac
"""


class TestPrune:
    """prune_docker.sh and its timer."""

    def test_listed(self, docker: Docker, host: LocalSession) -> None:
        """Old and unused: no app's container, no used, recently tagged or helper image."""
        docker.add("docker", PRUNE_DOCKER)
        result = run(host, "prune_docker", "list", 14, ["kept:1"])
        assert result.text == "container|c1|1kB|old\nimage|i-old|5MB|old:1 old:2 \n"
        assert [call for call in docker.calls() if " rm" in call] == []

    def test_an_old_image_that_came_today_stays(self, docker: Docker, host: LocalSession) -> None:
        """Docker has no time of a pull, outside of the containerd store."""
        docker.add("docker", PRUNE_DOCKER)
        content = docker.folder / "root/image/overlay2/imagedb/content/sha256"
        content.mkdir(parents=True)
        (content / "i-old").touch()
        assert run(host, "prune_docker", "list", 14).text == "container|c1|1kB|old\n"

    def test_old_build_cache(self, docker: Docker, host: LocalSession) -> None:
        """What was not used lately, without what an image shares, what a used entry builds on, and BuildKit's own."""
        then, now = "2020-01-01 00:00:00.1 +0000 UTC", "2999-01-01 00:00:00.1 +0000 UTC"
        (docker.folder / "cache").write_text(
            f"gone|5MB|falsefalseregular||{then}\n"
            f"grandparent|1MB|falsefalseregular||{then}\nparent|1MB|falsefalseregular|grandparent|{then}\n"
            f"used|1MB|falsefalseregular|gone-before, parent|{now}\n"
            f"shared|1MB|falsetrueregular||{then}\nin-use|1MB|truefalseregular||{then}\n"
            f"child|2MB|falsefalsesource.local|gone|{then}\nfrontend|1MB|falsefalsefrontend||{then}\n"
        )
        docker.add("docker", PRUNE_DOCKER)
        text = run(host, "prune_docker", "list", 14).text
        assert text.startswith("cache|gone|5MB|\ncache|child|2MB|\ncontainer|")
        assert text.count("cache|") == 2

    def test_removed(self, docker: Docker, host: LocalSession) -> None:
        """An image under each of its names; the cache of builds after the images, which share layers with it."""
        docker.add("docker", PRUNE_DOCKER)
        assert run(host, "prune_docker", "remove", 14).code == 0
        assert [call for call in docker.calls() if " rm" in call or " builder " in call] == [
            "docker rm c1",
            "docker image rm old:1 old:2",
            "docker builder prune -f --filter until=336h",
        ]
