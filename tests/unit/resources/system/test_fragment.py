"""`ConfigFragment`: bare, half done, converged; then applied with a real sh, and checks that refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.resources import ConfigFragment, Handler
from provision.testing import NO_FILE, LocalSession, file_is, observe, planned
from tests.support.local import Local
from tests.support.resources import ME, apply, refuse

RELOAD = Handler.reload("nginx")
SITE = ConfigFragment("/etc/nginx/conf.d/app.conf", "server {}", check="nginx -t", notify=RELOAD)


def test_bare_half_done_and_converged() -> None:
    """A line end is added; the handler runs for a new content, not for a new mode."""
    (change,) = planned(SITE, observe(SITE, NO_FILE))
    assert (change.summary, change.action, change.notify) == ("create /etc/nginx/conf.d/app.conf", "create", (RELOAD,))
    assert change.diff.splitlines()[-1] == "+server {}"
    (change,) = planned(SITE, observe(SITE, file_is("server { listen 80; }\n")))
    assert (change.summary, change.notify) == ("update /etc/nginx/conf.d/app.conf", (RELOAD,))
    (change,) = planned(SITE, observe(SITE, file_is("server {}\n", "0600")))
    assert change.summary == "set /etc/nginx/conf.d/app.conf to 0644 root:root (was 0600 root:root)"
    assert change.notify == ()
    assert planned(SITE, observe(SITE, file_is("server {}\n"))) == []
    assert SITE.handlers == (RELOAD,)


@pytest.fixture
def host(tmp_path: Path, local: Local) -> LocalSession:
    """This machine, with its folders elsewhere."""
    return local({"/etc": tmp_path, "/var/lib/provision": tmp_path / "home"})


def fragment(content: str, check: str) -> ConfigFragment:
    """A fragment in a folder of its own."""
    return ConfigFragment("/etc/app.d/50 x", content, check, owner=ME)


@pytest.mark.parametrize("check", ['grep -q good "$new"', "grep -q good '/etc/app.d/50 x'; test -z 'a%'x || :"])
def test_applied_it_converges(host: LocalSession, tmp_path: Path, check: str) -> None:
    """With a check of the new file alone, or of everything with the file in place."""
    assert apply(fragment("good 50%", check), host) == ["create /etc/app.d/50 x"]
    assert apply(fragment("good 50%", check), host) == []
    assert apply(fragment("good\n", check), host) == ["update /etc/app.d/50 x"]
    assert {one.name: one.read_text() for one in (tmp_path / "app.d").iterdir()} == {"50 x": "good\n"}


@pytest.mark.parametrize(
    "check",
    ['grep good "$new" || { echo "line 1: bad" >&2; exit 1; }', "cat '/etc/app.d/50 x'; echo 'line 1: bad'; false"],
)
def test_a_refused_fragment_leaves_what_was_there(host: LocalSession, tmp_path: Path, check: str) -> None:
    """A new one is deleted again; an old one is restored with its mode and time. The check's words are the error."""
    assert "line 1: bad" in refuse(fragment("awful", check), host)
    folder = tmp_path / "app.d"
    assert list(folder.iterdir()) == []
    file = folder / "50 x"
    file.write_text("old\n")
    file.chmod(0o640)
    before = file.stat()
    assert "line 1: bad" in refuse(fragment("awful", check), host)
    assert [one.name for one in folder.iterdir()] == ["50 x"]
    after = file.stat()
    assert file.read_text() == "old\n"
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
