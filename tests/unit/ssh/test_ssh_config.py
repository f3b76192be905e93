"""Include in ssh_config files, which paramiko does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from provision.ssh import Target, connect
from provision.ssh.ssh_config import expand, shared_config


def lookup(home: Path, host: str, **files: str) -> dict[str, Any]:
    """What the configuration says of a host; `config` is ~/.ssh/config, others are beside it."""
    for name, text in files.items():
        (home / ".ssh" / name).write_text(text)
    shared = shared_config.__globals__["_build"]
    shared.cache_clear()
    found = shared_config().base_ssh_config.lookup(host)
    return {key: found[key] for key in found}


def test_include_at_the_top(no_user_configuration: Path) -> None:
    """What is included stands where the Include is; the first value wins."""
    found = lookup(
        no_user_configuration,
        "web1",
        config="Include extra\nHost *\n  User late\n  Port 2200\n",
        extra="Host web*\n  User early\n",
    )
    assert (found["user"], found["port"]) == ("early", "2200")


def test_blocks_of_an_include_end_with_it(no_user_configuration: Path) -> None:
    """A Host line of an included file does not swallow what follows the Include."""
    found = lookup(
        no_user_configuration, "web1", config='Include "extra"\nPort 2200\n', extra="Host db*\n  User nobody\n"
    )
    assert found["port"] == "2200"
    assert "user" not in found


def test_include_inside_a_block(no_user_configuration: Path) -> None:
    """Inside a Host block an include holds for that host, and the block goes on after it."""
    files = {"config": "Host web1\n  Include extra\n  Port 2200\n", "extra": "User deploy\n"}
    assert lookup(no_user_configuration, "web1", **files)["user"] == "deploy"
    assert lookup(no_user_configuration, "web1", **files)["port"] == "2200"
    assert "user" not in lookup(no_user_configuration, "db1", **files)


@pytest.mark.parametrize("pattern", ["~/.ssh/conf_*", "conf_*", "conf_a conf_b"])
def test_globs(no_user_configuration: Path, pattern: str) -> None:
    """Globs, the home folder, relative names and several patterns."""
    found = lookup(
        no_user_configuration,
        "web1",
        config=f"Include {pattern}\n",
        conf_a="Host web1\n  User a\n",
        conf_b="Host web1\n  User b\n  Port 2201\n",
    )
    assert (found["user"], found["port"]) == ("a", "2201")


def test_include_of_itself_ends(no_user_configuration: Path) -> None:
    """A circle of includes ends as it does in OpenSSH: at a depth."""
    file = no_user_configuration / ".ssh" / "config"
    file.write_text("Include config\nUser me\n")
    assert "User me" in expand(file, file.parent)


def test_no_files_no_lines(tmp_path: Path) -> None:
    """A file that is not there says nothing."""
    assert expand(tmp_path / "none", tmp_path) == []


def test_a_file_that_is_not_understood(no_user_configuration: Path) -> None:
    """A damaged configuration is told as that, by name."""
    (no_user_configuration / ".ssh" / "config").write_text("Host\n!!\n")
    with pytest.raises(UsageError, match=r"config .*cannot be read"):
        connect(Target("web1", "127.0.0.1"), lock=False, who="test")
