"""Another reconfigure is under way: ours waits for it, saying so, and gives up in good order where it does not end."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from provision.host.pending import Handler
from provision.resources.gitlab.reconfigure import reconfigure
from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.faults import fact, pending
from tests.support.runs import applied, reconfigures, settled, succeeds, wait_for, without_s3

JOB = "/var/lib/provision/job/reconfigure"
LOCK = "/opt/gitlab/embedded/cookbooks/cache/cinc-client-running.pid"
RB, ASIDE = "/etc/gitlab/gitlab.rb", "/var/lib/provision/rollback/gitlab.rb"
EDIT = f"""
mkdir -p $(dirname {ASIDE}) && cp -p {RB} {ASIDE}
printf 'reconfigure\\treconfigure GitLab\\n' > /var/lib/provision/pending
sed -i "s/^gitlab_rails.'time_zone'. = .*/gitlab_rails['time_zone'] = 'Edited'/" {RB}
"""


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host on which everything is in force."""
    trial = without_s3(trial_factory(LabHost("gitlab")))
    applied(trial, "server")
    return trial


def zone(name: str) -> Mapping[str, Any]:
    """The inventory with another time zone: one edit of gitlab.rb, which owes a reconfigure."""
    return {"gitlab": {"settings": {"gitlab_rails": {"time_zone": name}}}}


@contextmanager
def another(trial: Trial) -> Iterator[Callable[[], None]]:
    """Somebody's own reconfigure, until it is let go."""
    script = f"rm -f /run/go; flock {LOCK} sh -c 'until [ -e /run/go ]; do sleep 0.1; done'"
    holder = threading.Thread(target=succeeds, args=(trial, "gitlab", script))
    holder.start()
    wait_for(lambda: is_held(trial), "the lock is held")
    try:
        yield lambda: let_go(trial)
    finally:
        let_go(trial)
        holder.join()


def let_go(trial: Trial) -> None:
    """It ends."""
    trial.lab.inside("gitlab", "touch /run/go")


def is_held(trial: Trial) -> bool:
    """Whether a reconfigure is under way."""
    return not succeeds(trial, "gitlab", f"flock -n {LOCK} true")


def pay(trial: Trial, handler: Handler) -> subprocess.CompletedProcess[str]:
    """The reconfigure's own script on the host, by itself."""
    return trial.lab.ssh("gitlab", "sudo sh -s", stdin=handler.run.script)


def test_it_is_waited_for(trial: Trial) -> None:
    """That another one is waited for is told while it lasts; then ours is done, once, and the next run changes nothing."""
    before = reconfigures(trial)
    with another(trial) as end, ThreadPoolExecutor(1) as pool:
        run = pool.submit(trial.run, "server", "-v", changes=zone("Waited"))
        wait_for(lambda: succeeds(trial, "gitlab", f"grep -q 'will wait for it' {JOB}/out"), "ours waits", 60)
        end()
        done = run.result()
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "is running, will wait for it to finish" in told
    assert reconfigures(trial) == before + 1
    settled(trial, "server", changes=zone("Waited"))


def test_one_that_does_not_end(trial: Trial) -> None:
    """Behind the limit it is given up: gitlab.rb is put back, nothing is reconfigured, and the next run does what is owed."""
    before, old = reconfigures(trial), fact(trial, "gitlab", f"cat {RB}")
    trial.lab.inside("gitlab", EDIT)
    with another(trial):
        done = pay(trial, reconfigure("https://gitlab.lab.test:5555", "https://gitlab.lab.test/jwt/auth", limit=2))
    assert done.returncode == 1
    assert "will wait for it" in done.stdout
    assert done.stderr.splitlines() == [
        "another reconfigure is under way, and did not end within 2 s",
        f"the previous {RB} is back in place, and is reconfigured by the next run",
    ]
    assert (fact(trial, "gitlab", f"cat {RB}"), reconfigures(trial)) == (old, before)
    assert pending(trial, "gitlab") == ["reconfigure"]
    assert applied(trial, "server", changes=zone("Waited")).changes() == ["reconfigure GitLab"]
    settled(trial, "server", changes=zone("Waited"))


def test_our_own_that_does_not_end(trial: Trial) -> None:
    """A reconfigure beyond its limit is ended, gitlab.rb is put back, and GitLab reconfigured with that."""
    before, old = reconfigures(trial), fact(trial, "gitlab", f"cat {RB}")
    trial.lab.inside("gitlab", EDIT)
    trial.lab.inside("gitlab", "echo 600 > /etc/gitlab-standin/reconfigure-seconds")
    with ThreadPoolExecutor(1) as pool:
        paid = pool.submit(pay, trial, reconfigure(limit=4))
        wait_for(lambda: reconfigures(trial) == before + 1, "it has begun, and lingers", 60)
        trial.lab.inside("gitlab", "rm /etc/gitlab-standin/reconfigure-seconds")
        done = paid.result()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "gitlab-ctl reconfigure did not end within 4 s",
        f"the previous {RB} is back in force",
    ]
    assert (fact(trial, "gitlab", f"cat {RB}"), reconfigures(trial)) == (old, before + 2)
    assert pending(trial, "gitlab") == []
    settled(trial, "server", changes=zone("Waited"))
