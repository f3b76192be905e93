"""`RubySettings`: our settings in gitlab.rb, and its rollback copy."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed, Refused
from provision.host.releases import Installed
from provision.host.scripts import NOTHING_CHANGED
from provision.resources import Handler, Result, RubySettings
from provision.resources.base import Change
from provision.resources.gitlab.gitlab_rb import gitlab_version, path_in, removed_settings
from provision.secret import Secret
from provision.shell import Command, sh
from provision.testing import Answer, LocalSession, notes, observe, observe_on, packages_are, planned
from tests.support.data import DATA

RECONFIGURE = Handler("reconfigure", "reconfigure GitLab", sh("true"), detached=True)
INSTALLED = {"gitlab-ce": "19.3.0-ce.0"}
FILE = "# by hand\nexternal_url 'https://old.example.com'\ngitlab_rails['time_zone'] = 'UTC'\n"
URL = ("external_url",)
ZONE = ("gitlab_rails", "time_zone")


def settings(wanted: dict[tuple[str, ...], Any]) -> RubySettings:
    """The resource."""
    return RubySettings(wanted, notify=(RECONFIGURE,))


def answers(text: str | None, packages: dict[str, str] | None = None) -> dict[str, Answer]:
    """A file as it travels, what is on record, and what is installed."""
    return {
        "file": b"" if text is None else gzip.compress(text.encode()),
        "packages": packages_are(INSTALLED if packages is None else packages),
    }


def plan(
    wanted: dict[tuple[str, ...], Any], text: str | None = FILE, ours: list[tuple[str, ...]] | None = None, **more: Any
) -> list[Change]:
    """The changes."""
    resource = settings(wanted)
    return planned(
        resource, observe(resource, answers(text, **more), record=[list(one) for one in ours] if ours else None)
    )


def written(change: Change) -> str:
    """The file that a change writes."""
    assert isinstance(change.run, Command)
    return change.run.stdin.decode()


def test_bare_check_mode() -> None:
    """No GitLab yet: predicted, by the newest version's rules, with a note."""
    resource = settings({URL: "https://new.example.com"})
    seen = observe(resource, answers(None, packages={}))
    (change,) = planned(resource, seen)
    assert (change.requires, change.action) == ("gitlab", "create")
    rules, password = notes(resource, seen)
    assert rules == "GitLab is not installed: its settings are planned by the rules of version 19.3.0"
    assert "first password for its user root will be in /etc/gitlab/initial_root_password for 24 hours" in password
    given = settings({URL: "https://new.example.com", ("gitlab_rails", "initial_root_password"): Secret("given-by-us")})
    assert notes(given, observe(given, answers(None, packages={}))) == [rules]
    set_afterwards = replace(resource, generated=False)
    assert notes(set_afterwards, observe(set_afterwards, answers(None, packages={}))) == [rules]


def test_the_file_was_deleted() -> None:
    """GitLab is installed: the file is written, nothing waits for anything."""
    resource = settings({URL: "https://new.example.com"})
    seen = observe(resource, answers(None))
    (change,) = planned(resource, seen)
    assert (change.requires, notes(resource, seen)) == ("", [])
    assert written(change) == "external_url 'https://new.example.com'\n"


def test_partly_applied() -> None:
    """One differs: it alone changes, the reconfigure is notified, and only what we set is recorded."""
    (change,) = plan({URL: "https://new.example.com", ZONE: "UTC"})
    assert change.summary == "set external_url in /etc/gitlab/gitlab.rb"
    assert written(change) == FILE.replace("old", "new")
    assert change.notify == (RECONFIGURE,)
    assert change.record == [["external_url"]]
    assert "-external_url 'https://old.example.com'" in change.diff


def test_converged() -> None:
    """In force: nothing."""
    assert plan({URL: "https://old.example.com", ZONE: "UTC"}) == []


def test_a_setting_of_ours_that_was_dropped_goes() -> None:
    """One that stood there before us stays."""
    (change,) = plan({URL: "https://old.example.com"}, ours=[URL, ZONE])
    assert "time_zone" not in written(change)
    assert change.record == [["external_url"]]
    assert plan({URL: "https://old.example.com"}, ours=[URL]) == []


def test_the_last_setting_of_ours_goes() -> None:
    """Nothing is on record any more."""
    (change,) = plan({}, ours=[ZONE])
    assert change.record is None


def test_secrets_are_masked_inside_the_diff() -> None:
    """In nested values as well."""
    storage = {"s3": {"bucket": "registry", "secretkey": Secret("the-storage-secret")}}
    (change,) = plan({("registry", "storage"): storage})
    assert "the-storage-secret" not in change.diff
    assert "registry" in change.diff
    assert "the-storage-secret" in written(change)


def test_notes_of_the_editor_are_reported() -> None:
    """With the file's name; also when nothing changes."""
    twice = FILE + "external_url 'https://last.example.com'\n"
    resource = settings({URL: "https://last.example.com"})
    (note,) = notes(resource, observe(resource, answers(twice)))
    assert note == "/etc/gitlab/gitlab.rb: line 2 sets external_url too; line 4 comes later and counts"


def test_broken_file() -> None:
    """It cannot be read: the host's own words."""
    resource = settings({ZONE: "UTC"})
    seen = observe(resource, {**answers(FILE), "file": Result(b"", b"gzip: Permission denied\n", 1)})
    with pytest.raises(ProbeFailed, match=r"gitlab\.rb cannot be read: gzip: Permission denied"):
        planned(resource, seen)


def test_removed_settings_are_refused_before_the_edit() -> None:
    """This version's reconfigure would abort on them; where nothing is to be changed they are left in peace."""
    old = FILE + "git_data_dirs({ 'default' => { 'path' => '/data' } })\n# mattermost['enable'] = true\n"
    with pytest.raises(
        Refused, match=r"GitLab 19\.3\.0 cannot be reconfigured: line 4: git_data_dirs \(removed in 18\.0"
    ):
        plan({ZONE: "CET"}, old)
    assert plan({ZONE: "UTC"}, old) == []
    assert len(plan({ZONE: "CET"}, old, packages={"gitlab-ce": "17.11.0-ce.0"})) == 1


@pytest.mark.parametrize(
    ("text", "version", "names"),
    [
        ("unicorn['x'] = 1\n", "13.9.0", []),
        ("unicorn['x'] = 1\n", "14.0.0", ["unicorn"]),
        ("unicorn['x'] = 1\nrepmgr['enable'] = true\n", "18.0.6", ["unicorn", "repmgr"]),
        ("unicorn['x'] = 1\nrepmgr['enable'] = true\n", "18.1.0", []),
        ("unicorn['x'] = 1\n", "19.3.0", []),
        ("omnibus_gitconfig['system'] = {}\n", "16.11.0", []),
        ("omnibus_gitconfig['system'] = {}\n", "17.0.0", ["omnibus_gitconfig"]),
        ("grafana['enable'] = false\n", "17.1.0", ["grafana"]),
        (
            "gitaly['configuration'] = { git: { bin_path: '/usr/bin/git' } }\n",
            "19.0.0",
            ["gitaly['configuration']['git']['bin_path']"],
        ),
        ("gitaly['configuration'] = { git: { bin_path: '/usr/bin/git' } }\n", "18.11.0", []),
        ("git_data_dirs({ 'default' => { 'path' => '/data' } })\n", "18.0.0", ["git_data_dirs"]),
        ("gitlab_shell['migration'] = { enabled: true }\n", "18.0.0", ["gitlab_shell['migration']"]),
        ("gitlab_shell['migration'] = { enabled: true }\n", "17.11.2", []),
        ("gitlab_shell['log_level'] = 'INFO'\n", "19.3.0", []),
        ("spamcheck['enable'] = false\n", "19.0.0", ["spamcheck"]),
        ("spamcheck['enable'] = false\n", "18.11.0", []),
        ("spamcheck['env'] = nil\n", "19.3.0", []),
        ("mattermost['enable'] = true\n", "19.3.0", ["mattermost['enable']"]),
        ("mattermost['enable'] = false\n", "19.0.0", ["mattermost"]),
        ("mattermost['home'] = '/m'\n", "19.2.4", ["mattermost"]),
        ("mattermost['enable'] = true\n", "18.11.0", []),
        ("mattermost['enable'] = false\nmattermost['home'] = '/m'\n", "19.3.0", []),
        ("mattermost['enable'] = true\nmattermost['enable'] = false\n", "19.3.0", []),
        ("mattermost_external_url 'https://m.example.com'\n", "19.3.0", []),
        ("mattermost_external_url 'https://m.example.com'\n", "20.0.0", ["mattermost_external_url"]),
        ("# unicorn['x'] = 1\n", "19.0.0", []),
        ("gitlab_rails['note'] = <<~END\n  unicorn['x'] = 1\nEND\n", "19.0.0", []),
        ("unicorn['x'] = 1\n", "", []),
    ],
)
def test_settings_that_a_version_removed(text: str, version: str, names: list[str]) -> None:
    """From the version on, by the values that count in the end."""
    certain, possible = removed_settings(text.encode(), version)
    assert [one.split()[2] for one in certain] == names
    assert possible == []


@pytest.mark.parametrize("text", ["spamcheck['port'] = 1 if use_it?\n", "mattermost['enable'] = use_it?\n"])
def test_what_only_ruby_can_tell_is_not_refused(text: str) -> None:
    """It is reported; GitLab's own check decides."""
    certain, (line,) = removed_settings(text.encode(), "19.3.0")
    assert certain == []
    assert line.startswith("line 1: ")
    resource = settings({ZONE: "CET"})
    (note,) = notes(resource, observe(resource, answers(FILE + text)))
    assert "only Ruby can tell whether this is set" in note


@pytest.mark.parametrize(
    ("template", "line", "removed", "before"),
    [
        ("12.10.0", "gitlab_shell['migration'] = { enabled: true, features: [] }", "18.0.0", "17.11.0"),
        ("18.0.0", "spamcheck['enable'] = false", "19.0.0", "18.11.0"),
        ("18.0.0", "mattermost_external_url 'http://mattermost.example.com'", "20.0.0", "19.3.0"),
    ],
)
def test_in_the_packages_own_template(template: str, line: str, removed: str, before: str) -> None:
    """As it is laid it has nothing that a later version refuses; with one line uncommented it has."""
    text = (DATA / f"gitlab.rb.template.{template}+ce.0").read_bytes()
    assert removed_settings(text, "20.0.0") == ([], [])
    changed = text.replace(f"# {line}".encode(), line.encode())
    assert changed != text
    assert len(removed_settings(changed, removed)[0]) == 1
    assert removed_settings(changed, before) == ([], [])


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("19.1.9", ("registry_nginx", "ssl_certificate")),
        ("19.2.0", ("registry", "nginx", "ssl_certificate")),
        ("19.3.0", ("registry", "nginx", "ssl_certificate")),
        ("9.5.0", ("registry_nginx", "ssl_certificate")),
        ("", ("registry", "nginx", "ssl_certificate")),
    ],
)
def test_the_registrys_nginx_is_spelt_as_the_version_wants_it(version: str, path: tuple[str, ...]) -> None:
    """The new form is silently ignored before 19.2."""
    assert path_in(("registry_nginx", "ssl_certificate"), version) == path
    assert path_in(ZONE, version) == ZONE


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        ({"gitlab-ce": "19.3.0-ce.0"}, "19.3.0"),
        ({"gitlab-ee": "18.0.1-ee.0"}, "18.0.1"),
        ({"gitlab-ce": "19.3.0+rfbranch.1-0"}, "19.3.0"),
        ({"gitlab-runner": "19.3.0-1"}, ""),
    ],
)
def test_the_installed_version(packages: dict[str, str], version: str) -> None:
    """Of either edition."""
    assert gitlab_version({name: Installed(one, held=False) for name, one in packages.items()}) == version


@pytest.mark.root
class TestWithShell:
    """Applied with a real sh."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> LocalSession:
        """This machine, with folders of the test's in GitLab's and our place; dpkg knows a GitLab."""
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "dpkg-query").write_text("#!/bin/sh\nprintf 'gitlab-ce\\t19.3.0-ce.0\\tii \\n'\n")
        (programs / "dpkg-query").chmod(0o755)
        (tmp_path / "gitlab").mkdir()
        (tmp_path / "gitlab/gitlab.rb").write_text(FILE)
        return LocalSession(
            {"/etc/gitlab": tmp_path / "gitlab", "/var/lib/provision": tmp_path / "home"},
            {"PATH": f"{programs}:/usr/bin:/bin"},
        )

    @staticmethod
    def execute(host: LocalSession, wanted: dict[tuple[str, ...], Any]) -> list[str]:
        """Looks and does; what was done."""
        resource = settings(wanted)
        changes = planned(resource, observe_on(host, resource))
        for change in changes:
            assert isinstance(change.run, Command)
            result = host.run(change.run, deadline=10)
            assert result.code == 0, result.errors
        return [one.summary for one in changes]

    def test_it_converges(self, host: LocalSession, tmp_path: Path) -> None:
        """The second look finds nothing to do; owner and mode are kept."""
        (tmp_path / "gitlab/gitlab.rb").chmod(0o640)
        assert self.execute(host, {ZONE: "CET"}) == ["set gitlab_rails['time_zone'] in /etc/gitlab/gitlab.rb"]
        assert self.execute(host, {ZONE: "CET"}) == []
        assert (tmp_path / "gitlab/gitlab.rb").read_text() == FILE.replace("UTC", "CET")
        assert (tmp_path / "gitlab/gitlab.rb").stat().st_mode & 0o777 == 0o640

    def test_what_was_in_force_is_put_aside_once(self, host: LocalSession, tmp_path: Path) -> None:
        """The second unpaid edit leaves the file of before the first: that is what was in force."""
        self.execute(host, {ZONE: "CET"})
        self.execute(host, {ZONE: "EST"})
        copy = tmp_path / "home/rollback/gitlab.rb"
        assert copy.read_text() == FILE
        assert [one.name for one in copy.parent.iterdir()] == ["gitlab.rb"]
        assert copy.parent.stat().st_mode & 0o777 == 0o700

    def test_ruby_checks_the_new_file(self, host: LocalSession, tmp_path: Path) -> None:
        """Where there is an embedded Ruby that refuses it, the old file stays."""
        ruby = tmp_path / "ruby"
        ruby.write_text('#!/bin/sh\necho "$2: syntax error" >&2\nexit 1\n')
        ruby.chmod(0o755)
        resource = settings({ZONE: "CET"})
        (change,) = planned(resource, observe_on(host, resource))
        assert isinstance(change.run, Command)
        script = change.run.script.replace("/opt/gitlab/embedded/bin/ruby", str(ruby))
        assert script != change.run.script
        result = host.run(Command(script, change.run.stdin), deadline=10)
        assert result.code == NOTHING_CHANGED
        assert "syntax error" in result.errors
        assert (tmp_path / "gitlab/gitlab.rb").read_text() == FILE
        assert os.listdir(tmp_path / "gitlab") == ["gitlab.rb"]  # noqa: PTH208
