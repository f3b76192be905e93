"""The registry's certificate and key on the GitLab host, and what GitLab serves.

nginx reads certificates when it starts and on HUP: it serves what the file held then. A renewal without a HUP
goes unnoticed until the old certificate expires, so what the port serves is compared with the file.

A key on the host never leaves it: openssl there prints its public half. Sources: openssl-pkey(1), openssl-s_client(1),
nginx's beginner's guide on HUP, certbot(1), RFC 8555.

certbot answers an authority's challenge on port 80 itself (`--standalone`): that works before GitLab does, and whatever
its nginx is configured for. If GitLab's nginx uses the port, hooks stop it for that time. certbot's own timer renews the
certificate; it is renewed here only when that is clearly overdue.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.editing.diff import masked_diff
from provision.errors import Refused
from provision.formats.x509 import (
    EXPIRES_SOON,
    NO_PASSPHRASE,
    certificates_in,
    check_chain,
    overdue_days,
    signer_missing,
)
from provision.host.files import BACKUP
from provision.host.pending import Handler
from provision.host.scripts import NO_PROGRAM, file_text, script
from provision.resources.base import NOTHING, Change, Note, Observation, Probe, Question, Resource, without_program
from provision.resources.gitlab.gitlab_rb import ASK_GITLAB_RB, read_gitlab_rb
from provision.resources.system.file import FileSeen, ask_file, read_file, read_mode, secret_diff
from provision.secret import Secret
from provision.shell import Command, sh
from provision.url import bracketed, is_ip, loopback

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
_CERTBOT: Final = "/etc/letsencrypt"
_LIMIT_SECONDS: Final = 30
_NGINX: Final = "/var/opt/gitlab/nginx/conf"  # Omnibus's, whatever a version calls the files below
_NGINX_SETTINGS: Final = (("nginx",), ("gitlab_rails", "nginx"))  # the second since GitLab 19.2
# Whether GitLab's certificate is from its own integration. The file holds secrets: only yes leaves the host.
_ASK_ISSUED: Final = sh("grep -qsE %s /etc/gitlab/gitlab-secrets.json && echo yes || :", r'"auto_enabled": *true')
_ASK_KEY: Final = "if [ -e %s ]; then stat -L -c '%%04a %%U:%%G' -- %s && openssl pkey -in %s -pubout -passin pass: ; else echo absent; fi"


def reload_certificate(fullchain: str, host: str, port: int) -> Handler:
    """Makes nginx and the registry serve the new content of `fullchain` at host:port. It needs no reconfigure."""
    url = f"https://{bracketed(host)}:{port}/v2/"
    run = script("reload_certificate", fullchain, _server_name(host), port, url, _LIMIT_SECONDS, _NGINX)
    return Handler("hup-certificates", "reload the certificate in nginx and the registry", run, deadline=180)


def ask_served(fullchain: str, host: str, port: int) -> dict[str, Question]:
    """Which certificates are served (PEM, in order; nothing when no TLS answers), and whether from `fullchain`."""
    # Nothing is verified here: reading the system's authorities would take four times as long as everything else.
    served = sh(
        "timeout 5 openssl s_client -no-CAfile -no-CApath -connect %s %s -showcerts </dev/null 2>/dev/null | sed -n '/^-----BEGIN CERT/,/^-----END CERT/p'",
        f"{loopback(host)}:{port}",
        ["-servername", _server_name(host)] if _server_name(host) else [],
    )
    return {"served": served, "configured": sh("grep -rqsF -e %s -- %s && echo yes || :", fullchain, _NGINX)}


def is_served(seen: Observation) -> bool:
    """Whether GitLab serves the file that `ask_served` named. If not, a reconfigure follows, which reads it."""
    return bool(seen["served"].stdout) and seen["configured"].text.strip() == "yes"


def _server_name(host: str) -> str:
    """The name in the TLS handshake: "" for an IP address, which RFC 6066 (section 3) does not allow there."""
    return "" if is_ip(host) else host


@dataclass(frozen=True)
class CertificatePair(Resource):
    """A certificate and its key on the host are usable: they match, name the host, and are not expired.

    coming  Omnibus writes the files during reconfigure: they may be missing before it
    ca      the CA that is installed on hosts, if any; a note is printed if it did not sign the certificate
    """

    fullchain: str
    key: str
    host: str
    coming: bool = False
    ca: bytes = b""
    notify: tuple[Handler, ...] = ()

    def probe(self) -> Probe:
        return Probe({"fullchain": ask_file(self.fullchain), "key": sh(_ASK_KEY, self.key, self.key, self.key)})

    def refuse_early(self, seen: Observation) -> None:
        missing = self.missing(seen)
        if missing and not self.coming:
            raise Refused(
                f"{missing[0]} is not on the host",
                hint="put it there, name local files (registry.certificate.local_fullchain and local_key), or have one "
                "issued: registry.certificate.acme",
            )

    def missing(self, seen: Observation) -> list[str]:
        """The files of the pair that do not exist. It needs no openssl."""
        absent = {
            self.fullchain: read_file(self.fullchain, seen, "fullchain").content is None,
            self.key: seen["key"].text == "absent\n",
        }
        return [path for path, is_absent in absent.items() if is_absent]

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        self.refuse_early(seen)
        if self.missing(seen):
            return
        if seen["key"].code == NO_PROGRAM:
            yield without_program(f"check {self.fullchain} and {self.key}", "openssl")
            return
        found = read_file(self.fullchain, seen, "fullchain")
        head, _, public = seen["key"].text.partition("\n")
        if seen["key"].code != 0:
            raise Refused(
                f"{self.key} is no private key without a passphrase: {_last_line(seen['key'].errors)}",
                hint=NO_PASSPHRASE,
            )
        try:
            left = check_chain(
                found.content or b"",
                public.encode("utf-8", "surrogateescape"),
                self.host,
                datetime.datetime.now(datetime.UTC),
            )
        except Refused as problem:
            raise Refused(f"{self.fullchain}: {problem.text}", hint=problem.hint) from problem
        if left < EXPIRES_SOON:
            yield Note(f"{self.fullchain} expires in {left.days} days")
        if problem_text := signer_missing(found.content or b"", self.ca):
            yield Note(f"{self.fullchain}: {problem_text}")
        mode = head.partition(" ")[0]
        if mode and int(read_mode(self.key, mode), 8) & 0o077:
            yield Change(f"set {self.key} to 0600 (was {mode})", script("set_access", self.key, "0600", ""))


@dataclass(frozen=True)
class DefaultPair(Resource):
    """The pair at the registry's default path. Without any file there, GitLab asks Let's Encrypt for a certificate.

    GitLab's own integration does that at a reconfigure, for its own name and the registry's, if GitLab has no certificate
    either, or if it is from there. Then both names are in the certificate of GitLab's site.
    Source: omnibus-gitlab 19.3, letsencrypt/libraries/lets_encrypt.rb (should_auto_enable?) and helper.rb.

    pair     at the registry's default path
    site     at the default path of GitLab's site; the same if both have one name
    enabled  the inventory enables the integration
    """

    pair: CertificatePair
    site: CertificatePair
    enabled: bool = False

    @property
    def label(self) -> str:
        return self.pair.label

    def probe(self) -> Probe:
        site = {f"site {name}": question for name, question in self.site.probe().items()}
        return Probe({**self.pair.probe(), **site, "gitlab.rb": ASK_GITLAB_RB, "issued": _ASK_ISSUED})

    def refuse_early(self, seen: Observation) -> None:
        self._used(seen)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        used = self._used(seen)
        if used is self.pair:
            yield from used.plan(seen)
        elif used is self.site:
            yield from used.plan(self._of_site(seen))
        else:
            yield Note(
                f"there is no certificate at {self.pair.fullchain}: GitLab asks Let's Encrypt for one when it is "
                f"reconfigured, which must reach port 80 of {self.pair.host}"
            )

    def _used(self, seen: Observation) -> CertificatePair | None:
        """The pair that the registry serves; None if it is still to be issued. Raises Refused for missing files."""
        of_site = self._of_site(seen)
        if len(self.pair.missing(seen)) == 2 and not self._is_off(seen):
            if len(self.site.missing(of_site)) == 2:
                return None
            if self.enabled or seen["issued"].text.strip() == "yes":
                self.site.refuse_early(of_site)
                return self.site
        self.pair.refuse_early(seen)
        return self.pair

    def _of_site(self, seen: Observation) -> Observation:
        return Observation({name: seen[f"site {name}"] for name in self.site.probe()})

    def _is_off(self, seen: Observation) -> bool:
        """Whether gitlab.rb, as an administrator wrote it, keeps GitLab from asking Let's Encrypt."""
        # Few hosts get so far.
        from provision.editing.ruby.assignments import effective
        from provision.editing.ruby.values import MISSING

        text = read_gitlab_rb(seen, "gitlab.rb") or b""
        if effective(text, ("letsencrypt", "enable")) is False:
            return True
        paths = [(*top, name) for top in _NGINX_SETTINGS for name in ("ssl_certificate", "ssl_certificate_key")]
        return any(effective(text, path) is not MISSING for path in paths)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "openssl printed nothing"


@dataclass(frozen=True)
class UploadedPair(Resource):
    """A certificate and its key from this machine are at `fullchain` (0644) and `key` (0600), both or neither.

    The pair was checked before any host was contacted (`provision.formats.x509.check_pair`).

    left  the time until the certificate expires
    port  where the registry serves it
    ca    the CA that is installed on hosts, if any; a note is printed if it did not sign the certificate
    """

    fullchain: str
    key: str
    certificate: bytes
    private: Secret
    left: datetime.timedelta
    host: str
    port: int
    ca: bytes = b""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (reload_certificate(self.fullchain, self.host, self.port),)

    def probe(self) -> Probe:
        return Probe(
            {
                "fullchain": ask_file(self.fullchain),
                "key": ask_file(self.key),
                **ask_served(self.fullchain, self.host, self.port),
            }
        )

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if self.left < EXPIRES_SOON:
            yield Note(f"the certificate for {self.fullchain} expires in {self.left.days} days")
        if problem := signer_missing(self.certificate, self.ca):
            yield Note(f"the certificate for {self.fullchain}: {problem}")
        chain, key = read_file(self.fullchain, seen, "fullchain"), read_file(self.key, seen, "key")
        if (chain.content, key.content) != (self.certificate, self._private):
            new = chain.content is None or key.content is None
            yield Change(
                f"write {self.fullchain} and {self.key}",
                self._write(),
                "create" if new else "update",
                self._diff(chain),
                self.handlers if is_served(seen) else (),
            )
            return
        for path, found, mode in ((self.fullchain, chain, "0644"), (self.key, key, "0600")):
            if (found.mode, found.owner) != (mode, "root:root"):
                yield Change(
                    f"set {path} to {mode} root:root (was {found.mode} {found.owner})",
                    script("set_access", path, mode, "root:root"),
                )

    @property
    def _private(self) -> bytes:
        return self.private.reveal().encode()

    def _write(self) -> Command:
        certificate = base64.b64encode(self.certificate).decode()
        return script("replace_certificate", self.fullchain, self.key, BACKUP, certificate).reading(self._private)

    def _diff(self, chain: FileSeen) -> str:
        before, after = (one.decode("utf-8", "backslashreplace") for one in (chain.content or b"", self.certificate))
        key = secret_diff(self.key)
        certificate = masked_diff(self.fullchain, before, after) if before != after else ""
        return f"{certificate}\n{key}".lstrip()


@dataclass(frozen=True)
class ServedCertificate(Resource):
    """GitLab serves the certificate in `fullchain` at host:port, as observed on the host itself.

    Nothing is planned where no TLS answers yet, or where GitLab is not configured for this file: a reconfigure follows
    there, which reads it.
    """

    fullchain: str
    host: str
    port: int

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (reload_certificate(self.fullchain, self.host, self.port),)

    @property
    def label(self) -> str:
        return f"ServedCertificate {bracketed(self.host)}:{self.port}"

    def probe(self) -> Probe:
        return Probe({"fullchain": ask_file(self.fullchain), **ask_served(self.fullchain, self.host, self.port)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        wanted = certificates_in(read_file(self.fullchain, seen, "fullchain").content or b"")
        served = certificates_in(seen["served"].stdout)
        # OpenSSL may append a root that it knows to what the file holds.
        if wanted and is_served(seen) and served[: len(wanted)] != wanted:
            yield Change(
                f"serve the certificate that is now in {self.fullchain} at {bracketed(self.host)}:{self.port}",
                NOTHING,
                "run",
                notify=self.handlers,
                id="serve",
            )


def certbot_hooks() -> dict[str, str]:
    """The hooks of certbot's renewals, by their paths on the host: nginx releases port 80, and then serves the new files."""
    hooks = ("pre", "post", "deploy")
    return {f"{_CERTBOT}/renewal-hooks/{hook}/gitlab": file_text(f"acme_hook_{hook}") for hook in hooks}


@dataclass(frozen=True)
class AcmeCertificate(Resource):
    """certbot has a valid certificate for `host` from the authority at `directory`, and GitLab serves it.

    directory  the authority's ACME directory URL
    pair       the certificate's files on the host: /etc/letsencrypt/live/HOST/
    port       where the registry serves it
    """

    host: str
    email: str
    directory: str
    pair: CertificatePair
    port: int

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (reload_certificate(self.pair.fullchain, self.host, self.port),)

    def probe(self) -> Probe:
        renewal = f"{_CERTBOT}/renewal/{self.host}.conf"
        return Probe(
            {
                **self.pair.probe(),
                "renewal": sh("cat -- %s 2>/dev/null || test ! -e %s", renewal, renewal),
                **ask_served(self.pair.fullchain, self.host, self.port),
            }
        )

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        fullchain = read_file(self.pair.fullchain, seen, "fullchain").content
        reason = self._reason(fullchain, seen["renewal"].text)
        if not reason:
            # certbot renews before the pair would report the expiry: only the pair's changes are used.
            yield from (one for one in self.pair.plan(seen) if isinstance(one, Change))
            return
        again = "yes" if fullchain is not None else ""
        yield Change(
            f"get a certificate for {self.host} from {self.directory}: {reason}",
            script("obtain_certificate", f"{_CERTBOT}/renewal-hooks", self.host, self.email, self.directory, again),
            "update" if again else "create",
            notify=self.handlers if is_served(seen) else (),
            deadline=300,
        )

    def _reason(self, fullchain: bytes | None, renewal: str) -> str:
        """The reason to run certbot; "" if there is none."""
        if fullchain is None:
            return "there is none"
        if not renewal.strip():
            raise Refused(
                f"{self.pair.fullchain} exists, but certbot has no renewal configuration for it",
                hint=f"move {_CERTBOT}/live/{self.host} away, or name its files: registry.certificate.fullchain and key",
            )
        found = re.search(r"^server = (\S+)", renewal, re.MULTILINE)
        server = found[1] if found else LETS_ENCRYPT
        if server != self.directory:
            return f"the existing one is from {server}"
        days = overdue_days(fullchain)
        return "" if days is None else f"it was not renewed in time, {days} days are left"
