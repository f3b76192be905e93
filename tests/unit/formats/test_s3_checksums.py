"""Checksums of S3's API: known values, and zlib's and hashlib's own."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from provision.formats.s3 import checksum, checksum_of_zeros


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [("CRC32", 0xCBF43926), ("CRC32C", 0xE3069283), ("CRC64NVME", 0xAE8B14860A799888)],
)
def test_the_check_value(algorithm: str, value: int) -> None:
    """Of the digits 1 to 9, as catalogues of CRCs have it."""
    size = 8 if algorithm == "CRC64NVME" else 4
    assert base64.b64decode(checksum(algorithm, b"123456789")) == value.to_bytes(size, "big")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "MD5"])
@pytest.mark.parametrize("size", [0, 1, 2, 63, 1000])
def test_zeros_are_summed_alike(algorithm: str, size: int) -> None:
    """Without going over each byte."""
    assert checksum_of_zeros(algorithm, size) == checksum(algorithm, bytes(size))


def test_many_zeros() -> None:
    """As many as one part of an upload has."""
    size = 10 * 1024 * 1024 + 1
    assert base64.b64decode(checksum_of_zeros("CRC32", size)) == zlib.crc32(bytes(size)).to_bytes(4, "big")
    assert base64.b64decode(checksum_of_zeros("SHA256", size)) == hashlib.sha256(bytes(size)).digest()


def test_an_unknown_algorithm() -> None:
    """It is an error."""
    with pytest.raises(ValueError, match="CRC7"):
        checksum("CRC7", b"")
