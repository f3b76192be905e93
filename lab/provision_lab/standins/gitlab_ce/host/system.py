"""The files that a reconfigure writes, and the secrets that it creates once."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import string
import subprocess
import time
from pathlib import Path

from . import configs
from .layout import Paths, Version, write_atomically
from .output import Output
from .settings import Registry, Wanted

ISSUER = "omnibus-gitlab-issuer"


def write_files(paths: Paths, wanted: Wanted, version: Version, out: Output) -> set[str]:
    """Writes the files that differ; the names of the services that use them."""
    changed: set[str] = set()
    for folder, mode in ((paths.ssl, 0o755), (paths.trusted_certs, 0o755), (paths.renewal_job.parent, 0o755)):
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for name in ("crond", "nginx", "puma", "registry"):
        (paths.logs / name).mkdir(parents=True, exist_ok=True)
    if _trust(paths):
        changed.add("registry")
    made = ensure_token_keys(paths.registry_cert, paths.registry_key)
    out.resource(f"file[{paths.registry_cert}]", "create", made)
    if wanted.registry and (_registry(paths, wanted, wanted.registry, version, out) or made):
        changed.add("registry")
    _ensure_user("git", paths.var)
    write_atomically(paths.rails_rc, "gitlab_user='git'\ngitlab_group='git'\n")
    if write_atomically(paths.nginx_config, configs.render_nginx(wanted), 0o644):
        changed.add("nginx")
    out.resource(f"template[{paths.nginx_config}]", "create", "nginx" in changed)
    if _api(paths, wanted, version):
        changed.add("puma")
    out.resource("template[/var/opt/gitlab/gitlab-rails/etc/gitlab.yml]", "create", "puma" in changed)
    return changed


def _registry(paths: Paths, wanted: Wanted, registry: Registry, version: Version, out: Output) -> bool:
    own = registry.settings
    user = str(own.get("username") or "registry")
    _ensure_user(user, paths.registry_config.parent)
    _registry_folders(paths, registry, user)
    values = {
        "realm": str(own.get("token_realm") or wanted.external.url),
        "secret": str(own.get("http_secret") or ensure_secret(paths.var / "standin/registry-http-secret")),
        "bundle": str(paths.registry_cert),
        "issuer": ISSUER,
    }
    changed = [
        _owned(paths.registry_config, configs.render_registry(registry, **values), user),
        _owned(
            paths.registry_run_config,
            configs.render_registry_to_run(registry, version, **values),
            user,
        ),
        write_atomically(paths.registry_env, _environment(paths, registry), 0o600),
    ]
    out.resource(f"template[{paths.registry_config}]", "create", any(changed))
    return any(changed)


def _registry_folders(paths: Paths, registry: Registry, user: str) -> None:
    for folder in (paths.var / "standin", paths.registry_config.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if registry.metadata != "false" and not paths.registry_metadata.exists():
        paths.registry_metadata.mkdir(mode=0o700)
        shutil.chown(paths.registry_metadata, user, user)
    storage = registry.storage.get("filesystem")
    if isinstance(storage, dict) and storage.get("rootdirectory"):
        folder = Path(str(storage["rootdirectory"]))
        if not folder.exists():
            folder.mkdir(parents=True)
            shutil.chown(folder, user, user)


def _owned(path: Path, text: str, user: str) -> bool:
    changed = write_atomically(path, text, 0o640)
    if changed and os.geteuid() == 0:
        shutil.chown(path, user, user)
    return changed


def _environment(paths: Paths, registry: Registry) -> str:
    env = {"SSL_CERT_DIR": f"{paths.embedded_certs}", **registry.env}
    env["STANDIN_DATABASE"] = registry.metadata
    return "".join(f"{key}={value}\n" for key, value in sorted(env.items()))


def _trust(paths: Paths) -> bool:
    """Makes every service trust the files in /etc/gitlab/trusted-certs; whether that changed."""
    paths.embedded_certs.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path.read_text() for path in sorted(paths.trusted_certs.glob("*")) if path.is_file()}
    changed = [write_atomically(paths.embedded_certs / name, text) for name, text in wanted.items()]
    stale = [path for path in paths.embedded_certs.iterdir() if path.name not in {*wanted, "cacert.pem"}]
    for path in stale:
        path.unlink()
    return any(changed) or bool(stale)


def _api(paths: Paths, wanted: Wanted, version: Version) -> bool:
    registry = wanted.registry.site if wanted.registry else None
    settings = {
        "version": ".".join(str(part) for part in version),
        "external_url": wanted.external.url,
        "registry_host": f"{registry.host}:{registry.port}" if registry else None,
        "registry_address": wanted.registry.address if wanted.registry else None,
        "issuer": ISSUER,
        "signing_key": str(paths.registry_key),
        "monitoring_whitelist": wanted.monitoring,
        "rails": wanted.rails,
    }
    return write_atomically(paths.api_settings, json.dumps(settings, indent=2) + "\n", 0o600)


def set_root_password(paths: Paths, wanted: Wanted) -> str | None:
    """Sets root's first password at the first reconfigure: the seed's, a given one, or a random one, which a file keeps.

    Returns the note about it. Source: omnibus-gitlab, gitlab/libraries/gitlab_rails.rb, parse_secrets;
    package/libraries/omnibus_helper.rb, print_root_account_details.
    """
    if paths.database.exists() or paths.first_root_password.exists() or _is_in_seed(paths, "root"):
        return None
    password = wanted.root_password or random_password()
    write_atomically(paths.first_root_password, password, 0o600)
    note = (
        "Default admin account has been configured with following details:\nUsername: root\n"
        "Password: You didn't opt-in to print initial root password to STDOUT."
    )
    if wanted.root_password is None:
        text = "# WARNING: This password is valid until it is changed, if GitLab's database was new.\n\n"
        write_atomically(paths.initial_root_password, f"{text}Password: {password}\n", 0o600)
        note += (
            "\nPassword stored to /etc/gitlab/initial_root_password. This file will be cleaned up in first reconfigure "
            "run after 24 hours."
        )
    return note


def _is_in_seed(paths: Paths, user: str) -> bool:
    seed = paths.switches / "seed.json"
    return seed.exists() and user in json.loads(seed.read_text()).get("users", {})


def clean_root_password(paths: Paths) -> str | None:
    """Deletes the file of root's first password after a day, and returns the note about it."""
    path = paths.initial_root_password
    if not path.exists() or time.time() - path.stat().st_mtime < 86400:
        return None
    path.unlink()
    return "Found old initial root password file at /etc/gitlab/initial_root_password and deleted it."


def _ensure_user(name: str, home: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["id", name], capture_output=True, check=False).returncode == 0:
        return
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", str(home), "--shell", "/usr/sbin/nologin"]
    subprocess.run(["useradd", *options, name], check=True, capture_output=True)


def ensure_token_keys(certificate: Path, key: Path) -> bool:
    """Creates the key pair that signs the registry's tokens, unless it exists; whether it was created."""
    if certificate.exists() and key.exists():
        return False
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Registry")])
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    write_atomically(key, pem.decode(), 0o600)
    write_atomically(certificate, signed.public_bytes(serialization.Encoding.PEM).decode(), 0o644)
    return True


def ensure_secret(path: Path) -> str:
    """The random text in this file, which is created when it is missing."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(64), 0o600)
    return path.read_text()


def random_password() -> str:
    """A password like those that the real package creates for root."""
    letters = string.ascii_letters + string.digits + "+/"
    return "".join(secrets.choice(letters) for _ in range(43)) + "="
