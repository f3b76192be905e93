"""Two ways to build images in jobs that exclude each other.  Source: GitLab's documentation on building Docker images.

docker-in-docker: `privileged` and the volume /certs/client; the socket: the host's /var/run/docker.sock as a volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provision.resources.base import Note


def mixed_ways(name: str, settings: Mapping[str, Any]) -> Iterator[Note]:
    """A note for a runner that has both."""
    docker = settings.get("docker")
    if not isinstance(docker, Mapping):
        return
    volumes = [str(one) for one in docker.get("volumes", [])]
    socket = any(one.partition(":")[2].startswith("/var/run/docker.sock") for one in volumes)
    inside = any(one.partition(":")[0] == "/certs/client" for one in volumes)
    if socket and inside:
        yield Note(
            f"runner {name} has docker-in-docker (/certs/client) and the host's socket (/var/run/docker.sock): "
            "jobs use the socket, and see the host's Docker; take one of the two volumes out"
        )
