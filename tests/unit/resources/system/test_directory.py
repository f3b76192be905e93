"""`Directory`: bare, half done, converged, broken; then applied with a real sh."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import ProbeFailed, Refused
from provision.resources import Directory, Handler, Result
from provision.testing import LocalSession, observe, observe_on, planned
from tests.support.resources import ME, apply

DATA = Directory("/srv/data", "0750", "www-data:adm", notify=Handler.restart("app"))


def test_bare() -> None:
    """It is created with mode and owner in one change, which notifies."""
    (change,) = planned(DATA, observe(DATA, ""))
    assert (change.summary, change.action) == ("create the directory /srv/data", "create")
    assert change.notify == (Handler.restart("app"),)


@pytest.mark.parametrize(
    ("found", "summaries"),
    [
        ("0750 www-data:adm\n", []),
        ("0755 www-data:adm\n", ["set /srv/data to 0750 www-data:adm (was 0755 www-data:adm)"]),
        ("0750 root:root\n", ["set /srv/data to 0750 www-data:adm (was 0750 root:root)"]),
    ],
)
def test_half_done_and_converged(found: str, summaries: list[str]) -> None:
    """Mode and owner are set where they differ."""
    assert [one.summary for one in planned(DATA, observe(DATA, found))] == summaries


def test_three_digits_and_a_user_alone_are_enough() -> None:
    """`750` is `0750`; without a group any group will do."""
    loose = Directory("/srv/data", "750", "www-data")
    assert planned(loose, observe(loose, "0750 www-data:staff\n")) == []
    assert len(planned(loose, observe(loose, "0750 bob:staff\n"))) == 1


def test_something_else_is_there() -> None:
    """A file under this name is not replaced."""
    with pytest.raises(Refused, match="/srv/data is a regular file, not a directory"):
        planned(DATA, observe(DATA, "- regular file\n"))


def test_broken() -> None:
    """What cannot be read is not taken for missing."""
    with pytest.raises(ProbeFailed, match="/srv/data cannot be read: stat: Permission denied"):
        planned(DATA, observe(DATA, Result(b"", b"stat: Permission denied\n", 1)))


def test_applied_it_converges(tmp_path: Path) -> None:
    """Parents are created; drift of the mode is set right; links to directories count, links to nowhere do not."""
    host = LocalSession({"/srv": tmp_path})
    nested = Directory("/srv/a b/it's", "0750", ME)
    assert apply(nested, host) == ["create the directory /srv/a b/it's"]
    assert apply(nested, host) == []
    folder = tmp_path / "a b/it's"
    assert (folder.stat().st_mode & 0o7777, folder.parent.stat().st_mode & 0o7777) == (0o750, 0o755)
    folder.chmod(0o1777)
    assert apply(nested, host) == [f"set /srv/a b/it's to 0750 {ME} (was 1777 {ME})"]
    (tmp_path / "link").symlink_to(folder)
    assert apply(Directory("/srv/link", "0750", ME), host) == []
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    dangling = Directory("/srv/dangling")
    with pytest.raises(Refused, match="is a symbolic link"):
        planned(dangling, observe_on(host, dangling))
