"""When a package repository's public key expires, and its fingerprint.

Of a file, only the creation time of the first key, the lifetime in its latest self-signature and the fingerprints are
read. gpg is not needed, on the host or here. `fetch_key.sh` computes fingerprints on the host in the same way.
Source: RFC 9580, packets (4.2), signature subpackets (5.2.3), fingerprints (5.5.4).
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
from collections.abc import Iterator

_ARMOUR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_PUBLIC_KEY, _SIGNATURE = 6, 2
_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13, 0x1F)  # of a user id, or of the key itself
_CREATED, _KEY_EXPIRES = 2, 9


class NotAKey(ValueError):
    """The bytes hold no public key that can be read."""


def expires(text: bytes) -> datetime.datetime | None:
    """Return when the key in an armoured or binary file expires; None when it does not. Raises NotAKey."""
    created, latest, lifetime = 0, -1, 0
    try:
        for tag, body in _packets(_binary(text)):
            if tag == _PUBLIC_KEY and not created:
                created = int.from_bytes(body[1:5], "big")
            elif tag == _PUBLIC_KEY:
                break  # only the first key signs the repository
            elif tag == _SIGNATURE and body[0] == 4 and body[1] in _CERTIFICATIONS:
                fields = dict(_subpackets(body[6 : 6 + int.from_bytes(body[4:6], "big")]))
                signed = int.from_bytes(fields.get(_CREATED, b""), "big")
                if signed >= latest:
                    latest, lifetime = signed, int.from_bytes(fields.get(_KEY_EXPIRES, b""), "big")
    except IndexError as error:
        raise NotAKey("the key is cut short") from error
    if not created:
        raise NotAKey("the file holds no OpenPGP public key")
    return datetime.datetime.fromtimestamp(created + lifetime, datetime.UTC) if lifetime else None


def fingerprints(text: bytes) -> list[str]:
    """Return the fingerprints of all keys in an armoured or binary file, in capital letters. Raises NotAKey.

    Subkeys are left out: a program that checks a signature accepts them only with a signature of their key. Raises NotAKey
    also for text beside the armour, where another program may find what is not found here.
    """
    found = _ARMOUR.search(text)
    if found is not None and found[0] != text.strip():
        raise NotAKey("the file has text beside the armoured key")
    try:
        return [_fingerprint(body) for tag, body in _packets(_binary(text)) if tag == _PUBLIC_KEY]
    except IndexError as error:
        raise NotAKey("the key is cut short") from error


def _fingerprint(body: bytes) -> str:
    if len(body) > 0xFFFF:
        raise NotAKey("the key is too long")
    if body[0] == 4:
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
    if body[0] == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise NotAKey(f"the key has version {body[0]}, which has no known fingerprint")


def _binary(text: bytes) -> bytes:
    """The packets of a key, without its armour."""
    found = _ARMOUR.search(text)
    if found is None:
        return text
    # Headers end at an empty line; a line that begins with = is the checksum.
    body = found[1].replace(b"\r", b"").partition(b"\n\n")[2]
    lines = [line for line in body.split(b"\n") if line and not line.startswith(b"=")]
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error as error:
        raise NotAKey(f"the armour of the key is damaged: {error}") from error


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the body of each packet."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise NotAKey("the file is neither an armoured key nor an OpenPGP packet")
        if head & 0x40:
            if 224 <= data[at + 1] < 255:
                raise NotAKey("the key has a packet in parts")
            tag, (length, at) = head & 0x3F, _length(data, at + 1)
        else:
            tag, width = head >> 2 & 0x0F, 1 << (head & 3)
            if width == 8:
                raise NotAKey("the key has a packet of unknown length")
            if at + width >= len(data):
                raise NotAKey("the key is cut short")
            length, at = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
        if at + length > len(data):
            raise NotAKey("the key is cut short")
        yield tag, data[at : at + length]
        at += length


def _subpackets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each subpacket of a signature."""
    at = 0
    while at < len(data):
        length, at = _length(data, at)
        yield data[at] & 0x7F, data[at + 1 : at + length]
        at += length


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length in the new format, and the offset after it."""
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 255:
        return (first - 192 << 8) + data[at + 1] + 192, at + 2
    return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
