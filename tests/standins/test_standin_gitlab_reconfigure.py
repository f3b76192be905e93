"""What a reconfigure prints and keeps, and check-config; systemd is replaced, Ruby and the files are real.

Sources are in omnibus-gitlab, files/gitlab-cookbooks: package/libraries/handlers/gitlab.rb and helpers/logging_helper.rb for
the output, package/libraries/omnibus_helper.rb for root's password; files/gitlab-ctl-commands/check_config.rb.
"""

import json
import os
import re
import socket
import subprocess
import time
from datetime import datetime
from functools import partial

import pytest

from provision_lab.standins.gitlab_ce.host import crond, ctl, letsencrypt, reconfigure, services, settings, system
from provision_lab.standins.gitlab_ce.host.layout import Paths

RB = "external_url 'http://gitlab.example.com'\nnginx['enable'] = false\n"


class Host:
    """A GitLab host in a folder."""

    def __init__(self, folder, capfd):
        self.paths = Paths(folder)
        self._capfd = capfd
        self.state = "active"
        for path in (self.paths.opt, self.paths.gitlab_rb.parent, self.paths.switches):
            path.mkdir(parents=True)
        self.install("19.3.0")
        self.write(RB)

    def install(self, version):
        """The installed version."""
        (self.paths.opt / "version-manifest.txt").write_text(f"gitlab-ce {version}\n")

    def write(self, text):
        """gitlab.rb."""
        self.paths.gitlab_rb.write_text(text)

    def systemctl(self, *arguments):
        """Every unit is in the same state."""
        show = "".join(f"Id={one}\nActiveState={self.state}\nMainPID=7\n\n" for one in arguments if ".service" in one)
        return subprocess.CompletedProcess(arguments, 0, show, "")

    def run(self, call=reconfigure.reconfigure):
        """Exit code, standard output, standard error."""
        self._capfd.readouterr()
        code = call(self.paths)
        printed = self._capfd.readouterr()
        return code, printed.out, printed.err


@pytest.fixture
def host(tmp_path, capfd, monkeypatch):
    """GitLab 19.3.0 with a valid gitlab.rb, never configured."""
    host = Host(tmp_path, capfd)
    for module in (reconfigure, services):
        monkeypatch.setattr(module, "systemctl", host.systemctl)
    monkeypatch.setattr(reconfigure, "evaluate", partial(settings.evaluate, ruby="ruby"))
    monkeypatch.setattr(system, "_ensure_user", lambda *_: None)
    monkeypatch.setattr(system.shutil, "chown", lambda *_: None)
    for name in ("LC_ALL", "LC_CTYPE", "LC_COLLATE", "LANG", "GITLAB_ROOT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return host


def test_the_output_of_the_engine(host):
    """Cinc's headlines, resources, the summary, and the last line of gitlab-ctl."""
    code, out, err = host.run()
    assert (code, err) == (0, "")
    assert out.startswith("Starting Cinc Client, version ")
    assert "\nRecipe: gitlab::default\n  * file[" in out
    assert re.search(r"\nInfra Phase complete, \d+/\d+ resources updated in \d\d seconds\n", out)
    assert out.endswith("\ngitlab Reconfigured!\n")
    assert "Removals:" not in out
    (log,) = host.paths.reconfigure_logs.iterdir()
    assert log.read_text() == out


def test_removed_settings_are_on_standard_output(host):
    """The error on standard error says no more than that there are some; the report follows it."""
    host.write(RB + "spamcheck['enable'] = false\nmattermost_external_url 'http://m'\n")
    code, out, err = host.run()
    assert (code, err) == (
        1,
        "There was an error running gitlab-ctl reconfigure:\n\n"
        "Removed configurations found in gitlab.rb. Aborting reconfigure.\n\n",
    )
    removed = "* spamcheck has been deprecated since 19.0 and was removed in 19.0.\n"
    assert f"\nRemovals:\n{removed}\nUpdate the configuration in your gitlab.rb file" in out
    assert "Deprecations:" not in out
    assert out.splitlines()[-1].startswith("Infra Phase failed. 0 resources updated in ")


def test_notices_by_kind(host, monkeypatch):
    """Deprecations, warnings and notes, in this order, after a run that succeeds."""
    monkeypatch.setenv("LC_ALL", "C")
    host.write(RB + "mattermost_external_url 'http://m'\nnginx['ssl_ciphers'] = 'x'\n")
    _, out, _ = host.run()
    kinds = re.findall(r"^(\w+s):$", out, re.MULTILINE)
    assert kinds == ["Deprecations", "Warnings", "Notes"]
    assert "Environment variable LC_ALL specifies a non-UTF-8 locale." in out


def test_show_config_prints_the_settings_alone(host):
    """The engine's formatter is null, also for an error; nothing is written."""
    before = sorted(host.paths.root.rglob("*"))
    code, out, err = host.run(reconfigure.show_config)
    assert (code, err) == (0, "")
    assert json.loads(out)["external_url"] == "http://gitlab.example.com"
    host.write(RB + "nonsense 1\n")
    code, out, err = host.run(reconfigure.show_config)
    assert (code, out) == (1, "")
    assert err.startswith(
        "There was an error running gitlab-ctl reconfigure:\n\nCannot set unsupported config value nonsense."
    )
    assert {path.name for path in set(host.paths.root.rglob("*")) - set(before)} <= {
        "cache",
        "cookbooks",
        "embedded",
        host.paths.lock.name,
    }


def test_roots_first_password_is_in_a_file_for_a_day(host):
    """A random one, in a file of mode 0600 that a later reconfigure deletes; a note names it."""
    _, out, _ = host.run()
    path = host.paths.initial_root_password
    assert path.stat().st_mode & 0o777 == 0o600
    (password,) = re.findall(r"^Password: (\S{44})$", path.read_text(), re.MULTILINE)
    assert "Password stored to /etc/gitlab/initial_root_password." in out
    assert password not in out
    _, out, _ = host.run()
    assert path.exists()
    assert "Notes:" not in out
    day = time.time() - 86401
    os.utime(path, (day, day))
    _, out, _ = host.run()
    assert not path.exists()
    assert "Found old initial root password file at /etc/gitlab/initial_root_password and deleted it." in out


def test_a_given_password_is_in_no_file(host):
    """store_initial_root_password is for random ones: gitlab_rails.rb, parse_secrets."""
    host.write(RB + "gitlab_rails['initial_root_password'] = 'given-by-us'\n")
    _, out, _ = host.run()
    assert "Username: root" in out
    assert "Password stored" not in out
    assert not host.paths.initial_root_password.exists()


def test_a_registry_that_does_not_start_fails_the_run(host):
    """In runit's words, after its time; one that listens passes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host.write(
            RB + f"registry_external_url 'http://r.example.com'\nregistry['registry_http_addr'] = '127.0.0.1:{port}'\n"
        )
        assert host.run()[0] == 0
    (host.paths.switches / "sv-wait-seconds").write_text("0.2")
    code, _, err = host.run()
    assert code == 1
    assert (
        "runit_service[registry] (registry::enable line 87) had an error: Mixlib::ShellOut::ShellCommandFailed" in err
    )
    assert (
        "---- Begin output of /opt/gitlab/embedded/bin/sv restart /opt/gitlab/service/registry ----\nSTDOUT: timeout: down: registry: "
        in err
    )


def test_check_config_reads_the_last_reconfigure(host):
    """Not gitlab.rb: without one it is skipped; the incoming release counts; no text of the settings is kept."""
    check = lambda *options: host.run(lambda paths: ctl.check_config(paths, list(options)))  # noqa: E731
    code, out, _ = check("--version=20.0")
    assert code == 0
    assert "Skipping config check." in out
    host.write(RB + "mattermost_external_url 'http://secret'\n")
    host.run()
    host.write(RB)
    assert "secret" not in host.paths.node.read_text()
    assert check("--version=19.3")[0] == 0
    code, out, _ = check("--version=20.0")
    assert (code, out) == (
        1,
        "* mattermost_external_url has been deprecated since 19.0 and was removed in 20.0.\n"
        "Deprecations found. Please correct them and try again.\n",
    )
    assert check("--version=20.0", "--no-fail")[0] == 0


def test_status_has_all_services(host):
    """A line for each, by name, in runit's form."""
    host.write(RB + "registry_external_url 'http://r.example.com'\n")
    (host.paths.switches / "sv-wait-seconds").write_text("0")
    host.run()
    code, out, _ = host.run(lambda paths: services.status(services.enabled(paths.opt)))
    names = [
        re.match(r"run: ([\w-]+): \(pid 7\) \d+s; run: log: \(pid 1\) \d+s$", line)[1] for line in out.splitlines()
    ]
    assert (code, names) == (0, sorted(names))
    assert len(names) == 15
    assert {"gitlab-workhorse", "postgresql", "puma", "registry", "sidekiq"} <= set(names)


def test_lets_encrypt_that_enables_itself_needs_crond(host, monkeypatch):
    """An https URL without a certificate: gitlab/recipes/default.rb enables crond for the renewals."""
    monkeypatch.setattr(reconfigure.letsencrypt, "obtain", lambda *_: False)
    monkeypatch.setattr(reconfigure.letsencrypt, "make_self_signed", lambda *_: None)
    host.write("external_url 'https://gitlab.example.com'\n")
    assert host.run()[0] == 0
    assert "crond" in services.enabled(host.paths.opt)
    host.write("external_url 'https://gitlab.example.com'\nletsencrypt['auto_renew'] = false\n")
    assert host.run()[0] == 0
    assert "crond" not in services.enabled(host.paths.opt)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, r"[1-5]?\d 0 \*/4 \* \* root /opt/gitlab/bin/gitlab-ctl renew-le-certs\n"),
        ({"auto_renew_minute": "*/5", "auto_renew_hour": 3, "auto_renew_day_of_month": 1}, r"\*/5 3 1 \* \* root .*\n"),
        ({"auto_renew": False}, "None"),
    ],
)
def test_the_job_that_renews_certificates(settings, line):
    """letsencrypt/attributes/default.rb and recipes/enable.rb: the minute depends on the host's name."""
    first = str(letsencrypt.renewal(settings, "gitlab.example.com"))
    assert re.fullmatch(line, first)
    assert first == str(letsencrypt.renewal(settings, "gitlab.example.com"))


def test_a_renewal_without_the_integration(host):
    """files/gitlab-ctl-commands/letsencrypt.rb: the attributes of the last reconfigure decide."""
    host.run()
    text = 'LetsEncrypt is not enabled in your gitlab.rb. Have you run "gitlab-ctl reconfigure" yet?\n'
    assert host.run(reconfigure.renew) == (1, "", text)


def test_a_renewal_that_fails_is_no_failed_command(host, monkeypatch):
    """The block in letsencrypt.rb ends with a print, so that omnibus-ctl's `run` has no exit code."""

    def refuse(*_):
        raise letsencrypt.Refused("Validation failed")

    monkeypatch.setattr(letsencrypt, "obtain", refuse)
    monkeypatch.setattr(letsencrypt, "make_self_signed", lambda *_: None)
    host.run()
    host.paths.node.write_text('{"normal": {"letsencrypt": {"enable": true}}}')
    host.write("external_url 'https://gitlab.example.com'\nletsencrypt['enable'] = true\n")
    code, out, err = host.run(reconfigure.renew)
    assert code == 0
    assert "Validation failed" in out
    assert err == "There was an error renewing Let's Encrypt certificates, please checkout the output\n"
    assert len(list((host.paths.logs / "lets-encrypt").glob("renewal.*.log"))) == 1


START = datetime(2026, 11, 28, 23, 58, 30)  # a Saturday


@pytest.mark.parametrize(
    ("when", "then"),
    [
        ("* * * * *", datetime(2026, 11, 28, 23, 59)),
        ("27 0 */4 * *", datetime(2026, 11, 29, 0, 27)),
        ("0,30 1-2 * * *", datetime(2026, 11, 29, 1, 0)),
        ("5 6 1 * 0", datetime(2026, 11, 29, 6, 5)),  # a day of the month or of the week
        ("5 6 2 12 *", datetime(2026, 12, 2, 6, 5)),
        ("@every 1m30s", datetime(2026, 11, 29, 0, 0)),
    ],
)
def test_when_crond_runs_a_job(when, then):
    """robfig/cron, parser.go and spec.go; go-crond, parser.go."""
    (job,) = crond.parse(f"# a comment\n{when} root /bin/true --now\n")
    assert (job.user, job.command) == ("root", "/bin/true --now")
    assert job.after(START) == then
