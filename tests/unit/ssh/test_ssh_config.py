"""Include in ssh_config files, which paramiko does not support."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from provision.ssh import Target, connect, ssh_config
from provision.ssh.ssh_config import expand, load_ssh_config


def lookup(home: Path, host: str, **files: str) -> dict[str, Any]:
    """The options of a host; `config` is ~/.ssh/config, the other files are in the same folder."""
    for name, text in files.items():
        (home / ".ssh" / name).write_text(text)
    ssh_config._parse.cache_clear()
    ssh_config._text.cache_clear()
    found = load_ssh_config().lookup(host)
    return {key: found[key] for key in found}


def test_an_include_at_the_top_comes_first(empty_home: Path) -> None:
    """Included lines replace the Include line; the first value wins."""
    found = lookup(
        empty_home,
        "web1",
        config="Include extra\nHost *\n  User late\n  Port 2200\n",
        extra="Host web*\n  User early\n",
    )
    assert (found["user"], found["port"]) == ("early", "2200")


def test_a_host_block_of_an_include_ends_with_the_included_file(empty_home: Path) -> None:
    """A Host line of an included file does not apply to the lines after the Include."""
    found = lookup(empty_home, "web1", config='Include "extra"\nPort 2200\n', extra="Host db*\n  User nobody\n")
    assert found["port"] == "2200"
    assert "user" not in found


def test_an_include_inside_a_host_block_applies_to_that_host(empty_home: Path) -> None:
    """Inside a Host block, included lines apply to that host, and the block continues after them."""
    files = {"config": "Host web1\n  Include extra\n  Port 2200\n", "extra": "User deploy\n"}
    assert lookup(empty_home, "web1", **files)["user"] == "deploy"
    assert lookup(empty_home, "web1", **files)["port"] == "2200"
    assert "user" not in lookup(empty_home, "db1", **files)


@pytest.mark.parametrize("pattern", ["~/.ssh/conf_*", "conf_*", "conf_a conf_b"])
def test_include_accepts_globs_and_several_patterns(empty_home: Path, pattern: str) -> None:
    """Globs, the home folder, relative names and several patterns."""
    found = lookup(
        empty_home,
        "web1",
        config=f"Include {pattern}\n",
        conf_a="Host web1\n  User a\n",
        conf_b="Host web1\n  User b\n  Port 2201\n",
    )
    assert (found["user"], found["port"]) == ("a", "2201")


def test_a_file_that_includes_itself_is_read_to_a_limited_depth(empty_home: Path) -> None:
    """A circle of includes ends at a maximum depth, as in OpenSSH."""
    file = empty_home / ".ssh" / "config"
    file.write_text("Include config\nUser me\n")
    assert "User me" in expand(file, file.parent)


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    """A file that does not exist is no error."""
    assert expand(tmp_path / "none", tmp_path) == []


def test_a_syntax_error_names_the_file(empty_home: Path) -> None:
    """A configuration that cannot be parsed is a UsageError that names the file."""
    (empty_home / ".ssh" / "config").write_text("Host\n!!\n")
    with pytest.raises(UsageError, match=r"config .*cannot be parsed"):
        connect(Target("web1", "127.0.0.1"), lock=False, who="test")
