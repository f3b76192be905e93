"""`UpgradePath`: refused before anything is downloaded. Source: GitLab's documentation, "Required upgrade stops"."""

from __future__ import annotations

import pytest

from provision.errors import Refused
from provision.resources import Change, Note
from provision.resources.gitlab.registry import UpgradePath
from provision.testing import observe, packages_are, planned


def plan(installed: str | None, version: str, registry: str = "") -> list[Change | Note]:
    """The changes."""
    resource = UpgradePath(version)
    packages = {"gitlab-ce": f"{installed}-ce.0"} if installed else {}
    return list(planned(resource, observe(resource, {"packages": packages_are(packages), "registry": registry})))


@pytest.mark.parametrize(
    ("installed", "version"),
    [
        (None, "19.3.0-*"),
        ("19.3.0", "19.3.0-*"),
        ("19.2.4", "19.3.0-*"),
        ("19.2.4", "19.5.*"),
        ("18.11.5", "19.2.*"),
        ("18.11.5", "19.0.0-ce.0"),
        ("18.0.0", "18.0.7-*"),
        ("18.0.0", "19.*"),
        ("18.0.0", "*"),
        ("17.3.1", "17.4.0-*"),
    ],
)
def test_allowed(installed: str | None, version: str) -> None:
    """The next stop, anything up to it, and a version that names no minor release."""
    assert plan(installed, version) == []


@pytest.mark.parametrize(
    ("installed", "version", "registry", "restarts"),
    [
        ("18.11.5", "19.2.*", "enabled\n", True),
        ("18.11.5", "19.0.0-ce.0", "enabled\n", True),
        ("18.11.5", "19.2.*", "", False),
        ("18.8.0", "18.11.*", "enabled\n", False),
        ("19.2.4", "19.3.0-*", "enabled\n", False),
        (None, "19.3.0-*", "enabled\n", False),
        ("18.11.5", "*", "enabled\n", False),
    ],
)
def test_the_registry_before_19(installed: str | None, version: str, registry: str, restarts: bool) -> None:
    """It starts once more without its database, before the first version that prefers one."""
    changes = plan(installed, version, registry)
    assert len(changes) == restarts
    for change in changes:
        assert isinstance(change, Change)
        assert change.summary.startswith("restart the registry: it marks images from before GitLab 19")


@pytest.mark.parametrize(
    ("installed", "version", "stops"),
    [
        ("18.0.0", "19.3.0-*", "18.2, 18.5, 18.8, 18.11, 19.2"),
        ("18.1.3", "18.3.*", "18.2"),
        ("18.2.0", "18.8.0-ce.0", "18.5"),
        ("18.10.4", "19.0.1-*", "18.11"),
        ("17.1.0", "18.0.0-*", "the stops before 17.5 that GitLab's documentation names, 17.5, 17.8, 17.11"),
    ],
)
def test_a_stop_is_left_out(installed: str, version: str, stops: str) -> None:
    """All stops between the two are named, and the first as the next step."""
    with pytest.raises(Refused) as caught:
        plan(installed, version)
    wanted = version.removesuffix("-*")
    assert caught.value.text == f"GitLab {installed} cannot be upgraded to {wanted} at once: it must go through {stops}"
    first = next(one for one in stops.split(", ") if one[0].isdigit())
    assert f'gitlab.version = "{first}.*"' in caught.value.hint
    assert "background migrations" in caught.value.hint


@pytest.mark.parametrize(
    ("installed", "version"), [("19.3.0", "18.0.0-*"), ("19.3.1", "19.3.0-*"), ("19.3.1", "19.2.*")]
)
def test_older(installed: str, version: str) -> None:
    """GitLab's database does not go back."""
    with pytest.raises(
        Refused, match=f"GitLab {installed} is installed, and gitlab.version asks for an older one"
    ) as caught:
        plan(installed, version)
    assert "backup" in caught.value.hint
