"""The lab's gitlab-runner packages on a real host, with dpkg and systemd."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import Lab, LabHost
from provision_lab.run import LabError
from provision_lab.standins.gitlab_runner.build import build

ENTRY = """\
# by hand
concurrent = 2
[[runners]]
  name = "one"
  url = "http://127.0.0.1:9"
  token = "glrt-abcdefghijklmn"
  executor = "shell"
"""


@pytest.fixture(scope="module")
def host(lab_factory: Callable[..., Lab]) -> Callable[..., str]:
    """A bare host with the packages in /debs: `host(script)` runs as root and returns the output."""
    lab = lab_factory(LabHost("runner-1"))
    folder = lab.machine("runner-1").root / "debs"
    folder.mkdir()
    build(folder)
    return lambda script, stdin="": lab.inside("runner-1", script, stdin=stdin)


def wait_for(host: Callable[..., str], condition: str) -> None:
    """Waits until the script succeeds."""
    host(f"for n in $(seq 100); do if {condition}; then exit 0; fi; sleep 0.1; done; exit 1")


def test_helper_images_must_come_along(host: Callable[..., str]) -> None:
    """One package alone cannot be installed: dpkg names the other, of the same version."""
    with pytest.raises(LabError, match=r"gitlab-runner-helper-images \(= 19.2.0-1\)"):
        host("dpkg -i /debs/gitlab-runner_19.2.0-1_*.deb")
    host("dpkg --purge gitlab-runner")


def test_installed_service_runs(host: Callable[..., str]) -> None:
    """User, folder, unit enabled and started; Docker is pruned unless apt's environment forbids it."""
    host("NO_DOCKER_PRUNE=1 dpkg -i /debs/*_19.2.0-1_*.deb")
    assert host("systemctl is-enabled gitlab-runner; systemctl is-active gitlab-runner") == "enabled\nactive\n"
    assert "gitlab-runner: Service is running" in host("gitlab-runner status")
    assert host("stat -c '%a %U' /etc/gitlab-runner; id -un gitlab-runner") == "700 root\ngitlab-runner\n"
    assert host("test -e /var/log/gitlab-runner-docker-prune.log || echo none") == "none\n"
    wait_for(host, "journalctl -u gitlab-runner | grep -q 'Failed to load config'")


def test_new_file_is_loaded_without_a_restart(host: Callable[..., str]) -> None:
    """The service loads the file when its time changes, and keeps its process."""
    before = host("systemctl show gitlab-runner -p MainPID")
    host("cat > /etc/gitlab-runner/config.toml && chmod 600 /etc/gitlab-runner/config.toml", stdin=ENTRY)
    wait_for(host, "journalctl -u gitlab-runner | grep -q 'Configuration loaded .*max_builds=2'")
    assert host("systemctl show gitlab-runner -p MainPID") == before


def test_restart_cancels_a_job(host: Callable[..., str]) -> None:
    """A job survives a reload, not a restart."""
    host("mkdir -p /etc/gitlab-runner-standin; echo 'sleep 600' > /etc/gitlab-runner-standin/job")
    wait_for(host, "test -e /etc/gitlab-runner-standin/job-1.running")
    host("systemctl kill -s HUP --kill-who=main gitlab-runner")
    wait_for(host, "journalctl -u gitlab-runner | grep -q 'builds=1 max_builds=2'")
    host("systemctl restart gitlab-runner")
    assert host("cat /etc/gitlab-runner-standin/job-1.done") == "canceled\n"


def test_upgrade_keeps_the_file_and_prunes(host: Callable[..., str]) -> None:
    """Both packages in one call; config.toml is unchanged; images are pruned."""
    host("dpkg -i /debs/*_19.3.0-1_*.deb")
    assert host("cat /etc/gitlab-runner/config.toml") == ENTRY
    assert "Version:      19.3.0" in host("gitlab-runner --version")
    assert host("systemctl is-active gitlab-runner") == "active\n"
    assert "prune" in host("cat /var/log/gitlab-runner-docker-prune.log")


def test_removed_leaves_the_configuration(host: Callable[..., str]) -> None:
    """Unit and program are removed; config.toml stays."""
    host("dpkg --remove gitlab-runner gitlab-runner-helper-images")
    assert host("ls /usr/share/gitlab-runner /etc/systemd/system/gitlab-runner.service 2>/dev/null || :") == ""
    assert host("cat /etc/gitlab-runner/config.toml") == ENTRY
