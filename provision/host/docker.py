"""Docker on a host: its containers, the registries of images and their logins, and the CI jobs that a restart would end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from provision.errors import ProbeFailed, UsageError
from provision.host.scripts import script
from provision.image_name import HUB, Reference
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.images import RegistryLogin
from provision.inventory.tables.registry import Registry
from provision.secret import Secret, mask
from provision.shell import Command, Result
from provision.url import Url

APP_LABEL: Final = "provision.app"
SETTINGS_LABEL: Final = "provision.settings"
IMAGE_LABEL: Final = "provision.image"
_FORMAT: Final = "|".join(
    [
        "{{.Names}}",
        "{{.State}}",
        *(f'{{{{.Label "{label}"}}}}' for label in (APP_LABEL, SETTINGS_LABEL, IMAGE_LABEL)),
        "{{.Image}}",
    ]
)
_HUB_API: Final = "https://registry-1.docker.io"
# Public registries whose tokens come from another host, by their domain in image names (seen in their WWW-Authenticate).
_TOKEN_HOSTS: Final = {
    HUB: ("auth.docker.io",),
    "registry.gitlab.com": ("gitlab.com",),
    "docker.elastic.co": ("docker-auth.elastic.co",),
}

ASK_CONTAINERS: Final = script("list_containers", _FORMAT)
CI_JOBS_LIMIT_SECONDS: Final = 1800


class Container(NamedTuple):
    """A container and the values of its labels.

    app       the app of the inventory that it belongs to; "" for other containers
    settings  the fingerprint of the app's settings
    digest    of the image that was pulled
    """

    name: str
    state: str
    app: str
    settings: str
    digest: str
    image: str


def read_containers(answer: Result) -> Mapping[str, Container] | None:
    """The answer to ASK_CONTAINERS, by name; None where Docker is not installed or does not answer."""
    lines = answer.text.splitlines()
    if any(line.startswith("docker: ") for line in lines):
        return None
    found = {}
    for line in lines:
        fields = line.split("|")
        if len(fields) < 6:
            raise ProbeFailed(f"docker ps printed: {mask(line)[:200]}", hint="try docker ps -a on the host")
        # Links between containers (an old feature) give a container further names, with a slash.
        name = next((one for one in fields[0].split(",") if "/" not in one), fields[0])
        found[name] = Container(name, *fields[1:6])
    return found


class RegistryAccess(NamedTuple):
    """A registry with the login for it.

    url          its origin; "" for an image that names no registry
    token_hosts  the hosts besides its own that it may send clients to for tokens
    direct       whether it is asked without a proxy: the own one
    """

    url: str = ""
    user: str = ""
    password: Secret = Secret("")
    token_hosts: tuple[str, ...] = ()
    direct: bool = False

    @property
    def access(self) -> tuple[str, str]:
        """The arguments HOSTS and DIRECT of scripts, see host/scripts/lib/registry.sh."""
        return " ".join(self.token_hosts), "yes" if self.direct else "no"


def api_url(reference: Reference, own: Url | None) -> str:
    """The origin of the API of a reference's registry; "" for a reference without registry.

    own  the registry of the inventory
    """
    if not reference.domain:
        return ""
    if reference.domain == HUB:
        return _HUB_API
    if own is not None and reference.domain == own.authority:
        return own.origin
    url = Url.parse(f"https://{reference.domain}")
    return f"http://{reference.domain}" if url.host == "localhost" else url.origin  # Docker accepts it without TLS


def wait_for_ci_jobs(limit: int = CI_JOBS_LIMIT_SECONDS) -> str:
    """Shell text that ends gitlab-runner after its jobs, and waits until no CI job runs on the host.

    It ends the script with code 1 after `limit` seconds. systemd starts the runner again within two minutes;
    `start_runner` does so at once.
    """
    return script("wait_for_ci_jobs", limit).script


def start_runner() -> str:
    """Shell text that starts the gitlab-runner that `wait_for_ci_jobs` has ended."""
    return script("start_runner").script


def between_ci_jobs(command: Command) -> Command:
    """The command, run while no CI job runs on the host."""
    script = f'(\n{command.script}\n)\nprovision_code=$?\n{start_runner()}exit "$provision_code"\n'
    return Command(f"{wait_for_ci_jobs()}{script}", command.stdin)


def full_reference(host: Host, reference: Reference, what: str, *, required: bool) -> Reference:
    """The reference, in the estate's own registry where it names none.

    Raises UsageError, about `what`, when a registry is `required` and there is none.
    """
    own = _own(host)
    if required and not reference.domain and own is None:
        raise UsageError(
            f"{what}: {reference} names no registry, and the inventory has none",
            hint=f'give [registry], or write "docker.io/USER/NAME" or "HOST:PORT/{reference.path}"',
        )
    return reference.at(own.authority if own else "")


def access_to(
    host: Host,
    reference: Reference,
    login: RegistryLogin | None,
    what: str,
    *,
    writes: bool,
    token_server: Url | None = None,
) -> RegistryAccess:
    """How the host reaches the registry of a full reference. Without `login`, registry.login is used for the own one.

    token_server  the server that gives the registry's tokens, if it is not a known one

    Raises UsageError, about `what`, when it `writes` to the own registry or to Docker Hub and there is no login.
    """
    own, registry = _own(host), host.settings.get(Registry)
    is_own = own is not None and reference.domain == own.authority
    user, password = (login.username, login.password) if login else ("", None)
    if login is None and is_own and registry is not None and registry.login is not None:
        user, password = registry.login.username, registry.login.password
    if writes and password is None and (is_own or reference.domain == HUB):
        raise UsageError(
            f"{what}: no login to push to {reference.domain} with",
            hint="give it a login, or registry.login for the own registry",
        )
    if token_server is not None:
        token_hosts: tuple[str, ...] = (token_server.bracketed_host.lower(),)
    else:
        token_hosts = own_token_hosts(host) if is_own else _TOKEN_HOSTS.get(reference.domain, ())
    secret = password.resolve() if password is not None else Secret("")
    return RegistryAccess(api_url(reference, own), user, secret, token_hosts, is_own)


def own_token_hosts(host: Host) -> tuple[str, ...]:
    """The host that gives tokens for the own registry: GitLab's."""
    gitlab = host.settings.get(Gitlab)
    return (gitlab.external_url.bracketed_host,) if gitlab else ()


def _own(host: Host) -> Url | None:
    registry = host.settings.get(Registry)
    return registry.external_url if registry else None
