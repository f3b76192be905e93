"""`AptSource`: key, source and priority of a package repository."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.engine.observe import Observer
from provision.errors import ProbeFailed, Refused
from provision.resources import AptSource, Result
from provision.resources.base import Change
from provision.resources.system import apt_source
from provision.shell import Command
from provision.testing import NO_FILE, Answer, LocalSession, file_is, observe, planned
from tests.support.local import Local

# Made by `gpg --quick-gen-key NAME ed25519 sign`; the first never expires, the second did in January 2020.
KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawF3URYJKwYBBAHaRw8BAQdAbDT7qf00vAdBKfmGmC2foVYcV/P/ONsKsO0S
EQTQ8i20ClJlcG9zaXRvcnmIkAQTFggAOBYhBJHVitF5vyuJ3e2FY1Z3m9L6Opp/
BQJrAXdRAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEFZ3m9L6Opp/9P4A
/RfgtFNjFJLu/NvAF8VcKmZh3BpE8FROOJQwgcjHtxAYAQCZiES6llVDGl0/7uq8
jBjRY3j1ymAPUGsAl8yRuzRGAQ==
=kzQq
-----END PGP PUBLIC KEY BLOCK-----
"""
EXPIRED = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEXgvhABYJKwYBBAHaRw8BAQdAgCMBiDBP4BAi9wc5gkL3CbjABDcP9gw9MJ+C
0SjDFti0B0V4cGlyZWSIlgQTFggAPhYhBGJNGGunMiASmH0Iyd3FBhaenlVwBQJe
C+EAAhsDBQkAJ40ABQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEN3FBhaenlVw
6soA/RzkpvZw+LR4m1c1emlmpiukAn6sva/qAm6TTS5LukpeAQDkRjmevRmQa7/w
17v1edDWVxIO0dJDjXyaywjlcII9DA==
=aMJR
-----END PGP PUBLIC KEY BLOCK-----
"""
DOCKER = AptSource(
    "docker",
    uri="https://download.docker.com/linux/{id}",
    suite="{codename}",
    component="stable",
    key_url="https://download.docker.com/linux/{id}/gpg",
)
RUNNER = AptSource(
    "gitlab-runner",
    uri="https://packages.gitlab.com/runner/gitlab-runner/{id}/",
    suite="{codename}",
    component="main",
    key=KEY,
    pin=("gitlab-runner", "gitlab-runner-helper-images"),
)
SOURCE = """Types: deb
URIs: https://download.docker.com/linux/ubuntu
Suites: noble
Components: stable
Architectures: amd64
Signed-By: /etc/apt/keyrings/docker.asc
"""
PREFERENCES = """Package: gitlab-runner
Pin: origin packages.gitlab.com
Pin-Priority: 1001

Package: gitlab-runner-helper-images
Pin: origin packages.gitlab.com
Pin-Priority: 1001

"""


def plan(resource: AptSource, **answers: Answer) -> list[Change]:
    """The changes on Ubuntu 24.04; files that are not given do not exist."""
    nothing: dict[str, Answer] = {"key": NO_FILE, "source": NO_FILE, "pin": NO_FILE, "others": ""}
    return planned(resource, observe(resource, {"system": "ubuntu\nnoble\n24.04\namd64\n", **nothing, **answers}))


def test_bare() -> None:
    """The key is fetched by the host, then the source is written."""
    key, source = plan(DOCKER)
    assert key.summary == "fetch https://download.docker.com/linux/ubuntu/gpg to /etc/apt/keyrings/docker.asc"
    assert key.action == "create"
    assert source.summary == "create /etc/apt/sources.list.d/docker.sources"
    assert isinstance(source.run, Command)
    assert source.run.stdin.decode() == SOURCE


def test_bare_with_a_given_key_and_a_pin() -> None:
    """Three files; the pin binds each package to the repository's host."""
    changes = plan(RUNNER)
    assert [one.summary for one in changes] == [
        "create /etc/apt/keyrings/gitlab-runner.asc",
        "create /etc/apt/sources.list.d/gitlab-runner.sources",
        "create /etc/apt/preferences.d/gitlab-runner.pref",
    ]
    written = [one.run.stdin.decode() for one in changes if isinstance(one.run, Command)]
    assert written[0] == KEY
    assert written[2] == PREFERENCES


def test_converged() -> None:
    """Nothing is fetched again."""
    assert plan(DOCKER, key=file_is(KEY), source=file_is(SOURCE)) == []


@pytest.mark.parametrize(
    ("key", "summaries"),
    [
        (file_is(""), ["fetch"]),
        (file_is(KEY, "0600"), ["fetch"]),
        (file_is(KEY, "0644"), []),
    ],
)
def test_a_key_that_apt_cannot_read_is_fetched_again(key: Result, summaries: list[str]) -> None:
    """An empty one, or one written with a strict umask: apt would skip the repository without an error."""
    assert [one.summary.split()[0] for one in plan(DOCKER, key=key, source=file_is(SOURCE))] == summaries


def test_a_given_key_stays_readable() -> None:
    """Its mode is set as its content is."""
    (change,) = plan(
        RUNNER,
        key=file_is(KEY, "0600"),
        source=file_is(SOURCE.replace("download.docker.com/linux/ubuntu", "packages.gitlab.com/runner/gitlab-runner/ubuntu/")
                       .replace("stable", "main").replace("docker.asc", "gitlab-runner.asc")),
        pin=file_is(PREFERENCES),
    )  # fmt: skip
    assert change.summary == "set /etc/apt/keyrings/gitlab-runner.asc to 0644 root:root (was 0600 root:root)"


def test_other_sources_are_moved_away() -> None:
    """Two entries for one repository with different keys make every call of apt fail: the other one is moved to the backups."""
    first, second, *_ = plan(
        DOCKER, others="/etc/apt/sources.list.d/docker.list\n/etc/apt/sources.list.d/x y.sources\n"
    )
    assert first.summary == "move /etc/apt/sources.list.d/docker.list away: it names the same repository"
    assert first.action == "delete"
    assert isinstance(second.run, Command)
    assert second.run.script.endswith("mv -f -- '/etc/apt/sources.list.d/x y.sources' /var/lib/provision/backup/")


def test_broken() -> None:
    """Another system, and a source that cannot be read."""
    with pytest.raises(ProbeFailed, match="not Debian or Ubuntu"):
        plan(DOCKER, system="fedora\n\n41\nx86_64\n")
    with pytest.raises(ProbeFailed, match=r"docker\.sources cannot be read"):
        plan(DOCKER, key=file_is(KEY), source=Result(b"", b"cat: Is a directory", 1))


def other_sources(resource: AptSource, folder: Path) -> list[str]:
    """The other sources in a folder, found with a real grep."""
    session = LocalSession({"/etc/apt/sources.list.d": folder})
    question = resource.probe()["others"]
    assert isinstance(question, Command)
    (result,) = session.ask([question], deadline=10)
    assert (result.code, result.errors) == (0, "")
    return sorted(Path(line).name for line in result.text.splitlines())


def test_other_sources_are_found_by_their_repository(tmp_path: Path) -> None:
    """In both formats, http or https; neither our own file nor other repositories count."""
    files = {
        "docker.list": "deb [signed-by=/usr/share/keyrings/d.gpg] https://download.docker.com/linux/ubuntu noble stable",
        "old.sources": "Types: deb\nURIs: http://download.docker.com/linux/ubuntu\n",
        "docker.sources": SOURCE,
        "gitlab.list": "deb https://packages.gitlab.com/gitlab/gitlab-ce/ubuntu noble main",
        "docker.list.save": "deb https://download.docker.com/linux/ubuntu noble stable",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert other_sources(DOCKER, tmp_path) == ["docker.list", "old.sources"]
    assert other_sources(RUNNER, tmp_path) == []


def test_other_sources_of_several_repositories(tmp_path: Path) -> None:
    """One grep for all repositories of a host; each gets the answer that it would get alone."""
    names = {
        "docker.sources": SOURCE,
        "a b.list": f"deb {DOCKER.uri.split('{')[0]}ubuntu noble stable",
        "other.list": "#",
    }
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    session = LocalSession({"/etc/apt/sources.list.d": tmp_path})
    observer = Observer(session)
    questions = [one.probe()["others"] for one in (DOCKER, RUNNER)]
    observer.ask(questions)
    assert [Path(observer.answer(one).text.strip()).name for one in questions] == ["a b.list", ""]
    assert [len(look) for look in session.batches] == [1]


def test_no_other_sources_in_an_empty_folder(tmp_path: Path) -> None:
    """grep finds no file, which is no failure."""
    assert other_sources(DOCKER, tmp_path) == []


def test_another_mirror_with_the_same_beginning(tmp_path: Path) -> None:
    """`…/docker` is not `…/docker-testing`."""
    (tmp_path / "testing.list").write_text("deb https://mirror.example.com/docker-testing noble stable")
    (tmp_path / "same.list").write_text("deb https://mirror.example.com/docker/ noble stable")
    mirror = replace(DOCKER, uri="https://mirror.example.com/docker")
    assert other_sources(mirror, tmp_path) == ["same.list"]


def fetch(local: Local, tmp_path: Path, served: str) -> tuple[Result, Path]:
    """Fetches a key from a file, with real curl."""
    upstream = tmp_path / "upstream.gpg"
    upstream.write_text(served)
    source = replace(DOCKER, key_url=f"file://{upstream}")
    key, *_ = plan(source)
    assert isinstance(key.run, Command)
    session = local({"/etc/apt": tmp_path / "apt"})
    return session.run(Command(f"umask 077\n{key.run.script}"), deadline=10), tmp_path / "apt" / "keyrings"


needs_curl = pytest.mark.skipif(
    subprocess.run(["sh", "-c", "command -v curl"], capture_output=True, check=False).returncode != 0,
    reason="needs curl",
)


@needs_curl
def test_a_key_is_fetched_readable_for_apt(local: Local, tmp_path: Path) -> None:
    """0644 even under a strict umask; nothing else is left."""
    result, folder = fetch(local, tmp_path, KEY)
    assert result.code == 0, result.errors
    assert [one.name for one in folder.iterdir()] == ["docker.asc"]
    assert (folder / "docker.asc").read_text() == KEY
    assert (folder / "docker.asc").stat().st_mode & 0o777 == 0o644


@needs_curl
def test_a_page_that_is_no_key_is_refused(local: Local, tmp_path: Path) -> None:
    """For example the page of a captive portal."""
    result, folder = fetch(local, tmp_path, "<html>log in first</html>")
    assert result.code == 1
    assert result.errors == f"file://{tmp_path}/upstream.gpg is not an OpenPGP key\n"
    assert list(folder.iterdir()) == []


def test_another_source_is_moved_to_the_backups(tmp_path: Path) -> None:
    """It is not deleted."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "docker.list").write_text("deb https://download.docker.com/linux/ubuntu noble stable\n")
    change, *_ = plan(DOCKER, others="/etc/apt/sources.list.d/docker.list\n")
    assert isinstance(change.run, Command)
    session = LocalSession({"/etc/apt/sources.list.d": lists, "/var/lib/provision": tmp_path / "home"})
    assert session.run(change.run, deadline=10).code == 0
    assert list(lists.iterdir()) == []
    assert [one.name for one in (tmp_path / "home" / "backup").iterdir()] == ["docker.list"]


def test_an_expired_given_key_is_refused() -> None:
    """Before anything is changed: apt would refuse the repository."""
    source = AptSource("gitlab", "https://mirror.example.com/gitlab", "noble", "main", key=EXPIRED)
    with pytest.raises(Refused, match=r"mirror\.example\.com/gitlab: it expired on 2020-01-31"):
        plan(source)


def test_a_given_text_that_is_no_key_is_refused() -> None:
    """For example the web page of a mirror."""
    with pytest.raises(Refused, match="neither an armoured key nor an OpenPGP packet"):
        plan(AptSource("gitlab", "https://mirror.example.com/gitlab", "noble", "main", key="<html>"))


def test_an_expired_key_on_the_host_is_fetched_again() -> None:
    """The publisher may have a newer one."""
    (change,) = plan(DOCKER, key=file_is(EXPIRED), source=file_is(SOURCE))
    assert change.summary.endswith("docker.asc again: it expired on 2020-01-31")
    assert not change.verification


def test_a_key_that_expires_soon_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every run until there is a newer one; that is not counted as a change."""
    monkeypatch.setattr(apt_source, "_condition", lambda _: ("it expires on 2030-01-01", True))
    (change,) = plan(DOCKER, key=file_is(KEY), source=file_is(SOURCE))
    assert change.summary.endswith("docker.asc again: it expires on 2030-01-01")
    assert change.verification
