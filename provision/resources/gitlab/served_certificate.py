"""GitLab serves the certificate that is on its disk.  Sources: openssl-s_client(1), nginx's beginner's guide on HUP.

nginx reads certificates when it starts and on HUP. What it serves is therefore what the file held then, and a renewal that
nobody told it of goes unnoticed until the old certificate expires. So what the port serves is compared with the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from provision.host.pending import Handler
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Question, Resource
from provision.resources.system.file import ask_file, read_file
from provision.shell import sh
from provision.url import bracketed, is_ip

_LIMIT_SECONDS = 30
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# Omnibus's nginx, whatever the version calls the files below.
_NGINX = "/var/opt/gitlab/nginx/conf"


def take_over(fullchain: str, host: str, port: int) -> Handler:
    """The HUP after which `fullchain` is served at host:port: owed when a certificate's content changed; no reconfigure."""
    url = f"https://{bracketed(host)}:{port}/v2/"
    run = script("reload_certificate", fullchain, _server_name(host), port, url, _LIMIT_SECONDS, _NGINX)
    return Handler("hup-certificates", "reload the certificate in nginx and the registry", run, deadline=180)


def ask_served(fullchain: str, host: str, port: int) -> dict[str, Question]:
    """A look at what is served (PEM, in order; nothing when no TLS answers), and at whether it is served from `fullchain`."""
    # Nothing is verified here: reading the system's authorities would take four times as long as all else.
    served = sh(
        "timeout 5 openssl s_client -no-CAfile -no-CApath -connect %s %s -showcerts </dev/null 2>/dev/null | sed -n '/^-----BEGIN CERT/,/^-----END CERT/p'",
        f"127.0.0.1:{port}",
        ["-servername", _server_name(host)] if _server_name(host) else [],
    )
    return {"served": served, "configured": sh("grep -rqsF -e %s -- %s && echo yes || :", fullchain, _NGINX)}


def _server_name(host: str) -> str:
    """What TLS names the server: "" for an IP address, which RFC 6066 (section 3) does not allow there."""
    return "" if is_ip(host) else host


def is_served(seen: Observation) -> bool:
    """Whether something is served from the file that `ask_served` named: otherwise a reconfigure is due, and reads it."""
    return bool(seen["served"].stdout) and seen["configured"].text.strip() == "yes"


def certificates_in(text: bytes) -> list[bytes]:
    """The bodies of the PEM certificates in a text, spaces and line ends aside: equal certificates are equal."""
    return [b"".join(body.split()) for body in _PEM.findall(text)]


@dataclass(frozen=True)
class ServedCertificate(Resource):
    """What is served at host:port (asked on the host itself) is what `fullchain` holds.

    Silent where nothing is served yet, and where GitLab is not configured for this file: a reconfigure is due
    there, and reads it.
    """

    fullchain: str
    host: str
    port: int

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (take_over(self.fullchain, self.host, self.port),)

    @property
    def label(self) -> str:
        return f"ServedCertificate {bracketed(self.host)}:{self.port}"

    def probe(self) -> Probe:
        return Probe({"fullchain": ask_file(self.fullchain), **ask_served(self.fullchain, self.host, self.port)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        there = certificates_in(read_file(self.fullchain, seen, "fullchain").content or b"")
        served = certificates_in(seen["served"].stdout)
        # OpenSSL may add a root that it knows to what the file holds.
        if there and is_served(seen) and served[: len(there)] != there:
            yield Change(
                f"have {bracketed(self.host)}:{self.port} serve the certificate that is now in {self.fullchain}",
                sh(":"),
                "run",
                notify=self.handlers,
            )
