"""Another reconfigure runs: ours waits for it with a message, and is rolled back when the other does not end."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from provision.host.pending import Handler
from provision.resources.gitlab.gitlab_rb import reconfigure
from provision.url import Url
from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import fact, pending, zone
from tests.support.runs import applied, reconfigures, succeeds, unchanged, without_s3
from tests.support.waiting import wait_for

JOB = "/var/lib/provision/job/reconfigure"
LOCK = "/opt/gitlab/embedded/cookbooks/cache/cinc-client-running.pid"
WAITS = "waiting until another reconfigure ends"
RB, BACKUP = "/etc/gitlab/gitlab.rb", "/var/lib/provision/rollback/gitlab.rb"
EDIT = f"""
mkdir -p $(dirname {BACKUP}) && cp -p {RB} {BACKUP}
printf 'reconfigure\\treconfigure GitLab\\n' > /var/lib/provision/pending
sed -i "s/^gitlab_rails.'time_zone'. = .*/gitlab_rails['time_zone'] = 'Edited'/" {RB}
"""


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host."""
    return without_s3(harness_factory(LabHost("gitlab", prepared="server")))


@contextmanager
def another(harness: Harness) -> Iterator[Callable[[], None]]:
    """A reconfigure by others, until it is released."""
    script = f"rm -f /run/go; flock {LOCK} sh -c 'until [ -e /run/go ]; do sleep 0.1; done'"
    holder = threading.Thread(target=succeeds, args=(harness, "gitlab", script))
    holder.start()
    wait_for(lambda: is_held(harness), "the lock is held")
    try:
        yield lambda: release(harness)
    finally:
        release(harness)
        holder.join()


def release(harness: Harness) -> None:
    """Releases it."""
    harness.lab.inside("gitlab", "touch /run/go")


def is_held(harness: Harness) -> bool:
    """Whether a reconfigure runs."""
    return not succeeds(harness, "gitlab", f"flock -n {LOCK} true")


def run_handler(harness: Harness, handler: Handler) -> subprocess.CompletedProcess[str]:
    """Runs the reconfigure's own script on the host."""
    return harness.lab.ssh("gitlab", "sudo sh -s", stdin=handler.run.script)


def test_it_is_waited_for(harness: Harness) -> None:
    """A message while it waits; then one reconfigure of ours, and the next run changes nothing."""
    before = reconfigures(harness)
    with another(harness) as end, ThreadPoolExecutor(1) as pool:
        run = pool.submit(harness.run, "server", "-v", changes=zone("Waited"))
        wait_for(lambda: succeeds(harness, "gitlab", f"grep -q '{WAITS}' {JOB}/out"), "ours waits", 60)
        end()
        done = run.result()
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert WAITS in output
    assert reconfigures(harness) == before + 1
    unchanged(harness, "server", changes=zone("Waited"))


def test_one_that_does_not_end(harness: Harness) -> None:
    """At the limit, gitlab.rb is restored and nothing is reconfigured; the next run does what is pending."""
    before, old = reconfigures(harness), fact(harness, "gitlab", f"cat {RB}")
    harness.lab.inside("gitlab", EDIT)
    with another(harness):
        done = run_handler(
            harness, reconfigure(Url.parse("https://gitlab.lab.test:5555"), "https://gitlab.lab.test/jwt/auth", limit=2)
        )
    assert done.returncode == 1
    assert WAITS in done.stdout
    cause, outcome = done.stderr.splitlines()
    assert re.fullmatch(r"another reconfigure is running, and did not end within 2 s: process \d+ \(flock\)", cause)
    assert outcome == f"rolled back to the previous {RB}; the next run reconfigures GitLab with it"
    assert (fact(harness, "gitlab", f"cat {RB}"), reconfigures(harness)) == (old, before)
    assert pending(harness, "gitlab") == ["reconfigure"]
    assert applied(harness, "server", changes=zone("Waited")).changes() == ["reconfigure GitLab"]
    unchanged(harness, "server", changes=zone("Waited"))


def test_our_own_that_does_not_end(harness: Harness) -> None:
    """At the limit, our reconfigure is ended, gitlab.rb is restored, and GitLab is reconfigured with it."""
    before, old = reconfigures(harness), fact(harness, "gitlab", f"cat {RB}")
    harness.lab.inside("gitlab", EDIT)
    harness.lab.inside("gitlab", "echo 600 > /etc/gitlab-standin/reconfigure-seconds")
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(run_handler, harness, reconfigure(limit=4))
        wait_for(lambda: reconfigures(harness) == before + 1, "it has begun, and lingers", 60)
        harness.lab.inside("gitlab", "rm /etc/gitlab-standin/reconfigure-seconds")
        done = finished.result()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "gitlab-ctl reconfigure did not end within 4 s",
        f"rolled back to the previous {RB}",
    ]
    assert (fact(harness, "gitlab", f"cat {RB}"), reconfigures(harness)) == (old, before + 2)
    assert pending(harness, "gitlab") == []
    unchanged(harness, "server", changes=zone("Waited"))
