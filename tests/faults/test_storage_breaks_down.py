"""S3 that passes every check and cannot be used after all: the registry turns to 503 after about 30 s, and the switch is taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial, inventory_of
from tests.support.faults import Live, fact, on_host, pending
from tests.support.runs import (
    Outcome,
    applied,
    provision,
    reconfigures,
    refused,
    settled,
    succeeds,
    untouched,
    wait_for,
    without_s3,
)

Tables = Mapping[str, Any]
ASK = "curl -sk -o /dev/null -w '%{http_code}' https://gitlab.lab.test:5555/v2/"
OUT = "/var/lib/provision/job/reconfigure/out"


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host whose registry keeps its images on its own disk, with all in force."""
    trial = without_s3(trial_factory(LabHost("gitlab")))
    applied(trial, "server")
    return trial


def s3(trial: Trial) -> Tables:
    """The inventory with the lab's S3."""
    return {"registry": {"s3": inventory_of(trial.lab)["registry"]["s3"]}}


@contextmanager
def taken_back(trial: Trial) -> Iterator[Callable[[Outcome], str]]:
    """gitlab.rb and the registry's own configuration are what they were, the registry answers; what was told of it."""
    before = reconfigures(trial)
    told: list[str] = []

    def note(outcome: Outcome) -> str:
        (error,) = outcome.of("error")
        assert (outcome.code, error["resource"], bool(error["hint"])) == (1, "reconfigure", True)
        told.append(error["text"])
        return str(error["text"])

    with untouched_content(trial, "/etc/gitlab/gitlab.rb", "/var/opt/gitlab/registry/config.yml"):
        yield note
    assert "the registry came up and broke down again, its storage cannot be used: " in told[0]
    assert "answers 503 instead of 401" in told[0]
    assert told[0].endswith("the previous /etc/gitlab/gitlab.rb is back in force")
    assert (reconfigures(trial), pending(trial, "gitlab")) == (before + 2, [])
    assert fact(trial, "gitlab", ASK) == "401"


@contextmanager
def untouched_content(trial: Trial, *paths: str) -> Iterator[None]:
    """These files hold afterwards what they held, with owner and mode."""
    script = f"sha256sum {' '.join(paths)}; stat -c '%n %a %U:%G' {' '.join(paths)}"
    before = fact(trial, "gitlab", script)
    yield
    assert fact(trial, "gitlab", script) == before


def gate(trial: Trial) -> tuple[str, str]:
    """Scripts that shut the way from the host to S3, and open it again."""
    rule = f"OUTPUT -p tcp -d {trial.lab.gateway} --dport {trial.lab.s3_port} -j REJECT --reject-with tcp-reset"
    return f"iptables -I {rule}", f"iptables -D {rule}"


def test_no_role_for_the_host(trial: Trial) -> None:
    """Without keys only the registry can tell whether its host may use S3: it is watched, and taken back."""
    table = dict(s3(trial)["registry"]["s3"])
    del table["accesskey"], table["secretkey"]
    with taken_back(trial) as note:
        note(provision(trial, "server", changes={"registry": {"s3": table}}))
    settled(trial, "server")


def test_gone_while_it_is_watched(trial: Trial) -> None:
    """S3 is shut off right behind the reconfigure: taken back, and told that it cannot be reached."""
    shut, opened = gate(trial)
    with taken_back(trial) as note:
        run = Live(trial, "server", changes=s3(trial))
        wait_for(lambda: succeeds(trial, "gitlab", f"grep -qs 'watching it' {OUT}"), "the registry is watched", 60)
        with on_host(trial, "gitlab", shut, opened):
            text = note(run.end())
        assert f"the storage {trial.lab.s3_url} cannot be reached from the host" in text
    settled(trial, "server")


def test_mended_it_converges(trial: Trial) -> None:
    """With S3 there a plain run switches to it with one reconfigure, after a watch, and the next changes nothing."""
    before = reconfigures(trial)
    outcome = applied(trial, "server", changes=s3(trial))
    assert outcome.changes()[-1] == "reconfigure GitLab"
    assert outcome.summary["seconds"] > 35
    assert reconfigures(trial) == before + 1
    settled(trial, "server", changes=s3(trial))


def test_gone_while_it_is_in_force(trial: Trial) -> None:
    """A run while S3 is away says so, and changes nothing; when it is back there is nothing to do."""
    shut, opened = gate(trial)
    with on_host(trial, "gitlab", shut, opened), untouched(trial, "gitlab", "/etc/gitlab", "/var/lib/provision"):
        outcome = refused(trial, "server", changes=s3(trial))
        (error,) = outcome.of("error")
        assert (error["error"], error["resource"]) == ("Refused", "S3Bucket registry")
        assert "the connection is refused" in error["text"]
    settled(trial, "server", changes=s3(trial))
