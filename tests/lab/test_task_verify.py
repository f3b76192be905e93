"""The task `verify`: the proof is taken when it is due or asked for, changes nothing, and leaves nothing.

What it says of each broken layer is tried in tests/faults. Told in order on a GitLab host and a runner host.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.runs import Outcome, applied, provision, refused, settled, strays, without_s3

HOST = "runner-1"
VERIFICATION = "verify push and pull of gitlab.lab.test:5555/root/hello_hapi"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host, and a bare runner host."""
    return without_s3(harness_factory(LabHost("gitlab"), LabHost(HOST)))


@pytest.fixture(scope="module")
def bare(harness: Harness) -> tuple[Outcome, Outcome]:
    """`verify` before anything else: nothing serves the registry; then the registry is there, and Docker is not."""
    first = provision(harness, "verify")
    applied(harness, "server")
    return first, provision(harness, "verify")


def test_on_bare_hosts_it_names_what_is_missing(bare: tuple[Outcome, Outcome]) -> None:
    """First the port that nobody answers on, then the certificate that nobody trusts yet."""
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


def proofs(outcome: Outcome) -> list[str]:
    """The proofs that were taken."""
    return [one["text"] for one in outcome.of("message", task="verify") if one["text"].startswith("done: ")]


def test_a_run_that_changed_something_proves_it(converged: Outcome) -> None:
    """Once for the runner host; it is no change."""
    assert proofs(converged) == [f"done: {VERIFICATION}"]
    assert converged.statuses(HOST)["verify"] == "ok"


@pytest.mark.usefixtures("converged")
def test_a_run_that_changed_nothing_does_not(harness: Harness) -> None:
    """The proof is on record: nothing is pushed."""
    assert proofs(settled(harness, "all")) == []


@pytest.mark.usefixtures("converged")
def test_named_it_proves_each_time(harness: Harness) -> None:
    """And still counts no change, so that --fail-on-change of the next run is not about it."""
    for _ in range(2):
        assert proofs(settled(harness, "verify")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_a_change_on_the_other_host_is_proven_here(harness: Harness) -> None:
    """Something was reconfigured on the GitLab host: images are pushed and pulled again."""
    changes = {"gitlab": {"settings": {"gitlab_rails": {"time_zone": "Europe/Paris"}}}}
    assert proofs(applied(harness, "all", changes=changes)) == [f"done: {VERIFICATION}"]
    assert proofs(settled(harness, "all", changes=changes)) == []
    applied(harness, "all")


@pytest.mark.usefixtures("converged")
def test_another_image_is_another_proof(harness: Harness) -> None:
    """What was proven for one image says nothing of another."""
    changes = {"registry": {"login": {"image": "root/hello_hapi/deeper"}}}
    (proof,) = proofs(settled(harness, "all", changes=changes))
    assert "root/hello_hapi/deeper" in proof
    assert proofs(settled(harness, "all", changes=changes)) == []
    assert proofs(settled(harness, "all")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_a_failed_proof_is_not_on_record(harness: Harness) -> None:
    """A stopped registry fails `all`; brought back by hand, the next run does not take the old proof for granted."""
    harness.lab.inside(HOST, "systemctl stop docker.socket docker; systemctl mask docker")
    outcome = refused(harness, "verify")
    assert "docker" in outcome.errors
    harness.lab.inside(HOST, "systemctl unmask docker")
    assert proofs(applied(harness, "all")) == [f"done: {VERIFICATION}"]


@pytest.mark.usefixtures("converged")
def test_check_mode_pushes_nothing(harness: Harness) -> None:
    """It says what it would do; the registry is asked for no image."""
    script = "cat /var/log/gitlab/nginx/*access.log | grep -c /v2/root/"
    before = harness.lab.inside("gitlab", script)
    outcome = provision(harness, "verify", "--check")
    assert outcome.messages() == f"would {VERIFICATION}"
    assert harness.lab.inside("gitlab", script) == before


@pytest.mark.usefixtures("converged")
def test_nothing_of_all_these_proofs_stays(harness: Harness) -> None:
    """No image, login, folder or process on the host; no tag in the registry."""
    assert strays(harness, HOST) == []
    assert harness.lab.inside(HOST, "docker images -qa; ls /root/.docker /home/ubuntu/.docker 2>/dev/null; true") == ""
    header = f'header = "PRIVATE-TOKEN: {harness.lab.secret("api_token")}"\n'
    url = "http://127.0.0.1:8080/api/v4/projects/root%2Fhello_hapi/registry/repositories?tags=true"
    found = json.loads(harness.lab.inside("gitlab", f"curl -sf -K - '{url}'", stdin=header))
    assert [tag["name"] for one in found for tag in one["tags"]] == []


@pytest.mark.usefixtures("converged")
def test_no_password_was_in_sight(harness: Harness) -> None:
    """Neither in the journal nor in any file of the runner host."""
    script = """
    cat > /dev/shm/pattern
    journalctl --no-pager | grep -cF -f /dev/shm/pattern
    grep -rlsF -f /dev/shm/pattern /etc /var/lib/provision /root /home /tmp
    rm /dev/shm/pattern
    """
    seen = harness.lab.inside(HOST, script, stdin=f"{harness.lab.secret('registry_password')}\n")
    assert seen.splitlines() == ["0"]
