"""Which image a tag stands for in a registry, asked from the host, which reaches it as Docker does.

One HEAD for the manifest, with the token that the registry asks for: some 50 ms, and Docker Hub does not count it. Sources:
the distribution API, "Token authentication" and "HEAD manifest".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from provision.image_name import HUB, Reference
from provision.secret import Secret
from provision.url import Url

_HUB_API: Final = "https://registry-1.docker.io"


@dataclass(frozen=True)
class Registry:
    """Where an image is pushed to, or an app's image pulled from. `url` is its origin, "" where there is none."""

    url: str = ""
    user: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))


def api_of(reference: Reference, own: Url | None) -> str:
    """Where a reference's registry answers; `own` is the registry of the inventory. "" for a reference without registry."""
    if not reference.domain:
        return ""
    if reference.domain == HUB:
        return _HUB_API
    if own is not None and reference.domain == own.authority:
        return own.origin
    url = Url.parse(f"https://{reference.domain}")
    return f"http://{reference.domain}" if url.host == "localhost" else url.origin  # Docker takes it without TLS
