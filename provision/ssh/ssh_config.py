"""~/.ssh/config and /etc/ssh/ssh_config, parsed once for all hosts. Format: ssh_config(5).

paramiko parses them but does not support Include, which Debian's own file begins with. Therefore included text is
inserted before parsing.
"""

from __future__ import annotations

import glob
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from provision.errors import UsageError

if TYPE_CHECKING:
    from paramiko import SSHConfig

_USER = Path("~/.ssh/config")
_SYSTEM = Path("/etc/ssh/ssh_config")
_MAX_DEPTH = 16  # of nested includes, as in OpenSSH
_KEYWORD = re.compile(r"^\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*$")


def load_ssh_config() -> SSHConfig:
    """Both files, parsed. Raises UsageError for a file with a syntax error."""
    return _parse(str(_USER.expanduser()))


def proxy_command(host: str, *, port: int, user: str) -> str:
    """The ProxyCommand of a host, with its tokens replaced by the port and user of this connection."""
    from paramiko import SSHConfig

    forced = f"Host *\nPort {port}\nUser {user}\n"
    found: str = SSHConfig.from_text(forced + _text(str(_USER.expanduser()))).lookup(host)["proxycommand"]
    return found


@lru_cache(maxsize=4)
def _parse(user_file: str) -> SSHConfig:
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    try:
        return SSHConfig.from_text(_text(user_file))
    except ConfigParseError as error:
        raise UsageError(
            f"{user_file} or {_SYSTEM} cannot be parsed: {error}", hint="`ssh -G HOST` names the line with the error"
        ) from error


@lru_cache(maxsize=4)
def _text(user_file: str) -> str:
    files = (Path(user_file), _SYSTEM)
    return "\n".join(line for file in files for line in expand(file, file.parent, top="Host *"))


def expand(file: Path, relative_to: Path, *, top: str = "", depth: int = 0) -> list[str]:
    """The lines of `file` with its includes inserted. No lines for a file that does not exist.

    `top` is the Host line that the file begins under. The current Host or Match line is repeated after each include,
    whose own Host and Match lines apply to the included text only.
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
        if found is None or keyword != "include" or depth >= _MAX_DEPTH:
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
