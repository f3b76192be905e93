"""The lab's gitlab-runner compared with the real one: each known fact is a test that runs the program."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import DATA

PROGRAM = Path(__file__).resolve().parents[2] / "lab/provision_lab/standins/gitlab_runner/host"
TOKEN = "glrt-abcdefghijklmnopqrst"
OLD_TOKEN = "oldauthenticationtoken"
REGISTRATION = "GR1348941registration"
_START = f"import sys; sys.path[0] = {str(PROGRAM.parent)!r}; from host.cli import main; main()"  # as the package does


@dataclass
class FakeGitLab:
    """An API with some valid tokens, which records the requests."""

    url: str = ""
    tokens: set[str] = field(default_factory=lambda: {TOKEN, OLD_TOKEN})
    legacy: bool = False
    broken: bool = False
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body, as in the real API's description."""
        self.asked.append((method, path.removeprefix("/api/v4"), body))
        if self.broken:
            return 500, {}
        known = body.get("token") in self.tokens
        match method, path.removeprefix("/api/v4"):
            case "POST", "/runners/verify":
                return (200, {"id": 42, "token": body["token"], "token_expires_at": None}) if known else (403, {})
            case "POST", "/runners":
                if not self.legacy:
                    return 410, {"message": "410 Gone"}
                return (201, {"id": 7, "token": "fromlegacy", "token_expires_at": None})
            case "POST", "/jobs/request":
                return (204, None) if known else (403, {})
            case "DELETE", "/runners" | "/runners/managers":
                return (204, None) if known else (403, {})
            case "POST", "/runners/reset_authentication_token":
                self.tokens = {"glrt-renewed"}
                return 201, {"token": "glrt-renewed", "token_expires_at": None}
        return 404, {}

    def paths(self) -> list[str]:
        """The requests, as `METHOD path`."""
        return [f"{method} {path}" for method, path, _ in self.asked]


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[FakeGitLab]:
    """The API on a loopback port, over TLS when a context is given."""
    gitlab = FakeGitLab()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            status, data = gitlab.answer(self.command, self.path, body)
            text = b"" if data is None else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_DELETE = do_POST

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    gitlab.url = f"{'https' if context else 'http'}://localhost:{server.server_address[1]}"
    try:
        yield gitlab
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def gitlab() -> Iterator[FakeGitLab]:
    """The API over plain HTTP."""
    with serving() as api:
        yield api


@dataclass
class Runner:
    """The program with its configuration in a folder of its own."""

    folder: Path

    @property
    def config(self) -> Path:
        """Its config.toml."""
        return self.folder / "etc" / "config.toml"

    @property
    def switches(self) -> Path:
        """The folder for jobs."""
        return self.folder / "switches"

    def environment(self, **more: str) -> dict[str, str]:
        """A clean environment: stray variables would be written to config.toml."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CONFIG_FILE": str(self.config),
            "GITLAB_RUNNER_STANDIN": str(self.switches),
        } | more

    def argv(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-SE", "-c", _START, *words]

    def __call__(self, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), input=stdin, capture_output=True, text=True, env=self.environment(**more), timeout=20
        )

    def register(self, url: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`register` without questions, for a docker executor."""
        docker = ("--executor", "docker", "--docker-image", "docker:28")
        return self("register", "--non-interactive", "--url", url, *docker, *words, **more)

    def entries(self) -> list[dict[str, Any]]:
        """The entries of its file."""
        found: list[dict[str, Any]] = tomllib.loads(self.config.read_text()).get("runners", [])
        return found

    def write(self, text: str) -> None:
        """Writes its file."""
        self.config.parent.mkdir(exist_ok=True, mode=0o700)
        self.config.write_text(text)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A fresh installation."""
    (tmp_path / "switches").mkdir()
    return Runner(tmp_path)


def entry(url: str, token: str = TOKEN, name: str = "one") -> str:
    """An entry with a comment and an unknown key."""
    return (
        "# by hand\nconcurrent = 2\n[[runners]]\n"
        f'  name = "{name}"\n  url = "{url}"\n  token = "{token}"\n  executor = "shell"\n  our_note = "x"\n'
    )


# register


def test_created_token_is_verified_and_written_like_the_real_one(runner: Runner, gitlab: FakeGitLab) -> None:
    """`--token glrt-…`: one POST runners/verify, and a file as gitlab-runner lays it out."""
    words = ("--token", TOKEN, "--name", "docker-runner-1", "--docker-privileged", "--docker-volumes", "/certs/client")
    done = runner.register(gitlab.url, *words, "--docker-pull-policy", "if-not-present")
    assert done.returncode == 0, done.stderr
    assert gitlab.paths() == ["POST /runners/verify"]
    assert gitlab.asked[0][2]["system_id"] == runner.config.with_name(".runner_system_id").read_text()
    assert re.search(r"^Verifying runner\.\.\. is valid {23} correlation_id=\w+ runner=abcdefghi$", done.stderr, re.M)
    assert "Runner registered successfully." in done.stderr
    text = re.sub(r"token_obtained_at = .*", "token_obtained_at = T", runner.config.read_text())
    assert text == (
        f"""\
concurrent = 1
check_interval = 0
connection_max_age = "15m0s"
shutdown_timeout = 0

[session_server]
  session_timeout = 1800

[[runners]]
  name = "docker-runner-1"
  url = "{gitlab.url}"
  id = 42
  token = "{TOKEN}"
  token_obtained_at = T
  token_expires_at = 0001-01-01T00:00:00Z
  executor = "docker"
  [runners.cache]
    MaxUploadedArchiveSize = 0
    [runners.cache.s3]
      AssumeRoleMaxConcurrency = 0
    [runners.cache.gcs]
    [runners.cache.azure]
  [runners.docker]
    tls_verify = false
    image = "docker:28"
    privileged = true
    disable_entrypoint_overwrite = false
    oom_kill_disable = false
    disable_cache = false
    volumes = ["/certs/client", "/cache"]
    volume_keep = false
    pull_policy = ["if-not-present"]
    shm_size = 0
    network_mtu = 0
"""
    )
    assert runner.config.stat().st_mode & 0o777 == 0o600
    assert runner.config.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["config.toml.register-19.3.0-docker.sample", "config.toml.19.3.0-fuller.sample"])
def test_file_is_the_real_ones_byte_for_byte(runner: Runner, gitlab: FakeGitLab, name: str) -> None:
    """A real file read and written again is the same file."""
    text = (DATA / name).read_text()
    runner.write(text + "[[runners]]" + entry(gitlab.url, "glrt-gone", "gone").partition("[[runners]]")[2])
    assert runner("verify", "--delete", "--name", "gone").returncode == 0
    assert runner.config.read_text() == text


@pytest.mark.parametrize(
    "words",
    [
        ("--locked=false",),
        ("--access-level", "ref_protected"),
        ("--run-untagged",),
        ("--maximum-timeout", "60"),
        ("--paused",),
        ("--tag-list", "docker"),
        ("--maintenance-note", "x"),
    ],
    ids=lambda words: words[0],
)
def test_created_token_refuses_what_the_server_holds(
    runner: Runner, gitlab: FakeGitLab, words: tuple[str, ...]
) -> None:
    """The server stores those settings now: fatal with --token, ignored with --registration-token."""
    refused = runner.register(gitlab.url, "--token", TOKEN, *words)
    assert refused.returncode == 1
    assert "FATAL: Runner configuration other than name and executor configuration is reserved" in refused.stderr
    assert gitlab.asked == []
    ignored = runner.register(gitlab.url, "--registration-token", TOKEN, *words)
    assert ignored.returncode == 0, ignored.stderr
    assert "WARNING: You have specified an authentication token in the legacy parameter" in ignored.stderr


def test_locked_as_it_is_anyway_is_no_reason(runner: Runner, gitlab: FakeGitLab) -> None:
    """`--locked` alone is the default, and is accepted."""
    assert runner.register(gitlab.url, "--token", TOKEN, "--locked").returncode == 0


def test_registration_token_is_gone(runner: Runner, gitlab: FakeGitLab) -> None:
    """An old registration token: 410 since 17.0, exit 1, no file."""
    done = runner.register(gitlab.url, "--registration-token", REGISTRATION)
    assert done.returncode == 1
    assert "ERROR: Registering runner... is disallowed" in done.stderr
    assert "status=410 Gone" in done.stderr
    assert "PANIC: Failed to register the runner." in done.stderr
    assert not runner.config.exists()


def test_registration_token_where_it_is_allowed(runner: Runner, gitlab: FakeGitLab) -> None:
    """Tags and the like are sent; the answer's token is written."""
    gitlab.legacy = True
    done = runner.register(gitlab.url, "-r", REGISTRATION, "--tag-list", "a,b", "--paused")
    assert done.returncode == 0, done.stderr
    assert "WARNING: Support for registration tokens and runner parameters" in done.stderr
    method, path, body = gitlab.asked[0]
    assert (method, path, body["tag_list"], body["paused"], body["locked"]) == ("POST", "/runners", "a,b", True, True)
    assert runner.entries()[0]["token"] == "fromlegacy"


def test_other_authentication_token_is_verified(runner: Runner, gitlab: FakeGitLab) -> None:
    """`--token` without the prefix: a warning, a check, an entry."""
    done = runner.register(gitlab.url, "--token", OLD_TOKEN)
    assert done.returncode == 0, done.stderr
    assert "WARNING: If you want to register use the '-r' instead of '-t'." in done.stderr
    assert "Verifying runner... is alive" in done.stderr
    assert runner.entries()[0]["token"] == OLD_TOKEN


def test_registering_again_makes_a_second_entry(runner: Runner, gitlab: FakeGitLab) -> None:
    """It is not idempotent: a warning, and one more [[runners]]."""
    assert runner.register(gitlab.url, "--token", TOKEN).returncode == 0
    again = runner.register(gitlab.url, "--token", TOKEN)
    assert again.returncode == 0
    assert "WARNING: A runner with this system ID and token has already been registered." in again.stderr
    assert [one["token"] for one in runner.entries()] == [TOKEN, TOKEN]


def test_refused_token(runner: Runner, gitlab: FakeGitLab) -> None:
    """403: not valid, exit 1, nothing written."""
    done = runner.register(gitlab.url, "--token", "glrt-unknown")
    assert done.returncode == 1
    assert "Verifying runner... is not valid" in done.stderr
    assert "PANIC: Failed to verify the runner." in done.stderr
    assert not runner.config.exists()


def test_every_flag_has_its_twin_in_the_environment(runner: Runner, gitlab: FakeGitLab) -> None:
    """The whole registration by environment; a stray DOCKER_HOST is written to the file."""
    twins = {"CI_SERVER_URL": gitlab.url, "CI_SERVER_TOKEN": TOKEN, "RUNNER_NAME": "env", "RUNNER_EXECUTOR": "docker"}
    twins |= {"DOCKER_IMAGE": "i", "DOCKER_PRIVILEGED": "true", "DOCKER_VOLUMES": "/a,/b", "DOCKER_TLS_VERIFY": "1"}
    done = runner("register", REGISTER_NON_INTERACTIVE="true", DOCKER_HOST="tcp://stray:2375", **twins)
    assert done.returncode == 0, done.stderr
    found = runner.entries()[0]
    assert (found["name"], found["docker"]["volumes"]) == ("env", ["/a", "/b", "/cache"])
    assert (found["docker"]["host"], found["docker"]["tls_verify"]) == ("tcp://stray:2375", True)
    assert len((PROGRAM / "flags.tsv").read_text().splitlines()) == 1 + 143


@pytest.mark.parametrize(
    ("words", "volumes"),
    [
        ((), ["/cache"]),
        (("--docker-volumes", "/a"), ["/a", "/cache"]),
        (("--docker-volumes", "/srv/x:/cache"), ["/srv/x:/cache"]),
        (("--docker-volumes", "/a", "--docker-disable-cache"), ["/a"]),
    ],
)
def test_cache_is_appended_to_volumes(
    runner: Runner, gitlab: FakeGitLab, words: tuple[str, ...], volumes: list[str]
) -> None:
    """Unless it is there, or caching is off."""
    assert runner.register(gitlab.url, "--token", TOKEN, *words).returncode == 0
    assert runner.entries()[0]["docker"]["volumes"] == volumes


def test_template_fills_what_is_empty(runner: Runner, gitlab: FakeGitLab, tmp_path: Path) -> None:
    """Empty fields only; its token is ignored; exactly one entry."""
    template = tmp_path / "template.toml"
    template.write_text(
        '[[runners]]\n token = "glrt-of-the-template"\n limit = 5\n'
        ' [runners.docker]\n image = "other"\n memory = "1g"\n privileged = true\n'
    )
    done = runner.register(gitlab.url, "--token", TOKEN, "--template-config", str(template))
    assert done.returncode == 0, done.stderr
    found = runner.entries()[0]
    assert (found["token"], found["limit"], found["docker"]["image"]) == (TOKEN, 5, "docker:28")
    assert (found["docker"]["memory"], found["docker"]["privileged"]) == ("1g", True)
    template.write_text("[[runners]]\n[[runners]]\n")
    two = runner.register(gitlab.url, "--token", TOKEN, "--template-config", str(template))
    assert two.returncode == 1
    assert "must contain exactly one [[runners]] entry" in two.stderr


@pytest.mark.parametrize(("leave", "asked"), [((), ["DELETE /runners/managers"]), (("--leave-runner",), [])])
def test_later_failure_unregisters(
    runner: Runner, gitlab: FakeGitLab, leave: tuple[str, ...], asked: list[str]
) -> None:
    """An executor that does not exist is detected after the token was verified."""
    done = runner("register", "-n", "--url", gitlab.url, "--token", TOKEN, "--executor", "nonsense", *leave)
    assert done.returncode == 1
    assert "PANIC: Invalid executor specified" in done.stderr
    assert gitlab.paths() == ["POST /runners/verify", *asked]


def test_questions(runner: Runner, gitlab: FakeGitLab) -> None:
    """Without --non-interactive it asks, and fails at the end of input."""
    answers = f"{gitlab.url}\nby-hand\ndocker\nalpine\n"
    assert runner("register", "--token", TOKEN, stdin=answers).returncode == 0
    assert (runner.entries()[0]["name"], runner.entries()[0]["docker"]["image"]) == ("by-hand", "alpine")
    silent = runner("register", "--token", TOKEN)
    assert silent.returncode == 1
    assert "PANIC: Unexpected EOF. Did you mean to use --non-interactive?" in silent.stderr


def test_unknown_flag(runner: Runner) -> None:
    """The error of Go programs."""
    done = runner("register", "--dockerimage", "x")
    assert done.returncode == 1
    assert "flag provided but not defined: -dockerimage" in done.stderr


def test_rewriting_loses_comments_and_unknown_keys(runner: Runner, gitlab: FakeGitLab) -> None:
    """register rewrites the whole file."""
    runner.write(entry(gitlab.url, OLD_TOKEN))
    assert runner.register(gitlab.url, "--token", TOKEN).returncode == 0
    text = runner.config.read_text()
    assert "by hand" not in text
    assert "our_note" not in text
    assert [one["token"] for one in runner.entries()] == [OLD_TOKEN, TOKEN]
    assert "concurrent = 2" in text


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.crt and a server's pair for localhost."""
    folder = tmp_path_factory.mktemp("authority")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.crt")]
    subprocess.run([*make, *names, *files], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("how", ["flag", "named", "none"])
def test_private_authority(runner: Runner, authority: Path, how: str) -> None:
    """tls-ca-file, or certs/<host>.crt beside config.toml; otherwise x509's error about the issuer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "ca.crt", authority / "key.pem")
    words: tuple[str, ...] = ()
    if how == "flag":
        words = ("--tls-ca-file", str(authority / "ca.crt"))
    elif how == "named":
        (runner.config.parent / "certs").mkdir(parents=True)
        (runner.config.parent / "certs" / "localhost.crt").write_text((authority / "ca.crt").read_text())
    with serving(context) as gitlab:
        done = runner.register(gitlab.url, "--token", TOKEN, *words)
    assert done.returncode == (1 if how == "none" else 0), done.stderr
    assert ("x509: certificate signed by unknown authority" in done.stderr) == (how == "none")


# verify, unregister, list


@pytest.mark.parametrize(
    ("token", "code", "text"),
    [
        (TOKEN, 0, "is valid"),
        (OLD_TOKEN, 0, "is alive"),
        ("glrt-gone", 1, "is not valid"),
        ("gone", 1, "is removed"),
    ],
)
def test_verify(runner: Runner, gitlab: FakeGitLab, token: str, code: int, text: str) -> None:
    """The text names the kind of token and the result; only a refusal ends with 1; the file is unchanged."""
    runner.write(entry(gitlab.url, token))
    before = runner.config.read_text()
    done = runner("verify")
    assert (done.returncode, runner.config.read_text()) == (code, before)
    assert f"Verifying runner... {text}" in done.stderr
    assert ("FATAL: Failed to verify runners" in done.stderr) == (code == 1)


def test_verify_takes_trouble_for_success(runner: Runner, gitlab: FakeGitLab) -> None:
    """Network and 5xx errors end with 0: only the text shows them."""
    gitlab.broken = True
    runner.write(entry(gitlab.url))
    failing = runner("verify")
    assert (failing.returncode, "Verifying runner... failed" in failing.stderr) == (0, True)
    runner.write(entry("http://127.0.0.1:9"))
    down = runner("verify")
    assert down.returncode == 0
    assert "connection refused" in down.stderr


def test_verify_delete_rewrites(runner: Runner, gitlab: FakeGitLab) -> None:
    """--delete takes refused entries out and rewrites the file."""
    runner.write(entry(gitlab.url) + entry(gitlab.url, "glrt-gone", "two").partition("\nconcurrent = 2")[2])
    done = runner("verify", "--delete")
    assert done.returncode == 0
    assert f"Updated {runner.config}" in done.stderr
    assert [one["name"] for one in runner.entries()] == ["one"]
    assert "by hand" not in runner.config.read_text()


def test_verify_without_a_match(runner: Runner) -> None:
    """A name that is not there ends with 1."""
    runner.write(entry("http://127.0.0.1:9"))
    assert "no runner matches the filtering parameters" in runner("verify", "--name", "other").stderr


@pytest.mark.parametrize(
    ("token", "path"), [(TOKEN, "DELETE /runners/managers"), (OLD_TOKEN, "DELETE /runners")], ids=["glrt", "old"]
)
def test_unregister(runner: Runner, gitlab: FakeGitLab, token: str, path: str) -> None:
    """Of a runner that was created in GitLab, only the manager is deleted."""
    runner.write(entry(gitlab.url, token))
    done = runner("unregister", "--name", "one")
    assert done.returncode == 0, done.stderr
    assert gitlab.paths() == [path]
    assert runner.entries() == []


def test_unregister_refused(runner: Runner, gitlab: FakeGitLab) -> None:
    """The server refuses: exit 1, the entry stays."""
    runner.write(entry(gitlab.url, "glrt-gone"))
    before = runner.config.read_text()
    done = runner("unregister", "--token", "glrt-gone")
    assert (done.returncode, runner.config.read_text()) == (1, before)
    assert "Unregistering runner manager from GitLab forbidden" in done.stderr


def test_unregister_needs_to_know_whom(runner: Runner) -> None:
    """Neither name nor token; a name that does not exist."""
    runner.write(entry("http://127.0.0.1:9"))
    assert "at least one of --name or --token must be specified" in runner("unregister").stderr
    assert "could not find a runner with the name 'x'" in runner("unregister", "--name", "x").stderr


def test_list_leaks_the_token(runner: Runner) -> None:
    """The full token on stderr, nothing on stdout."""
    runner.write(entry("https://gitlab.example.com"))
    done = runner("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"Executor=shell Token={TOKEN} URL=https://gitlab.example.com" in done.stderr


# lint, status, version


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('concurrent = 1\n[[runners]]\n  name = "a"\n  [runners.docker]\n    image = "x"\n', 0, "file is valid"),
        ("concurrent = \n", 1, "toml: line 1"),
        ("concurent = 1\n", 1, "unknown key: concurent"),
        ("[[runners]]\n[runners.docker]\nimagee = 'x'\n", 1, "1 unknown key(s) found"),
        ("[[runners]]\nlimit = 'many'\n", 1, "incompatible types"),
        ("concurrent = 0\n", 1, "schema validation failed"),
        ("[[runners]]\n[[runners.docker.services]]\nname = 'x'\n[runners.kubernetes]\nimage = 'x'\n", 0, "is valid"),
    ],
)
def test_lint(runner: Runner, text: str, code: int, says: str) -> None:
    """Syntax, types and unknown keys; no side effect."""
    runner.write(text)
    done = runner("lint")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert [one.name for one in runner.config.parent.iterdir()] == ["config.toml"]


def test_lint_of_a_missing_file(runner: Runner) -> None:
    """A missing file is an error."""
    assert runner("lint").returncode == 1


def test_version(runner: Runner) -> None:
    """The version is the first line on stdout."""
    done = runner("--version")
    assert done.stdout.startswith("Version:      19.3.0\n")
    assert done.stderr == ""


def test_broken_file_is_fatal_to_commands(runner: Runner) -> None:
    """Commands that need it end with 1; `list` only warns."""
    runner.write("a = \n")
    assert [runner(verb).returncode for verb in ("verify", "list")] == [1, 0]


def test_system_id_form(runner: Runner) -> None:
    """`^[sr]_[0-9a-zA-Z]{12}$`, made once and kept."""
    runner.write("")
    assert runner("verify").returncode == 0
    kept = runner.config.with_name(".runner_system_id").read_text()
    assert re.fullmatch(r"[sr]_[0-9a-zA-Z]{12}", kept)
    assert runner("verify").returncode == 0
    assert runner.config.with_name(".runner_system_id").read_text() == kept


# run


@dataclass
class Service:
    """A running `gitlab-runner run`, whose log is read continuously."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, what: str | Callable[[], bool], seconds: float = 10) -> None:
        """Waits until the log has a line with the text, or the condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if what() if callable(what) else any(what in line for line in self.lines):
                return
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come; the log: {self.lines}")


@contextlib.contextmanager
def service(runner: Runner) -> Iterator[Service]:
    """The service, killed at the end if it still runs."""
    process = subprocess.Popen(
        runner.argv("run"), stderr=subprocess.PIPE, text=True, env=runner.environment(), stdin=subprocess.DEVNULL
    )
    running = Service(process)
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: running.lines.extend(iter(process.stderr.readline, "")), daemon=True)  # type: ignore[union-attr]
    reader.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def test_run_reloads_by_time_and_keeps_the_old_file(runner: Runner, gitlab: FakeGitLab) -> None:
    """A changed file is loaded within 3 s without a restart; an invalid one is logged and not used."""
    runner.write(entry(gitlab.url))
    with service(runner) as run:
        run.wait_for("Configuration loaded")
        run.wait_for(lambda: "POST /jobs/request" in gitlab.paths())
        run.lines.clear()
        runner.write(entry(gitlab.url).replace("concurrent = 2", "concurrent = 5"))
        run.wait_for("Configuration loaded                                builds=0 max_builds=5")
        runner.write("broken = \n")
        run.process.send_signal(signal.SIGHUP)
        run.wait_for("ERROR: Failed to load config")
        (runner.switches / "job").write_text("true")
        run.wait_for("Job succeeded")
        assert run.process.poll() is None


def test_run_without_a_file(runner: Runner) -> None:
    """A fresh installation runs and logs that it has no file."""
    with service(runner) as run:
        run.wait_for("ERROR: Failed to load config")
        assert run.process.poll() is None


def test_run_with_concurrent_0_is_fatal(runner: Runner) -> None:
    """Exit 1."""
    runner.write("concurrent = 0\n")
    done = runner("run")
    assert done.returncode == 1
    assert "FATAL: Concurrent is less than 1 - no jobs will be processed" in done.stderr


@pytest.mark.parametrize(("sent", "how"), [(signal.SIGTERM, "canceled"), (signal.SIGQUIT, "success")])
def test_stop_and_jobs(runner: Runner, gitlab: FakeGitLab, sent: signal.Signals, how: str) -> None:
    """A stop kills the job; SIGQUIT lets it finish; a reload does not affect it."""
    runner.write(entry(gitlab.url))
    go = runner.folder / "go"
    with service(runner) as run:
        run.wait_for("Configuration loaded")
        (runner.switches / "job").write_text(f"until [ -e {go} ]; do sleep 0.05; done")
        run.wait_for("Checking for jobs... received")
        run.process.send_signal(signal.SIGHUP)
        run.wait_for("builds=1 max_builds=2")
        run.process.send_signal(sent)
        if sent == signal.SIGQUIT:
            run.wait_for("waiting for builds to finish")
            go.touch()
        assert run.process.wait(10) == 0
    assert (runner.switches / "job-1.done").read_text() == f"{how}\n"
    assert not (runner.switches / "job-1.running").exists()


def test_run_rests_after_refusals(runner: Runner, gitlab: FakeGitLab) -> None:
    """A refused token is logged."""
    runner.write(entry(gitlab.url, "glrt-gone"))
    with service(runner) as run:
        run.wait_for("ERROR: Checking for jobs... forbidden")


def test_run_renews_a_token_and_rewrites_the_file(runner: Runner, gitlab: FakeGitLab) -> None:
    """An expiring token is replaced, which loses every comment of the file."""
    dates = "  token_obtained_at = 2020-01-01T00:00:00Z\n  token_expires_at = 2020-02-01T00:00:00Z\n"
    runner.write(entry(gitlab.url) + dates)
    with service(runner) as run:
        run.wait_for("Resetting runner authentication token... succeeded")
    assert [one["token"] for one in runner.entries()] == ["glrt-renewed"]
    assert "by hand" not in runner.config.read_text()
