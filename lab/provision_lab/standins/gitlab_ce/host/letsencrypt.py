"""Let's Encrypt in a reconfigure: GitLab's own integration, with a real ACME client.

Source: omnibus-gitlab 19.3, cookbook letsencrypt (recipes/enable.rb, resources/certificate.rb, libraries/lets_encrypt.rb).
What it does, in this order: nginx redirects port 80 and serves challenges there; a self-signed certificate lets it start;
a certificate from the staging directory is requested first, into CRT-staging, and only then the real one.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from .layout import Paths, write_atomically
from .settings import renews

STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
CHALLENGES = "/var/opt/gitlab/nginx/www"
_RENEWED = datetime.timedelta(days=30)  # before the end of the validity. Source: cookbook acme, attribute `renew`
_ACME = ("josepy", "acme.challenges", "acme.client", "acme.crypto_util", "acme.messages")
_DEADLINE = 30  # seconds for an order


class Refused(Exception):
    """A certificate cannot be had: the message."""


def is_wanted(settings: Mapping[str, Any], paths: Paths, certificate: str, key: str) -> bool:
    """Whether the integration is on: as it is set, else where the files are missing, or it made them in an earlier run."""
    enable = settings.get("enable")
    if enable is not None:
        return bool(enable)
    return _was_enabled(paths) or not (Path(certificate).exists() or Path(key).exists())


def make_self_signed(host: str, certificate: str, key: str) -> None:
    """Writes a certificate for the host, unless there is one: without it nginx does not start."""
    if Path(certificate).exists():
        return
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    private = _new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number(), now)
    builder = builder.not_valid_after(now + datetime.timedelta(days=365))
    signed = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False).sign(
        private, hashes.SHA256()
    )
    _write(certificate, key, signed.public_bytes(_pem()).decode(), private)


def obtain(settings: Mapping[str, Any], paths: Paths, host: str, certificate: str, key: str) -> bool:
    """Requests the certificate where it is missing, self-signed or near its end; whether there is a new one.

    Raises Refused with the message of the real engine.
    """
    names = [host, *(name for name in settings.get("alt_names") or [] if name != host)]
    orders = (
        ("staging", settings.get("acme_staging_endpoint") or STAGING, "-staging"),
        ("production", settings.get("acme_production_endpoint") or PRODUCTION, ""),
    )
    new = False
    for name, directory, suffix in orders:
        if not _is_due(certificate + suffix, names):
            continue
        private = _new_key()
        try:
            chain = _order(paths, directory, [str(one) for one in settings.get("contact_emails") or []], names, private)
        except Exception as error:  # of requests, josepy and acme
            raise Refused(
                f"letsencrypt_certificate[{host}] (letsencrypt::http_authorization line 6) had an error: "
                f"RuntimeError: acme_certificate[{name}] (letsencrypt::http_authorization line 43) had an error: "
                f"RuntimeError: ruby_block[create certificate for {host}] had an error: "
                f"RuntimeError: [{host}] Validation failed, unable to request certificate: {error}"
            ) from error
        _write(certificate + suffix, key + suffix, chain, private)
        new = True
    if settings.get("enable") is None:
        kept = json.loads(paths.secrets.read_text()) if paths.secrets.exists() else {}
        kept["letsencrypt"] = {"auto_enabled": True}
        write_atomically(paths.secrets, json.dumps(kept, indent=2) + "\n", 0o600)
    return new


def _order(paths: Paths, url: str, emails: list[str], names: list[str], private: Any) -> str:
    """A certificate with its chain, by the challenge http-01."""
    from cryptography.hazmat.primitives import serialization

    # Debian's python3-acme, which the package carries.
    josepy, challenges, client, crypto_util, messages = map(import_module, _ACME)
    account = josepy.JWKRSA(key=_new_key())
    with tempfile.NamedTemporaryFile("w") as trusted:
        for path in (paths.embedded_certs / "cacert.pem", *sorted(paths.trusted_certs.glob("*"))):  # not the system's
            trusted.write(path.read_text() + "\n" if path.is_file() else "")
        trusted.flush()
        network = client.ClientNetwork(account, verify_ssl=trusted.name, user_agent="provision-lab")
        server = client.ClientV2(client.ClientV2.get_directory(url, network), network)
        email = emails[0] if emails else None
        server.new_account(messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True))
        plain = serialization.NoEncryption()
        text = private.private_bytes(_pem(), serialization.PrivateFormat.TraditionalOpenSSL, plain)
        order = server.new_order(crypto_util.make_csr(text, names))
        folder = Path(CHALLENGES) / ".well-known/acme-challenge"
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for authorization in order.authorizations:
            (one,) = [found for found in authorization.body.challenges if isinstance(found.chall, challenges.HTTP01)]
            answer, content = one.response_and_validation(account)
            written.append(folder / one.chall.encode("token"))
            written[-1].write_text(content)
            server.answer_challenge(one, answer)
        try:
            ends = datetime.datetime.fromtimestamp(time.time() + _DEADLINE)
            return str(server.poll_and_finalize(order, ends).fullchain_pem)
        finally:
            for path in written:
                path.unlink()


def renewal(settings: Mapping[str, Any], host: str) -> str | None:
    """The line that crond runs for the renewal, with a minute that depends on the host's name; None where it is off.

    Source: recipes/enable.rb and attributes/default.rb.
    """
    if not renews(dict(settings)):
        return None
    minute = settings.get("auto_renew_minute")
    chosen = int(hashlib.sha1(host.encode(), usedforsecurity=False).hexdigest(), 16) % 60
    when = (
        chosen if minute is None else minute,
        settings.get("auto_renew_hour", 0),
        settings.get("auto_renew_day_of_month", "*/4"),
    )
    return f"{' '.join(map(str, when))} * * root /opt/gitlab/bin/gitlab-ctl renew-le-certs\n"


def _is_due(certificate: str, names: list[str]) -> bool:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
    except (OSError, ValueError):
        return True
    # Debian 12's cryptography has the time without its zone only.
    ends = getattr(found, "not_valid_after_utc", None) or found.not_valid_after.replace(tzinfo=datetime.UTC)
    covered = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )
    return (
        found.issuer == found.subject
        or ends - datetime.datetime.now(datetime.UTC) < _RENEWED
        or not set(names) <= set(covered)
    )


def _write(certificate: str, key: str, chain: str, private: Any) -> None:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.TraditionalOpenSSL
    text = private.private_bytes(_pem(), form, serialization.NoEncryption()).decode()
    Path(certificate).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(key), text, 0o600)
    write_atomically(Path(certificate), chain, 0o644)


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.PEM


def _was_enabled(paths: Paths) -> bool:
    """Whether the integration was enabled by itself in an earlier run. Source: libraries/lets_encrypt.rb, le_auto_enabled?."""
    if not paths.secrets.exists():
        return False
    return bool(json.loads(paths.secrets.read_text()).get("letsencrypt", {}).get("auto_enabled"))
