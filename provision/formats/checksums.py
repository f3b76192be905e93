"""The checksums of S3's API, in base64, as GitLab's registry sends them with everything that it uploads.

CRC32, CRC32C and CRC64NVME are reflected CRCs that begin and end with all bits inverted. Source: Amazon S3, "Checking object
integrity"; NVM Express, NVM Command Set, "64b CRC".
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Final

_POLYNOMIALS: Final = {
    "CRC32": (32, 0xEDB88320),
    "CRC32C": (32, 0x82F63B78),
    "CRC64NVME": (64, 0x9A6C9329AC4BC9B5),
}
_BLOCK: Final = 1 << 20


def checksum(algorithm: str, content: bytes) -> str:
    """The checksum of `content`, which should be short. Raises KeyError or ValueError for an unknown algorithm."""
    if algorithm not in _POLYNOMIALS:
        return _base64(hashlib.new(algorithm, content).digest())
    width, polynomial = _POLYNOMIALS[algorithm]
    state = (1 << width) - 1
    for byte in content:
        state = _next(state ^ byte, polynomial)
    return _finished(state, width)


@cache
def checksum_of_zeros(algorithm: str, size: int) -> str:
    """The checksum of `size` zero bytes. Raises KeyError or ValueError for an unknown algorithm."""
    if algorithm not in _POLYNOMIALS:
        digest = hashlib.new(algorithm)
        for start in range(0, size, _BLOCK):
            digest.update(bytes(min(_BLOCK, size - start)))
        return _base64(digest.digest())
    width, polynomial = _POLYNOMIALS[algorithm]
    state = (1 << width) - 1
    # One zero byte is a linear function of the state; the function of twice as many is its square.
    power = [_next(1 << bit, polynomial) for bit in range(width)]
    while size:
        if size & 1:
            state = _applied(power, state)
        power = [_applied(power, column) for column in power]
        size >>= 1
    return _finished(state, width)


def _next(state: int, polynomial: int) -> int:
    for _ in range(8):
        state = state >> 1 ^ (polynomial if state & 1 else 0)
    return state


def _applied(columns: list[int], state: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if state >> bit & 1:
            result ^= column
    return result


def _finished(state: int, width: int) -> str:
    return _base64((state ^ (1 << width) - 1).to_bytes(width // 8, "big"))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
