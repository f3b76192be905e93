"""`User` and `GroupMember`: bare, half done, converged, broken."""

from __future__ import annotations

import pytest

from provision.errors import Refused
from provision.resources import GroupMember, Result, User
from provision.shell import sh
from provision.testing import notes, observe, planned

EXPORTER = User("exporter", system=True)
ALICE = User("alice", home="/home/alice", shell="/bin/bash", groups=("docker", "adm"))
ALICE_FOUND = "alice:x:1001:1001:,,,:/home/alice:/bin/bash\nalice adm docker\ngroup exists\n"


@pytest.mark.parametrize(
    ("user", "found", "options"),
    [
        (EXPORTER, "", "--system --no-create-home --user-group --home-dir /nonexistent --shell /usr/sbin/nologin"),
        (
            EXPORTER,
            "group exists\n",
            "--system --no-create-home --gid exporter --home-dir /nonexistent --shell /usr/sbin/nologin",
        ),
        (
            User("exporter", system=True, home="/var/lib/exporter", shell="/bin/sh"),
            "",
            "--system --no-create-home --user-group --home-dir /var/lib/exporter --shell /bin/sh",
        ),
        (User("exporter"), "", "--create-home --user-group"),
        (
            User("exporter", groups=("adm", "docker")),
            "",
            "--create-home --user-group --groups adm,docker",
        ),
    ],
)
def test_bare(user: User, found: str, options: str) -> None:
    """One useradd; a group of the user's name that exists becomes the user's own."""
    (change,) = planned(user, observe(user, found))
    assert (change.summary, change.action) == ("create user exporter", "create")
    assert change.run == sh(f"useradd {options} -- exporter")


@pytest.mark.parametrize(
    ("found", "summaries"),
    [
        (ALICE_FOUND, []),
        (ALICE_FOUND.replace("/bin/bash", "/bin/sh"), ["set the shell of user alice to /bin/bash (was /bin/sh)"]),
        (
            ALICE_FOUND.replace("/home/alice", "/srv/alice"),
            ["set the home of user alice to /home/alice (was /srv/alice)"],
        ),
        (ALICE_FOUND.replace("alice adm docker", "alice sudo"), ["add user alice to docker, adm"]),
        (ALICE_FOUND.replace("alice adm docker", "alice docker2 adm"), ["add user alice to docker"]),
    ],
)
def test_half_done_and_converged(found: str, summaries: list[str]) -> None:
    """Only what differs is set; further groups stay."""
    changes = planned(ALICE, observe(ALICE, found))
    assert [one.summary for one in changes] == summaries


def test_what_is_not_given_is_not_compared() -> None:
    """An existing user keeps its home, shell and groups."""
    user = User("alice")
    assert planned(user, observe(user, ALICE_FOUND)) == []


def test_groups_are_added() -> None:
    """`--append`: a usermod without it would remove the others."""
    (change,) = planned(ALICE, observe(ALICE, ALICE_FOUND.replace("alice adm docker", "alice")))
    assert change.run == sh("usermod --append --groups docker,adm -- alice")


def test_an_ordinary_user_is_reported_and_stays() -> None:
    """A uid is not changed: files would lose their owner."""
    user = User("alice", system=True)
    seen = observe(user, ALICE_FOUND)
    assert planned(user, seen) == []
    assert notes(user, seen) == [
        "user alice exists as an ordinary user (uid 1001), not as a system user: uid unchanged"
    ]


MEMBER = GroupMember("ubuntu", "docker")


@pytest.mark.parametrize(
    ("groups", "summaries"), [("ubuntu adm docker\n", []), ("ubuntu adm\n", ["add"]), ("docker2 dock\n", ["add"])]
)
def test_group_member(groups: str, summaries: list[str]) -> None:
    """Whole names of groups are compared; other groups are kept."""
    changes = planned(MEMBER, observe(MEMBER, groups))
    assert [one.summary for one in changes] == [f"{one} ubuntu to group docker" for one in summaries]
    assert [one.run for one in changes] == [sh("usermod -aG docker -- ubuntu")] * len(summaries)


def test_a_group_member_that_does_not_exist_is_refused() -> None:
    """`GroupMember` creates no users."""
    with pytest.raises(Refused, match="user 'ubuntu' does not exist on the host"):
        planned(MEMBER, observe(MEMBER, Result(b"", b"id: 'ubuntu': no such user\n", 1)))
