"""The handler that changes of gitlab.rb notify: its script, run by each shell with a fake `gitlab-ctl` and a registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from provision.resources.gitlab import gitlab_rb as module
from provision.shell import Result
from provision.url import Url
from tests.support.local import Local, one_shell

pytestmark = pytest.mark.slow

NEW, OLD = "external_url 'http://new'\n", "external_url 'http://old'\n"
REALM = "http://gitlab.example.com/jwt/auth"
CHEF = "echo >&2; echo 'There was an error running gitlab-ctl reconfigure:' >&2; echo >&2; echo 'no such database' >&2; exit 1"
LOCK = "opt/embedded/cookbooks/cache/cinc-client-running.pid"
WAITS = f"exec flock $top/{LOCK} true"  # as the real one: without a word, and without a limit
S3 = 'storage: {"s3":{"bucket":"b","regionendpoint":"http://127.0.0.1:9"}}\n'


@dataclass
class Gitlab:
    """A host with a gitlab.rb that was edited and not reconfigured yet, and a `gitlab-ctl` made of small scripts."""

    folder: Path
    local: Local
    answers: list[tuple[int, str]]  # what the registry answers one by one, the last for ever: status, realm
    url: str = ""
    new: str = NEW
    external: str = ""
    ready: int = 20

    def program(self, command: str, script: str) -> None:
        """What `gitlab-ctl COMMAND` does; `$n` counts the reconfigures from 1."""
        self.folder.joinpath("does", command).write_text(script)

    def run(self, *, limit: int = 20) -> Result:
        """Runs the script to its end."""
        folder = self.folder
        names = {"/etc/gitlab": "etc", "/var/lib/provision": "home", "/var/opt/gitlab": "var", "/run": "run"}
        names["/opt/gitlab"] = "opt"
        session = self.local(
            {old: folder / new for old, new in names.items()} | {"/var/log/gitlab": folder / "log"},
            {"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        )
        done = session.run(
            module.reconfigure(
                Url.parse(self.url) if self.url else None,
                REALM if self.url else "",
                Url.parse(self.external) if self.external else None,
                ready=self.ready,
                limit=limit,
            ).run,
            deadline=60,
        )
        assert list((folder / "run").iterdir()) == []
        return done

    @property
    def copy(self) -> Path:
        """Where the earlier gitlab.rb is."""
        return self.folder / "home/rollback/gitlab.rb"

    @property
    def in_force(self) -> list[str]:
        """The gitlab.rb of each reconfigure, in order."""
        return [path.read_text() for path in sorted((self.folder / "seen").iterdir())]

    @property
    def now(self) -> str:
        """gitlab.rb as it stands."""
        return (self.folder / "etc/gitlab.rb").read_text()

    @property
    def pending(self) -> list[str]:
        """The pending handlers, by name."""
        path = self.folder / "home/pending"
        return [line.partition("\t")[0] for line in path.read_text().splitlines()] if path.exists() else []


CTL = """#!/bin/sh
top=%s
case $1 in reconfigure) n=$(($(ls $top/seen | wc -l) + 1)); cp $top/etc/gitlab.rb $top/seen/$n ;; esac
[ ! -e "$top/does/$1" ] || . "$top/does/$1"
"""


@pytest.fixture
def gitlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Local) -> Gitlab:
    """All is well with it; it does not wait for services."""
    monkeypatch.setattr(module, "_UP_SECONDS", 0)
    for name in ("bin", "does", "etc", "home/rollback", "log/registry", "log/nginx", "run", "seen", "var/registry"):
        (tmp_path / name).mkdir(parents=True)
    ctl = tmp_path / "bin/gitlab-ctl"
    ctl.write_text(CTL % tmp_path)
    ctl.chmod(0o755)
    (tmp_path / "etc/gitlab.rb").write_text(NEW)
    (tmp_path / "home/rollback/gitlab.rb").write_text(OLD)
    (tmp_path / "home/pending").write_text("reconfigure\treconfigure GitLab\nreload\treload it\n")
    return Gitlab(tmp_path, local, [])


@pytest.fixture
def registry(gitlab: Gitlab) -> Iterator[Gitlab]:
    """The same with a registry that gives these `answers`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, realm = gitlab.answers.pop(0) if len(gitlab.answers) > 1 else gitlab.answers[0]
            body = b'{"detail":"health check failed"}'
            self.send_response(status)
            self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="container_registry"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    gitlab.url = f"http://registry.example.com:{server.server_port}"
    gitlab.answers = [(401, REALM)]
    gitlab.new = f"{NEW}registry_external_url '{gitlab.url}'\n"
    (gitlab.folder / "etc/gitlab.rb").write_text(gitlab.new)
    yield gitlab
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_new_state(gitlab: Gitlab) -> None:
    """It succeeds: one reconfigure with the new file, and no rollback copy is left."""
    gitlab.program("reconfigure", "echo 'gitlab Reconfigured!'")
    done = gitlab.run()
    assert (done.code, done.text, done.errors) == (0, "gitlab Reconfigured!\n", "")
    assert (gitlab.in_force, gitlab.now) == ([NEW], NEW)
    assert not gitlab.copy.parent.exists()


@dataclass(frozen=True)
class Fault:
    """What is wrong, what is printed then, and how often GitLab is reconfigured with which file."""

    name: str
    breaks: Callable[[Gitlab], None]
    words: tuple[str, ...]
    seen: tuple[str, ...]
    limit: int = 20


def does(command: str, script: str) -> Callable[[Gitlab], None]:
    """`gitlab-ctl COMMAND` does that."""
    return lambda gitlab: gitlab.program(command, script)


def once(script: str) -> str:
    """The first reconfigure does that; the next is well."""
    return f"if [ $n = 1 ]; then {script}\nfi"


def nginx_is_down(gitlab: Gitlab) -> None:
    """nginx does not start with the new file."""
    gitlab.program(
        "status",
        "! grep -q new $top/seen/$(ls $top/seen | tail -n 1) || echo 'down: nginx: 0s, normally up; run: log: (pid 1) 5s'",
    )
    gitlab.program("reconfigure", "echo 'nginx: [emerg] cannot load certificate' >> $top/log/nginx/current")


# As GitLab prints it: the error on standard error, the removed settings later and on standard output.
# Source: omnibus-gitlab, package/libraries/handlers/gitlab.rb, helpers/logging_helper.rb.
REMOVED = """
echo 'There was an error running gitlab-ctl reconfigure:' >&2
echo >&2
echo 'Removed configurations found in gitlab.rb. Aborting reconfigure.' >&2
echo; echo 'Removals:'
echo '* spamcheck has been deprecated since 19.0 and was removed in 19.0. Deploy it separately.'
echo; echo 'Update the configuration in your gitlab.rb file or GITLAB_OMNIBUS_CONFIG environment.'
echo; echo 'Deprecations:'; for i in 1 2 3 4 5 6 7 8 9; do echo "another setting $i"; done
echo 'Running handlers complete'; echo 'Infra Phase failed. 0 resources updated in 05 seconds'
exit 1
"""
SV = "/opt/gitlab/embedded/bin/sv restart /opt/gitlab/service/registry"
NOT_STARTED = f"""
echo 'time="now" level=fatal msg="configuring application: invalid storage"' >> $top/log/registry/current
echo 'There was an error running gitlab-ctl reconfigure:' >&2
echo >&2
echo "runit_service[registry] had an error: Expected process to exit with [0], but received '1'" >&2
echo '---- Begin output of {SV} ----' >&2
echo 'STDOUT: timeout: down: registry: 1s, normally up, want up; run: log: (pid 1) 20s' >&2
exit 1
"""
FAULTS = [
    Fault(
        "removed settings",
        does("reconfigure", once(REMOVED)),
        (
            "Removed configurations found in gitlab.rb",
            "* spamcheck has been deprecated since 19.0 and was removed in 19.0.",
        ),
        (NEW, OLD),
    ),
    Fault(
        "a service that does not start",
        does("reconfigure", once(NOT_STARTED)),
        ("STDOUT: timeout: down: registry: 1s", 'level=fatal msg="configuring application: invalid storage'),
        (NEW, OLD),
    ),
    Fault(
        "unreadable, with notices",
        does("show-config", f"{CHEF.removesuffix('; exit 1')}; echo Warnings:; seq 9; exit 1"),
        ("GitLab cannot read", "no such database"),
        (),
    ),
    Fault("unreadable", does("show-config", "echo 'undefined method external_ulr' >&2; exit 1"), ("external_ulr",), ()),
    Fault("chef", does("reconfigure", once(CHEF)), ("no such database",), (NEW, OLD)),
    Fault(
        "silent", does("reconfigure", once("echo last words; exit 7")), ("failed with code 7", "last words"), (NEW, OLD)
    ),
    Fault("slow", does("reconfigure", once("exec sleep 30")), ("did not end within 1 s",), (NEW, OLD), 1),
    Fault("down", nginx_is_down, ("down: nginx: 0s, normally up", "[emerg] cannot load certificate"), (NEW, OLD)),
]


@one_shell
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_the_old_state(gitlab: Gitlab, fault: Fault) -> None:
    """The previous file is restored, and reconfigured if a reconfigure had begun; only this handler is cleared; the cause is printed."""
    fault.breaks(gitlab)
    done = gitlab.run(limit=fault.limit)
    assert done.code == 1
    assert [word for word in fault.words if word not in done.errors] == []
    assert "another setting" not in done.errors
    unreadable = fault.name.startswith("unreadable")  # found before anything was reconfigured
    ending = "; nothing was reconfigured" if unreadable else ""
    assert done.errors.endswith(f"rolled back to the previous {gitlab.folder}/etc/gitlab.rb{ending}\n")
    assert (tuple(gitlab.in_force), gitlab.now, gitlab.pending) == (fault.seen, OLD, ["reload"])
    assert not gitlab.copy.parent.exists()


@contextmanager
def another(gitlab: Gitlab) -> Iterator[int]:
    """A reconfigure of another program, which holds the lock until the pipe `release` is opened: its process."""
    lock, release = gitlab.folder / LOCK, gitlab.folder / "release"
    lock.parent.mkdir(parents=True)
    os.mkfifo(release)
    script = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); open(sys.argv[2]).read()"
    )
    command = [sys.executable, "-c", script, str(lock), str(release)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.kill()


@pytest.mark.parametrize("command", ["show-config", "reconfigure"])
def test_another_one_is_waited_for(gitlab: Gitlab, command: str) -> None:
    """Who runs it is printed, and then ours begins."""
    gitlab.program(command, f": > $top/release; {WAITS.removeprefix('exec ')}; echo done")
    with another(gitlab) as process:
        done = gitlab.run()
    assert done.code == 0, done.errors
    waiting = f"waiting until another reconfigure ends, at most 20 s: process {process} (python) runs it"
    assert waiting in done.text.splitlines()
    assert gitlab.in_force == [NEW]


@pytest.mark.parametrize("command", ["show-config", "reconfigure"])
def test_another_one_that_does_not_end(gitlab: Gitlab, command: str) -> None:
    """The file is restored, nothing is reconfigured again; the other one may have read either file, so the handler stays pending."""
    gitlab.program(command, WAITS)
    with another(gitlab) as process:
        done = gitlab.run(limit=1)
    assert done.code == 1
    text = f"another reconfigure is running, and did not end within 1 s: process {process} (python)"
    assert done.errors.splitlines()[0] == text
    assert done.errors.endswith("; the next run reconfigures GitLab with it\n")
    assert gitlab.in_force == ([NEW] if command == "reconfigure" else [])
    assert (gitlab.now, gitlab.pending) == (OLD, ["reconfigure", "reload"])


@one_shell
def test_our_own_that_holds_the_lock_is_not_another_one(gitlab: Gitlab) -> None:
    """It did not end in time, and its process still has the lock: what it began is rolled back."""
    (gitlab.folder / LOCK).parent.mkdir(parents=True)
    # It outlives the limit, and holds the lock while the script looks for the holder.
    stays = f"flock $top/{LOCK} sh -c 'trap \"\" TERM; sleep 4' & wait"
    gitlab.program("reconfigure", once(stays))
    done = gitlab.run(limit=1)
    assert done.errors.splitlines() == [
        "gitlab-ctl reconfigure did not end within 1 s",
        f"rolled back to the previous {gitlab.folder}/etc/gitlab.rb",
    ]
    assert gitlab.in_force == [NEW, OLD]


@one_shell
def test_a_show_config_that_does_not_end(gitlab: Gitlab) -> None:
    """No process holds the lock: nothing was reconfigured."""
    gitlab.program("show-config", "exec sleep 30")
    done = gitlab.run(limit=1)
    assert done.errors.splitlines() == [
        "gitlab-ctl show-config did not end within 1 s",
        f"rolled back to the previous {gitlab.folder}/etc/gitlab.rb; nothing was reconfigured",
    ]
    assert (gitlab.in_force, gitlab.now, gitlab.pending) == ([], OLD, ["reload"])


@one_shell
def test_a_service_that_was_down_before(gitlab: Gitlab) -> None:
    """It was stopped before: the new file did not break it."""
    gitlab.program("status", "echo 'down: sidekiq: 9s, normally up; run: log: (pid 1) 5s'")
    assert gitlab.run().code == 0
    assert gitlab.now == NEW


@one_shell
def test_a_service_down_since_an_attempt_that_was_cut_short(gitlab: Gitlab) -> None:
    """The host went down while the new file was being put in force: what is down now, that file may have broken."""
    nginx_is_down(gitlab)
    gitlab.folder.joinpath("seen/0").write_text(NEW)
    gitlab.copy.with_name("gitlab.rb.begun").touch()
    assert gitlab.run().code == 1
    assert gitlab.in_force == [NEW, NEW, OLD]


@one_shell
def test_unreadable_after_an_attempt_that_was_cut_short(gitlab: Gitlab) -> None:
    """That attempt had begun to use the new file: it is rolled back, though this one began nothing."""
    gitlab.program("show-config", "exit 1")
    gitlab.copy.with_name("gitlab.rb.begun").touch()
    assert gitlab.run().code == 1
    assert (gitlab.in_force, gitlab.now, gitlab.pending) == ([OLD], OLD, ["reload"])


@one_shell
def test_the_old_one_fails_too(gitlab: Gitlab) -> None:
    """Both causes are printed; the handler stays pending and the copy is kept, for the next run."""
    gitlab.program("reconfigure", f"[ $n = 1 ] || {{ {CHEF.replace('database', 'disk')}; }}; {CHEF}")
    done = gitlab.run()
    assert done.code == 1
    assert "no such database" in done.errors
    assert "cannot be reconfigured with it either" in done.errors
    assert "no such disk" in done.errors
    assert (gitlab.now, gitlab.pending, gitlab.copy.read_text()) == (OLD, ["reconfigure", "reload"], OLD)


@one_shell
def test_there_was_none_before(gitlab: Gitlab) -> None:
    """On a host whose first gitlab.rb this is, there is nothing to restore: the message says so, and the handler stays pending."""
    gitlab.copy.unlink()
    gitlab.program("reconfigure", CHEF)
    done = gitlab.run()
    assert done.errors.endswith("to restore: it keeps the new settings\n")
    assert (gitlab.in_force, gitlab.now, gitlab.pending) == ([NEW], NEW, ["reconfigure", "reload"])


def test_the_registry_answers(registry: Gitlab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take a moment; its configuration is as before, so that its storage is not checked."""
    monkeypatch.setattr(module, "_UP_SECONDS", 5)
    registry.answers = [(502, ""), (401, REALM)]
    done = registry.run()
    assert (done.code, done.text, registry.now) == (0, "waiting until GitLab's services are up\n", registry.new)


@one_shell
def test_a_registry_that_is_not_asked_for_yet(registry: Gitlab) -> None:
    """`provision gitlab` alone, or with the registry's old address still in gitlab.rb: it is not this run's to bring up."""
    registry.answers = [(503, "")]
    for text in (
        NEW,
        f"{NEW}registry_external_url 'http://old.example.com:1'\n#registry_external_url '{registry.url}'\n",
    ):
        (registry.folder / "etc/gitlab.rb").write_text(text)
        assert (registry.run().code, registry.now) == (0, text)


@one_shell
@pytest.mark.parametrize(
    ("status", "realm", "words"),
    [
        (
            401,
            "http://old.example.com/jwt/auth",
            f"does not send clients to {REALM}, but: WWW-Authenticate: Bearer realm=",
        ),
        (
            503,
            REALM,
            'answers 503 instead of 401\n{"detail":"health check',
        ),
    ],
    ids=["another realm", "unavailable"],
)
def test_the_registry_does_not(registry: Gitlab, status: int, realm: str, words: str) -> None:
    """Its answer is printed, with the body of a failure; the previous file is restored."""
    registry.answers = [(status, realm)]
    done = registry.run()
    assert (done.code, words in done.errors) == (1, True), done.errors
    assert registry.in_force == [registry.new, OLD]


class TestRails:
    """Workhorse answers 502 until Rails has booted: everything that follows needs it."""

    def answers(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any, *statuses: int) -> list[str]:
        """GitLab answers these, the last for ever; the paths that were asked."""
        asked: list[str] = []
        left = list(statuses)

        def answer(request: Any) -> Any:
            asked.append(request.path)
            return reply(left.pop(0) if len(left) > 1 else left[0])

        gitlab.external = f"http://gitlab.example.com:{serve(answer).port}/git"
        return asked

    def test_it_is_waited_for(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any) -> None:
        """It answers 502 twice; the first request is that of before the reconfigure."""
        asked = self.answers(gitlab, serve, reply, 200, 502, 502, 200)
        done = gitlab.run()
        assert (done.code, gitlab.now, asked) == (0, NEW, ["/git/-/readiness"] * 4)
        waiting = re.sub(r"for \d+ s of", "for N s of", done.text)  # whole seconds of a clock
        line = f"waiting until GitLab is ready, for N s of at most 20 s: {gitlab.external}/-/readiness answers 502\n"
        assert waiting == line

    @one_shell
    def test_it_does_not_boot(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any) -> None:
        """The previous gitlab.rb is restored and reconfigured, without waiting again."""
        gitlab.ready = 1
        asked = self.answers(gitlab, serve, reply, 200, 502)
        done = gitlab.run()
        problem = f"{gitlab.external}/-/readiness answers 502; see gitlab-ctl tail puma"
        cause = f"GitLab was reconfigured, but is not ready within 1 s: {problem}"
        assert (done.code, done.errors.splitlines()[0]) == (1, cause)
        assert (gitlab.in_force, gitlab.now, gitlab.pending) == ([NEW, OLD], OLD, ["reload"])
        assert len(asked) < 5

    @one_shell
    def test_it_was_broken_before(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any) -> None:
        """That is no fault of the new file, which may be a part of the repair."""
        gitlab.ready = 1
        self.answers(gitlab, serve, reply, 502)
        done = gitlab.run()
        assert (done.code, gitlab.now) == (0, NEW)
        assert "GitLab is still not ready, as before this reconfigure: " in done.text

    @one_shell
    @pytest.mark.parametrize("status", [200, 404])
    def test_it_is_ready(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any, status: int) -> None:
        """Nothing is printed, and nothing waits. 404: monitoring_whitelist leaves this host out."""
        asked = self.answers(gitlab, serve, reply, status)
        done = gitlab.run()
        assert (done.code, done.text, len(asked)) == (0, "", 2)

    @one_shell
    def test_no_waiting(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any) -> None:
        """ready_timeout = 0: it is not asked."""
        gitlab.ready = 0
        asked = self.answers(gitlab, serve, reply, 502)
        assert (gitlab.run().code, asked) == (0, [])


class Storage:
    """A registry with storage elsewhere: its answers by method, the requests that it got, and its log.

    It answers requests with a token that GitLab's key signed for a repository that no project has.
    """

    def __init__(self, gitlab: Gitlab, serve: Callable[..., Any], reply: Any) -> None:
        key, bundle = (gitlab.folder / name for name in ("registry.key", "registry.crt"))
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=gitlab-issuer"]
        subprocess.run([*make, "-keyout", key, "-out", bundle], check=True, capture_output=True)
        self._certificate = x509.load_pem_x509_certificate(bundle.read_bytes())
        self._reply = reply
        self.codes: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        self.kept = b""
        self.altered = b""
        self.deletes = True
        self.web = serve(self._answer)
        self.log = gitlab.folder / "log/registry/current"
        gitlab.url = f"http://127.0.0.1:{self.web.port}"
        (gitlab.folder / "etc/gitlab.rb").write_text(f"{NEW}registry_external_url '{gitlab.url}'\n")
        rails = gitlab.folder / "var/gitlab-rails/etc/gitlab.yml"
        rails.parent.mkdir(parents=True)
        rails.write_text(f"production:\n  registry:\n    enabled: true\n    key: {key}\n  gitlab:\n    key: other\n")
        self._config = f"""{S3}http:
  addr: 0.0.0.0:{self.web.port}
  debug:
    addr: 127.0.0.1:1
auth:
  token:
    realm: {REALM}
    service: container_registry
    issuer: omnibus-gitlab-issuer
    rootcertbundle: {bundle}
"""
        gitlab.program("reconfigure", f"cat > $top/var/registry/config.yml <<'E'\n{self._config}E")

    def _answer(self, request: Any) -> Any:
        if request.path == "/v2/":
            return self._reply(401, headers={"WWW-Authenticate": f'Bearer realm="{REALM}"'})
        method, _, query = request.method, *request.path.partition("?")[1:]
        if request.path.startswith("/storage/"):
            self.requests.append(f"{method} storage")
            assert "authorization" not in request.headers  # the token is for the registry alone
            return self._reply(200, self.kept + self.altered)
        self.requests.append(method)
        self._check(request.headers["authorization"].removeprefix("Bearer "))
        code, text = self.codes.get(method, ({"POST": 202, "PUT": 201, "GET": 200, "DELETE": 202}[method], ""))
        assert request.path.startswith("/v2/provision-storage-check/blobs/")
        if method == "PUT":
            assert query.startswith("_state=abc&digest=sha256:" + hashlib.sha256(request.body).hexdigest())
            self.kept = request.body
        if self.requests[-2:] == ["DELETE", "GET"] and self.deletes:
            code = 404
        target = "/storage/x?signed" if code == 307 else "/v2/provision-storage-check/blobs/uploads/1?_state=abc"
        headers = {"Location": f"http://127.0.0.1:{self.web.port}{target}"} if method in ("POST", "GET") else {}
        return self._reply(
            code, text.encode() or (self.kept + self.altered if method == "GET" else b""), headers=headers
        )

    def _check(self, token: str) -> None:
        head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
        (chain,) = json.loads(head)["x5c"]
        assert x509.load_der_x509_certificate(base64.b64decode(chain)) == self._certificate
        signed = token.rpartition(".")[0].encode()
        public = self._certificate.public_key()
        assert isinstance(public, RSAPublicKey)
        public.verify(signature, signed, PKCS1v15(), SHA256())
        said = json.loads(claims)
        assert (said["iss"], said["aud"]) == ("omnibus-gitlab-issuer", "container_registry")
        assert said["access"][0]["name"] == "provision-storage-check"
        assert said["nbf"] <= time.time() < said["exp"]


@pytest.fixture
def storage(gitlab: Gitlab, serve: Callable[..., Any], reply: Any) -> Storage:
    """The same with a registry whose storage works."""
    return Storage(gitlab, serve, reply)


CHECKED = "the registry answers; checking its storage with an upload\n"


def test_far_storage_is_used(gitlab: Gitlab, storage: Storage) -> None:
    """With another configuration and storage elsewhere, a blob is uploaded, read and deleted."""
    done = gitlab.run()
    assert (done.code, done.text, done.errors) == (0, CHECKED, "")
    assert storage.requests == ["POST", "PUT", "GET", "DELETE", "GET"]
    assert storage.kept.startswith(b"written by provision ")


def rails_and_storage(
    gitlab: Gitlab, storage: Storage, serve: Callable[..., Any], reply: Any
) -> tuple[list[str], threading.Event]:
    """What Rails was asked: it answers 502 at first. The storage answers once Rails was asked since the reconfigure."""
    asked: list[str] = []
    booting, ready = threading.Event(), threading.Event()

    def answer(request: Any) -> Any:
        asked.append(request.path)
        if len(asked) > 1:  # the first is that of before the reconfigure
            booting.set()
        return reply(200 if ready.is_set() or len(asked) == 1 else 502)

    plain = storage._reply

    def late(*arguments: Any, **named: Any) -> Any:
        assert arguments[0] == 401 or booting.wait(10)  # 401: /v2/ itself, whose answer the reconfigure waits for
        return plain(*arguments, **named)

    storage._reply = late
    gitlab.external = f"http://gitlab.example.com:{serve(answer).port}"
    return asked, ready


def test_the_storage_is_checked_while_rails_boots(
    gitlab: Gitlab, storage: Storage, serve: Callable[..., Any], reply: Any
) -> None:
    """Both happen at the same time, and the reconfigure ends after both."""
    _, ready = rails_and_storage(gitlab, storage, serve, reply)
    plain = storage._reply

    def then_ready(*arguments: Any, **named: Any) -> Any:
        if len(storage.requests) == 5:
            ready.set()
        return plain(*arguments, **named)

    storage._reply = then_ready
    done = gitlab.run()
    assert (done.code, gitlab.now.startswith(NEW)) == (0, True)
    assert storage.requests == ["POST", "PUT", "GET", "DELETE", "GET"]


@one_shell
def test_a_bad_storage_is_not_waited_with(
    gitlab: Gitlab, storage: Storage, serve: Callable[..., Any], reply: Any
) -> None:
    """While Rails does not become ready, the storage's error ends the wait at once. The report names it as the cause."""
    gitlab.ready = 50
    storage.codes["POST"] = (503, "no role")
    asked, _ = rails_and_storage(gitlab, storage, serve, reply)
    done = gitlab.run()
    assert done.errors.startswith("the registry cannot use its storage: an upload cannot be started: HTTP 503 no role")
    assert gitlab.now == OLD
    assert len(asked) < 10


@one_shell
def test_a_redirect_to_the_storage_is_followed_without_the_token(gitlab: Gitlab, storage: Storage) -> None:
    """The registry sends readers to the storage, as it does by default."""
    storage.codes["GET"] = (307, "")
    assert gitlab.run().code == 0
    assert storage.requests == ["POST", "PUT", "GET", "GET storage", "DELETE", "GET"]


@one_shell
def test_a_registry_without_delete_is_accepted(gitlab: Gitlab, storage: Storage) -> None:
    """registry['storage'] has delete disabled: 405."""
    storage.codes["DELETE"] = (405, '{"errors":[{"code":"UNSUPPORTED"}]}')
    assert gitlab.run().code == 0


@one_shell
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("POST", "an upload cannot be started: HTTP 503 no role"),
        ("PUT", "an upload cannot be written: HTTP 503 no role"),
        ("GET", "what was written cannot be read: HTTP 503 no role"),
        ("DELETE", "what was written cannot be deleted: HTTP 503 no role"),
    ],
)
def test_storage_that_cannot_be_used(gitlab: Gitlab, storage: Storage, method: str, words: str) -> None:
    """The message has the step, the answer, that the storage cannot be reached, and the registry's errors since."""
    storage.log.write_text('level=error msg="of long ago"\n')
    storage.codes[method] = (503, "no role")
    lines = 'level=warning msg="authorization token required"\nlevel=error msg="s3: connection refused"\n'
    does = gitlab.folder / "does/reconfigure"
    does.write_text(f"{does.read_text()}\nprintf '%s' '{lines}' >> {storage.log}")
    done = gitlab.run()
    assert done.code == 1
    assert done.errors.startswith(f"the registry cannot use its storage: {words}")
    assert "the storage http://127.0.0.1:9 cannot be reached from the host: curl: (7)" in done.errors
    assert "s3: connection refused" in done.errors
    assert "of long ago" not in done.errors
    assert "token required" not in done.errors
    assert gitlab.now == OLD


@one_shell
def test_other_content_than_was_written(gitlab: Gitlab, storage: Storage) -> None:
    """A cache or another bucket answers."""
    storage.altered = b"!"
    done = gitlab.run()
    assert "the registry cannot use its storage: what was read is not what was written" in done.errors
    assert gitlab.now == OLD


@one_shell
def test_a_deletion_that_deletes_nothing(gitlab: Gitlab, storage: Storage) -> None:
    """The keys may not delete: S3 answers 200 all the same, and so does an older registry."""
    storage.deletes = False
    done = gitlab.run()
    assert "the registry cannot use its storage: what was deleted can still be read: HTTP 200" in done.errors
    assert gitlab.now == OLD


@one_shell
def test_storage_that_does_not_answer(gitlab: Gitlab, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole check has a time limit: a driver may look for an IAM role for minutes."""
    monkeypatch.setattr(module, "_STORAGE_SECONDS", 1)
    answered = threading.Event()
    storage.codes["POST"] = (202, "")
    plain = storage._reply

    def slow(*arguments: Any, **named: Any) -> Any:
        if arguments[0] == 202:
            answered.wait(10)
        return plain(*arguments, **named)

    storage._reply = slow
    try:
        done = gitlab.run()
    finally:
        answered.set()
    assert "an upload cannot be started: curl: (28)" in done.errors
    assert gitlab.now == OLD


@one_shell
def test_without_the_key_it_is_not_checked(gitlab: Gitlab, storage: Storage) -> None:
    """Rails runs on another host: the output says so, and which command checks it."""
    (gitlab.folder / "registry.key").unlink()
    done = gitlab.run()
    assert (done.code, storage.requests) == (0, [])
    assert done.text.startswith(f"{CHECKED}its storage was not checked: this host has no key to sign a token with")
    assert "provision verify" in done.text


@one_shell
def test_an_attempt_that_was_cut_short_is_checked_again(gitlab: Gitlab, storage: Storage) -> None:
    """The host went down during the check: the configuration is as before, but the storage was not checked to its end."""
    gitlab.run()
    gitlab.copy.parent.mkdir(exist_ok=True)
    gitlab.copy.write_text(OLD)
    gitlab.copy.with_name("gitlab.rb.begun").touch()
    storage.codes["POST"] = (503, "no role")
    assert gitlab.run().code == 1
    assert gitlab.now == OLD


@one_shell
def test_storage_on_the_hosts_disk_is_not_checked(registry: Gitlab) -> None:
    """Without it the registry would not even start."""
    registry.program(
        "reconfigure", """echo 'storage: {"filesystem":{"rootdirectory":"/var"}}' > $top/var/registry/config.yml"""
    )
    assert (registry.run().text, registry.now) == ("", registry.new)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://gitlab.example.com:5555", "https://gitlab.example.com:5555 "),
        ("https://registry.example.com/", "https://registry.example.com "),
        ("https://[2001:db8::1]:5555", "'https://[2001:db8::1]:5555' "),
        ("", "'' "),
    ],
)
def test_the_registry_is_asked_on_the_host_itself(url: str, shown: str) -> None:
    """By its URL, connecting to loopback: an IPv6 address as well as a name."""
    script = module.reconfigure(Url.parse(url) if url else None).run.script
    assert f"set -- {shown}" in script
    assert '--connect-to "::$(loopback_of "$service"):" "$@" -- "$service"' in script
    assert 'ask_service "$url/v2/" -o' in script


@pytest.mark.parametrize(("listens", "code"), [("::1", 0), ("127.0.0.1", 1)])
def test_an_ipv6_address_must_answer_on_ipv6(
    gitlab: Gitlab, serve: Callable[..., Any], reply: Any, listens: str, code: int
) -> None:
    """A registry at an IPv6 address whose nginx listens on IPv4 only cannot be reached: the new file is rolled back."""
    web = serve(lambda _: reply(401, headers={"WWW-Authenticate": f'Bearer realm="{REALM}"'}), address=listens)
    gitlab.url = f"http://[2001:db8::1]:{web.port}"
    (gitlab.folder / "etc/gitlab.rb").write_text(f"{NEW}registry_external_url '{gitlab.url}'\n")
    done = gitlab.run()
    assert done.code == code, done.errors
    assert ("answers nothing instead of 401" in done.errors, gitlab.now == OLD) == (code == 1, code == 1)


def test_it_outlives_the_connection() -> None:
    """Detached, under one name, and longer than two attempts."""
    handler = module.reconfigure()
    assert (handler.name, handler.detached, handler.rolls_back) == ("reconfigure", True, True)
    assert handler.deadline > 2 * 1500
    assert handler.run.stdin == b""
