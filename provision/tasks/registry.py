"""The tasks `certificates` and `registry`, on the GitLab host, and `verify`, on the hosts that use the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from provision.errors import Refused, UsageError
from provision.formats.x509 import check_pair
from provision.gitlab.access import has_token, required_api
from provision.host.docker import own_token_hosts
from provision.inventory import Host, resolve
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.base import local_file
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.projects import Project
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Certificate, Registry
from provision.inventory.tables.runners import Runner
from provision.resources import (
    CertificatePair,
    DefaultPair,
    File,
    ImageCheck,
    Packages,
    ProjectBot,
    RegistryEndpoint,
    RegistryStorage,
    Resource,
    RubySettings,
    S3Bucket,
    ServedCertificate,
    Service,
    TrustedCa,
    UploadedPair,
)
from provision.resources.system.proxy import apt_proxy
from provision.secret import Secret
from provision.tasks.base import task
from provision.tasks.gitlab import listen_settings, realm, reconfigure_handler
from provision.url import Url

_OMNIBUS = "omnibus"
_STORAGE = ("registry", "storage")
# The registry refuses two drivers. Source: the distribution registry's configuration, "storage", and GitLab's s3_v2, azure_v2.
_OTHER_DRIVERS = ("filesystem", "s3_v2", "s3aws", "azure", "azure_v2", "gcs", "swift", "oss", "inmemory")


@task(on="gitlab", settings=Registry, uses=(Gitlab, Proxy))
def registry(host: Host, wanted: Registry) -> Iterator[Resource]:
    """Set up the container registry at its URL, with its certificate and storage."""
    yield Packages(("curl", "ca-certificates"))
    absent: tuple[tuple[str, ...], ...] = ()
    settings: dict[tuple[str, ...], Any] = {("registry_external_url",): str(wanted.external_url)}
    settings |= certificate_settings(host)
    settings |= listen_settings(host, wanted.external_url, "registry_nginx", ("registry", "nginx"))
    if wanted.s3 is not None:
        driver = resolve(wanted.s3.parameters)
        yield RegistryStorage(driver, wanted.migrate == "acknowledged")
        if driver.get("accesskey") and driver.get("secretkey"):
            proxy, endpoint = host.settings.get(Proxy), wanted.s3.regionendpoint
            yield S3Bucket(
                driver["bucket"],
                driver["region"],
                endpoint,
                driver["accesskey"],
                driver["secretkey"],
                driver.get("sessiontoken") or "",
                folder=driver.get("rootdirectory") or "",
                path_style=driver.get("pathstyle"),
                checksum_algorithm=""
                if driver.get("checksum_disabled")
                else driver.get("checksum_algorithm") or "CRC64NVME",
                insecure=bool(driver.get("skipverify")),
                **({"part_size": driver["chunksize"]} if "chunksize" in driver else {}),
                proxy=proxy.for_curl(endpoint.scheme if endpoint else "https") if proxy else "",
            )
        # We own the driver, and no other key of storage: maintenance, cache, delete, redirect.
        settings[(*_STORAGE, "s3")] = driver
        if not wanted.redirect:
            settings[(*_STORAGE, "redirect", "disable")] = True
        absent = tuple((*_STORAGE, other) for other in _OTHER_DRIVERS)
    handler = reconfigure_handler(host)
    yield RubySettings(settings, notify=(handler,), absent=absent)
    yield RegistryEndpoint(wanted.external_url, realm(host), handler)


def _can_log_in(host: Host) -> bool:
    wanted = host.settings.get(Registry)
    return wanted is not None and (wanted.login is not None or _project(host) is not None)


def _project(host: Host) -> str | None:
    """The first project that images can be pushed to, if there is a token for its API; None for none."""
    gitlab = host.settings.get(Gitlab)
    if gitlab is None or not has_token(host, gitlab.external_url):
        return None
    found = [path for path, one in host.settings.named(Project).items() if one.registry != "disabled"]
    return found[0] if found else None


@task(on="runners", settings=Registry, uses=(Gitlab, Project, Runner), where=_can_log_in)
def verify(host: Host, wanted: Registry) -> Iterator[Resource]:
    """Verify that this host can push an image to the registry, pull it and delete it."""
    project, login = _project(host), wanted.login
    yield Packages(("curl", "ca-certificates"))
    storage = wanted.s3.parameters if wanted.s3 else {}
    authority = hashlib.sha256(wanted.ca).hexdigest()
    bot = None
    if login is None:
        bot = ProjectBot(required_api(host, "verify"), str(project), f"provision: verify on {host.name}")
    yield ImageCheck(
        wanted.external_url,
        login.username if login else "provision",
        login.password.resolve() if login else None,
        # GitLab's names of images are in lower case, those of projects need not be.
        login.image if login else str(project).lower(),
        f"{wanted.certs_folder}/ca.crt",
        context=f"{storage.get('bucket')} {storage.get('regionendpoint')} {authority}",
        token_hosts=own_token_hosts(host),
        bot=bot,
    )


def paths(host: Host) -> tuple[str, str]:
    """The paths of certificate and key on the GitLab host: from the inventory, else those of Omnibus or certbot."""
    registry, gitlab = host.settings.get(Registry), host.settings.get(Gitlab)
    certificate = registry.certificate if registry else None
    # Omnibus names the files after the host in the URL: an IPv6 address keeps its brackets.
    name = registry.external_url.bracketed_host if registry else ""
    if certificate and certificate.fullchain and certificate.key:
        return certificate.fullchain, certificate.key
    if certificate and certificate.acme and certificate.acme.client == "certbot":
        return f"/etc/letsencrypt/live/{name}/fullchain.pem", f"/etc/letsencrypt/live/{name}/privkey.pem"
    if certificate and certificate.acme and gitlab:  # one certificate for all names, named after the first
        name = gitlab.external_url.bracketed_host
    return f"/etc/gitlab/ssl/{name}.crt", f"/etc/gitlab/ssl/{name}.key"


def certificate_settings(host: Host) -> dict[tuple[str, ...], Any]:
    """The settings of gitlab.rb for the registry's certificate; {} for a registry without TLS."""
    registry, gitlab = host.settings.get(Registry), host.settings.get(Gitlab)
    if registry is None or not registry.external_url.tls:
        return {}
    fullchain, key = paths(host)
    wanted: dict[tuple[str, ...], Any] = {
        ("registry_nginx", "ssl_certificate"): fullchain,
        ("registry_nginx", "ssl_certificate_key"): key,
    }
    acme = registry.certificate.acme if registry.certificate else None
    if acme and acme.client == _OMNIBUS:
        wanted[("letsencrypt", "enable")] = True
        wanted[("letsencrypt", "contact_emails")] = [acme.email]
        if gitlab and gitlab.external_url.host != registry.external_url.host:
            wanted[("letsencrypt", "alt_names")] = [registry.external_url.host]
        own = gitlab.settings.get("letsencrypt", {}) if gitlab else {}
        twice = [path[1] for path in wanted if path[0] == "letsencrypt" and isinstance(own, dict) and path[1] in own]
        if twice:
            raise UsageError(
                f"gitlab.settings.letsencrypt.{twice[0]}: registry.certificate.acme sets it",
                hint="remove one of the two",
            )
    return wanted


def may_use_acme(host: Host) -> bool:
    """Whether an authority may have to reach the host, to issue a certificate or to renew it."""
    registry, gitlab = host.settings.get(Registry), host.settings.get(Gitlab)
    if registry and registry.certificate and registry.certificate.acme:
        return True
    if gitlab is None:
        return False
    enabled = _lets_encrypt(gitlab)
    return _may_ask(gitlab) if enabled is None else bool(enabled)


def asks_by_itself(host: Host) -> bool:
    """Whether GitLab asks Let's Encrypt for the registry's certificate if there is none on the host.

    That is its own default. It is left to it where the inventory has no registry.certificate, or one with the paths that
    it writes, where both external URLs are public https, and [gitlab.settings] does not keep it from that.
    """
    registry, gitlab = host.settings.get(Registry), host.settings.get(Gitlab)
    if registry is None or gitlab is None or _lets_encrypt(gitlab) is False or not _may_ask(gitlab):
        return False
    given = registry.certificate
    if given is not None and (given.fullchain, given.key) != _site_files(gitlab):
        return False
    return all(one.external_url.tls and one.external_url.is_public for one in (registry, gitlab))


def _may_ask(gitlab: Gitlab) -> bool:
    """Whether GitLab asks Let's Encrypt by itself for a certificate of its own that is not at the default path.

    Source: omnibus-gitlab 19.3, letsencrypt/libraries/lets_encrypt.rb, should_auto_enable?. nginx's settings have a second
    name since GitLab 19.2.
    """
    rails = gitlab.settings.get("gitlab_rails")
    places = (gitlab.settings.get("nginx"), rails.get("nginx") if isinstance(rails, Mapping) else None)
    nginx = [one for one in places if isinstance(one, Mapping)]
    own = any("ssl_certificate" in one or "ssl_certificate_key" in one for one in nginx)
    off = any(one.get(name) is False for one in nginx for name in ("enable", "listen_https"))
    return gitlab.external_url.tls and not gitlab.external_url.is_ip and not own and not off


def _site_files(gitlab: Gitlab) -> tuple[str, str]:
    """The default paths of certificate and key of GitLab's own site."""
    name = gitlab.external_url.bracketed_host
    return f"/etc/gitlab/ssl/{name}.crt", f"/etc/gitlab/ssl/{name}.key"


def _lets_encrypt(gitlab: Gitlab) -> Any:
    """`letsencrypt.enable` in [gitlab.settings]; None without it."""
    found = gitlab.settings.get("letsencrypt")
    return found.get("enable") if isinstance(found, Mapping) else None


def _has_registry(host: Host) -> bool:
    return host.settings.get(Registry) is not None


# Without a registry it still removes the CA of earlier runs, on hosts that are contacted anyway.
@task(on="gitlab", uses=(Registry, Gitlab, Apt, Proxy), where=_has_registry, leftovers=True)
def certificates(host: Host) -> Iterator[Resource]:
    """Check the registry's certificate and key, have GitLab serve them, and trust their CA."""
    registry = host.settings.get(Registry)
    ca = registry.ca if registry else b""
    yield apt_proxy(host.settings)
    if ca:
        yield Packages(("ca-certificates",))
    yield TrustedCa("registry", ca)
    if registry is None or not registry.external_url.tls:
        return
    yield Packages(("curl", "openssl"))
    url, certificate = registry.external_url, registry.certificate
    acme = certificate.acme if certificate else None
    fullchain, key = paths(host)
    pair = CertificatePair(fullchain, key, url.host, coming=acme is not None and acme.client == _OMNIBUS, ca=ca)
    if certificate and certificate.local_fullchain:
        yield _uploaded(certificate, url, pair)
    elif acme and acme.client == "certbot":
        from provision.resources.gitlab.certificates import LETS_ENCRYPT, AcmeCertificate, certbot_hooks

        yield Packages(("certbot",))
        for path, text in certbot_hooks().items():
            yield File(path, text, mode="0755")
        yield AcmeCertificate(url.host, acme.email, str(acme.directory or LETS_ENCRYPT), pair, url.port)
        yield Service("certbot.timer")
    elif asks_by_itself(host):
        gitlab = host.settings[Gitlab]
        yield DefaultPair(pair, CertificatePair(*_site_files(gitlab), url.host, ca=ca), _lets_encrypt(gitlab) is True)
    else:
        yield pair
    yield ServedCertificate(fullchain, url.host, url.port)


def _uploaded(certificate: Certificate, url: Url, pair: CertificatePair) -> UploadedPair:
    """The pair of files on this machine. Raises UsageError for an invalid pair, before any host is contacted."""
    assert certificate.local_fullchain  # the table has both or none
    assert certificate.local_key
    chain = local_file(certificate.local_fullchain, "registry.certificate.local_fullchain")
    private = local_file(certificate.local_key, "registry.certificate.local_key")
    key = Secret(private.decode("utf-8", "replace"))
    try:
        left = check_pair(chain, key, url.host)
    except Refused as error:
        text = f"{certificate.local_fullchain} with {certificate.local_key}: {error.text}"
        raise UsageError(f"registry.certificate: {text}", hint=error.hint) from error
    return UploadedPair(pair.fullchain, pair.key, chain, key, left, url.host, url.port, pair.ca)
