"""How a host's tasks reach GitLab's API, and which host keeps the records of what was set there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from provision.errors import ApiFailed, ProvisionError, UsageError
from provision.gitlab.api import Api, KeptToken, read_kept_token
from provision.host.files import HOME
from provision.inventory import Estate, Host, SecretSource, Settings
from provision.inventory.tables.gitlab import READY_SECONDS, Gitlab, Server
from provision.inventory.tables.projects import Project
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.secret import Secret
from provision.shell import Command, Result, sh
from provision.url import Url

API_TOKEN: Final = f"{HOME}/api_token"
"""The file on the GitLab host with the token that the task `access` made; only root can read it."""
_READ_SECONDS: Final = 60.0


def is_own(host: Host, url: Url) -> bool:
    """Whether `url` is at the server of gitlab.external_url: the same scheme, host and port."""
    gitlab = host.settings.get(Gitlab)
    return gitlab is not None and gitlab.external_url.origin == url.origin


def has_token(host: Host, url: Url) -> bool:
    """Whether there is a token for the API at `url`: the inventory's, or one that the task `access` makes."""
    return _token(host, url) is not None or (is_own(host, url) and keeps_token(host))


def keeps_token(host: Host) -> bool:
    """Whether the task `access` makes a token for gitlab.external_url, and keeps it on the GitLab host.

    It does for a GitLab that this program installs, if the inventory gives no token and has tables that need one.
    """
    gitlab = host.settings.get(Gitlab)
    if gitlab is None or gitlab.api_token is not None or not gitlab.install:
        return False
    return host.estate.first("gitlab") is not None and bool(token_scopes(host))


def token_scopes(host: Host) -> tuple[str, ...]:
    """The scopes that a token for gitlab.external_url needs for the tables of the whole inventory; () for none.

    To create runners, and to read and change them afterwards, it does not need the scope api.
    Sources: GitLab's lib/api/ci/runners.rb (manage_runner) and lib/api/users.rb (create_runner).
    """
    gitlab = host.settings.get(Gitlab)
    if gitlab is None:
        return ()
    projects, servers = host.estate.once("needs of the token", lambda: _needs(host.estate))
    if gitlab.users or gitlab.groups or projects:
        return ("api",)
    if any(url is None or is_own(host, url) for url in servers):
        return ("create_runner", "manage_runner", "read_api")
    return ()


def _needs(estate: Estate) -> tuple[bool, frozenset[Url | None]]:
    """Whether there are projects, and the servers that runners are created on; None for gitlab.external_url."""
    projects = any(Project in one and one.named(Project) for one in estate.distinct_settings("all"))
    runners = [runner for one in estate.distinct_settings("runners") if Runner in one for runner in one.all(Runner)]
    return projects, frozenset(one.url for one in runners if one.token is None and one.registration_token is None)


def server_ca(host: Host, url: Url) -> bytes:
    """The private CA of the server at `url`; b"" without one. Raises UsageError when its file cannot be read.

    An inventory without [gitlab] has only the registry to tell which server its CA is for: it is the same host.
    """
    gitlab, registry = host.settings.get(Gitlab), host.settings.get(Registry)
    if is_own(host, url) or (gitlab is None and registry is not None and registry.external_url.host == url.host):
        return registry.ca if registry else b""
    other = _other(host, url)
    return other.ca_text if other else b""


def api_at(host: Host, url: Url) -> Api:
    """The API at `url`, with the token and the CA that the inventory has for this server.

    gitlab.api_token and registry.certificate.ca are for gitlab.external_url's scheme, host and port only. Other servers
    are in gitlab.servers.
    """
    source = _token(host, url)
    token: Secret | KeptToken = source.resolve() if source else Secret("")
    if source is None and is_own(host, url) and keeps_token(host):
        token = KeptToken(host.estate.groups["gitlab"][0].name)
    if not is_own(host, url):
        other = _other(host, url)
        return Api(url, token, other.ca if other and other.ca_text else None)
    gitlab, registry, first = host.settings[Gitlab], host.settings.get(Registry), host.estate.first("gitlab")
    ca = registry.certificate.ca if registry and registry.certificate and registry.ca else None
    return Api(url, token, ca, first.address if first else "", gitlab.api_address or "")


def _token(host: Host, url: Url) -> SecretSource | None:
    server = host.settings.get(Gitlab) if is_own(host, url) else _other(host, url)
    return server.api_token if server else None


def _other(host: Host, url: Url) -> Server | None:
    """What the inventory has about another server than gitlab.external_url's, in gitlab.servers."""
    gitlab = host.settings.get(Gitlab)
    return gitlab.server(url) if gitlab else None


def required_api(host: Host, what: str) -> Api:
    """The API of gitlab.external_url. Raises UsageError, about `what`, when the inventory has no GitLab or no token."""
    gitlab = host.settings.get(Gitlab)
    if gitlab is None or not has_token(host, gitlab.external_url):
        raise UsageError(
            f"{what}: this needs GitLab's API, and gitlab.{'external_url' if gitlab is None else 'api_token'} is missing",
            hint='give [gitlab] external_url and api_token = { env = "GITLAB_TOKEN" }, with scope api',
        )
    return api_at(host, gitlab.external_url)


def ready_timeout(settings: Settings) -> int:
    """Seconds to wait for GitLab while it starts: those of [gitlab], where the inventory has it."""
    gitlab = settings.get(Gitlab) if Gitlab in settings else None
    return gitlab.ready_timeout if gitlab else READY_SECONDS


def keeps_records(host: Host) -> bool:
    """Whether this host's state.json records what was set through the API.

    That is the first host of the group gitlab, else of runners, else of the inventory.
    """
    first = host.estate.first("gitlab", "runners", "all")
    return first is None or first.name == host.name


class _Reader(Protocol):
    """The part of a session that reads a token."""

    def ask(self, commands: Sequence[Command], *, deadline: float) -> list[Result]: ...

    def close(self) -> None: ...


class KeptTokens:
    """Reads the tokens that the task `access` keeps on GitLab hosts, once for all requests of a run.

    open_session  opens a root shell on a host, by its name, without the host's lock

    A token is read over a session of its own, since a host's session belongs to one thread. It stays on this machine: the
    hosts that run jobs never receive it.
    """

    def __init__(self, open_session: Callable[[str], _Reader]) -> None:
        self._open = open_session
        self._lock = threading.Lock()
        self._known: dict[str, Secret | ApiFailed] = {}

    def read(self, host: str) -> Secret:
        """The token that is kept on a host. Raises ApiFailed."""
        with self._lock:
            if host not in self._known:
                self._known[host] = self._read(host)
            found = self._known[host]
        if isinstance(found, ApiFailed):
            raise ApiFailed(found.text, hint=found.hint, requires=found.requires)
        return found

    def forget(self, host: str) -> None:
        """What was read on a host is outdated: something was changed there."""
        with self._lock:
            self._known.pop(host, None)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Requests of this thread, within the block, read the tokens here."""
        token = read_kept_token.set(self.read)
        try:
            yield
        finally:
            read_kept_token.reset(token)

    def _read(self, host: str) -> Secret | ApiFailed:
        try:
            session = self._open(host)
            try:
                (result,) = session.ask(
                    [sh("! [ -e %s ] || sed -n 's/^token //p' %s", API_TOKEN, API_TOKEN)], deadline=_READ_SECONDS
                )
            finally:
                session.close()
        except ProvisionError as error:
            return ApiFailed(f"the token for GitLab's API cannot be read on {host}: {error.text}", hint=error.hint)
        if result.code:
            return ApiFailed(f"the token for GitLab's API cannot be read on {host}: {result.errors.strip()}")
        text = result.text.strip()
        if not text:
            return ApiFailed(
                f"there is no token for GitLab's API on {host} yet",
                hint="run `provision access`, which makes it, or give gitlab.api_token",
                requires="access",
            )
        return Secret(text)
