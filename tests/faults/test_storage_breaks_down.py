"""S3 that the registry cannot use: it does not start, its own error is reported, and the switch is rolled back.

Since GitLab 18.9 the registry reads lock files in its storage when it starts. Before, an upload through the registry shows it:
test_storage_in_time.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness, inventory_of
from tests.support.faults import Live, fact, on_host, pending
from tests.support.runs import (
    Outcome,
    applied,
    provision,
    reconfigures,
    refused,
    succeeds,
    unchanged,
    untouched,
    without_s3,
)
from tests.support.waiting import wait_for

Tables = Mapping[str, Any]
ASK = "curl -sk -o /dev/null -w '%{http_code}' https://gitlab.lab.test:5555/v2/"
OUT = "/var/lib/provision/job/reconfigure/out"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host whose registry stores images on its disk."""
    return without_s3(harness_factory(LabHost("gitlab", prepared="server")))


def s3(harness: Harness) -> Tables:
    """The inventory with the lab's S3."""
    return {"registry": {"s3": inventory_of(harness.lab)["registry"]["s3"]}}


@contextmanager
def rolled_back(harness: Harness) -> Iterator[Callable[[Outcome], str]]:
    """Asserts that gitlab.rb and the registry's configuration are restored and it answers; the error."""
    before = reconfigures(harness)
    output: list[str] = []

    def note(outcome: Outcome) -> str:
        (error,) = outcome.of("error")
        assert (outcome.code, error["resource"], bool(error["hint"])) == (1, "reconfigure", True)
        output.append(error["text"])
        return str(error["text"])

    with untouched_content(harness, "/etc/gitlab/gitlab.rb", "/var/opt/gitlab/registry/config.yml"):
        yield note
    assert "could not check if filesystem metadata is locked" in output[0], output
    assert output[0].endswith("rolled back to the previous /etc/gitlab/gitlab.rb")
    assert (reconfigures(harness), pending(harness, "gitlab")) == (before + 2, [])
    assert fact(harness, "gitlab", ASK) == "401"


@contextmanager
def untouched_content(harness: Harness, *paths: str) -> Iterator[None]:
    """Asserts that these files keep content, owner and mode."""
    script = f"sha256sum {' '.join(paths)}; stat -c '%n %a %U:%G' {' '.join(paths)}"
    before = fact(harness, "gitlab", script)
    yield
    assert fact(harness, "gitlab", script) == before


def blockade(harness: Harness) -> tuple[str, str]:
    """Scripts that block the host's connection to S3, and allow it again."""
    rule = f"OUTPUT -p tcp -d {harness.lab.gateway} --dport {harness.lab.s3_port} -j REJECT --reject-with tcp-reset"
    return f"iptables -I {rule}", f"iptables -D {rule}"


def without_keys(harness: Harness) -> Tables:
    """The inventory with the lab's S3 and no keys: the registry looks for an IAM role."""
    table = dict(s3(harness)["registry"]["s3"])
    del table["accesskey"], table["secretkey"]
    return {"registry": {"s3": table}}


def test_no_role_for_the_host(harness: Harness) -> None:
    """Without keys, only the registry knows whether its host may use S3: its error says that it may not."""
    with rolled_back(harness) as note:
        assert "no EC2 IMDS role found" in note(provision(harness, "server", changes=without_keys(harness)))
    unchanged(harness, "server")


def test_no_role_and_a_silent_metadata_service(harness: Harness) -> None:
    """The driver looks for a role for a long time."""
    rule = "OUTPUT -d 169.254.169.254 -j DROP"
    route = f"ip route add 169.254.169.254 via {harness.lab.gateway}; iptables -I {rule}"
    with (
        rolled_back(harness) as note,
        on_host(harness, "gitlab", route, f"ip route del 169.254.169.254; iptables -D {rule}"),
    ):
        note(provision(harness, "server", changes=without_keys(harness)))
    unchanged(harness, "server")


def test_gone_before_it_is_checked(harness: Harness) -> None:
    """S3 becomes unreachable during the reconfigure: rolled back with that reason."""
    shut, opened = blockade(harness)
    with rolled_back(harness) as note:
        run = Live(harness, "server", changes=s3(harness))
        wait_for(lambda: succeeds(harness, "gitlab", f"grep -qs . {OUT}"), "GitLab is being reconfigured", 60)
        with on_host(harness, "gitlab", shut, opened):
            text = note(run.end())
        assert f"the storage {harness.lab.s3_url} cannot be reached from the host" in text
    unchanged(harness, "server")


def test_once_fixed_it_converges(harness: Harness) -> None:
    """With S3 reachable, a run switches with one reconfigure and one check; the next changes nothing."""
    before = reconfigures(harness)
    outcome = applied(harness, "server", changes=s3(harness))
    assert outcome.changes()[-1] == "reconfigure GitLab"
    assert reconfigures(harness) == before + 1
    unchanged(harness, "server", changes=s3(harness))


def test_gone_while_it_is_in_force(harness: Harness) -> None:
    """A run while S3 is unreachable reports it and changes nothing; later there is nothing to do."""
    shut, opened = blockade(harness)
    with on_host(harness, "gitlab", shut, opened), untouched(harness, "gitlab", "/etc/gitlab", "/var/lib/provision"):
        outcome = refused(harness, "server", changes=s3(harness))
        (error,) = outcome.of("error")
        assert (error["error"], error["resource"]) == ("Refused", "S3Bucket registry")
        assert "the connection is refused" in error["text"]
    unchanged(harness, "server", changes=s3(harness))
