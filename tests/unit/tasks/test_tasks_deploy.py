"""The resources of `deploy`, by inventory; and mistakes that are reported before a host is contacted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provision.errors import UsageError
from provision.resources import Deployment, DroppedApps, UnusedImages
from provision.secret import Secret
from tests.support.wanted import REGISTRY

Wants = Callable[..., Any]
APP = '[[apps]]\nname = "hello"\nimage = "sammy/hello"\n'
OTHER = '[[apps]]\nname = "other"\nimage = "docker.io/nginx:1"\n'


def test_an_app(wants: Wants) -> None:
    """The options for Docker, and the secrets apart from them."""
    text = (
        'ports = ["127.0.0.1:5001:5000"]\nvolumes = ["data:/data"]\nrestart = "always"\ncommand = ["serve", "-v"]\n'
        'environment = {MODE = "prod", API_TOKEN = "the-app-token"}\n'
        'health = {command = "true", interval = "5s", start_period = "1s", retries = 2}\n'
        'check = {url = "http://localhost:5001/", contains = "hello", seconds = 9}\n'
    )
    dropped, one = wants("deploy", REGISTRY + APP + text)
    assert dropped == DroppedApps(("hello",))
    assert isinstance(one, Deployment)
    assert str(one.image) == "gitlab.example.com:5555/sammy/hello:latest"
    assert " ".join(one.options) == (
        "--restart always -p 127.0.0.1:5001:5000 -v data:/data --health-cmd true --health-interval 5s "
        "--health-start-period 1s --health-retries 2"
    )
    assert one.command == ("serve", "-v")
    assert dict(one.environment) == {"MODE": "prod", "API_TOKEN": Secret("the-app-token")}
    assert (one.check.url, one.check.contains, one.check.seconds) == ("http://localhost:5001/", "hello", 9)
    assert one.registry.user == "sammy"


def test_the_registry_is_asked_when_a_verification_is_due(wants: Wants) -> None:
    """Only then."""
    probe = wants("deploy", REGISTRY + APP)[1].probe()
    assert (list(probe), list(probe.when_due)) == (["containers", "pending"], ["image"])


def test_an_image_of_docker_hub_needs_no_login(wants: Wants) -> None:
    """The login of the own registry is not used for it."""
    _, one = wants("deploy", REGISTRY + OTHER)
    assert (str(one.image), one.registry.user) == ("docker.io/library/nginx:1", "")


def test_on_another_host(wants: Wants) -> None:
    """Runner hosts are checked for removed apps; the app runs on its own hosts."""
    (dropped,) = wants("deploy", REGISTRY + APP + 'on = "gitlab"\n', base=_BASE)
    assert dropped == DroppedApps(())


_BASE = '[hosts.runner-1]\ngroups = ["runners"]\n[hosts.gitlab]\ngroups = ["gitlab"]\n'

MISTAKES = [
    (APP, "names no registry, and the inventory has none"),
    (REGISTRY + APP + 'on = "runers"\n', "no group or host has the name 'runers'; did you mean \"runners\"?"),
    (REGISTRY + APP + 'ports = ["80:1"]\n' + OTHER + 'ports = ["80:2"]\n', "both publish port 80"),
    (REGISTRY + APP + 'environment = {KEY = {command = ["printf", "a\\\\nb"]}}\n', "KEY has several lines"),
]


@pytest.mark.parametrize(("text", "why"), MISTAKES)
def test_mistakes(wants: Wants, text: str, why: str) -> None:
    """There is one message with a hint."""
    with pytest.raises(UsageError) as refusal:
        wants("deploy", text)
    assert why in refusal.value.text
    assert refusal.value.hint or "did you mean" in why


def test_one_port_on_two_addresses(wants: Wants) -> None:
    """Both ports can be published."""
    text = REGISTRY + APP + 'ports = ["10.0.0.1:80:1"]\n' + OTHER + 'ports = ["10.0.0.2:80:2", "80:53/udp"]\n'
    assert len(wants("deploy", text)) == 3


PRUNED = REGISTRY + APP + "[prune]\ndays = 3\n"


def test_the_prune_timer(wants: Wants) -> None:
    """A script, its service with the days and the images to keep, and the timer that starts it."""
    unused, script, service, timer = wants("prune", f"{PRUNED}timer = true\n")
    image = "gitlab.example.com:5555/sammy/hello"
    assert unused == UnusedImages(3, (image,))
    assert (script.path, script.mode) == ("/usr/local/lib/provision/prune", "0755")
    assert f"ExecStart={script.path} remove 3 {image}\n" in service.content
    assert (service.running, service.enabled, timer.running, timer.enabled) == (False, False, True, True)
    assert "OnCalendar=daily\n" in timer.content


def test_no_prune_timer(wants: Wants) -> None:
    """The timer is removed before the service that it starts."""
    _, *removed = wants("prune", PRUNED)
    assert [one.label for one in removed] == [
        "Unit provision-prune.timer",
        "Unit provision-prune.service",
        "File /usr/local/lib/provision/prune",
        "File /usr/local/lib/provision",
    ]
