"""An app's container: created, replaced, started, kept, removed. tests/unit/host/test_deploy_script.py runs its script."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed, Refused
from provision.host.docker import RegistryAccess
from provision.host.state import HostState
from provision.image_name import parse
from provision.inventory.tables.apps import PublishedPort
from provision.resources import AppCheck, Deployment, DroppedApps
from provision.secret import Secret
from provision.shell import Command
from provision.testing import LocalSession, notes, observe, observe_on, planned

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
IMAGE = "r.example.com/sammy/hello:1.0"


def app(**more: Any) -> Deployment:
    """The app under test."""
    registry = RegistryAccess("https://r.example.com", "sammy", Secret("the-pull-password"))
    options = ("--restart", "unless-stopped", "-p", "5001:5000")
    environment = {"MODE": "prod", "API_TOKEN": Secret("the-app-token")}
    return Deployment("hello", parse(IMAGE), registry, options, ("serve",), environment, **more)


def settings(wanted: Deployment) -> str:
    """The fingerprint that its container bears."""
    return wanted.fingerprint("00" * 32)


def script(wanted: Deployment) -> Command:
    """What is run to deploy it on a host without it."""
    (change,) = planned(wanted, observe(wanted, {"containers": "", **({} if wanted.pull else {"image": DIGEST})}))
    assert isinstance(change.run, Command)
    return change.run


RUNS = f"hello|running|hello|PRINT|{DIGEST}|{IMAGE}\n"
FOREIGN = "web|running||||nginx\n"
DEPLOY = f"deploy hello: {IMAGE}"

CASES = [
    ("docker: not installed\n", "", "", [DEPLOY]),
    ("", "", "", [DEPLOY]),
    (FOREIGN, "", "", [DEPLOY]),
    (RUNS + FOREIGN, "", "", []),
    (RUNS, DIGEST, "", []),
    (RUNS, OTHER, "", [f"replace hello: {IMAGE} names another image now"]),
    (RUNS.replace("PRINT", "old"), DIGEST, "", ["replace hello: its settings differ"]),
    (RUNS.replace("running", "exited"), "", "", ["start hello: it is exited"]),
    (RUNS.replace("running", "restarting"), "", "", ["start hello: it is restarting"]),
    (RUNS, "", "deploy-hello\tdeploy hello\n", [f"{DEPLOY}, after a failed deployment"]),
    (RUNS, "", "deploy-other\tdeploy other\n", []),
    (RUNS.replace("hello|running", "hello.provision-old|exited", 1), "", "", [f"{DEPLOY}, after an interrupted deployment"]),
    (RUNS + RUNS.replace("hello|running", "hello.provision-new|created", 1), "", "", [f"{DEPLOY}, after an interrupted deployment"]),
    (RUNS, "? it answers 503", "", [f"ask the registry for {IMAGE}"]),
    (RUNS.replace("hello|", "other/link,hello|", 1), "", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("containers", "registry", "pending", "wanted"), CASES)
def test_plan(containers: str, registry: str, pending: str, wanted: list[str]) -> None:
    """Bare, half done, converged, broken."""
    one = app()
    seen = {"containers": containers.replace("PRINT", settings(one)), "pending": pending}
    if registry:
        seen["image"] = registry
    assert [change.summary for change in planned(one, observe(one, seen, due=bool(registry)))] == wanted


def test_without_docker_it_waits_for_it() -> None:
    """Check mode predicts it on a bare host."""
    (change,) = planned(app(), observe(app(), {"containers": "docker: not installed\n"}))
    assert change.requires == "docker"


def test_another_ones_container_of_that_name() -> None:
    """It is named and not touched."""
    with pytest.raises(Refused, match="there is another container called hello, of nginx"):
        planned(app(), observe(app(), {"containers": "hello|running||||nginx\n"}))


def test_a_tag_that_is_gone() -> None:
    """The container keeps running, with a note."""
    one = app()
    seen = observe(one, {"containers": RUNS.replace("PRINT", settings(one)), "image": "absent\n"}, due=True)
    assert planned(one, seen) == []
    assert "no longer has r.example.com/sammy/hello:1.0" in notes(one, seen)[0]


def test_an_image_that_is_not_pulled() -> None:
    """It is compared by its id on the host; where it is missing the app waits for the task that builds it."""
    one = app(pull=False)
    seen = {"containers": RUNS.replace("PRINT", settings(one)), "image": f"{DIGEST}\n"}
    assert planned(one, observe(one, seen)) == []
    assert planned(one, observe(one, {**seen, "image": OTHER}))[0].summary.startswith("replace hello")
    assert planned(one, observe(one, {**seen, "image": ""}))[0].requires == "image"


@pytest.mark.parametrize("more", [{"check": AppCheck(url="http://x")}])
def test_what_is_no_setting(more: dict[str, Any]) -> None:
    """Another check is no reason to replace a container."""
    assert settings(app(**more)) == settings(app())


OTHERS = [
    Deployment("hello", parse(IMAGE), RegistryAccess(), ("--restart", "no")),
    Deployment("hello", parse(IMAGE), RegistryAccess(), (), ("serve",)),
    Deployment("hello", parse(IMAGE), RegistryAccess(), (), (), {"A": "b"}),
    Deployment("hello", parse(IMAGE), RegistryAccess(), (), (), {"A": Secret("c")}),
    Deployment("hello", parse(IMAGE.replace("1.0", "1.1")), RegistryAccess()),
]


def test_what_is_a_setting() -> None:
    """Options, command, variables, secrets, and the image's reference."""
    assert len({settings(one) for one in OTHERS}) == len(OTHERS)


OLD_LABELS = [
    ({"A": "b", "T": Secret("s")}, "256576e25d6bea2b1f6160714468eb35", True),
    ({"A": "b"}, "cfd0a660aa06d7ef56691abe717f3704", False),
]


@pytest.mark.parametrize(("environment", "label", "replaced"), OLD_LABELS)
def test_a_label_of_version_0_1_0(environment: dict[str, str | Secret], label: str, replaced: bool) -> None:
    """It is a hash without a key. A container with secrets is replaced; others would be replaced for nothing."""
    image = parse("r.example.com/a:1")
    wanted = Deployment("hello", image, RegistryAccess(), ("--restart", "no"), ("serve",), environment)
    changes = planned(wanted, observe(wanted, {"containers": RUNS.replace("PRINT", label)}))
    assert [one.summary for one in changes] == (
        ["replace hello: its label has a hash of secrets, made without a key"] if replaced else []
    )


def test_the_label_has_a_key() -> None:
    """Another host's label differs, and the script contains no hash that could be computed without the key."""
    one = app()
    assert one.fingerprint("00" * 32) != one.fingerprint("01" * 32)
    found = [observe(one, {"containers": ""}, fingerprint_key=key * 32) for key in ("00", "01")]
    first, second = (planned(one, seen)[0] for seen in found)
    assert first.run != second.run
    assert first.record == {"image": IMAGE, "settings": one.fingerprint("00" * 32)}  # written with the key, once


def test_secrets_travel_on_standard_input() -> None:
    """The password's line, then the variables; none of it is in the script."""
    command = script(app(ports=(PublishedPort("", 5001, 5000, "tcp"),)))
    assert command.stdin == b"the-pull-password\nMODE=prod\nAPI_TOKEN=the-app-token\n"
    assert "the-pull-password" not in command.script
    assert "the-app-token" not in command.script
    assert "prod" not in command.script


DROPPED = [
    ({}, "", [], ("hello",)),
    ({"app hello": {}}, RUNS, [], ("hello",)),
    ({"app hello": {}}, RUNS, ["remove hello: it is no longer in the inventory"], ()),
    (
        {"app hello": {}},
        RUNS.replace("hello|running|hello", "hello|running|"),
        ["forget hello: its container is gone"],
        (),
    ),
    ({"app hello": {}}, FOREIGN, ["forget hello: its container is gone"], ("web",)),
    ({}, RUNS, [], ()),
]


@pytest.mark.parametrize(("state", "containers", "wanted", "apps"), DROPPED)
def test_dropped_apps(state: dict[str, Any], containers: str, wanted: list[str], apps: tuple[str, ...]) -> None:
    """What we deployed and is no longer wanted is removed; other containers never are."""
    one = DroppedApps(apps)
    changes = planned(one, observe(one, {"containers": containers}, records=state))
    assert [change.summary for change in changes] == wanted
    assert all(change.records == {"app hello": None} for change in changes)


def test_docker_is_not_asked_where_no_app_ever_was(tmp_path: Path) -> None:
    """The question ends before its CLI is started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "grep").symlink_to(shutil.which("grep") or "")
    session = LocalSession({"/var/lib/provision": tmp_path}, {"PATH": str(programs)})
    assert observe_on(session, DroppedApps(()), owner="deploy")["containers"].stdout == b""
    (tmp_path / "state.json").write_text(HostState().updated("deploy", {"app hello": {}}).text())
    assert b"docker: " in observe_on(session, DroppedApps(()), owner="deploy")["containers"].stdout


def test_an_answer_that_is_none() -> None:
    """Unexpected output of Docker is an error: the host does not count as empty."""
    with pytest.raises(ProbeFailed, match="docker ps printed: template parsing error"):
        planned(app(), observe(app(), {"containers": "template parsing error: x\n"}))
