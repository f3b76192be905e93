"""Certificates for tests: authorities besides the lab's own, and the certificate that a port serves."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from provision_lab.certificates import Authority, Pair
from provision_lab.harness import Harness
from tests.support.runs import Outcome

HOST = "gitlab.lab.test"
PORT = 5555
FULLCHAIN = f"/etc/gitlab/ssl/{HOST}.crt"
_HANDLERS = ("reconfigure", "hup-certificates")
KEY = f"/etc/gitlab/ssl/{HOST}.key"


def issue(authority: Authority, names: Sequence[str] = (HOST,), **options: int) -> Pair:
    """A certificate and key for the GitLab host's name."""
    return authority.issue(list(names), [], **options)


def upload(harness: Harness, authority: Authority, pair: Pair) -> dict[str, Any]:
    """Writes a pair and its CA beside the inventory; the table that names them."""
    files = {"ca": authority.certificate, "local_fullchain": pair.fullchain, "local_key": pair.key}
    certificate = {}
    for name, text in files.items():
        path = harness.folder / f"{name}.pem"
        path.write_text(text)
        certificate[name] = str(path)
    return certificate


def on_disk(harness: Harness, pair: Pair, fullchain: str, key: str, mode: int = 0o600) -> None:
    """Writes a pair to the GitLab host's disk, as another certbot would. GitLab is not notified."""
    root = harness.lab.machine("gitlab").root
    for path, text, bits in ((fullchain, pair.fullchain, 0o644), (key, pair.key, mode)):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(bits)


def leaf(pair: Pair) -> str:
    """The first certificate of a chain."""
    end = "-----END CERTIFICATE-----\n"
    return pair.fullchain.partition(end)[0] + end


def swapped(pair: Pair) -> str:
    """The chain with the authority first."""
    return pair.fullchain.removeprefix(leaf(pair)) + leaf(pair)


def locked(key: str) -> str:
    """The key, encrypted with a passphrase."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    private = load_pem_private_key(key.encode(), None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


def served(harness: Harness, port: int = PORT) -> str:
    """The certificate that a port of the GitLab host serves, read with Python's own TLS."""
    return ssl.get_server_certificate((harness.lab.machine("gitlab").host.address, port), timeout=10)


def trusted(harness: Harness, host: str, authority: Authority) -> list[str]:
    """The files of the host that contain this authority's certificate."""
    body = authority.certificate.splitlines()[3]
    look = f"grep -rlsF -e '{body}' /usr/local/share/ca-certificates /etc/ssl/certs/ca-certificates.crt /etc/docker/certs.d /etc/gitlab-runner/certs | sort"
    return harness.lab.inside(host, look).split()


def handlers_run(outcome: Outcome, host: str = "gitlab") -> list[str]:
    """The handlers that ran on a host."""
    return [one["resource"] for one in outcome.of("change", host=host) if one["resource"] in _HANDLERS]
