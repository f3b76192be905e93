"""What ~/.ssh/config and /etc/ssh/ssh_config hold for one host, as OpenSSH reads them.

`ssh -G HOST` is asked for each host where OpenSSH is installed, so that Match, Include and canonical names count as
its version reads them. It costs a process of about 5 ms, in the host's own thread, and only when the files contain a
line that matters. Without OpenSSH, ssh_config_files.py evaluates the files and refuses what it cannot decide.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from provision.errors import Unreachable, UsageError
from provision.ssh.ssh_config_files import Evaluation, Line, copy_for_home, every_line, matters, read

_USER = Path("~/.ssh/config")
_SYSTEM = Path("/etc/ssh/ssh_config")
_TIMEOUT = 30.0  # seconds for `ssh -G`, which runs the commands of `Match exec` and may ask DNS
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
# What `ssh -G` prints when no IdentityFile is set: the names differ between versions.
_DEFAULT_IDENTITY = re.compile(r"~/\.ssh/(?:id_(?:rsa|dsa|ecdsa|ecdsa_sk|ed25519|ed25519_sk|xmss|mldsa\S*)|identity)")


class HostOptions(NamedTuple):
    """The options of one host, with tokens and variables replaced.

    name                the name that was looked up
    identity_files      None: none is set, so the usual ones count
    identity_agent      the socket of the agent; None: no agent is to be asked
    user_known_hosts    keys of new hosts are added to the first file
    revoked_host_keys   a list of keys or a KRL that are refused
    """

    name: str
    hostname: str
    user: str
    port: int
    proxy_jump: str | None = None
    proxy_command: str | None = None
    identity_files: tuple[Path, ...] | None = None
    certificate_files: tuple[Path, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None
    user_known_hosts: tuple[Path, ...] = ()
    system_known_hosts: tuple[Path, ...] = ()
    revoked_host_keys: Path | None = None
    host_key_alias: str | None = None
    address_family: str = "any"

    @property
    def place(self) -> str:
        """Name and port, for messages: "203.0.113.7 port 2222"."""
        return self.hostname if self.port == 22 else f"{self.hostname} port {self.port}"


def host_options(host: str, *, user: str | None = None, port: int | None = None) -> HostOptions:
    """The options of a host; `user` and `port` override those of the files. Looked up once for each combination.

    Raises UsageError for files that cannot be used, and Unreachable for a name that OpenSSH refuses.
    """
    files = _Files(_version(_USER.expanduser()), _version(_SYSTEM))
    key = (files, _home(), os.environ.get("SSH_AUTH_SOCK"), host, user, port)
    with _lock:
        future, mine = _found.get(key), False
        if future is None:
            future = _found[key] = Future()
            mine = True
    if mine:
        try:
            future.set_result(_look_up(files, host, user, port))
        except BaseException as error:
            future.set_exception(error)
    return future.result()


class _Files(NamedTuple):
    """Both files, with their versions: they are read again when they change."""

    user: tuple[Path, int, int]
    system: tuple[Path, int, int]


_lock = Lock()
_found: dict[tuple[object, ...], Future[HostOptions]] = {}


def _version(file: Path) -> tuple[Path, int, int]:
    try:
        status = file.stat()
    except OSError:
        return file, 0, 0
    return file, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _lines(files: _Files) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    user, system = files.user[0], files.system[0]
    return read(user, user.parent, own=True), read(system, system.parent)


def _look_up(files: _Files, host: str, user: str | None, port: int | None) -> HostOptions:
    lines = _lines(files)
    local_user = _local_user()
    if any(matters(one) for one in lines):
        program = shutil.which("ssh")
        values = _ask_openssh(program, files, host, user, port) if program is not None else None
        if values is not None:
            return _options(values, host, local_user, lines)
    evaluation = Evaluation(host, user, port, local_user)
    for one in lines:
        evaluation.add(one)
    return _options({**evaluation.values, "hostname": [[_canonical(evaluation.hostname)]]}, host, local_user, lines)


def _canonical(hostname: str) -> str:
    """The name as OpenSSH prints it. The zone of an IPv6 address keeps its case."""
    return hostname if ":" in hostname else hostname.lower()


def _home() -> str:
    return _home_with(os.environ.get("HOME"))


@lru_cache(maxsize=4)
def _home_with(variable: str | None) -> str:  # noqa: ARG001  keys the cache
    return str(Path.home())


def _local_user() -> str:
    return _name_of(os.getuid())


@lru_cache(maxsize=4)
def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return getpass.getuser()


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


# -- ssh -G -------------------------------------------------------------------------------------


def _ask_openssh(
    program: str, files: _Files, host: str, user: str | None, port: int | None
) -> dict[str, list[list[str]]] | None:
    """The answer of `ssh -G`: keyword -> values. None when this `ssh` is not OpenSSH's."""
    command = [program, "-G"]
    copies = None
    if _home() != _home_of_user():  # OpenSSH does not read $HOME
        copies = _copies(files, _home())
        command += ["-F", str(copies.file)]
    command += ["-l", user] if user is not None else []
    command += ["-p", str(port)] if port is not None else []
    # A session of its own: Ctrl-C in the terminal must not end the commands of `Match exec`.
    process = subprocess.Popen(
        [*command, "--", host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            output, errors = process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise UsageError(
                f"`ssh -G {host}` did not answer within {_TIMEOUT:g} s",
                hint="check the commands of Match exec and CanonicalizeHostname in ~/.ssh/config",
            ) from None
    if process.returncode != 0:
        if not _is_openssh(program):
            return None
        raise _refusal(host, errors.decode("utf-8", "replace"), copies)
    values: dict[str, list[list[str]]] = {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        keyword, _, value = line.partition(" ")
        if value:
            values.setdefault(keyword.lower(), []).append([value])
    return values


def _is_openssh(program: str) -> bool:
    answer = subprocess.run([program, "-V"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT)
    return b"OpenSSH" in answer.stderr


def _refusal(host: str, errors: str, copies: _Copies | None) -> UsageError | Unreachable:
    for copy, original in (copies.originals if copies else {}).items():
        errors = re.sub(re.escape(copy) + r"(?=\D)", lambda _, to=original: to, errors)  # type: ignore[misc]
    lines = [line.strip() for line in errors.splitlines() if line.strip() and "Pseudo-terminal" not in line]
    text = " / ".join(lines[-3:]) or "no message"
    if re.search(r"\bline \d+|configuration option|Bad owner|Include", text):
        return UsageError(
            f"{_USER.expanduser()} or {_SYSTEM} cannot be parsed: {text}",
            hint=f"`ssh -G {host}` shows the same error; correct the line",
        )
    return Unreachable(f"OpenSSH refuses the host {host}: {text}", hint=f"run `ssh -G {host}` to see the error")


@dataclass(frozen=True)
class _Copies:
    file: Path
    originals: Mapping[str, str]
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)  # removed when the process ends


@lru_cache(maxsize=4)
def _copies(files: _Files, home: str) -> _Copies:
    """Both files and their includes, copied so that OpenSSH uses this home folder."""
    folder = tempfile.TemporaryDirectory(prefix="provision-ssh-")
    originals: dict[str, str] = {}
    included = [copy_for_home(lines, Path(folder.name), home, originals) for lines in _lines(files)]
    file = Path(folder.name, "both")
    escaped = home.replace("%", "%%")
    known = " ".join(f'"{one.replace("~", escaped)}"' for one in _USER_KNOWN_HOSTS)
    file.write_text("".join(f'Include "{one}"\n' for one in included) + f"Host *\n UserKnownHostsFile {known}\n")
    return _Copies(file, originals, folder)


# -- options ----------------------------------------------------------------------------------------


def _options(
    values: Mapping[str, Sequence[Sequence[str]]], host: str, local_user: str, lines: Iterable[tuple[Line, ...]]
) -> HostOptions:
    def one(keyword: str, default: str = "") -> str:
        return values[keyword][0][0] if values.get(keyword) else default

    def unless_none(keyword: str) -> str | None:
        value = one(keyword)
        return value if value and value.lower() != "none" else None

    def paths(names: Iterable[str]) -> tuple[Path, ...]:
        return tuple(tokens.path(name) for name in names if name.lower() != "none")

    port = one("port", "22")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"Port {port!r} for {host} in ~/.ssh/config is not a port", hint="expected 1 to 65535")
    tokens = _Tokens(
        host,
        one("hostname", host.lower()),
        port,
        one("user", local_user),
        local_user,
        one("proxyjump"),
        one("hostkeyalias") or host,
    )
    identities = [value[0] for value in values.get("identityfile", ())]
    if len(identities) > 3 and all(_DEFAULT_IDENTITY.fullmatch(name) for name in identities):
        identities = []  # what `ssh -G` prints when none is set
    if one("proxycommand") and one("proxyusefdpass").lower() in ("yes", "true"):
        raise UsageError(
            f"ProxyUseFdpass for {host} in ~/.ssh/config is not supported",
            hint="use a ProxyCommand that passes data through its standard input and output",
        )
    written = [line.words for file in lines for line in every_line(file) if line.keyword.endswith("knownhostsfile")]
    written += [list(_USER_KNOWN_HOSTS), list(_SYSTEM_KNOWN_HOSTS)]

    def known_hosts(keyword: str, default: Sequence[str]) -> tuple[Path, ...]:
        names = list(values[keyword][0]) if values.get(keyword) else list(default)
        if len(names) == 1:  # `ssh -G` prints several names as one text, without their quotes
            names = _split(names[0], written, tokens)
        return paths(names)

    command, revoked = unless_none("proxycommand"), unless_none("revokedhostkeys")
    return HostOptions(
        name=host,
        hostname=tokens.hostname,
        user=tokens.user,
        port=int(port),
        proxy_jump=unless_none("proxyjump"),
        proxy_command=tokens.expand(command) if command else None,
        identity_files=paths(identities) if identities else None,
        certificate_files=paths(value[0] for value in values.get("certificatefile", ())),
        identities_only=one("identitiesonly").lower() in ("yes", "true"),
        identity_agent=_agent(one("identityagent"), tokens),
        user_known_hosts=known_hosts("userknownhostsfile", _USER_KNOWN_HOSTS),
        system_known_hosts=known_hosts("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS),
        revoked_host_keys=tokens.path(revoked) if revoked else None,
        host_key_alias=one("hostkeyalias") or None,
        address_family=one("addressfamily", "any").lower(),
    )


def _split(text: str, written: Sequence[Sequence[str]], tokens: _Tokens) -> list[str]:
    """The names in a text of several names, one of which may contain blanks: as they are written in the files."""
    for names in written:
        if text == " ".join(names):
            return list(names)
        if text == " ".join(expanded := [str(tokens.path(name)) for name in names]):
            return [name.replace("%", "%%") for name in expanded]
    return text.split()


def _agent(name: str, tokens: _Tokens) -> str | None:
    """The agent's socket. Source: ssh_config(5), IdentityAgent."""
    if name.lower() == "none":
        return None
    if name in ("", "SSH_AUTH_SOCK"):
        return os.environ.get("SSH_AUTH_SOCK") or None
    if re.fullmatch(r"\$\w+", name):
        return os.environ.get(name[1:]) or None
    return str(tokens.path(name))


@lru_cache(maxsize=64)
def _expand_user(text: str, home: str) -> Path:  # noqa: ARG001  keys the cache
    """The path without `~`. It is kept, because all hosts have the same few files."""
    return Path(text).expanduser()


class _Tokens(NamedTuple):
    """Replaces tokens such as %h, and ${VARIABLES}. Source: ssh_config(5), TOKENS and ENVIRONMENT VARIABLES."""

    name: str
    hostname: str
    port: str
    user: str
    local_user: str
    jump: str
    key_alias: str

    def path(self, text: str) -> Path:
        """A path, with `~` replaced too. Raises UsageError for a variable that is not set."""

        if "%" not in text and "$" not in text:
            return _expand_user(text, _home())

        def variable(found: re.Match[str]) -> str:
            if (value := os.environ.get(found[1])) is None:
                raise UsageError(
                    f"the environment variable {found[1]} in {text!r} of ~/.ssh/config is not set",
                    hint="set it, or write the path without it",
                )
            return value

        return Path(re.sub(r"\$\{(\w+)\}", variable, self.expand(text))).expanduser()

    def expand(self, text: str) -> str:
        """The text with its tokens replaced. Raises UsageError for an unknown token."""
        local = socket.gethostname()
        values = {
            "%": "%",
            "d": _home(),
            "h": self.hostname,
            "i": str(os.getuid()),
            "j": self.jump,
            "k": self.key_alias,
            "L": local.partition(".")[0],
            "l": local,
            "n": self.name,
            "p": self.port,
            "r": self.user,
            "u": self.local_user,
        }
        whole = local + self.hostname + self.port + self.user + self.jump
        values["C"] = hashlib.sha1(whole.encode()).hexdigest()

        def token(found: re.Match[str]) -> str:
            if found[1] not in values:
                raise UsageError(
                    f"unknown token {found[0]!r} in {text!r} of ~/.ssh/config", hint="see TOKENS in ssh_config(5)"
                )
            return values[found[1]]

        return re.sub(r"%(.?)", token, text)
