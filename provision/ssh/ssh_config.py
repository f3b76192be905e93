"""~/.ssh/config and /etc/ssh/ssh_config, parsed once for all hosts.

paramiko parses them but knows no Include, which Debian's own file begins with: included text is put
in its place before parsing. Format: ssh_config(5).
"""

from __future__ import annotations

import glob
import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from provision.errors import UsageError

if TYPE_CHECKING:
    from fabric import Config  # type: ignore[import-untyped]

_USER = Path("~/.ssh/config")
_SYSTEM = Path("/etc/ssh/ssh_config")
_DEPTH = 16  # as deep as OpenSSH follows
_KEYWORD = re.compile(r"^\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*$")
_building = threading.Lock()


def shared_config() -> Config:
    """fabric's configuration holding both files. Nothing else of fabric's (its fabric.yml) has a say.

    Raises UsageError for a file that is not understood.
    """
    with _building:
        return _build(str(_USER.expanduser()))


def proxy_command(host: str, *, port: int, user: str) -> str:
    """A host's ProxyCommand with its tokens filled in by the port and user that are really used."""
    from paramiko import SSHConfig

    forced = f"Host *\nPort {port}\nUser {user}\n"
    found: str = SSHConfig.from_text(forced + _text(str(_USER.expanduser()))).lookup(host)["proxycommand"]
    return found


@lru_cache(maxsize=4)
def _build(user_file: str) -> Config:
    from fabric import Config
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    try:
        return Config(lazy=True, ssh_config=SSHConfig.from_text(_text(user_file)))
    except ConfigParseError as error:
        raise UsageError(
            f"{user_file} or {_SYSTEM} cannot be read: {error}",
            hint="`ssh -G HOST` tells the line, if OpenSSH minds it too",
        ) from error


def lines() -> list[str]:
    """What both files say, with includes in place."""
    return list(_lines(str(_USER.expanduser())))


@lru_cache(maxsize=4)
def _lines(user_file: str) -> tuple[str, ...]:
    files = (Path(user_file), _SYSTEM)
    return tuple(line for file in files for line in expand(file, file.parent, top="Host *"))


def _text(user_file: str) -> str:
    return "\n".join(_lines(user_file))


def expand(file: Path, relative_to: Path, *, top: str = "", depth: int = 0) -> list[str]:
    """The lines of `file` with its includes in place; no file, no lines.

    `top` is the block line under which the file begins. It is said again after each include, whose own
    Host and Match lines hold for itself only.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return []
    block = top
    out = [top] if top else []
    for line in lines:
        found = _KEYWORD.match(line)
        keyword = found[1].lower() if found else ""
        if keyword in ("host", "match"):
            block = line
        if found is None or keyword != "include" or depth >= _DEPTH:
            out.append(line)
            continue
        for pattern in re.findall(r'"([^"]*)"|(\S+)', found[2]):
            for name in sorted(glob.glob(_absolute(pattern[0] or pattern[1], relative_to))):  # noqa: PTH207  absolute
                out += expand(Path(name), relative_to, depth=depth + 1)
                out.append(block or "Host *")
    return out


def _absolute(pattern: str, relative_to: Path) -> str:
    path = Path(pattern).expanduser()
    return str(path if path.is_absolute() else relative_to / path)
