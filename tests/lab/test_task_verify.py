"""The task `verify`: the proof is taken when it is due or asked for, changes nothing, and leaves nothing.

What it says of each broken layer is tried in tests/faults. Told in order on a GitLab host and a runner host.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.runs import Outcome, applied, provision, refused, settled, strays, without_s3

HOST = "runner-1"
PROOF = "prove gitlab.lab.test:5555/root/hello_hapi: name, connection, /v2/, login, push, pull, delete"


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host, and a bare runner host."""
    return without_s3(trial_factory(LabHost("gitlab"), LabHost(HOST)))


@pytest.fixture(scope="module")
def bare(trial: Trial) -> tuple[Outcome, Outcome]:
    """`verify` before anything else: nothing serves the registry; then the registry is there, and Docker is not."""
    first = provision(trial, "verify")
    applied(trial, "server")
    return first, provision(trial, "verify")


def test_on_bare_hosts_it_names_what_is_missing(bare: tuple[Outcome, Outcome]) -> None:
    """First the port that nobody answers on, then the certificate that nobody trusts yet."""
    first, second = bare
    assert (first.code, second.code) == (1, 1)
    assert "gitlab.lab.test" in first.errors
    assert "refuses port 5555" in first.errors
    assert "its certificate is not trusted" in second.errors
    assert "provision docker" in second.errors


@pytest.fixture(scope="module")
def converged(trial: Trial, bare: object) -> Outcome:  # noqa: ARG001 - bare hosts are looked at before
    """The whole estate."""
    return applied(trial, "all")


def proofs(outcome: Outcome) -> list[str]:
    """The proofs that were taken."""
    return [one["text"] for one in outcome.of("message", task="verify") if one["text"].startswith("done: ")]


def test_a_run_that_changed_something_proves_it(converged: Outcome) -> None:
    """Once for the runner host; it is no change."""
    assert proofs(converged) == [f"done: {PROOF}"]
    assert converged.statuses(HOST)["verify"] == "ok"


@pytest.mark.usefixtures("converged")
def test_a_run_that_changed_nothing_does_not(trial: Trial) -> None:
    """The proof is on record: nothing is pushed."""
    assert proofs(settled(trial, "all")) == []


@pytest.mark.usefixtures("converged")
def test_named_it_proves_each_time(trial: Trial) -> None:
    """And still counts no change, so that --fail-on-change of the next run is not about it."""
    for _ in range(2):
        assert proofs(settled(trial, "verify")) == [f"done: {PROOF}"]


@pytest.mark.usefixtures("converged")
def test_a_change_on_the_other_host_is_proven_here(trial: Trial) -> None:
    """Something was reconfigured on the GitLab host: images are pushed and pulled again."""
    changes = {"gitlab": {"settings": {"gitlab_rails": {"time_zone": "Europe/Paris"}}}}
    assert proofs(applied(trial, "all", changes=changes)) == [f"done: {PROOF}"]
    assert proofs(settled(trial, "all", changes=changes)) == []
    applied(trial, "all")


@pytest.mark.usefixtures("converged")
def test_another_image_is_another_proof(trial: Trial) -> None:
    """What was proven for one image says nothing of another."""
    changes = {"registry": {"login": {"image": "root/hello_hapi/deeper"}}}
    (proof,) = proofs(settled(trial, "all", changes=changes))
    assert "root/hello_hapi/deeper" in proof
    assert proofs(settled(trial, "all", changes=changes)) == []
    assert proofs(settled(trial, "all")) == [f"done: {PROOF}"]


@pytest.mark.usefixtures("converged")
def test_a_failed_proof_is_not_on_record(trial: Trial) -> None:
    """A stopped registry fails `all`; brought back by hand, the next run does not take the old proof for granted."""
    trial.lab.inside(HOST, "systemctl stop docker.socket docker; systemctl mask docker")
    outcome = refused(trial, "verify")
    assert "docker" in outcome.errors
    trial.lab.inside(HOST, "systemctl unmask docker")
    assert proofs(applied(trial, "all")) == [f"done: {PROOF}"]


@pytest.mark.usefixtures("converged")
def test_check_mode_pushes_nothing(trial: Trial) -> None:
    """It says what it would do; the registry is asked for no image."""
    script = "cat /var/log/gitlab/nginx/*access.log | grep -c /v2/root/"
    before = trial.lab.inside("gitlab", script)
    outcome = provision(trial, "verify", "--check")
    assert outcome.messages() == f"would {PROOF}"
    assert trial.lab.inside("gitlab", script) == before


@pytest.mark.usefixtures("converged")
def test_nothing_of_all_these_proofs_stays(trial: Trial) -> None:
    """No image, login, folder or process on the host; no tag in the registry."""
    assert strays(trial, HOST) == []
    assert trial.lab.inside(HOST, "docker images -qa; ls /root/.docker /home/ubuntu/.docker 2>/dev/null; true") == ""
    header = f'header = "PRIVATE-TOKEN: {trial.lab.secret("api_token")}"\n'
    url = "http://127.0.0.1:8080/api/v4/projects/root%2Fhello_hapi/registry/repositories?tags=true"
    found = json.loads(trial.lab.inside("gitlab", f"curl -sf -K - '{url}'", stdin=header))
    assert [tag["name"] for one in found for tag in one["tags"]] == []


@pytest.mark.usefixtures("converged")
def test_no_password_was_in_sight(trial: Trial) -> None:
    """Neither in the journal nor in any file of the runner host."""
    script = """
    cat > /dev/shm/pattern
    journalctl --no-pager | grep -cF -f /dev/shm/pattern
    grep -rlsF -f /dev/shm/pattern /etc /var/lib/provision /root /home /tmp
    rm /dev/shm/pattern
    """
    seen = trial.lab.inside(HOST, script, stdin=f"{trial.lab.secret('registry_password')}\n")
    assert seen.splitlines() == ["0"]
