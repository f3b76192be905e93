"""[registry.s3]: the registry's S3 driver, with the driver's own keys."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.models.base import Table, Wrong, split_url
from provision.inventory.secrets import SecretSource


class S3(Table):
    """The registry's S3 driver, with the driver's own keys."""

    bucket: str
    """The bucket's name. It must exist."""
    region: str
    """The bucket's region; with `regionendpoint`, whatever that service calls it."""
    regionendpoint: str | None = None
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
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    @field_validator("bucket", "region")
    @classmethod
    def _named(cls, text: str) -> str:
        if not text or any(letter.isspace() or letter == "/" for letter in text):
            raise ValueError(f"expected a name, got {text!r}")
        return text

    @field_validator("regionendpoint")
    @classmethod
    def _uri(cls, text: str | None) -> str | None:
        parts = split_url(text) if text is not None else None
        if text is not None and (parts is None or parts.scheme not in ("http", "https") or not parts.hostname):
            # from GitLab 19.0 on the driver takes nothing else
            raise ValueError(f'expected a URI with its scheme, such as "https://nyc3.example.com", got {text!r}')
        return text

    @model_validator(mode="after")
    def _both_keys(self) -> "S3":
        for given, missing in (("accesskey", "secretkey"), ("secretkey", "accesskey")):
            if getattr(self, given) is not None and getattr(self, missing) is None:
                raise Wrong(f'"{missing}" is missing: it goes with "{given}" (leave out both for an IAM role)', given)
        return self
