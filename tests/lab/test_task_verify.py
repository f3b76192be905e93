"""The task `verify`: it runs when needed or named, changes nothing, and leaves nothing behind.

tests/faults test its messages for each broken layer. The tests run in order on a GitLab host and a runner host.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import Live
from tests.support.gitlab import quoted, rails_boots, rails_does_not_boot, readiness
from tests.support.runs import Outcome, applied, provision, reconfigures, refused, strays, unchanged, without_s3
from tests.support.waiting import wait_for

HOST = "runner-1"
API = "http://127.0.0.1:8080/api/v4"
VERIFICATION = "verify push and pull of gitlab.lab.test:5555/root/hello_hapi"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host and a bare runner host."""
    return without_s3(harness_factory(LabHost("gitlab"), LabHost(HOST)))


@pytest.fixture(scope="module")
def bare(harness: Harness) -> tuple[Outcome, Outcome]:
    """`verify` before anything else: no registry; then a registry, but no Docker."""
    first = provision(harness, "verify")
    applied(harness, "server")
    return first, provision(harness, "verify")


def test_on_bare_hosts_it_names_what_is_missing(bare: tuple[Outcome, Outcome]) -> None:
    """First the port that does not answer, then the certificate that is not trusted."""
    first, second = bare
    assert (first.code, second.code) == (1, 1)
    assert "gitlab.lab.test" in first.errors
    assert "refuses port 5555" in first.errors
    assert "its certificate is not trusted" in second.errors
    assert "provision docker" in second.errors


@pytest.fixture(scope="module")
def converged(harness: Harness, bare: object) -> Outcome:  # noqa: ARG001 - bare hosts are looked at before
    """The whole estate."""
    return applied(harness, "all")


def verifications(outcome: Outcome) -> list[str]:
    """The verifications that ran."""
    return [one["text"] for one in outcome.of("message", task="verify") if one["text"].startswith("done: ")]


def test_a_run_that_changed_something_verifies(converged: Outcome) -> None:
    """Once for the runner host; it is not counted as a change."""
    assert verifications(converged) == [f"done: {VERIFICATION}"]
    assert converged.statuses(HOST)["verify"] == "ok"


@pytest.mark.usefixtures("converged")
def test_a_run_that_changed_nothing_does_not(harness: Harness) -> None:
    """The verification is recorded: nothing is pushed."""
    assert verifications(unchanged(harness, "all")) == []


@pytest.mark.usefixtures("converged")
def test_named_it_verifies_each_time(harness: Harness) -> None:
    """It counts no change, so that --fail-on-change is unaffected."""
    for _ in range(2):
        assert verifications(unchanged(harness, "verify")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_a_change_on_the_other_host_is_verified(harness: Harness) -> None:
    """Something was reconfigured on the GitLab host: images are pushed and pulled again."""
    changes = {"gitlab": {"settings": {"gitlab_rails": {"time_zone": "Europe/Paris"}}}}
    assert verifications(applied(harness, "all", changes=changes)) == [f"done: {VERIFICATION}"]
    assert verifications(unchanged(harness, "all", changes=changes)) == []
    applied(harness, "all")


@pytest.mark.usefixtures("converged")
def test_another_image_is_verified_again(harness: Harness) -> None:
    """The verification of one image does not count for another."""
    changes = {"registry": {"login": {"image": "root/hello_hapi/deeper"}}}
    (verification,) = verifications(unchanged(harness, "all", changes=changes))
    assert "root/hello_hapi/deeper" in verification
    assert verifications(unchanged(harness, "all", changes=changes)) == []
    assert verifications(unchanged(harness, "all")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_a_failed_verification_is_not_recorded(harness: Harness) -> None:
    """A stopped registry fails `all`; when it runs again, the next run verifies again."""
    harness.lab.inside(HOST, "systemctl stop docker.socket docker; systemctl mask docker")
    outcome = refused(harness, "verify")
    assert "docker" in outcome.errors
    harness.lab.inside(HOST, "systemctl unmask docker")
    assert verifications(applied(harness, "all")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_check_mode_pushes_nothing(harness: Harness) -> None:
    """The plan names it; no image is requested from the registry."""
    script = "cat /var/log/gitlab/nginx/*access.log | grep -c /v2/root/"
    before = harness.lab.inside("gitlab", script)
    outcome = provision(harness, "verify", "--check")
    assert outcome.messages() == f"would {VERIFICATION}"
    assert harness.lab.inside("gitlab", script) == before


def as_user(harness: Harness, name: str, secret: str) -> dict[str, Any]:
    """The login of another user, as changes of the inventory."""
    return {"registry": {"login": {"username": name, "password": harness.lab.secret(secret)}}}


@pytest.mark.usefixtures("converged")
def test_two_factors_need_a_token(harness: Harness) -> None:
    """GitLab refuses the password in `docker login`, without a word about two factors: the message has the reason."""
    settings = "/etc/gitlab-standin/settings.json"
    harness.lab.inside("gitlab", f"cat > {settings}", stdin='{"two_factor": ["root"]}')
    try:
        (error,) = refused(harness, "verify").of("error")
        applied(harness, "verify", changes=as_user(harness, "root", "api_token"))
    finally:
        harness.lab.inside("gitlab", f"rm {settings}")
    assert "HTTP Basic: Access denied" in error["text"]
    assert "with two-factor authentication GitLab accepts a token here and no password" in error["text"] + error["hint"]


@pytest.mark.usefixtures("converged")
@pytest.mark.parametrize(
    ("user", "step", "advice"),
    [
        ("reporter", "push: ", "the role Developer in the project"),
        ("developer", "delete: HTTP 401", "GitLab lets the role Maintainer delete images"),
    ],
)
def test_a_role_that_may_not(harness: Harness, user: str, step: str, advice: str) -> None:
    """A Reporter does not push, and a Developer does not delete: the role is named, and the tag that stays."""
    script = """
    import json, sys
    path, name, password = "/etc/gitlab-standin/seed.json", sys.argv[1], sys.stdin.readline().strip()
    seed = json.load(open(path))
    seed["users"][name] = password
    seed["members"].append({"user": name, "path": seed["project"], "role": name})
    json.dump(seed, open(path, "w"))
    """
    command = f"python3 -c {quoted(dedent(script))} {user} && gitlab-ctl restart puma"
    harness.lab.inside("gitlab", command, stdin=f"{harness.lab.secret('registry_password')}\n")
    harness.lab.inside("gitlab", "until curl -s -o /dev/null http://127.0.0.1:8080/-/readiness; do sleep 0.1; done")
    (error,) = refused(harness, "verify", changes=as_user(harness, user, "registry_password")).of("error")
    printed = error["text"] + error["hint"]
    assert step in printed
    assert advice in printed
    if user == "developer":
        delete_tag(harness, printed)


@pytest.mark.usefixtures("converged")
def test_a_deploy_token_does_not_delete(harness: Harness) -> None:
    """It pushes and pulls with its two scopes; the tag that stays is named, and what deletes it."""
    body = "-d name=images -d scopes=read_registry,write_registry"
    made = json.loads(as_root(harness, f"{body} {API}/projects/root%2Fhello_hapi/deploy_tokens"))
    assert made["username"] == f"gitlab+deploy-token-{made['id']}"
    path = harness.folder / "deploy_token"
    path.write_text(made["token"])
    login = {"username": made["username"], "password": {"file": str(path)}}
    (error,) = refused(harness, "verify", changes={"registry": {"login": login}}).of("error")
    printed = error["text"] + error["hint"]
    assert "delete: HTTP 401" in printed
    assert "read_registry and write_registry do not delete" in printed
    delete_tag(harness, printed)


def as_root(harness: Harness, arguments: str) -> str:
    """What GitLab's API answers to root's token."""
    header = f'header = "PRIVATE-TOKEN: {harness.lab.secret("api_token")}"\n'
    return harness.lab.inside("gitlab", f"curl -sf -K - {arguments}", stdin=header)


def delete_tag(harness: Harness, printed: str) -> None:
    """Deletes the tag that an error names."""
    (tag,) = re.findall(r"stays in the registry: \S+:(provision-\S+)", printed)
    images = f"{API}/projects/root%2Fhello_hapi/registry/repositories"
    (number,) = [one["id"] for one in json.loads(as_root(harness, images)) if one["path"] == "root/hello_hapi"]
    as_root(harness, f"-X DELETE {images}/{number}/tags/{tag}")


@pytest.mark.usefixtures("converged")
def test_while_gitlab_starts(harness: Harness) -> None:
    """Docker's login meets 502 at GitLab: it is repeated until it succeeds; the messages name what is waited for."""
    with rails_does_not_boot(harness, restart=True) as boot:
        run = Live(harness, "verify")
        text = run.until("message", kind="waiting", host=HOST)["text"]
        boot()
        outcome = run.end()
    assert (outcome.code, outcome.summary["changed"]) == (0, 0), outcome.errors
    assert text.startswith(f"waiting for at most 300 s: {VERIFICATION}: login: ")
    assert "502 Bad Gateway" in text
    assert re.search(r"waited for \d+ s: ", outcome.messages())
    assert verifications(outcome) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_ctrl_c_while_gitlab_starts(harness: Harness) -> None:
    """The run ends at once, and names what was not done; the next run does it."""
    with rails_does_not_boot(harness, restart=True):
        run = Live(harness, "verify")
        run.until("message", kind="waiting", host=HOST)
        run.send(signal.SIGINT)
        outcome = run.end()
    assert outcome.code == 130
    assert f"; not done: {VERIFICATION}" in outcome.messages()
    assert outcome.statuses(HOST) == {"verify": "skipped"}
    assert verifications(unchanged(harness, "verify")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_right_after_a_port_change(harness: Harness) -> None:
    """The reconfigure waits until Rails has booted, so that `verify` meets no 502."""
    port = {"registry": {"external_url": "https://gitlab.lab.test:5556"}}
    applied(harness, "firewall", "docker", changes=port)
    with rails_boots(harness, 10):
        outcome = applied(harness, "registry", "verify", changes=port)
    assert verifications(outcome) == [f"done: {VERIFICATION.replace('5555', '5556')}"]
    assert [one for one in outcome.of("message") if one["kind"] == "waiting"] == []
    assert outcome.summary["hosts"]["gitlab"]["seconds"] > 10
    applied(harness, "all")


@pytest.mark.usefixtures("converged")
def test_ctrl_c_during_the_reconfigure_s_wait(harness: Harness) -> None:
    """Twice: the run ends at once, and names what is pending. The next run takes the result, and reconfigures no more.

    Once: the running step ends, which is the wait; no further task begins.
    """
    changes = {"gitlab": {"settings": {"gitlab_rails": {"time_zone": "Europe/Rome"}}}}
    before = reconfigures(harness)
    with rails_does_not_boot(harness, restart=False):
        run = Live(harness, "gitlab", "verify", changes=changes)
        wait_for(lambda: readiness(harness) == "502", "Rails boots", 200)
        run.send(signal.SIGINT)
        run.until("message", kind="stopping", host="gitlab")
        run.send(signal.SIGINT)
        outcome = run.end()
    assert outcome.code == 130
    assert "abandoned during: reconfigure GitLab; pending until the next run: reconfigure" in outcome.messages()
    assert applied(harness, "gitlab", changes=changes).changes() == ["reconfigure GitLab"]
    assert reconfigures(harness) == before + 1
    with rails_does_not_boot(harness, restart=False) as boot:
        run = Live(harness, "gitlab", "verify")
        wait_for(lambda: readiness(harness) == "502", "Rails boots", 200)
        run.send(signal.SIGINT)
        run.until("message", kind="stopping", host="gitlab")
        boot()
        outcome = run.end()
    assert outcome.code == 130
    assert "stopping after: reconfigure GitLab (Ctrl-C again abandons it)" in outcome.messages()
    assert outcome.statuses(HOST) == {"verify": "skipped"}
    unchanged(harness, "all")


@pytest.mark.usefixtures("converged")
def test_the_verifications_leave_nothing(harness: Harness) -> None:
    """No image, login, folder or process on the host; no tag in the registry."""
    assert strays(harness, HOST) == []
    assert harness.lab.inside(HOST, "docker images -qa; ls /root/.docker /home/ubuntu/.docker 2>/dev/null; true") == ""
    header = f'header = "PRIVATE-TOKEN: {harness.lab.secret("api_token")}"\n'
    url = "http://127.0.0.1:8080/api/v4/projects/root%2Fhello_hapi/registry/repositories?tags=true"
    found = json.loads(harness.lab.inside("gitlab", f"curl -sf -K - '{url}'", stdin=header))
    assert [tag["name"] for one in found for tag in one["tags"]] == []


@pytest.mark.usefixtures("converged")
def test_no_password_was_in_sight(harness: Harness) -> None:
    """Neither the journal nor any file of the runner host has it."""
    script = """
    cat > /dev/shm/pattern
    journalctl --no-pager | grep -cF -f /dev/shm/pattern
    grep -rlsF -f /dev/shm/pattern /etc /var/lib/provision /root /home /tmp
    rm /dev/shm/pattern
    """
    seen = harness.lab.inside(HOST, script, stdin=f"{harness.lab.secret('registry_password')}\n")
    assert seen.splitlines() == ["0"]
