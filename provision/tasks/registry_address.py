"""Where the registry is, and who vouches for it: what several tasks derive from `[registry]` and `[gitlab]`."""

from __future__ import annotations

from provision.errors import UsageError
from provision.tasks.base import Host


def url(host: Host) -> str:
    """`https://gitlab.example.com:5555`, without a slash at its end; "" when no registry is wanted."""
    registry = host.settings.registry
    return registry.external_url.rstrip("/") if registry else ""


def authority(host: Host) -> str:
    """Host and port as image names have them: no port where it is the scheme's own."""
    registry = host.settings.registry
    return registry.name if registry else ""


def port(host: Host) -> int:
    """The port that the registry listens on."""
    registry = host.settings.registry
    return registry.port if registry else 0


def realm(host: Host) -> str:
    """Where the registry sends clients for a token; "" when GitLab's own address is not known here."""
    gitlab = host.settings.gitlab
    return f"{gitlab.external_url.rstrip('/')}/jwt/auth" if gitlab and gitlab.external_url else ""


def certs_folder(host: Host) -> str:
    """Docker's folder for the registry's CA."""
    return f"/etc/docker/certs.d/{authority(host)}"


def ca_bytes(host: Host) -> bytes:
    """The declared CA, read from its local file; b"" when none was declared."""
    registry = host.settings.registry
    if registry is None or registry.certificate is None or registry.certificate.ca is None:
        return b""
    try:
        return registry.certificate.ca.read_bytes()
    except OSError as error:
        raise UsageError(
            f"registry.certificate.ca: {error}", hint="it is a file on this machine; every consumer is given it"
        ) from error
