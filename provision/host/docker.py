"""Docker on a host: its containers, the logins to its registries, and the CI jobs that a restart would end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from provision.errors import ProbeFailed
from provision.host.scripts import script
from provision.image_name import HUB, Reference
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


@dataclass(frozen=True)
class Registry:
    """A registry with the login for it.

    url          its origin; "" for an image that names no registry
    token_hosts  the hosts besides its own that it may send clients to for tokens
    direct       whether it is asked without a proxy: the own one
    """

    url: str = ""
    user: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
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
