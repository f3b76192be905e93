"""[registry.s3]: the registry's S3 driver, with the driver's own keys.

[registry]: the container registry with its certificate, and the login that proves it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table, host_path, local_file
from provision.url import Url, UrlField


class S3(Table):
    """The registry's S3 driver, with the driver's own keys."""

    bucket: str
    """The bucket's name. It must exist."""
    region: str
    """The bucket's region; with `regionendpoint`, whatever that service calls it."""
    regionendpoint: Annotated[Url, UrlField("https://nyc3.example.com")] | None = None
    """Where a service other than AWS answers, with its scheme."""
    accesskey: SecretSource | None = None
    """The access key (a secret). Both keys absent: the machine's IAM role."""
    secretkey: SecretSource | None = None
    """The secret key (a secret)."""
    sessiontoken: SecretSource | None = None
    """The token of temporary keys (a secret)."""
    rootdirectory: str | None = None
    """A prefix for everything in the bucket."""
    pathstyle: bool | None = None
    """Bucket in the path instead of the host name. Default: true exactly when regionendpoint is set."""
    secure: bool | None = None
    """Talk TLS. Default: true."""
    skipverify: bool | None = None
    """true: the service's certificate is not checked. Default: false."""
    v4auth: bool | None = None
    """Signature version 4. Default: true."""
    encrypt: bool | None = None
    """Store encrypted. Default: false."""
    keyid: str | None = None
    """The KMS key to encrypt with."""
    storageclass: str | None = None
    """The storage class. Default: STANDARD."""
    objectacl: str | None = None
    """The canned ACL of what is stored. Default: private."""
    objectownership: bool | None = None
    """true: the bucket's owner owns what is stored."""
    chunksize: int | None = Field(default=None, ge=5 * 1024 * 1024)
    """Bytes of one part of an upload, at least 5 MiB."""
    multipartcopychunksize: int | None = Field(default=None, gt=0)
    """Bytes of one part of a copy."""
    multipartcopymaxconcurrency: int | None = Field(default=None, gt=0)
    """Parts copied at once."""
    multipartcopythresholdsize: int | None = Field(default=None, gt=0)
    """Bytes from which on copies are made in parts."""
    maxrequestspersecond: int | None = Field(default=None, ge=0)
    """Requests a second at most; 0: no limit."""
    maxretries: int | None = Field(default=None, ge=0)
    """Tries after a failed request."""
    parallelwalk: bool | None = None
    """Walk the bucket in parallel."""
    loglevel: str | None = None
    """What the S3 client logs."""
    checksum_disabled: bool | None = None
    """true for Ceph, MinIO and OVH, which know no checksums."""
    checksum_algorithm: Literal["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"] | None = None
    """The algorithm of upload checksums."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The driver's parameters as given, in this order; secrets are SecretSource: see `resolve`."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        # As it was written: a slash at its end is no reason to reconfigure, or to ask whether images move.
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
    """A certificate from Let's Encrypt, or from another authority that speaks ACME; it renews itself."""

    client: Literal["certbot", "omnibus"]
    """Who asks for it: certbot, installed on the host, or GitLab's own integration."""
    email: str
    """Whom the authority writes to."""
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
                "GitLab's own integration knows Let's Encrypt alone: another authority takes certbot", "directory"
            )
        return self


class Certificate(Table):
    """The registry's certificate: on the host, local files to upload, or by ACME. None of them: /etc/gitlab/ssl/HOST.crt."""

    fullchain: str | None = None
    """Path on the host: the certificate and its chain. Goes with `key`."""
    key: str | None = None
    """Path on the host: the private key."""
    ca: Path | None = None
    """Local file: the authority's certificate, which every consumer is given. For private authorities only."""
    local_fullchain: Path | None = None
    """Local file to upload: the certificate and its chain. Goes with `local_key`."""
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
            raise InvalidValue("expected acme, or files of your own, not both", "acme")
        return self


class Login(Table):
    """Who `verify` logs in as, and what it pushes."""

    username: str
    """A GitLab user's name, or a deploy token's."""
    password: SecretSource
    """That user's password or token with write_registry (a secret)."""
    image: str
    """The image to push, pull and delete: GROUP/PROJECT, or below it, in lower case."""

    @field_validator("image")
    @classmethod
    def _image(cls, text: str) -> str:
        if not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", text) or len(text) > 255:
            raise ValueError(f'expected group/project in lower case, without registry and tag, got "{text}"')
        return text


class Registry(Table):
    """GitLab's container registry. Without this table no registry is set up."""

    external_url: Annotated[Url, UrlField("https://gitlab.example.com:5555", path=False)]
    """Where the registry answers: scheme and host, a port where wanted, no path."""
    certificate: Certificate | None = None
    """The certificate. Default: /etc/gitlab/ssl/HOST.crt and .key, which is where GitLab looks."""
    s3: S3 | None = None
    """Images are stored in S3. Absent: storage is left as it is."""
    redirect: bool = True
    """false: images travel through the registry, for clients that cannot reach S3 themselves."""
    migrate: Literal["acknowledged"] | None = None
    """"acknowledged": storage may change though images are in the old one; meant for `--set`, for one run."""
    login: Login | None = None
    """For `verify`."""

    @property
    def certs_folder(self) -> str:
        """Where Docker looks for the registry's authority on a host. Source: dockerd, "Verify repository client with certificates"."""
        return f"/etc/docker/certs.d/{self.external_url.authority}"

    @property
    def ca(self) -> bytes:
        """The declared authority's certificate, read from its local file; b"" when none was declared.

        Raises UsageError when the file cannot be read.
        """
        if self.certificate is None or self.certificate.ca is None:
            return b""
        return local_file(self.certificate.ca, "registry.certificate.ca")
