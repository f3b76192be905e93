"""[registry.s3]: the registry's S3 driver, with the driver's own keys.

[registry]: the container registry with its certificate, and the login of `verify`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table, host_path, local_certificates
from provision.url import Url, UrlField


class S3(Table):
    """The registry's S3 driver, with the driver's own keys."""

    bucket: str
    """The bucket's name. It must exist."""
    region: str
    """The bucket's region; with `regionendpoint`, the name that the service uses."""
    regionendpoint: Annotated[Url, UrlField("https://nyc3.example.com")] | None = None
    """The URL of a service other than AWS."""
    accesskey: SecretSource | None = None
    """The access key (a secret). Both keys absent: the machine's IAM role."""
    secretkey: SecretSource | None = None
    """The secret key (a secret)."""
    sessiontoken: SecretSource | None = None
    """The token of temporary keys (a secret)."""
    rootdirectory: str | None = None
    """A prefix for everything in the bucket."""
    pathstyle: bool | None = None
    """Put the bucket into the path instead of the host name. Default: true exactly when regionendpoint is set."""
    secure: bool | None = None
    """Use TLS. Default: true."""
    skipverify: bool | None = None
    """true: the service's certificate is not checked. Default: false."""
    v4auth: bool | None = None
    """Use signature version 4. Default: true."""
    encrypt: bool | None = None
    """Encrypt stored objects. Default: false."""
    keyid: str | None = None
    """The KMS key for encryption."""
    storageclass: str | None = None
    """The storage class. Default: STANDARD."""
    objectacl: str | None = None
    """The canned ACL of stored objects. Default: private."""
    objectownership: bool | None = None
    """true: the bucket's owner owns stored objects."""
    chunksize: int | None = Field(default=None, ge=5 * 1024 * 1024)
    """The size of one part of an upload in bytes, at least 5 MiB."""
    multipartcopychunksize: int | None = Field(default=None, gt=0)
    """The size of one part of a copy in bytes."""
    multipartcopymaxconcurrency: int | None = Field(default=None, gt=0)
    """Number of parts copied at the same time."""
    multipartcopythresholdsize: int | None = Field(default=None, gt=0)
    """Size in bytes above which objects are copied in parts."""
    maxrequestspersecond: int | None = Field(default=None, ge=0)
    """Maximum number of requests per second; 0: no limit."""
    maxretries: int | None = Field(default=None, ge=0)
    """Number of retries after a failed request."""
    parallelwalk: bool | None = None
    """Walk the bucket in parallel."""
    loglevel: str | None = None
    """The log level of the S3 client."""
    checksum_disabled: bool | None = None
    """true for Ceph, MinIO and OVH, which do not support checksums."""
    checksum_algorithm: Literal["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"] | None = None
    """The algorithm of upload checksums."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The driver's parameters as given, in this order; secrets are SecretSource: see `resolve`."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        # The original text: a slash at its end must not cause a reconfigure, or look like a change of storage.
        return {name: value.text if isinstance(value, Url) else value for name, value in given.items()}

    @field_validator("bucket", "region")
    @classmethod
    def _named(cls, text: str) -> str:
        if not text or any(letter.isspace() or letter == "/" for letter in text):
            raise ValueError(f"expected a name, got {text!r}")
        return text

    @model_validator(mode="after")
    def _both_keys(self) -> S3:
        for given, missing in (("accesskey", "secretkey"), ("secretkey", "accesskey")):
            if getattr(self, given) is not None and getattr(self, missing) is None:
                raise InvalidValue(
                    f'"{missing}" is missing: it goes with "{given}" (leave out both for an IAM role)', given
                )
        return self


_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"  # Docker's grammar of image names


class Acme(Table):
    """A certificate from Let's Encrypt or another ACME authority, renewed automatically."""

    client: Literal["certbot", "omnibus"]
    """The program that obtains it: certbot, or GitLab's own integration (omnibus)."""
    email: str
    """The contact address for the authority."""
    directory: Annotated[Url, UrlField("https://acme.example.com/directory")] | None = None
    """The authority's ACME directory, for certbot. Default: Let's Encrypt."""

    @field_validator("email")
    @classmethod
    def _email(cls, text: str) -> str:
        if not re.fullmatch(r"[^@\s,-][^@\s,]*@[^@\s,]+", text):
            raise ValueError(f'expected one e-mail address, such as "ops@example.com", got {text!r}')
        return text

    @model_validator(mode="after")
    def _only_certbot_asks_elsewhere(self) -> Acme:
        if self.directory and self.client != "certbot":
            raise InvalidValue(
                "GitLab's own integration supports only Let's Encrypt: use certbot for another authority", "directory"
            )
        return self


class Certificate(Table):
    """The registry's certificate: files on the host, local files, or ACME. Default: /etc/gitlab/ssl/HOST.crt."""

    fullchain: str | None = None
    """Path on the host: the certificate and its chain. Requires `key`."""
    key: str | None = None
    """Path on the host: the private key."""
    ca: Path | None = None
    """Local file: the certificates of a private CA, installed on every host."""
    local_fullchain: Path | None = None
    """Local file to upload: the certificate and its chain. Requires `local_key`."""
    local_key: Path | None = None
    """Local file to upload: the private key, without a passphrase."""
    acme: Acme | None = None
    """Let's Encrypt, or another ACME authority."""

    @field_validator("fullchain", "key")
    @classmethod
    def _absolute(cls, text: str | None) -> str | None:
        return text if text is None else host_path(text)

    @model_validator(mode="after")
    def _one_pair(self) -> Certificate:
        for one, other in (("fullchain", "key"), ("local_fullchain", "local_key")):
            for given, missing in ((one, other), (other, one)):
                if getattr(self, given) is not None and getattr(self, missing) is None:
                    raise InvalidValue(f'"{missing}" is missing: it goes with "{given}"', given)
        if self.fullchain and self.local_fullchain:
            raise InvalidValue(
                "expected fullchain and key (on the host) or local_fullchain and local_key (to upload), not both",
                "local_fullchain",
            )
        if self.acme and (self.fullchain or self.local_fullchain):
            raise InvalidValue("expected acme or certificate files, not both", "acme")
        return self


class Login(Table):
    """The login of `verify`, and the image that it pushes."""

    username: str
    """The name of a GitLab user or a deploy token."""
    password: SecretSource
    """That user's password, or a token (a secret). With two-factor authentication GitLab accepts only a token. To delete the
    image it needs the scope api, and its user the role Maintainer; read_registry and write_registry pull and push."""
    image: str
    """The image to push, pull and delete: GROUP/PROJECT or GROUP/PROJECT/NAME, in lower case."""

    @field_validator("image")
    @classmethod
    def _image(cls, text: str) -> str:
        if not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", text) or len(text) > 255:
            raise ValueError(f'expected group/project in lower case, without registry and tag, got "{text}"')
        return text


class Registry(Table):
    """GitLab's container registry. Without this table no registry is set up."""

    external_url: Annotated[Url, UrlField("https://gitlab.example.com:5555", path=False)]
    """The registry's URL: scheme and host, optionally a port, no path."""
    certificate: Certificate | None = None
    """The certificate. Default: /etc/gitlab/ssl/HOST.crt and .key; without them GitLab gets one from Let's Encrypt, for public names."""
    s3: S3 | None = None
    """Store images in S3. Absent: the storage is unchanged."""
    redirect: bool = True
    """false: image data passes through the registry, for clients that cannot reach S3."""
    migrate: Literal["acknowledged"] | None = None
    """"acknowledged": the images were copied, allow a change of storage; meant for one run, with `--set`."""
    login: Login | None = None
    """The login of `verify`. Default: a bot of the first project, which exists during the check."""

    @property
    def certs_folder(self) -> str:
        """The folder in which Docker looks for the registry's CA on a host. Source: dockerd, "Verify repository client with certificates"."""
        return f"/etc/docker/certs.d/{self.external_url.authority}"

    @property
    def ca(self) -> bytes:
        """The CA certificate, read from its local file; b"" without one.

        Raises UsageError when the file cannot be read, or has no certificate in PEM.
        """
        if self.certificate is None or self.certificate.ca is None:
            return b""
        return local_certificates(self.certificate.ca, "registry.certificate.ca")
