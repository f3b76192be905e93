"""Image references: the distribution's grammar, and the additional rules of Docker Hub. Pure.

    reference = [domain "/"] component {"/" component} [":" tag] ["@" digest]

The first part is a domain only if it has a `.` or a `:` or is `localhost`. Without a domain, Docker uses Docker Hub. In an
inventory such a reference means the estate's own registry; images of Docker Hub begin with `docker.io/` there.
Sources: distribution/reference (grammar, lengths), Docker Hub's documentation of repositories.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

HUB: Final = "docker.io"
_LONGEST_NAME: Final = 255  # characters of domain and path in total
_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_HUB_NAME: Final = re.compile(r"[a-z0-9_-]{2,255}")
_HUB_USER: Final = re.compile(r"[a-z0-9_-]{2,30}")


class Reference(NamedTuple):
    """The parts of an image reference. `domain` is "" if the text has none."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"

    def tagged(self, tag: str) -> Reference:
        """The same image under a tag."""
        return Reference(self.domain, self.path, tag)

    def at(self, domain: str) -> Reference:
        """The same image with `domain` added if it has none. Docker Hub's official images get `library/`."""
        if self.domain == HUB and "/" not in self.path:
            return Reference(HUB, f"library/{self.path}", self.tag, self.digest)
        return self if self.domain else Reference(domain, self.path, self.tag, self.digest)


def parse(text: str) -> Reference:
    """Parses a reference. Raises ValueError that describes the error and the expected form."""
    if not text or re.search(r"\s", text):
        raise ValueError(f'expected an image such as "sammy/hello:1.0", without spaces, got {text!r}')
    if "://" in text:
        raise ValueError(f"expected an image without a scheme, got {text!r}: write {text.partition('://')[2]!r}")
    rest, at, digest = text.partition("@")
    if at:
        _check_digest(digest)
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon:
        check_tag(tag)
    domain, path = _split(f"{head}{slash}{last}")
    if domain and not _is_domain(domain):
        raise ValueError(f"expected a registry such as gitlab.example.com:5555 before the first /, got {domain!r}")
    for component in path.split("/"):
        _check_component(component, text)
    if (length := len(Reference(domain, path).name)) > _LONGEST_NAME:
        raise ValueError(f"an image's name has at most {_LONGEST_NAME} characters, this one has {length}")
    if re.fullmatch("[0-9a-f]{64}", path):
        raise ValueError(f"64 hexadecimal digits are an image's id, and cannot be its name: {path!r}")
    return Reference(domain, path, tag, digest)


def parse_name(text: str) -> Reference:
    """Parses a name without tag and digest. Raises ValueError as `parse` does."""
    reference = parse(text)
    if reference.digest:
        raise ValueError(f"expected an image's name without a digest, got {text!r}")
    if reference.tag:
        raise ValueError(f'expected an image\'s name without a tag, got {text!r}: write tags = ["{reference.tag}"]')
    return reference


def check_tag(tag: str) -> None:
    """Raises ValueError for what cannot be a tag."""
    if not _TAG.fullmatch(tag):
        raise ValueError(
            f"expected a tag of letters, digits, '_', '.' and '-', at most 128 and not beginning with '.' or '-', got {tag!r}"
        )


def check_hub_push(reference: Reference) -> None:
    """Checks Docker Hub's rules for pushed images: USER/NAME. Raises ValueError. Other registries have no such rules."""
    if reference.domain != HUB:
        return
    parts = reference.path.split("/")
    if len(parts) != 2:
        raise ValueError(
            f'Docker Hub has images called USER/NAME: expected "docker.io/USER/NAME", got {reference.name!r}'
        )
    user, name = parts
    if not _HUB_USER.fullmatch(user):
        raise ValueError(f"a user or organization of Docker Hub has 2 to 30 of a-z, 0-9, '-' and '_', got {user!r}")
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"a repository of Docker Hub has 2 to 255 of a-z, 0-9, '-' and '_', got {name!r}")


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (any(sign in first for sign in ".:") or first == "localhost"):
        return first, rest
    return "", name


def _is_domain(domain: str) -> bool:
    port = domain.rpartition(":")[2] if re.search(r":\d+$", domain) else "1"
    return bool(_DOMAIN.fullmatch(domain)) and 0 < int(port) < 65536


def _check_component(component: str, text: str) -> None:
    if _COMPONENT.fullmatch(component):
        return
    if not component:
        raise ValueError(f"expected names between single slashes, got {text!r}")
    if component != component.lower() and _COMPONENT.fullmatch(component.lower()):
        raise ValueError(f"images are named in lower case: expected {component.lower()!r}, got {component!r}")
    raise ValueError(
        f"expected lower-case letters and digits, joined by one '.', one or two '_', or '-', got {component!r}"
    )


def _check_digest(digest: str) -> None:
    algorithm, _, figures = digest.partition(":")
    if not _DIGEST.fullmatch(digest) or (algorithm == "sha256" and not re.fullmatch("[0-9a-f]{64}", figures)):
        raise ValueError(f"expected a digest such as sha256:, and 64 hexadecimal digits, got {digest!r}")
