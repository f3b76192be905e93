"""Replaces what leads out of the lab in the settings of a host: secrets, private files, addresses, URLs, logins.

What is replaced follows from the types of the tables' fields, so tables of your own tasks and new keys are covered:

| type, or place               | in the overlay                                                                      |
|------------------------------|-------------------------------------------------------------------------------------|
| SecretSource                 | a secret of the lab                                                                 |
| Path                         | a file of the lab where it is a key, a certificate, or written; else the same file  |
| Url                          | unchanged where its host is one of the lab's, else a name that is never resolved    |
| str                          | without the values of secret-looking names and the user in URLs; addresses of hosts |
|                              | become those of the lab's hosts                                                     |
| an app's environment,        | unchanged where the value is a number, a word or a path, else `rehearsal`: a        |
| a project's variables        | connection string leads to production, whatever its name is                         |
| `http`, `https` of [proxy]   | none                                                                                |
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from provision.image_name import HUB, parse
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.apps import App
from provision.inventory.tables.apt import Mirror
from provision.inventory.tables.base import Table
from provision.inventory.tables.docker import RegistryTrust
from provision.inventory.tables.gitlab import Server
from provision.inventory.tables.host import Ssh
from provision.inventory.tables.images import Image, RegistryLogin
from provision.inventory.tables.projects import Pipeline, Project, Variable
from provision.inventory.tables.registry import Acme, Certificate
from provision.inventory.tables.runners import Runner
from provision.secret import is_secret_name, secret_values
from provision.url import Url
from provision_lab import container_images
from provision_lab.run import LabError

if TYPE_CHECKING:
    from provision.inventory import Settings
    from provision_lab.state import LabInfo

_FROM: Final = re.compile(r"^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE | re.MULTILINE)
PLACEHOLDER: Final = "rehearsal"
NOWHERE: Final = "rehearsal.invalid"  # RFC 6761: names below invalid are never resolved
# By the key path without places: the lab's secret for it. Everything else is `rehearsal_secret`.
_SECRETS: Final = {
    ("ssh", "become_password"): "sudo_password",
    ("gitlab", "api_token"): "api_token",
    ("registry", "login", "password"): "registry_password",
    ("registry", "s3", "accesskey"): "s3_access_key",
    ("registry", "s3", "secretkey"): "s3_secret_key",
}
# The lab's file for each local file; None: the inventory's own file, which is public or is what is rehearsed.
FILES: Final[Mapping[tuple[type[Table], str], str | None]] = {
    (Ssh, "identity_file"): "id_ed25519",
    (Ssh, "known_hosts"): "known_hosts",
    (Certificate, "ca"): "ca.pem",
    (Certificate, "local_fullchain"): "fullchain.pem",
    (Certificate, "local_key"): "privkey.pem",
    (Server, "ca"): "ca.pem",
    (RegistryTrust, "ca"): "ca.pem",
    (RegistryTrust, "cert"): "fullchain.pem",
    (RegistryTrust, "key"): "privkey.pem",
    (Pipeline, "path"): "gitlab-ci.yml",  # a file that is written
    (Mirror, "key"): None,
    (Image, "context"): None,
    (Project, "source"): None,
}
_PROXIES: Final = (("proxy", "http"), ("proxy", "https"))
_LEADS_TO_PACKAGES: Final = ("apt", "proxy")  # tables
_PRIVATE = re.compile(r"(?:.*_)?key(?:_file)?")  # a local file of a table that is not known here
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"']+@")
_ADDRESS = re.compile(r"(?<![\w.])\d+(?:\.\d+){3}(?!\w|\.\d)|(?<![\w.:])[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){2,7}(?![\w:])")
_HARMLESS = re.compile(r"\d{1,10}|[A-Za-z]{0,12}|/[A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class Redirect:
    """How one host's settings are redirected into the lab.

    addresses  the inventory's IP addresses, each with the one that replaces it
    names      the host names that the lab's hosts resolve to hosts of the lab
    gitlab     whether the lab has a GitLab host
    """

    lab: LabInfo
    addresses: Mapping[str, str]
    names: frozenset[str]
    gitlab: bool

    def changes(self, settings: Settings) -> dict[str, Any]:
        """The overlay's tables: all values that differ. Arrays are whole."""
        found = {}
        for name, value in settings.items():
            changed = _difference(plain(value), self._value(value, (name,)))
            if changed is not _EQUAL:
                found[name] = changed
        return found

    def _value(self, value: Any, path: tuple[str, ...]) -> Any:
        if path in _PROXIES:  # a proxy resolves names itself: requests for the lab's GitLab would reach production's
            return ""
        if isinstance(value, Table):
            return self._table(value, path)
        if isinstance(value, Mapping):
            return {key: self._value(one, (*path, str(key))) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(one, path) for one in value]
        if isinstance(value, SecretSource):
            return self._secret(path)
        if isinstance(value, Url):
            return self._url(value, path)
        if isinstance(value, str):
            return self._text(value, path)
        if is_secret_name(path[-1]) and isinstance(value, int | float) and not isinstance(value, bool):
            return PLACEHOLDER
        return plain(value)

    def _table(self, table: Table, path: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        for name, field in type(table).model_fields.items():
            if name in table.model_fields_set and (value := getattr(table, name)) is not None:
                key = field.alias or name
                at = (*path, key)
                found[key] = self._file(type(table), name, value) if isinstance(value, Path) else self._value(value, at)
        for kind, adapt in _ADAPT.items():
            if isinstance(table, kind):
                adapt(self, table, found)
        return found

    def _secret(self, path: tuple[str, ...]) -> Any:
        if path == ("runner", "sentry_dsn"):
            return f"https://{PLACEHOLDER}@{NOWHERE}/1"  # gitlab-runner does not start with another form
        return self.lab.secret_source(_SECRETS.get(path, "rehearsal_secret"))

    def _file(self, table: type[Table], name: str, path: Path) -> str:
        kept = "privkey.pem" if _PRIVATE.fullmatch(name) or is_secret_name(name) else None
        ours = FILES.get((table, name), kept)
        return str(self.lab.folder / ours) if ours else str(path)

    def _url(self, url: Url, path: tuple[str, ...]) -> str:
        text = self._text(url.text or str(url), path)
        if path[0] == "apt":  # stays where the hosts install the publishers' packages, and is replaced elsewhere
            return text
        moved = Url.parse(text, request=True)
        if moved.host in self.names or _is_loopback(moved.host):
            return text
        return f"{moved.scheme}://{moved.authority.replace(moved.bracketed_host, NOWHERE)}{moved.path}"

    def _text(self, text: str, path: tuple[str, ...]) -> str:
        if is_secret_name(path[-1]):
            return PLACEHOLDER
        text = _USER_IN_URL.sub(r"\1", text)
        text = _ADDRESS.sub(lambda found: self.addresses.get(found[0], found[0]), text)
        pieces, at = [], 0
        for start, end in secret_values(text):
            pieces += [text[at:start], PLACEHOLDER]
            at = end
        return "".join([*pieces, text[at:]])

    def _own_image(self, name: str) -> bool:
        """Whether an image is in the lab's registry."""
        domain = parse(name).domain
        return not domain or Url.parse(f"https://{domain}").host in {*self.names, *self.addresses}

    def _runner(self, runner: Table, found: dict[str, Any]) -> None:
        """A runner is created by the lab's GitLab. Without one, no server is asked."""
        assert isinstance(runner, Runner)
        found.pop("registration_token", None)
        if self.gitlab:
            for key in ("token", "url", "clone_url"):
                found.pop(key, None)
            if "docker" in found:  # containers do not read the host's /etc/hosts
                address = next(one.address for one in self.lab.hosts if one.is_gitlab)
                own = [f"{name}:{address}" for name in self.lab.server.names]
                found["docker"]["extra_hosts"] = [*found["docker"].get("extra_hosts", []), *own]
        else:
            found["url"] = f"https://{NOWHERE}"
            found["token"] = self.lab.secret_source("rehearsal_secret")

    def _image(self, image: Table, found: dict[str, Any]) -> None:
        """An image is pushed to the lab's registry only."""
        assert isinstance(image, Image)
        if not self._own_image(image.name):
            found["push"] = False
        self._login(found, image.name, image.login)

    def _app(self, app: Table, found: dict[str, Any]) -> None:
        assert isinstance(app, App)
        if app.environment:
            found["environment"] = {name: self._harmless(value, name) for name, value in app.environment.items()}
        self._login(found, app.image, app.login)

    def _login(self, found: dict[str, Any], image: str, login: RegistryLogin | None) -> None:
        """The login of the lab's registry, or of the user whom the run makes; none for another registry."""
        found.pop("login", None)
        if self._own_image(image):
            found.pop("token_server", None)  # the lab's GitLab
        if login and self._own_image(image):
            server = self.lab.server
            secret = self.lab.secret_source("registry_password" if server.seeded else "rehearsal_secret")
            found["login"] = {"username": server.username if server.seeded else login.username, "password": secret}

    def _variable(self, variable: Table, found: dict[str, Any]) -> None:
        assert isinstance(variable, Variable)
        found["value"] = self._harmless(variable.value, "value")

    def _harmless(self, value: Any, name: str) -> Any:
        if isinstance(value, SecretSource):
            return self.lab.secret_source("rehearsal_secret")
        return value if _HARMLESS.fullmatch(value) and not is_secret_name(name) else PLACEHOLDER

    def _project(self, project: Table, found: dict[str, Any]) -> None:
        """Keeps `wait` only where the lab has the images that the pipeline's jobs need: others would fail."""
        assert isinstance(project, Project)
        if project.wait and not self.lab.internet and not _has_images(project):
            found["wait"] = False

    def _acme(self, acme: Table, found: dict[str, Any]) -> None:
        """No authority is asked for a certificate of production's name: a failure would count against its limits."""
        assert isinstance(acme, Acme)
        if self.lab.internet or acme.directory:
            found |= {"client": "certbot", "directory": f"https://{NOWHERE}/directory"}


def _has_images(project: Project) -> bool:
    """Whether the lab's Docker Hub has all images that a shipped pipeline of the project begins with."""
    pipeline, folder = project.pipeline, project.source
    if pipeline is None or folder is None or (pipeline.template, pipeline.build) != ("registry", "socket"):
        return False
    try:
        text = (folder / "Dockerfile").read_text("utf-8")
    except OSError:
        return False
    stages = _FROM.findall(text)
    known = {f"docker:{pipeline.docker}-cli", *(image for image, _ in stages)} - {name for _, name in stages if name}
    return bool(stages) and known <= container_images.HUB.keys()


_Adapt = Callable[[Redirect, Table, dict[str, Any]], None]
_ADAPT: Final[Mapping[type[Table], _Adapt]] = {
    Runner: Redirect._runner,
    Image: Redirect._image,
    App: Redirect._app,
    Project: Redirect._project,
    Variable: Redirect._variable,
    Acme: Redirect._acme,
}


def plain(value: Any) -> Any:
    """Settings as data for TOML, with the given keys only; secrets stay SecretSource. Raises LabError for other types."""
    if isinstance(value, Table):
        given = type(value).model_fields.items()
        found = {field.alias or name: getattr(value, name) for name, field in given if name in value.model_fields_set}
        return {key: plain(one) for key, one in found.items() if one is not None}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Url):
        return value.text or str(value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | SecretSource):
        return value
    if hasattr(value, "as_setting"):
        return value.as_setting()
    raise LabError(
        f"a setting of the type {type(value).__name__} cannot be rehearsed: {value!r}",
        hint="use one of the types that `Table` documents",
    )


class _Equal:
    """No difference; None is a value of settings."""


_EQUAL: Final = _Equal()


def _difference(before: Any, after: Any) -> Any:
    """What an overlay must contain to turn `before` into `after`: tables key by key, anything else as a whole."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return _EQUAL if before == after else after
    pairs = ((key, _difference(before.get(key, _EQUAL), value)) for key, value in after.items())
    found = {key: value for key, value in pairs if value is not _EQUAL}
    return found or _EQUAL


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/\s@]*@)?(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_.-]+)")
_NAME = re.compile(r"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.(?:[A-Za-z]{2,}|\d+))(?::\d+)?")


def hosts_named_in(settings: Settings) -> set[str]:
    """The host names and addresses in a host's settings, where they lead out of the lab. Mirrors and proxies are left out."""
    found: set[str] = set()
    for name, value in settings.items():
        if name not in _LEADS_TO_PACKAGES:
            for text in _texts(plain(value)):
                found.update(match[1].strip("[]") for match in _URL.finditer(text))
                if match := _NAME.fullmatch(text):
                    found.add(match[1])
    images = [*(one.name for one in settings.all(Image)), *(one.image for one in settings.all(App))]
    domains = {parse(name).domain for name in images} - {"", HUB}
    return {name.lower() for name in found} | {Url.parse(f"https://{domain}").host for domain in domains}


def _texts(value: Any) -> Iterator[str]:
    """All strings in nested data, but no secrets."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield str(key)
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
