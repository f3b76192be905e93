"""An ACME server for tests: Debian's pebble on the lab's address, with a DNS server that resolves the GitLab host only."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import Harness
from provision_lab.hosts import Server
from tests.support.runs import without_s3
from tests.support.waiting import wait_for

_NAME = "acme.lab.test"
_API, _MANAGEMENT, _DNS = 14000, 15000, 14053


@dataclass(frozen=True)
class Pebble:
    """A running pebble: its directory's URL, the authority of its own TLS, and the root of the certificates it issues."""

    directory: str
    tls: Authority
    root: str


def closed_host(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare GitLab host without a certificate, whose ufw allows SSH only; the inventory has no [firewall]."""
    harness = without_s3(harness_factory(LabHost("gitlab"), server=Server(fullchain="")))
    del harness.inventory["hosts"]["gitlab"]["firewall"]
    harness.lab.inside("gitlab", "ufw allow 22/tcp && ufw --force enable")
    return harness


@contextmanager
def acme_certificate(harness: Harness, folder: Path, client: str) -> Iterator[Pebble]:
    """Runs pebble. The inventory's certificate comes by this client, and every consumer trusts pebble's CA."""
    with pebble(harness, folder) as running:
        ca = folder / "ca.pem"
        ca.write_text(running.tls.certificate + running.root)
        acme = {"client": client, "email": "ops@lab.test"}
        harness.inventory["registry"]["certificate"] = {"ca": str(ca), "acme": acme}
        yield running


def issuer(certificate: str) -> str:
    """Who signed the first certificate of a file."""
    return x509.load_pem_x509_certificate(certificate.encode()).issuer.rfc4514_string()


@contextmanager
def pebble(harness: Harness, folder: Path) -> Iterator[Pebble]:
    """Runs pebble until the block ends. It validates challenges on port 80, as a real authority does."""
    address, tls = harness.lab.gateway, Authority("the ACME server's CA")
    pair = tls.issue([_NAME], [address])
    files = {"certificate": pair.fullchain, "privateKey": pair.key}
    for name, text in files.items():
        folder.joinpath(name).write_text(text)
    settings = {
        "listenAddress": f"{address}:{_API}",
        "managementListenAddress": f"{address}:{_MANAGEMENT}",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        **{name: str(folder / name) for name in files},
    }
    config = folder / "pebble.json"
    config.write_text(json.dumps({"pebble": settings}))
    dns = ["pebble-challtestsrv", "-dns01", f"{address}:{_DNS}", "-management", f"{address}:14055"]
    dns += ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    dns += ["-defaultIPv4", harness.lab.machine("gitlab").host.address, "-defaultIPv6", ""]
    server = ["pebble", "-config", str(config), "-dnsserver", f"{address}:{_DNS}"]
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    with ExitStack() as stack:
        log = stack.enter_context(folder.joinpath("log").open("wb"))
        for argv in (dns, server):
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **quick}
            )
            stack.callback(_end, process)
        context = ssl.create_default_context(cadata=tls.certificate)
        root = f"https://{address}:{_MANAGEMENT}/roots/0"
        wait_for(lambda: _get(root, context) != "", f"pebble at {root}: {folder / 'log'}")
        yield Pebble(f"https://{address}:{_API}/dir", tls, _get(root, context))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _get(url: str, context: ssl.SSLContext) -> str:
    try:
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
