"""`AptSource`: key, source and priority of a package repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision.engine.observe import Observer
from provision.errors import ProbeFailed, Refused, UsageError
from provision.resources import AptSource, Result
from provision.resources.base import Change
from provision.resources.system import apt_source
from provision.shell import Command
from provision.testing import NO_FILE, Answer, LocalSession, file_is, observe, planned
from tests.support.local import Local, one_shell

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
    fingerprints=("91D5 8AD1 79BF 2B89 DDED  8563 5677 9BD2 FA3A 9A7F",),
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
    nothing: dict[str, Answer] = {"key": NO_FILE, "source": NO_FILE, "pin": NO_FILE, "sources": "\n", "missing": ""}
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


NAMED = "https://download.docker.com/linux/ubuntu noble stable"
THIRD = "deb https://repo.example.com/apt stable main\n"


def test_an_entry_of_another_file_is_disabled() -> None:
    """Two entries for one repository with different keys make every call of apt fail. The other lines stay."""
    text = f"{THIRD}deb {NAMED}\n"
    other = "/etc/apt/sources.list.d/extra.list"
    first, *_ = plan(DOCKER, sources=f"{len(text)} {other}\n\n{text}")
    assert first.summary == f"disable the entry for https://download.docker.com/linux/ubuntu noble in {other}"
    assert first.action == "update"
    assert isinstance(first.run, Command)
    why = "disabled: /etc/apt/sources.list.d/docker.sources has this repository"
    assert first.run.stdin.decode() == f"{THIRD}# deb {NAMED} # {why}\n"
    assert f"-deb {NAMED}\n+# deb {NAMED} # {why}" in first.diff


def test_sources_that_cannot_be_read() -> None:
    """Nothing is planned from half an answer."""
    with pytest.raises(ProbeFailed, match="sources cannot be read: cat: x: Input/output error"):
        plan(DOCKER, sources=Result(b"5 /etc/apt/sources.list\n\n", b"cat: x: Input/output error", 1))
    with pytest.raises(ProbeFailed, match="changed while they were read"):
        plan(DOCKER, sources="5 /etc/apt/sources.list\n\nabc")
    with pytest.raises(ProbeFailed, match="cannot be read"):
        plan(DOCKER, sources="x /etc/apt/sources.list\n\nabc")


@pytest.mark.parametrize(
    ("source", "missing", "installed"),
    [
        (DOCKER, "curl\nca-certificates\n", "install curl, ca-certificates"),
        (RUNNER, "curl\nca-certificates\n", "install ca-certificates"),
        (replace(RUNNER, uri="http://mirror.example.com/runner"), "curl\nca-certificates\n", ""),
        (DOCKER, "", ""),
    ],
    ids=["bare", "a given key", "no TLS", "nothing missing"],
)
def test_what_a_download_needs_is_installed_first(source: AptSource, missing: str, installed: str) -> None:
    """Before apt's own source is written, since apt could not reach it; minimal images have neither."""
    changes = [one.summary for one in plan(source, missing=missing)]
    assert changes[0] == installed if installed else not changes[0].startswith("install")
    assert len([one for one in changes if one.startswith("install")]) == (1 if installed else 0)


def test_a_key_that_would_be_trusted_unseen_is_refused() -> None:
    """On the controller, before any host is contacted."""
    with pytest.raises(UsageError, match="its fingerprint is not known"):
        replace(DOCKER, fingerprints=())
    with pytest.raises(UsageError, match="its fingerprint is not known"):
        replace(DOCKER, fingerprints=("FA3A9A7F",))
    with pytest.raises(UsageError, match="is not https"):
        replace(DOCKER, key_url="http://download.docker.com/linux/{id}/gpg")


def test_a_key_that_is_not_expected_is_fetched_again() -> None:
    """One that an earlier version fetched without comparing it, or one with a second key beside it."""
    other = replace(DOCKER, fingerprints=("0" * 40,))
    (change,) = plan(other, key=file_is(KEY), source=file_is(SOURCE))
    assert "it has the key 91D58AD179BF2B89DDED856356779BD2FA3A9A7F, which is not expected" in change.summary
    (change,) = plan(DOCKER, key=file_is(KEY + EXPIRED), source=file_is(SOURCE))
    assert "again: the file has text beside the armoured key" in change.summary


def test_broken() -> None:
    """Another system, and a source that cannot be read."""
    with pytest.raises(ProbeFailed, match="not Debian or Ubuntu"):
        plan(DOCKER, system="fedora\n\n41\nx86_64\n")
    with pytest.raises(ProbeFailed, match=r"docker\.sources cannot be read"):
        plan(DOCKER, key=file_is(KEY), source=Result(b"", b"cat: Is a directory", 1))


class Apt:
    """A folder as /etc/apt, that the resource is applied to with real programs."""

    def __init__(self, local: Local, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder / "apt"
        (self.folder / "sources.list.d").mkdir(parents=True)
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.backup = folder / "home/backup"
        self.session = local({"/etc/apt": self.folder, "/var/lib/provision": folder / "home"})

    def disable(self, source: AptSource) -> list[str]:
        """Applies the changes of other files; their summaries."""
        (result,) = self.session.ask([question_of(source)], deadline=10)
        assert result.code == 0, result.errors
        text = result.stdout.replace(str(self.folder).encode(), b"/etc/apt")
        changes = [one for one in plan(source, sources=Result(text)) if one.summary.startswith("disable")]
        for change in changes:
            assert isinstance(change.run, Command)
            done = self.session.run(change.run, deadline=10)
            assert done.code == 0, done.errors
        return [change.summary.rpartition("/")[2] for change in changes]

    def files(self) -> dict[str, str]:
        """What the folder holds, without our own file."""
        paths = [self.folder / "sources.list", *(self.folder / "sources.list.d").iterdir()]
        return {str(path.relative_to(self.folder)): path.read_text() for path in paths if path.exists()}


def question_of(source: AptSource) -> Command:
    """Its question about apt's sources."""
    question = source.probe()["sources"]
    assert isinstance(question, Command)
    return question


def test_only_the_entry_itself_is_disabled(local: Local, tmp_path: Path) -> None:
    """In sources.list too. Comments, other entries and files that apt does not read stay; the old files are kept."""
    why = "disabled: /etc/apt/sources.list.d/docker.sources has this repository"
    before = {
        "sources.list": f"deb http://archive.ubuntu.com/ubuntu noble main\ndeb [arch=amd64] {NAMED}\n",
        "sources.list.d/comment.list": f"# deb {NAMED} # disabled on upgrade to noble\n{THIRD}",
        "sources.list.d/docker.list.save": f"deb {NAMED}\n",
        "sources.list.d/a b.list": f"deb {NAMED}\n",
        "sources.list.d/docker.sources": SOURCE,
        "sources.list.d/extra.sources": f"Types: deb\nURIs: https://repo.example.com/apt\nSuites: stable\n\n{SOURCE}",
    }
    apt = Apt(local, tmp_path, before)
    assert apt.disable(DOCKER) == ["sources.list", "extra.sources"]
    changed = {
        "sources.list": before["sources.list"].replace(
            f"deb [arch=amd64] {NAMED}", f"# deb [arch=amd64] {NAMED} # {why}"
        ),
        "sources.list.d/extra.sources": before["sources.list.d/extra.sources"].replace(
            SOURCE, f"# {why}\nEnabled: no\n{SOURCE}"
        ),
    }
    assert apt.files() == {**before, **changed}
    assert apt.disable(DOCKER) == []
    assert sorted(one.read_text() for one in apt.backup.iterdir()) == sorted(before[name] for name in changed)


@one_shell
def test_an_earlier_backup_is_kept(local: Local, tmp_path: Path) -> None:
    """The file of another tool that came back twice is there twice."""
    apt = Apt(local, tmp_path, {"sources.list.d/docker.list": f"deb {NAMED}\n"})
    assert apt.disable(DOCKER) == ["docker.list"]
    (apt.folder / "sources.list.d/docker.list").write_text(f"deb {NAMED} # mine\n")
    assert apt.disable(DOCKER) == ["docker.list"]
    assert sorted(one.read_text() for one in apt.backup.iterdir()) == [f"deb {NAMED}\n", f"deb {NAMED} # mine\n"]


@one_shell
def test_a_file_that_was_changed_meanwhile_stays(local: Local, tmp_path: Path) -> None:
    """What was observed is not written over somebody's newer text."""
    apt = Apt(local, tmp_path, {"sources.list": f"deb {NAMED}\n"})
    text = apt.session.ask([question_of(DOCKER)], deadline=10)[0].stdout.replace(str(apt.folder).encode(), b"/etc/apt")
    change, *_ = plan(DOCKER, sources=Result(text))
    (apt.folder / "sources.list").write_text(f"{THIRD}deb {NAMED}\n")
    assert isinstance(change.run, Command)
    assert apt.session.run(change.run, deadline=10).code == 79
    assert (apt.folder / "sources.list").read_text() == f"{THIRD}deb {NAMED}\n"


def test_the_sources_are_read_once(tmp_path: Path) -> None:
    """However many repositories a host has; without any file too."""
    session = LocalSession({"/etc/apt": tmp_path})
    observer = Observer(session)
    questions = [one.probe()["sources"] for one in (DOCKER, RUNNER)]
    observer.ask(questions)
    assert [observer.answer(one).text for one in questions] == ["\n", "\n"]
    assert [len(look) for look in session.batches] == [1]


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
    source = replace(DOCKER, fingerprints=("624D186BA7322012987D08C9DDC506169E9E5570",))
    (change,) = plan(source, key=file_is(EXPIRED), source=file_is(SOURCE))
    assert change.summary.endswith("docker.asc again: it expired on 2020-01-31")
    assert not change.verification


def test_a_key_that_expires_soon_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every run until there is a newer one; that is not counted as a change."""
    monkeypatch.setattr(apt_source, "_condition", lambda *_: ("it expires on 2030-01-01", True))
    (change,) = plan(DOCKER, key=file_is(KEY), source=file_is(SOURCE))
    assert change.summary.endswith("docker.asc again: it expires on 2030-01-01")
    assert change.verification
