"""A CA in the trust store of the host's programs.  Source: update-ca-certificates(8)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from provision.editing.diff import masked_diff
from provision.errors import ProbeFailed
from provision.host.scripts import script
from provision.resources.base import Action, Change, Note, Observation, Probe, Resource
from provision.shell import Command

_FOLDER = "/usr/local/share/ca-certificates"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class TrustedCa(Resource):
    """The host's trust store holds the certificates of `pem` for the CA `name`, and no older ones of that name.

    pem  one or several certificates; empty: none is wanted, and those of an earlier run are removed
    """

    name: str
    pem: bytes

    def claims(self) -> Mapping[str, Hashable]:
        return {f"CA {self.name} in the trust store": self.pem}

    def probe(self) -> Probe:
        # A line of the signature identifies a certificate.
        lines = [max(one.splitlines()[-3:-1], key=len) for one in self._wanted().values()]
        return Probe.of(script("observe_ca", f"{_FOLDER}/{self._stem}", _BUNDLE, lines))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise ProbeFailed(
                f"the CA files in {_FOLDER} cannot be read: {seen.only.errors.strip()}",
                hint=f"check them on the host: ls -l {_FOLDER}",
            )
        found, incomplete = _read(seen.text)
        wanted = self._wanted()
        if found == wanted and not incomplete:
            return
        diffs = [
            masked_diff(f"{_FOLDER}/{name}", found.get(name, ""), wanted.get(name, ""))
            for name in sorted(found.keys() | wanted.keys())
        ]
        action: Action
        if not found:
            summary, action = f"add CA {self.name} to the trust store", "create"
        elif wanted:
            summary, action = f"replace CA {self.name} in the trust store", "update"
        else:
            summary, action = f"remove CA {self.name} from the trust store", "delete"
        yield Change(
            summary,
            _write(wanted, [name for name in found if name not in wanted]),
            action,
            "\n".join(filter(None, diffs)),
            deadline=120,
        )

    @property
    def _stem(self) -> str:
        return f"provision-{self.name}"

    def _wanted(self) -> dict[str, str]:
        """The files by name, with one certificate each, as update-ca-certificates requires it."""
        blocks = _PEM.findall(self.pem.decode("utf-8", "replace").replace("\r", ""))
        if len(blocks) == 1:
            return {f"{self._stem}.crt": f"{blocks[0]}\n"}
        return {f"{self._stem}-{number}.crt": f"{block}\n" for number, block in enumerate(blocks, 1)}


def _write(wanted: dict[str, str], unwanted: list[str]) -> Command:
    pairs = [one for item in wanted.items() for one in item]
    return script("write_ca", _FOLDER, len(wanted), pairs, unwanted)


def _read(text: str) -> tuple[dict[str, str], bool]:
    """The files by name, and whether the trust store lacks a wanted certificate."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=file )", text, flags=re.MULTILINE):
        head, _, content = part.partition("\n")
        if head.startswith("file "):
            found[head.removeprefix("file ")] = "\n".join([*_PEM.findall(content), ""])
    return found, bool(re.search(r"^missing$", text, re.MULTILINE))
